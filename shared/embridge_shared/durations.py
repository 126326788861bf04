"""Lengths of time as people write them: "90", "45s", "10 min", "2h", "1d", "1h30m"."""

from __future__ import annotations

import re
from typing import Final

from embridge_shared.errors import ConfigError

_UNITS: Final = {"ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|min|s|m|h|d|w)", re.ASCII)
_PLAIN: Final = re.compile(r"\s*\d{1,12}(?:\.\d{1,9})?\s*", re.ASCII)


def seconds(text: str | float) -> float:
    """A length of time, s; a bare number is seconds.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(text, str):
        return float(text)
    if _PLAIN.fullmatch(text):
        return float(text)
    total, end = 0.0, 0
    while (part := _PART.match(text, end)) is not None:
        total += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    if not end or text[end:].strip():
        raise ConfigError(f"{text!r} is no length of time", hint="Write it like 90, 45s, 10min, 2h or 1h30m.")
    return total


def spoken(length_s: float) -> str:
    """A length of time for people, two units at most: "1 h 30 min", "45 s"."""
    whole = round(length_s)
    for unit, size, below, small in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"
