"""How large the heap of a container's JVM may grow, by its pod's spec and HotSpot's own rules; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dumpagent.units import GIB, KIB, MIB, TIB

_SIZE = re.compile(r"(\d+)([kKmMgGtT]?)")
_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
# Source: JDK arguments.cpp: JAVA_TOOL_OPTIONS come before the command line, _JAVA_OPTIONS behind it; the later wins.
# JDK_JAVA_OPTIONS (the launcher's) stands before the command line. The others are what images' start scripts add to it.
_BEFORE = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
_SCRIPTS = ("JAVA_OPTS", "JAVA_OPTIONS", "JAVA_OPTS_APPEND", "JVM_OPTS", "CATALINA_OPTS", "JAVA_ARGS")
_BEHIND = ("_JAVA_OPTIONS",)
# Source: JDK gc_globals.hpp and arguments.cpp, set_heap_size: what a JVM takes without a word (60 % more on 64 bits).
_DEFAULT_PERCENT, _SMALL_PERCENT, _SMALL_BYTES = 25.0, 50.0, int(96 * 1.3 * MIB)


@dataclass(frozen=True, slots=True)
class Heap:
    """The most that a heap takes, and direct buffers too if the spec bounds them; `option` is what says so."""

    most_bytes: int
    option: str
    direct_bytes: int | None = None

    @property
    def native_bytes(self) -> int:
        """Give what a JVM usually takes beside its heap: code, classes, stacks, and a sixteenth for the collector."""
        return 64 * MIB + self.most_bytes // 16 + (self.direct_bytes or 0)


def heap_of(container: Mapping[str, Any], limit_bytes: int | None) -> Heap | None:
    """Give the heap of a container by its spec; None if nothing in it says that a JVM runs, or how large its heap is.

    Values that the spec only refers to (ConfigMaps, Secrets, files in the image) are not looked up.
    """
    words = list(_words(container))
    options = [word for word in words if word.startswith("-X")]
    if not options:
        return None
    exact: tuple[int, str] | None = None
    percent: tuple[float, str] | None = None
    small, direct = _SMALL_PERCENT, None
    for option in options:
        name, value = _parted(option)
        if name in ("-Xmx", "MaxHeapSize") and (size := _bytes(value)):
            exact = (size, option)
        elif name == "MaxRAMPercentage" and _number(value):
            percent = (_number(value), option)
        elif name == "MinRAMPercentage" and _number(value):
            small = _number(value)
        elif name == "MaxDirectMemorySize":
            direct = _bytes(value) or None
    if exact:
        return Heap(exact[0], exact[1], direct)
    if limit_bytes is None:
        return None
    share, option = percent or (_DEFAULT_PERCENT, "the JVM's default of 25 %")
    reasonable = int(limit_bytes * share / 100)
    if limit_bytes * small / 100 < _SMALL_BYTES:
        reasonable, option = int(limit_bytes * small / 100), f"MinRAMPercentage of {small:g} %"
    return Heap(reasonable, option, direct)


def _words(container: Mapping[str, Any]) -> Iterator[str]:
    variables = {str(each.get("name")): str(each.get("value") or "") for each in container.get("env") or ()}
    for name in _BEFORE:
        yield from _split(variables.get(name, ""))
    for name in _SCRIPTS:
        yield from _split(variables.get(name, ""))
    for word in (*(container.get("command") or ()), *(container.get("args") or ())):
        yield from _split(str(word))
    for name in _BEHIND:
        yield from _split(variables.get(name, ""))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _parted(option: str) -> tuple[str, str]:
    if option.startswith("-Xmx"):
        return "-Xmx", option[4:]
    name, _, value = option.removeprefix("-XX:").partition("=")
    return name, value


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text)
    return int(found[1]) * _UNITS[found[2].lower()] if found else 0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def spec_limit(container: Mapping[str, Any]) -> int | None:
    """Give the memory limit of a container's spec in bytes. Source: Kubernetes, resource.Quantity."""
    text = str(((container.get("resources") or {}).get("limits") or {}).get("memory") or "")
    digits = text.rstrip("KMGTPEkimn")
    unit = text[len(digits) :]
    factors = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3}
    factors |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
    try:
        return int(float(digits) * factors[unit]) or None
    except (KeyError, ValueError):
        return None
