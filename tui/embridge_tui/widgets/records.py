"""A table of records that keeps the chosen one while it is filled anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import DataTable


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        label: Its heading.
        width: Cells of text.
        grows: Takes the room that is left.
        right: Flush right.
    """

    label: str
    width: int
    grows: bool = False
    right: bool = False


Row = tuple[str, tuple[str, ...]]
"""Key and cells."""


class Records(DataTable[Text]):
    """Rows of text with a cursor.

    Args:
        columns: From left to right.
        id: Of the widget.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False, id="table.down", tooltip="The next row."),
        Binding("k", "cursor_up", "Up", show=False, id="table.up", tooltip="The row before."),
        Binding("g", "scroll_top", "First", show=False, id="table.first", tooltip="The first row."),
        Binding("G", "scroll_bottom", "Last", show=False, id="table.last", tooltip="The last row."),
    ]

    def __init__(self, columns: Sequence[Column], *, id: str) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._plan = tuple(columns)
        self._shown: tuple[Row, ...] = ()
        self._widths: tuple[int, ...] = ()

    @property
    def chosen(self) -> str | None:
        """Key of the row under the cursor."""
        return self._shown[self.cursor_row][0] if 0 <= self.cursor_row < len(self._shown) else None

    def choose(self, key: str) -> bool:
        """Move the cursor to a record; whether it is there."""
        keys = [known for known, _ in self._shown]
        if key not in keys:
            return False
        self.move_cursor(row=keys.index(key))
        return True

    def fill(self, rows: Sequence[Row]) -> None:
        """Show these rows; the cursor stays on its record, wherever that is now."""
        new = tuple(rows)
        if [key for key, _ in new] == [key for key, _ in self._shown] and self._widths:
            self._change(new)
        else:
            self._rebuild(new)

    def _change(self, new: tuple[Row, ...]) -> None:
        for y, ((_, old), (_, cells)) in enumerate(zip(self._shown, new, strict=True)):
            for x, cell in enumerate(cells):
                if old[x] != cell:
                    self.update_cell_at((y, x), self._cell(x, cell))  # type: ignore[arg-type]
        self._shown = new

    def _rebuild(self, new: tuple[Row, ...]) -> None:
        chosen, row = self.chosen, self.cursor_row
        self._shown = new
        if not self._widths:
            return
        self.clear(columns=True)
        for column, width in zip(self._plan, self._widths, strict=True):
            self.add_column(Text(column.label, justify="right" if column.right else "left"), width=width)
        for key, cells in new:
            self.add_row(*(self._cell(x, cell) for x, cell in enumerate(cells)), key=key)
        keys = [key for key, _ in new]
        self.move_cursor(row=keys.index(chosen) if chosen in keys else min(row, max(0, len(new) - 1)))

    def _cell(self, x: int, cell: str) -> Text:
        # A Text is shown as it stands; a str would be read as markup.
        return Text(cell, justify="right" if self._plan[x].right else "left", no_wrap=True, overflow="ellipsis")

    def on_resize(self, _: events.Resize) -> None:
        """Give the room that is left to the column that grows."""
        room = self.scrollable_content_region.width - sum(c.width + 2 * self.cell_padding for c in self._plan)
        growing = [c for c in self._plan if c.grows]
        extra = max(0, room) // max(1, len(growing))
        widths = tuple(c.width + extra * c.grows for c in self._plan)
        if widths != self._widths:
            self._widths = widths
            self._rebuild(self._shown)
