"""What the kernel knows of its own clock: `adjtimex` asks, and anybody may."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Final

_UNSYNCHRONISED: Final = 0x0040
_NANOSECONDS: Final = 0x2000
_ERROR: Final = 5


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


@dataclass(frozen=True, slots=True)
class ClockState:
    """How well the system's clock is kept.

    Attributes:
        synchronised: Something keeps it right.
        offset_s: What is still to be corrected, s.
        bound_s: What it can be off at most, s.
    """

    synchronised: bool
    offset_s: float
    bound_s: float


def read() -> ClockState | None:
    """The state of this machine's clock; None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    timex = _Timex()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    return None if answer < 0 else state_of(answer, timex.status, timex.offset, timex.maxerror)


def state_of(answer: int, status: int, offset: int, bound_us: int) -> ClockState:
    """Read what `adjtimex` says.

    Args:
        answer: What it returned.
        status: Its flags.
        offset: In µs, or in ns where a flag says so.
        bound_us: Largest error, µs.
    """
    unit = 1e-9 if status & _NANOSECONDS else 1e-6
    return ClockState(not status & _UNSYNCHRONISED and answer != _ERROR, offset * unit, bound_us * 1e-6)
