"""Traces as characters: least and greatest values of bins, drawn in braille or in blocks. Knows no terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLANK: Final = 0x2800
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint32)
_BLOCKS = np.array([0x20, 0x2584, 0x2580, 0x2588], np.uint32)  # nothing, lower half, upper half, all


class Glyphs(StrEnum):
    """What a terminal's font can draw."""

    BRAILLE = "braille"
    BLOCKS = "blocks"

    @property
    def across(self) -> int:
        """Bins in a cell."""
        return 2 if self is Glyphs.BRAILLE else 1

    @property
    def down(self) -> int:
        """Levels in a cell."""
        return 4 if self is Glyphs.BRAILLE else 2


def lanes(height: int, count: int) -> list[int]:
    """Rows of each of `count` lanes; the first ones get what is left over."""
    each, extra = divmod(height, count)
    return [each + (i < extra) for i in range(count)]


def draw(low: NDArray[np.float32], high: NDArray[np.float32], rows: int, glyphs: Glyphs) -> NDArray[np.uint32]:
    """Lanes of a trace.

    Args:
        low: Least value of each bin, (C, P) in -1 to 1; NaN for a gap.
        high: Greatest value.
        rows: Of a lane.
        glyphs: What to draw with; P is a multiple of `glyphs.across`.

    Returns:
        Code points, (C, rows, P / across).
    """
    height = rows * glyphs.down
    gone = np.isnan(low) | np.isnan(high)
    top, bottom = _levels(np.where(gone, 0, high), height), _levels(np.where(gone, 0, low), height)
    _join(top, bottom, gone)
    y = np.arange(height, dtype=np.int16)[None, :, None]
    on = (y >= top[:, None]) & (y <= bottom[:, None]) & ~gone[:, None]
    channels, _, bins = on.shape
    if glyphs is Glyphs.BLOCKS:
        halves = on.reshape(channels, rows, 2, bins)
        return _BLOCKS[halves[:, :, 1] + 2 * halves[:, :, 0].astype(np.uint8)]
    cells = on.reshape(channels, rows, 4, bins // 2, 2)
    found: NDArray[np.uint32] = BLANK + np.einsum("abcde,ce->abd", cells, _DOTS).astype(np.uint32)
    return found


def _levels(values: NDArray[np.float32], height: int) -> NDArray[np.int16]:
    levels: NDArray[np.int16] = np.clip(((1 - values) * 0.5 * (height - 1)).round(), 0, height - 1).astype(np.int16)
    return levels


def _join(top: NDArray[np.int16], bottom: NDArray[np.int16], gone: NDArray[np.bool_]) -> None:
    """Let neighbours touch, in place, so that steep traces stay connected; not over a gap."""
    held = ~(gone[:, 1:] | gone[:, :-1])
    before_top, before_bottom = top[:, :-1].copy(), bottom[:, :-1].copy()
    np.minimum(top[:, 1:], before_bottom, out=top[:, 1:], where=held)
    np.maximum(bottom[:, 1:], before_top, out=bottom[:, 1:], where=held)


def text(cells: NDArray[np.uint32]) -> str:
    """One row of code points as a string."""
    return cells.astype("<u4").tobytes().decode("utf-32-le")


class Span:
    """How much of the unit a lane shows: a round number that follows the signal at leisure.

    It grows at once and shrinks only when much less was needed for a while, so that bursts keep their size.

    Attributes:
        value: Greatest value of a lane, in the stream's unit.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self._idle = 0

    def follow(self, low: NDArray[np.float32], high: NDArray[np.float32], patience: int) -> float:
        """The span for these envelopes, (C, P); `patience` calls that need much less shrink it."""
        reach = np.nan_to_num(np.maximum(np.abs(low), np.abs(high)))
        # One channel that hums or clips must not flatten the others.
        wanted = _round_up(1.2 * float(np.median(np.quantile(reach, 0.98, axis=1)))) if reach.size else 0.0
        self._idle = self._idle + 1 if wanted < 0.5 * self.value else 0
        if wanted > self.value or self._idle > patience:
            self.value, self._idle = wanted, 0
        return self.value or 1.0


def _round_up(value: float) -> float:
    if not value > 0:
        return 0.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999)


def labelled(names: Sequence[str], signs: Sequence[str], width: int) -> list[str]:
    """The label of every lane: its name and the sign of its quality, in `width` cells."""
    return [f"{name[: width - 3]:<{width - 3}} {sign} " for name, sign in zip(names, signs, strict=True)]
