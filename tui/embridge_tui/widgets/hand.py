"""A hand drawn in braille from its joint angles."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from embridge_shared.hand import BONES, LANDMARKS, REST, landmarks
from embridge_shared.session import Side

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint32)
_BLANK: Final = 0x2800
_SAMPLES = 256  # of a bone; more than the dots a terminal has

_KNUCKLES = [i for i, name in enumerate(LANDMARKS) if name.endswith("_mcp") and not name.startswith("thumb")]
_LINES = np.array([*BONES, *pairwise(_KNUCKLES)])
_TIPS = [i for i, name in enumerate(LANDMARKS) if name.endswith("_tip")]

# What no shape of a right hand leaves, in the plane it is drawn in, m: left, right, bottom, top.
_BOX = (-0.085, 0.125, -0.012, 0.195)
_TURN_RAD = np.deg2rad(25.0)
_NOD_RAD = np.deg2rad(-15.0)


def _view() -> NDArray[np.float64]:
    """(2, 3): onto the plane of an eye that looks at the palm a little from the thumb's side and above."""
    c, s = np.cos(_TURN_RAD), np.sin(_TURN_RAD)
    turn = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    c, s = np.cos(_NOD_RAD), np.sin(_NOD_RAD)
    nod = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    both: NDArray[np.float64] = (nod @ turn)[:2]
    return both


def draw_hand(angles: ArrayLike, *, columns: int, rows: int, side: Side = Side.RIGHT) -> list[str]:
    """A hand as lines of braille, seen from its palm, as large as fits; all shapes at the same scale.

    Args:
        angles: (20,), rad, in the order of `embridge_shared.hand.JOINTS`.
        columns: Cells of a line.
        rows: Lines.
        side: Which hand.

    Returns:
        `rows` strings of `columns` characters from U+2800 to U+28FF.

    Raises:
        DataError: These are not 20 finite joint angles.
    """
    flat = landmarks(angles) @ _view().T
    if columns < 1 or rows < 1:
        return [""] * max(rows, 0)
    on = np.zeros((rows * 4, columns * 2), bool)
    pixels = _pixels(flat, on.shape, side)
    t = np.linspace(0.0, 1.0, _SAMPLES)[:, None, None]
    dots = (1 - t) * pixels[_LINES[:, 0]] + t * pixels[_LINES[:, 1]]
    knobs = pixels[_TIPS][:, None] + np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    for y, x in (np.moveaxis(p.reshape(-1, 2), -1, 0) for p in (dots, knobs)):
        on[np.clip(np.rint(y), 0, rows * 4 - 1).astype(int), np.clip(np.rint(x), 0, columns * 2 - 1).astype(int)] = True
    cells = np.einsum("abcd,bd->ac", on.reshape(rows, 4, columns, 2), _DOTS) + _BLANK
    return ["".join(map(chr, row)) for row in cells]


def _pixels(flat: NDArray[Any], shape: tuple[int, int], side: Side) -> NDArray[np.float64]:
    """(21, 2) row and column of every landmark in a raster of dots; dots are square in most fonts."""
    left, right, bottom, top = _BOX
    height, width = shape
    scale = min((height - 1) / (top - bottom), (width - 1) / (right - left))
    x = (flat[:, 0] - (left + right) / 2) * scale
    y = (flat[:, 1] - (bottom + top) / 2) * scale
    column = (width - 1) / 2 + (x if side is Side.RIGHT else -x)
    return np.stack([(height - 1) / 2 - y, column], axis=-1)


class HandView(Widget):
    """Shows a hand shape as large as its room.

    Args:
        id: Of the widget.
    """

    DEFAULT_CSS = "HandView { width: 1fr; height: 1fr; color: $text-primary; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._angles: NDArray[Any] = REST
        self._side = Side.RIGHT
        self._lines: list[str] = []
        self._drawn: tuple[int, int] | None = None

    def show(self, angles: ArrayLike, side: Side = Side.RIGHT) -> None:
        """Show a shape.

        Args:
            angles: (20,), rad.
            side: Which hand.
        """
        self._angles, self._side, self._drawn = np.asarray(angles), side, None
        self.refresh()

    @property
    def lines(self) -> list[str]:
        """What is drawn now."""
        size = (self.size.width, self.size.height)
        if self._drawn != size:
            self._lines = draw_hand(self._angles, columns=size[0], rows=size[1], side=self._side)
            self._drawn = size
        return self._lines

    def render_line(self, y: int) -> Strip:
        """One line of the drawing."""
        lines = self.lines
        text = lines[y] if y < len(lines) else ""
        return Strip([Segment(text, self.rich_style)], len(text)).adjust_cell_length(self.size.width, self.rich_style)
