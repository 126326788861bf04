"""A choice of one of some words, by its digit, by its name or by arrows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Footer, OptionList
from textual.widgets.option_list import Option

from embridge_tui import text


class PickDialog(ModalScreen[str | None]):
    """Asks for one of some words; answers with it, or None.

    Args:
        asked: The question.
        words: The answers; the first nine have a digit.
    """

    CSS: ClassVar[str] = """
    PickDialog { align: center middle; background: $background 60%; }
    PickDialog OptionList { width: 48; max-width: 90%; height: auto; max-height: 16; border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Nothing", id="pick.none", tooltip="Choose nothing."),
    ]

    def __init__(self, asked: str, words: Sequence[str]) -> None:
        super().__init__()
        self._asked = asked
        self._words = tuple(words)

    def compose(self) -> ComposeResult:
        """The question and the answers."""
        with Vertical(classes="dialog") as box:
            box.border_title = self._asked
            yield OptionList(
                *(
                    Option(f"{i + 1 if i < 9 else ' '} {text.plain(word).replace('[', '(')}", id=str(i))
                    for i, word in enumerate(self._words)
                )
            )
        yield Footer(show_command_palette=False)

    def on_key(self, event: Key) -> None:
        """A digit answers at once; a letter goes to the next answer that begins with it."""
        if event.character is None:
            return
        if event.character in "123456789":
            # Digits open rooms elsewhere, and this one is answered before bindings are asked.
            event.stop().prevent_default()
            at = int(event.character) - 1
            if at < len(self._words):
                self.dismiss(self._words[at])
        elif event.character.isalpha():
            options = self.query_one(OptionList)
            here = -1 if options.highlighted is None else options.highlighted
            order = [*range(here + 1, len(self._words)), *range(here + 1)]
            options.highlighted = next(
                (i for i in order if self._words[i].lower().startswith(event.character.lower())), options.highlighted
            )

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer."""
        self.dismiss(self._words[event.option_index])
