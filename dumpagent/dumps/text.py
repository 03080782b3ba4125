"""How times, sizes and foreign text are written for people: one form each, everywhere."""

from __future__ import annotations

import datetime as dt
import re

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_LINES = re.compile(r"([\n\t])")
_LATEST_S = 253402300799  # the last second of the year 9999


def iso_time(seconds: float | None) -> str | None:
    """Give a time (seconds since the epoch) as 2026-01-31T12:00:00Z; None for a time that no calendar has."""
    if seconds is None or not -62135596800 <= seconds <= _LATEST_S + 1:
        return None
    try:
        return dt.datetime.fromtimestamp(int(seconds // 1), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return None


def iso_time_ms(milliseconds: int | None) -> str | None:
    """Give a time (milliseconds since the epoch) as `iso_time` does; None for none, and for 0."""
    return iso_time(milliseconds // 1000) if milliseconds else None


def size_text(size_bytes: float) -> str:
    """Give a size as people read it: 17 bytes, 3.0 MiB."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes:.0f} byte{'' if round(size_bytes) == 1 else 's'}"
    power = 1
    while abs(size_bytes) >= 1024 ** (power + 1) and power < len(_UNITS):
        power += 1
    return f"{size_bytes / 1024**power:.1f} {_UNITS[power - 1]}"


def printable(text: str, *, lines: bool = False) -> str:
    r"""Give foreign text as a terminal, a log or a chat shows it without being steered by it, on one line.

    Control characters, those that turn the direction of text or have no width, and lone surrogates become \xNN or
    \uNNNN; bytes that are not UTF-8 become \xNN. `lines` keeps line feeds and tabs, for text of our own.
    """
    if text.isprintable():
        return text
    if lines:
        return "".join(each if each in "\n\t" else printable(each) for each in _LINES.split(text) if each)
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8. Source: PEP 383
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()
