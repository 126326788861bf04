"""What lies over the Collect room for a moment: a lost band, a note, a reason, the question before the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static

from embridge_tui import text
from embridge_tui.widgets.bigword import BigWord


class TextDialog(ModalScreen[str]):
    """Asks for a line of text; answers with it, or with nothing.

    Args:
        title: What is asked for.
        words: Why.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "answer", "Back", id="text.back", tooltip="Write nothing."),
    ]

    def __init__(self, title: str, words: str = "") -> None:
        super().__init__()
        self._title = title
        self._words = words

    def compose(self) -> ComposeResult:
        """The question and a field."""
        with Vertical(classes="dialog -tall -text") as box:
            box.border_title = self._title
            if self._words:
                yield Static(text.plain(self._words), markup=False)
            yield Input(id="text", max_length=300)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Type at once."""
        self.query_one(Input).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer with what was typed."""
        event.stop()
        self.dismiss(event.value.strip())

    def action_answer(self) -> None:
        """Answer with nothing."""
        self.dismiss("")


class ConfirmDialog(ModalScreen[bool]):
    """Asks before something that cannot be undone.

    Args:
        title: What is to be done.
        words: What becomes of the session.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "Yes", id="confirm.yes", tooltip="Do it."),
        Binding("n,escape", "answer(False)", "No", id="confirm.no", tooltip="Go on as before."),
    ]

    def __init__(self, title: str, words: str) -> None:
        super().__init__()
        self._title = title
        self._words = words

    def compose(self) -> ComposeResult:
        """The question."""
        with Vertical(classes="dialog -tall") as box:
            box.border_title = self._title
            yield Static("\n".join(map(text.plain, self._words.splitlines())), markup=False)
        yield Footer(show_command_palette=False)

    def action_answer(self, yes: bool) -> None:
        """Answer."""
        self.dismiss(yes)


class LostDialog(ModalScreen[str]):
    """Shown while no samples come; it goes by itself when they do. Answers with what was chosen.

    Args:
        words: Tells, whenever asked, what is known of the band now.
        retry: Looks for the band at once.
        pause: Lets the session wait when the band is back.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "retry", "Retry now", id="lost.retry", tooltip="Look for the band now."),
        Binding("k", "answer('another')", "Another band", id="lost.another", tooltip="End here, set up another band."),
        Binding("p", "pause", "Pause", id="lost.pause", tooltip="Wait for space when the band is back."),
        Binding("e,ctrl+e", "answer('end')", "End", id="lost.end", tooltip="End the session with what there is."),
    ]

    def __init__(self, words: Callable[[], str], retry: Callable[[], None], pause: Callable[[], None]) -> None:
        super().__init__()
        self._words = words
        self._retry = retry
        self._pause = pause
        self._said = ""

    def compose(self) -> ComposeResult:
        """The word, what is known, the keys."""
        with Vertical(classes="dialog -tall -lost"):
            yield BigWord("LOST", id="lost-word")
            yield Static("", id="lost-words", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Keep telling."""
        self.tell()
        self.set_interval(0.25, self.tell)

    def tell(self) -> None:
        """Say what is known now."""
        words = "\n".join(map(text.plain, f"{self._words()}\n{self._said}".strip().splitlines()))
        self.query_one("#lost-words", Static).update(words)

    def action_retry(self) -> None:
        """Look for the band now."""
        self._retry()
        self._said = "looking for it now"
        self.tell()

    def action_pause(self) -> None:
        """Wait for somebody when the band is back."""
        self._pause()
        self._said = "it waits for [space] when the band is back"
        self.tell()

    def action_answer(self, choice: str) -> None:
        """Answer."""
        self.dismiss(choice)
