"""A hand drawn from its joint angles, alone or beside the shape it is to take."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.segment import Segment
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.strip import Strip
from textual.widget import Widget

from embridge_shared.hand import BONES, LANDMARKS, REST, landmarks
from embridge_shared.session import Side
from embridge_tui.trace import Glyphs, dots, glyphs_of, lines

_HALVES = np.array([0x20, 0x2580, 0x2584, 0x2588], np.uint32)  # nothing, the upper half, the lower half, all
_SAMPLES: Final = 256  # of a bone; more than the dots a terminal has
_KNOB_ROWS: Final = 24
"""Rows of dots from which on fingertips are drawn as knobs; in a smaller hand they would hide the fingers."""

_KNUCKLES = [i for i, name in enumerate(LANDMARKS) if name.endswith("_mcp") and not name.startswith("thumb")]
_LINES = np.array([*BONES, *pairwise(_KNUCKLES)])
_TIPS = [i for i, name in enumerate(LANDMARKS) if name.endswith("_tip")]

# What no shape of a right hand leaves, in the plane it is drawn in, m: left, right, bottom, top.
_BOX = (-0.085, 0.125, -0.012, 0.195)
CLOSE_DEG: Final = 12.0
"""Mean over the joints within which a shape counts as taken."""
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


def draw_hand(
    angles: ArrayLike, *, columns: int, rows: int, side: Side = Side.RIGHT, glyphs: Glyphs = Glyphs.BRAILLE
) -> list[str]:
    """A hand as lines of characters, seen from its palm, as large as fits; all shapes at the same scale.

    Args:
        angles: (20,), rad, in the order of `embridge_shared.hand.JOINTS`.
        columns: Cells of a line.
        rows: Lines.
        side: Which hand.
        glyphs: Braille has eight dots a cell; blocks have two halves.

    Returns:
        `rows` strings of `columns` characters: U+2800 to U+28FF, or a space and U+2580, U+2584, U+2588.

    Raises:
        DataError: These are not 20 finite joint angles.
    """
    if columns < 1 or rows < 1:
        landmarks(angles)
        return [""] * max(rows, 0)
    if glyphs is Glyphs.BRAILLE:
        return lines(dots(_raster(angles, (rows * 4, columns * 2), side)))
    # A half of a cell is about as high as it is wide.
    on = _raster(angles, (rows * 2, columns), side).reshape(rows, 2, columns)
    return lines(_HALVES[on[:, 0] + 2 * on[:, 1].astype(np.uint32)])


def _raster(angles: ArrayLike, shape: tuple[int, int], side: Side) -> NDArray[np.bool_]:
    """The dots of a hand."""
    flat = landmarks(angles) @ _view().T
    on = np.zeros(shape, bool)
    pixels = _pixels(flat, shape, side)
    t = np.linspace(0.0, 1.0, _SAMPLES)[:, None, None]
    drawn = [(1 - t) * pixels[_LINES[:, 0]] + t * pixels[_LINES[:, 1]]]
    if shape[0] >= _KNOB_ROWS:
        drawn.append(pixels[_TIPS][:, None] + np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]))
    for y, x in (np.moveaxis(p.reshape(-1, 2), -1, 0) for p in drawn):
        on[np.clip(np.rint(y), 0, shape[0] - 1).astype(int), np.clip(np.rint(x), 0, shape[1] - 1).astype(int)] = True
    return on


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
        glyphs: Characters to draw with; those of the application by default.
        id: Of the widget.
    """

    DEFAULT_CSS = "HandView { width: 1fr; height: 1fr; color: $text-primary; }"

    def __init__(self, *, glyphs: Glyphs | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self._glyphs = glyphs
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
        if angles is self._angles and side is self._side:
            return
        self._angles, self._side, self._drawn = np.asarray(angles), side, None
        self.refresh()

    @property
    def lines(self) -> list[str]:
        """What is drawn now."""
        size = (self.size.width, self.size.height)
        if self._drawn != size:
            self._lines = draw_hand(
                self._angles, columns=size[0], rows=size[1], side=self._side, glyphs=self._glyphs or glyphs_of(self.app)
            )
            self._drawn = size
        return self._lines

    def render_line(self, y: int) -> Strip:
        """One line of the drawing."""
        lines = self.lines
        text = lines[y] if y < len(lines) else ""
        return Strip([Segment(text, self.rich_style)], len(text)).adjust_cell_length(self.size.width, self.rich_style)


class HandPair(Horizontal):
    """The shape a hand is to take beside the shape it has, as decoded or from a pose source.

    Args:
        glyphs: Characters to draw with; those of the application by default.
        id: Of the widget.
    """

    DEFAULT_CSS = """
    HandPair { width: 1fr; height: 1fr; }
    HandPair HandView { border-title-color: $text-muted; border-top: solid $primary-muted; }
    HandPair .-live { color: $text-accent; }
    HandPair .-close { color: $text-success; }
    """

    def __init__(self, *, glyphs: Glyphs | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self._target, self._live = HandView(glyphs=glyphs), HandView(glyphs=glyphs)
        self._live.add_class("-live")
        self._target.border_title = "target"
        self._live.display = False
        self._wanted: NDArray[Any] = REST

    def compose(self) -> ComposeResult:
        """Both."""
        yield self._target
        yield self._live

    def aim(self, angles: ArrayLike, side: Side = Side.RIGHT) -> None:
        """Show the shape to take.

        Args:
            angles: (20,), rad.
            side: Which hand.
        """
        self._wanted = np.asarray(angles)
        self._target.show(angles, side)

    def follow(self, angles: ArrayLike | None, side: Side = Side.RIGHT, source: str = "live") -> None:
        """Show the shape it has, and how far that is from the one to take.

        Args:
            angles: (20,), rad; None where nobody knows: the target stands alone.
            side: Which hand.
            source: Where it comes from, in a word.
        """
        self._live.display = angles is not None
        if angles is None:
            return
        off_deg = float(np.rad2deg(np.abs(np.asarray(angles) - self._wanted).mean()))
        self._live.show(angles, side)
        self._live.border_title = f"{source}: {off_deg:.0f}° off"
        self._live.set_class(off_deg <= CLOSE_DEG, "-close")
