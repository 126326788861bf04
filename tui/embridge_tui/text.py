"""Numbers, times and foreign words as the screens write them."""

from __future__ import annotations

from datetime import datetime

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plain(text: str) -> str:
    """Text from outside, without anything a terminal would act on."""
    return "".join(c if c.isprintable() else "�" for c in text)


def count(value: int) -> str:
    """A number in at most seven characters: exact below ten million."""
    if abs(value) < 10_000_000:
        return str(value)
    scale, letter = next(step for step in _STEPS if abs(value) >= step[0])
    return f"{value / scale:.1f}{letter}"


def size(n_bytes: int) -> str:
    """Bytes, as in "41.3 MB"."""
    for scale, letter in _STEPS:
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {letter}B"
    return f"{n_bytes} B"


def age(seconds: float) -> str:
    """A length of time in two digits and a unit, as in "12 s"."""
    for unit_s, letter in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{int(seconds // unit_s)} {letter}"
    return f"{max(0, int(seconds))} s"


def moment(when: datetime) -> str:
    """Month, day, hour and minute."""
    return f"{when:%m-%d %H:%M}"


def bar(done: float, width: int) -> str:
    """A bar of `width` cells, `done` of it (0 to 1) full."""
    full = round(min(max(done, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def fit(text: str, width: int) -> str:
    """Text in exactly `width` characters: cut short with an ellipsis, or filled up."""
    return text.ljust(width) if len(text) <= width else f"{text[: max(0, width - 1)]}…"[:width]
