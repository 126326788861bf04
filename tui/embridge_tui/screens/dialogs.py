"""What lies over a screen for a moment: the question before leaving, and the keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static


class QuitDialog(ModalScreen[bool]):
    """Asks before leaving; answers whether to leave."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter,ctrl+q", "answer(True)", "Leave", id="quit.leave", tooltip="Close this interface."),
        Binding("n,escape,q", "answer(False)", "Stay", id="quit.stay", tooltip="Go on looking."),
    ]

    def compose(self) -> ComposeResult:
        """The question and its keys."""
        with Vertical(classes="dialog") as box:
            box.border_title = "leave?"
            yield Static(
                "Cloud and edges go on without this interface:\nnothing is stopped, nothing is lost.", markup=False
            )
        yield Footer(show_command_palette=False)

    def action_answer(self, leave: bool) -> None:
        """Answer."""
        self.dismiss(leave)


class HelpDialog(ModalScreen[None]):
    """Every key that works now.

    Args:
        keys: (keys, what they do) in the order shown.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q", "dismiss", "Back", id="help.back", tooltip="Back to the screen."),
    ]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._keys = tuple(keys)

    def compose(self) -> ComposeResult:
        """Keys and what the signs mean."""
        width = max(len(keys) for keys, _ in self._keys)
        lines = [f"{keys:<{width}}  {words}" for keys, words in self._keys]
        signs = "● live or online   ○ away   ▶ under way   ✓ good   ▲ look at it   ✕ wrong"
        with VerticalScroll(classes="dialog -tall") as box:
            box.border_title = "keys"
            yield Static("\n".join([*lines, "", signs]), markup=False)
        yield Footer(show_command_palette=False)
