"""A line at the bottom that narrows a table while one types."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Footer, Input


class NarrowLine(ModalScreen[None]):
    """Narrows as one types; enter keeps it, escape shows all again.

    Args:
        value: What it is narrowed to now.
        narrow: Told what to narrow to.
    """

    CSS: ClassVar[str] = """
    NarrowLine { align: left bottom; background: transparent; }
    NarrowLine Input { border: round $primary; height: 3; width: 60; max-width: 96%; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "all", "Show all", id="narrow.all", tooltip="Show all rows again."),
    ]

    def __init__(self, value: str, narrow: Callable[[str], None]) -> None:
        super().__init__()
        self._value = value
        self._narrow = narrow

    def compose(self) -> ComposeResult:
        """The line."""
        line = Input(self._value, placeholder="words that a row must hold", id="narrow", max_length=80)
        line.border_title = "filter"
        yield line
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Type at once."""
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow."""
        self._narrow(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep it."""
        event.stop()
        self.dismiss(None)

    def action_all(self) -> None:
        """Show all."""
        self._narrow("")
        self.dismiss(None)
