"""A table of records that keeps the chosen one while it is filled anew, narrowed or sorted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

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

_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)?)")


class Records(DataTable[Text]):
    """Rows of text with a cursor.

    Args:
        columns: From left to right.
        id: Of the widget.
    """

    DEFAULT_CSS = """
    Records.-arranged { border-bottom: solid $primary-muted; border-subtitle-color: $text-warning; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False, id="table.down", tooltip="The next row."),
        Binding("k", "cursor_up", "Up", show=False, id="table.up", tooltip="The row before."),
        Binding("home", "scroll_top", "First", show=False, id="table.first", tooltip="The first row."),
        Binding("end,G", "scroll_bottom", "Last", show=False, id="table.last", tooltip="The last row."),
        Binding("slash", "narrow", "Filter", show=False, id="table.filter", tooltip="Only rows that hold some words."),
        Binding("o", "sort", "Sort", show=False, id="table.sort", tooltip="By the next column; at last as it came."),
        Binding("O", "reverse", "Reverse", show=False, id="table.reverse", tooltip="The other way round."),
        Binding("y", "copy", "Copy", show=False, id="table.copy", tooltip="Copy the id of the chosen row."),
    ]

    def __init__(self, columns: Sequence[Column], *, id: str) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._plan = tuple(columns)
        self._given: tuple[Row, ...] = ()
        self._shown: tuple[Row, ...] = ()
        self._widths: tuple[int, ...] = ()
        self._needle = ""
        self._sorted: int | None = None
        self._backwards = False

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
        self._given = tuple(rows)
        self._arrange()

    def narrow(self, words: str) -> None:
        """Show only rows that hold every one of some words; all of them for none."""
        self._needle = words
        self._arrange()

    def action_narrow(self) -> None:
        """Ask for the words while the table follows."""
        from embridge_tui.screens.narrow import NarrowLine

        self.app.push_screen(NarrowLine(self._needle, self.narrow))

    def action_sort(self) -> None:
        """Sort by the next column, at last as it came."""
        after = 0 if self._sorted is None else self._sorted + 1
        self._sorted = after if after < len(self._plan) else None
        self._arrange()

    def action_reverse(self) -> None:
        """Turn it round."""
        self._backwards = not self._backwards
        self._arrange()

    def action_copy(self) -> None:
        """Copy the id of the chosen row."""
        if self.chosen is not None:
            self.app.copy_to_clipboard(self.chosen)
            self.app.notify(f"Copied {self.chosen}.")

    def _arrange(self) -> None:
        wanted = self._needle.lower().split()
        new = tuple(row for row in self._given if all(w in " ".join((row[0], *row[1])).lower() for w in wanted))
        column = self._sorted
        if column is not None:
            new = tuple(sorted(new, key=lambda row: _natural(row[1][column]), reverse=self._backwards))
        elif self._backwards:
            new = new[::-1]
        told = [f"{len(new)} of {len(self._given)}: {self._needle}"] if wanted else []
        told += [f"by {self._plan[column].label}"] if column is not None else []
        told += ["turned round"] if self._backwards else []
        self.border_subtitle = " · ".join(told).replace("[", "(")
        self.set_class(bool(told), "-arranged")
        self._put(new)

    def _put(self, new: tuple[Row, ...]) -> None:
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


def _natural(cell: str) -> tuple[tuple[int, float, str], ...]:
    """Numbers in a cell count as numbers; what sorts is never a number beside a word."""
    parts = _NUMBER.split(cell.lower())
    return tuple((1, float(p), "") if i % 2 else (0, 0.0, p) for i, p in enumerate(parts))
