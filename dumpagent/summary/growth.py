"""What grew from the summary of one dump to that of the next of the same workload; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dumpagent.dumps.text import printable, size_text

_CLASSES = 5
_LEAST_PART = 0.01  # of the heap: less is noise


def growth(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the growth from one report to another as JSON takes it; None where the two cannot be compared.

    Both must have read all of their dumps, of the same JVM with the same layout of objects: else bytes are not like bytes.
    A class that is not among the largest of `old` had at most as many bytes as the last of those: it grew by at least the rest.
    """
    try:
        if not (old["surveyed_percent"] == new["surveyed_percent"] == 100) or old["damage"] or new["damage"]:
            return None
        if (old["layout"], old["dump"]["jvm"]) != (new["layout"], new["dump"]["jvm"]):
            return None
        before = {str(each["name"]): int(each["shallow_bytes"]) for each in old["classes"]}
        least = min(before.values(), default=0)
        grown = [
            {
                "name": str(each["name"]),
                "grown_bytes": int(each["shallow_bytes"]) - before.get(str(each["name"]), least),
                "at_least": str(each["name"]) not in before,
            }
            for each in new["classes"]
        ]
        worth = _LEAST_PART * int(new["shallow_bytes"])
        return {
            "since": old["dump"]["dump_time"],
            "key": old["dump"]["key"],
            "grown_bytes": int(new["shallow_bytes"]) - int(old["shallow_bytes"]),
            "grown_objects": int(new["objects"]) - int(old["objects"]),
            "classes": sorted(
                (each for each in grown if int(str(each["grown_bytes"])) > worth),
                key=lambda each: -int(str(each["grown_bytes"])),
            )[:_CLASSES],
            "same_owner": bool(new["owner"]) and _name(old) == _name(new),
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # written by another version


def growth_line(grown: Mapping[str, Any]) -> str:
    """Give the growth as a line for a log, a message, an Event."""
    total = int(grown["grown_bytes"])
    classes = ", ".join(
        f"{each['name']} {'at least ' if each['at_least'] else ''}+{size_text(each['grown_bytes'])}"
        for each in grown["classes"][:3]
    )
    whole = f"{'+' if total >= 0 else '-'}{size_text(abs(total))}"
    holder = "; the same holder as then" if grown["same_owner"] else ""
    return printable(
        f"since the dump of {grown['since']}: heap {whole}{f', {classes}' if classes else ''}{holder}"
    )


def _name(report: Mapping[str, Any]) -> object:
    return report["owner"] and report["owner"]["name"]
