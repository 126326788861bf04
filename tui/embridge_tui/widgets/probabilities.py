"""How likely each gesture is, beside what it takes to be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from embridge_tui import text

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_MARK: Final = "┊"
_OVER: Final = "│"
_VALUE: Final = 5
_LABEL: Final = 16
_TURN: Final = "▶"


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """What is known of a hop.

    Attributes:
        labels: Gestures, in the order they are shown.
        values: How likely each is, 0 to 1.
        least: What each must reach to be believed.
        said: What is decided: one of them, "rest" or "unknown".
    """

    labels: tuple[str, ...]
    values: tuple[float, ...]
    least: Mapping[str, float]
    said: str


def level(value: float, threshold: float, width: int) -> str:
    """A bar of `width` cells in eighths, with a mark where the threshold is."""
    eighths = round(min(max(value, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    cells = list("█" * full + (_EIGHTHS[part] if part else ""))
    cells = (cells + [" "] * width)[:width]
    if width:
        at = min(width - 1, round(threshold * width))
        cells[at] = _OVER if cells[at] == "█" else _MARK
    return "".join(cells)


def likeliest(values: Sequence[float], rows: int) -> list[int]:
    """Which gestures fit into so many rows: the likeliest, in their own order."""
    chosen = sorted(range(len(values)), key=lambda i: -values[i])[: max(0, rows)]
    return sorted(chosen)


class Probabilities(Widget):
    """Bars of all gestures, or of the likeliest where there is no room for all.

    Args:
        id: Of the widget.
    """

    DEFAULT_CSS = """
    Probabilities { width: 1fr; height: 1fr; background: $background; }
    Probabilities > .bars--label { color: $text-muted; }
    Probabilities > .bars--level { color: $text-primary; }
    Probabilities > .bars--said { color: $text-success; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"bars--label", "bars--level", "bars--said"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: Likelihoods | None = None

    def show(self, shown: Likelihoods | None) -> None:
        """Show a hop."""
        self._shown = shown
        self.refresh()

    @property
    def lines(self) -> list[str]:
        """What is drawn now."""
        return [self.render_line(y).text for y in range(self.size.height)]

    def render_line(self, y: int) -> Strip:
        """A gesture."""
        width, shown = self.size.width, self._shown
        rows = [] if shown is None else likeliest(shown.values, self.size.height)
        label_style = self.get_component_rich_style("bars--label")
        if shown is None or y >= len(rows):
            return Strip.blank(width, label_style)
        at = rows[y]
        label, value = shown.labels[at], shown.values[at]
        said = label == shown.said
        style = self.get_component_rich_style("bars--said" if said else "bars--level")
        named = min(_LABEL, max(4, width // 3))
        head = f"{_TURN if said else ' '} {text.fit(text.plain(label), named)} "
        tail = f"{value:{_VALUE}.2f}"
        bar = level(value, shown.least.get(label, 1.0), max(0, width - len(head) - len(tail)))
        segments = [Segment(head, style if said else label_style), Segment(bar, style), Segment(tail, style)]
        return Strip(segments).adjust_cell_length(width, label_style)
