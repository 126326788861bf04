"""Traces as characters of a terminal: numpy in, code points out, nothing of a screen.

A lane is some rows of cells. Braille has two columns and four rows of dots a cell and shows the wave itself; blocks
have one bar a cell and show its extent, for terminals without braille.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PER_CELL: Final = 2
"""Columns of an envelope that share a cell."""

BLANK: Final = 0x2800
FULL: Final = 0x28FF
GAP: Final = 0x2504
"""Where samples are missing, in the middle row of a lane."""

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint32)
_LEVELS = np.array([0x20, *range(0x2581, 0x2589)], np.uint32)
_EIGHTHS: Final = 8
_SPACE: Final = 0x20

_Codes = NDArray[np.uint32]


class Glyphs(StrEnum):
    """Characters that traces are drawn with."""

    BRAILLE = "braille"
    BLOCKS = "blocks"


def glyphs_of(application: object) -> Glyphs:
    """What an application's settings say; braille where they say nothing."""
    found = getattr(application, "glyphs", Glyphs.BRAILLE)
    return found if isinstance(found, Glyphs) else Glyphs.BRAILLE


def _runs() -> _Codes:
    """(2, 25): the dots of a column of a cell from row s up to row e, at 5 s + e."""
    rows = np.arange(4)
    on = [(rows >= s) & (rows < e) for s in range(5) for e in range(5)]
    table: _Codes = (np.array(on, np.uint32) @ _DOTS).T.copy()
    return table


_RUNS: Final = _runs()


def lanes(height: int, channels: int) -> list[int]:
    """Rows of each lane; the first ones take what does not divide.

    Args:
        height: Rows there are.
        channels: Lanes; at least 1.
    """
    each, extra = divmod(max(height, 0), channels)
    return [each + (lane < extra) for lane in range(channels)]


def drawing(glyphs: Glyphs) -> Callable[[NDArray[Any], NDArray[Any], int], _Codes]:
    """What draws with these characters."""
    return braille if glyphs is Glyphs.BRAILLE else blocks


def braille(low: NDArray[Any], high: NDArray[Any], rows: int) -> _Codes:
    """Envelopes as dots; neighbours are joined, so that a steep trace stays connected.

    Args:
        low: Least value of each column, (C, P), -1 at the bottom of a lane and 1 at its top; NaN where samples are
            missing. P is even.
        high: Greatest value, (C, P).
        rows: Rows of a lane; at least 1.

    Returns:
        Code points (C, rows, P / 2): from U+2800 to U+28FF, and `GAP`.
    """
    missing = np.isnan(low)
    top = _dot(high, rows)
    bottom = _dot(low, rows)
    if missing.any():
        # A column without samples joins nothing, and has no dots.
        top[missing], bottom[missing] = rows * 4, -1
        beside = missing[:, 1:] | missing[:, :-1]
        reach_up = np.where(beside, top[:, 1:], bottom[:, :-1])
        reach_down = np.where(beside, bottom[:, 1:], top[:, :-1])
    else:
        reach_up, reach_down = bottom[:, :-1].copy(), top[:, :-1].copy()
    np.minimum(top[:, 1:], reach_up, out=top[:, 1:])
    np.maximum(bottom[:, 1:], reach_down, out=bottom[:, 1:])
    row = (4 * np.arange(rows, dtype=np.int16))[None, :, None]
    start = np.clip(top[:, None] - row, 0, 4)
    stop = np.clip(bottom[:, None] + 1 - row, 0, 4)
    at = 5 * start + stop
    codes: _Codes = BLANK + _RUNS[0][at[..., 0::2]] + _RUNS[1][at[..., 1::2]]
    return _with_gaps(codes, missing, BLANK)


def blocks(low: NDArray[Any], high: NDArray[Any], rows: int) -> _Codes:
    """Extents of envelopes as bars from the bottom of a lane, in eighths of a row.

    Args:
        low: As for `braille`.
        high: As for `braille`.
        rows: Rows of a lane; at least 1.

    Returns:
        Code points (C, rows, P / 2): a space, U+2581 to U+2588, and `GAP`.
    """
    missing = np.isnan(low)
    channels, columns = low.shape
    cells = (channels, columns // PER_CELL, PER_CELL)
    extent = np.where(missing, 0.0, (high - low) / 2.0).reshape(cells).max(-1)
    filled = np.clip(np.rint(extent * rows * _EIGHTHS), 0, rows * _EIGHTHS).astype(np.int32)
    above = _EIGHTHS * np.arange(rows - 1, -1, -1)[None, :, None]
    codes: _Codes = _LEVELS[np.clip(filled[:, None] - above, 0, _EIGHTHS)]
    return _with_gaps(codes, missing, _SPACE)


def lines(codes: _Codes) -> list[str]:
    """Code points (..., columns) as strings, a row each."""
    columns = codes.shape[-1]
    if not columns:
        return [""] * int(np.prod(codes.shape[:-1]))
    flat = np.ascontiguousarray(codes, "<u4").tobytes().decode("utf-32-le")
    return [flat[at : at + columns] for at in range(0, len(flat), columns)]


def dots(on: NDArray[np.bool_]) -> _Codes:
    """A raster of dots (4 rows, 2 columns) as braille, (rows, columns)."""
    rows, columns = on.shape[0] // 4, on.shape[1] // 2
    codes: _Codes = BLANK + np.einsum("abcd,bd->ac", on.reshape(rows, 4, columns, 2), _DOTS).astype(np.uint32)
    return codes


def _dot(value: NDArray[Any], rows: int) -> NDArray[np.int16]:
    """The row of dots that a value falls on, counted from the top."""
    last = 4 * rows - 1
    at = np.nan_to_num(np.rint((1.0 - value) * (0.5 * last)), nan=0.0, posinf=last, neginf=0.0)
    row: NDArray[np.int16] = np.clip(at, 0, last).astype(np.int16)
    return row


def _with_gaps(codes: _Codes, missing: NDArray[np.bool_], blank: int) -> _Codes:
    """The same, with every cell in which samples are missing empty but for its mark."""
    if not missing.any():
        return codes
    channels, rows, columns = codes.shape
    gaps: NDArray[np.bool_] = np.logical_or.reduce(missing.reshape(channels, columns, PER_CELL), axis=-1)
    codes = np.where(gaps[:, None], np.uint32(blank), codes)
    middle = (rows - 1) // 2
    codes[:, middle] = np.where(gaps, np.uint32(GAP), codes[:, middle])
    return codes
