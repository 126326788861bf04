"""Frames that nobody counted: places for them by when they were taken."""

from __future__ import annotations

import math

_NEAR = 0.75
"""A frame this near to the next place, in frames, is the next; times jitter by a good part of a frame."""
_FORGET_S = 2.0
"""A rate that is a little off its nominal value shifts the times of frames against their places; that is no loss."""


class Grid:
    """Gives frames indices.

    Args:
        rate_hz: Nominal rate.
        start: Index of the first frame.

    Attributes:
        lost: Places that no frame took.
        surplus: Frames there was no place for.
    """

    def __init__(self, rate_hz: float, start: int = 0) -> None:
        self._rate_hz = rate_hz
        self._next = start
        self._last_ns: int | None = None
        self._behind = 0.0  # how late the last frame was for its place, in frames
        self.lost = 0
        self.surplus = 0

    def place(self, taken_ns: int) -> int | None:
        """Index of a frame taken at `taken_ns`; None where there is no place for it."""
        if self._last_ns is None:
            self._last_ns = taken_ns
            self._next += 1
            return self._next - 1
        since_s = (taken_ns - self._last_ns) * 1e-9
        position = self._behind + since_s * self._rate_hz
        if position < 1 - _NEAR:
            self.surplus += 1
            return None
        step = 1 if position < 1 + _NEAR else round(position)
        self._behind = (position - step) * math.exp(-since_s / _FORGET_S)
        self._last_ns = taken_ns
        self.lost += step - 1
        self._next += step
        return self._next - 1
