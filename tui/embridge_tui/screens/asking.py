"""Questions that rooms of the cloud ask before something is done, and pages of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static

from embridge_tui import text

_CSS = """
FormDialog, PageDialog { align: center middle; background: $background 60%; }
FormDialog .dialog { width: 80; max-width: 96%; height: auto; max-height: 90%; }
FormDialog Input { border: round $primary-muted; border-title-color: $text-primary; height: 3; width: 1fr; }
FormDialog Input:focus { border: round $primary; }
FormDialog #wrong { color: $text-error; text-style: bold; width: 1fr; }
PageDialog .dialog { width: 100; max-width: 96%; height: 90%; padding: 1 2; }
PageDialog .dialog Static { width: 1fr; }
"""


@dataclass(frozen=True, slots=True)
class Field:
    """A line that is asked for.

    Attributes:
        name: Of the answer.
        title: What is asked.
        value: What stands there at first.
        placeholder: An example.
        needed: It must not stay empty.
        exactly: It must be this, letter by letter; empty for anything.
        choices: It must be one of these; empty for anything.
    """

    name: str
    title: str
    value: str = ""
    placeholder: str = ""
    needed: bool = False
    exactly: str = ""
    choices: tuple[str, ...] = ()

    def wrong(self, given: str) -> str:
        """What is wrong with an answer; empty if nothing is."""
        if self.exactly and given != self.exactly:
            return f"type {self.exactly}"
        if self.needed and not given:
            return f"{self.title}: it is kept with what is done, so it must not be empty"
        if self.choices and given not in self.choices:
            return f"{self.title}: type {' or '.join(self.choices)}"
        return ""


class FormDialog(ModalScreen[dict[str, str] | None]):
    """Asks for some lines; answers with them by name, or with None where nothing is to be done.

    Args:
        title: What is to be done.
        words: What becomes of it.
        fields: The lines.
    """

    CSS = _CSS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Do nothing", id="form.back", tooltip="Do nothing."),
        Binding("ctrl+s", "send", "Do it", id="form.send", tooltip="Do it, from any line."),
    ]

    def __init__(self, title: str, words: str, fields: Sequence[Field]) -> None:
        super().__init__()
        self._title = title
        self._words = words
        self._fields = tuple(fields)

    def compose(self) -> ComposeResult:
        """What is to be done, and the lines."""
        with Vertical(classes="dialog") as box:
            box.border_title = self._title
            yield Static("\n".join(map(text.plain, self._words.splitlines())), markup=False)
            for field in self._fields:
                line = Input(field.value, placeholder=field.placeholder, id=f"ask-{field.name}", max_length=300)
                line.border_title = field.title
                yield line
            yield Static("", id="wrong", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Type at once."""
        self.query(Input).first().focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go on to the next line; the last one does it."""
        event.stop()
        lines = list(self.query(Input))
        at = lines.index(event.input)
        if at + 1 < len(lines):
            lines[at + 1].focus()
        else:
            self.action_send()

    def action_send(self) -> None:
        """Answer, unless something lacks."""
        answers = {f.name: self.query_one(f"#ask-{f.name}", Input).value.strip() for f in self._fields}
        for field in self._fields:
            wrong = field.wrong(answers[field.name])
            if wrong:
                self.query_one("#wrong", Static).update(f"✕ {text.plain(wrong)}")
                self.query_one(f"#ask-{field.name}", Input).focus()
                self.app.bell()
                return
        self.dismiss(answers)


class PageDialog(ModalScreen[None]):
    """A page of text.

    Args:
        title: What it is.
        words: The page.
    """

    CSS = _CSS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "Back", id="page.back", tooltip="Back to the room."),
    ]

    def __init__(self, title: str, words: str) -> None:
        super().__init__()
        self._title = title
        self._words = words

    def compose(self) -> ComposeResult:
        """The page."""
        with VerticalScroll(classes="dialog") as box:
            box.border_title = self._title
            box.border_subtitle = "↑ ↓ pgup pgdn"
            yield Static("\n".join(map(text.plain, self._words.splitlines())), markup=False, id="page")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Scroll by keys at once."""
        self.query_one(VerticalScroll).focus()
