"""What lies over a screen for a moment: the question before leaving, the keys, the log, the jump labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Footer, RichLog, Static

from embridge_tui import text

_LABELS: Final = "asdfghjklqwertyuiopzxcvbnm"


class QuitDialog(ModalScreen[bool]):
    """Asks before leaving; answers whether to leave.

    Args:
        busy: What leaving interrupts.
        edge: An edge lives in this process.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,ctrl+q", "answer(True)", "Leave", id="quit.leave", tooltip="Close this interface."),
        Binding("n,escape,q", "answer(False)", "Stay", id="quit.stay", tooltip="Go on."),
    ]

    def __init__(self, busy: Sequence[str] = (), *, edge: bool = False) -> None:
        super().__init__()
        self._busy = tuple(busy)
        self._edge = edge

    def compose(self) -> ComposeResult:
        """The question and its keys."""
        words = "Cloud and edges go on without this interface:\nnothing is stopped, nothing is lost."
        if self._edge:
            words = "The edge of this machine ends with it. Nothing is lost:\nwhat waits is sent next time."
        if self._busy:
            what = "\n".join(f"▲ {text.plain(each)}" for each in self._busy)
            stays = "What is recorded so far stays; an interrupted session goes on\nat the same repetition next time."
            words = f"{what}\n\n{stays}"
        with Vertical(classes="dialog") as box:
            box.border_title = "leave?"
            yield Static(words, markup=False)
        yield Footer(show_command_palette=False)

    def action_answer(self, leave: bool) -> None:
        """Answer."""
        self.dismiss(leave)


class HelpDialog(ModalScreen[None]):
    """Every key that works now.

    Args:
        sections: Heading, what it is about, and its keys with what they do; in the order shown.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q", "dismiss", "Back", id="help.back", tooltip="Back to the screen."),
    ]

    def __init__(self, sections: Sequence[tuple[str, str, Sequence[tuple[str, str]]]]) -> None:
        super().__init__()
        self._sections = tuple(sections)

    def compose(self) -> ComposeResult:
        """Keys and what the signs mean."""
        width = max((len(keys) for _, _, rows in self._sections for keys, _ in rows), default=0)
        lines: list[str] = []
        for heading, about, rows in self._sections:
            lines += [heading.upper(), *([about] if about else [])]
            lines += [f"  {keys:<{width}}  {words}" for keys, words in rows]
            lines.append("")
        signs = "● live or good   ○ away   ▶ under way   ✓ done   ▲ look at it   ✕ wrong"
        with VerticalScroll(classes="dialog -tall") as box:
            box.border_title = "keys"
            yield Static("\n".join([*lines, signs]), markup=False)
        yield Footer(show_command_palette=False)


class LogDrawer(ModalScreen[None]):
    """The last lines of the log, over the lower half.

    Args:
        lines: What was logged so far.
        path: The file that holds all of it; empty for none.
    """

    DEFAULT_CSS = """
    LogDrawer { align: center bottom; background: $background 30%; }
    LogDrawer RichLog {
        height: 60%; width: 1fr; border-top: heavy $primary; background: $surface; border-title-color: $text-primary;
        padding: 0 1;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+l,q", "dismiss", "Close", id="log.close", tooltip="Close the log."),
    ]

    def __init__(self, lines: Callable[[], Sequence[str]], path: str) -> None:
        super().__init__()
        self._lines = lines
        self._path = path
        self._shown = 0

    def compose(self) -> ComposeResult:
        """The log."""
        log = RichLog(wrap=True, markup=False, highlight=False)
        log.border_title = f"log{f': {self._path}' if self._path else ''}"
        yield log
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Follow it."""
        self._follow()
        self.set_interval(0.5, self._follow)

    def _follow(self) -> None:
        lines = self._lines()
        if len(lines) < self._shown:
            self._shown = 0
        log = self.query_one(RichLog)
        for line in lines[self._shown :]:
            log.write(text.plain(line))
        self._shown = len(lines)


class JumpDialog(ModalScreen[Widget | None]):
    """A letter on everything that can be focused; typing it goes there.

    Args:
        targets: What can be focused, from the top.
    """

    DEFAULT_CSS = """
    JumpDialog { background: $background 40%; }
    JumpDialog .jump {
        width: 3; height: 1; background: $accent; color: $background; text-style: bold; position: absolute;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", id="jump.back", tooltip="Go nowhere."),
    ]

    def __init__(self, targets: Sequence[Widget]) -> None:
        super().__init__()
        self._targets = dict(zip(_LABELS, targets, strict=False))

    def compose(self) -> ComposeResult:
        """The letters."""
        for letter, target in self._targets.items():
            label = Static(f" {letter} ", classes="jump", markup=False)
            label.styles.offset = (target.region.x, target.region.y)
            yield label

    def on_key(self, event: events.Key) -> None:
        """Go where the letter stands."""
        if event.key in self._targets:
            event.stop()
            self.dismiss(self._targets[event.key])
