"""The participant's view: what to do, in letters to be read from across the room, and nothing to be counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from embridge_edge.collect.prompts import Prompt, listen
from embridge_edge.collect.steps import State
from embridge_shared.errors import NetworkError
from embridge_shared.session import Side
from embridge_tui import text
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.hand import HandView

_AGAIN_S: Final = 1.0
_ACT: Final = frozenset({State.HOLD})
_TROUBLE: Final = frozenset({State.LOST})


class Prompter(App[None]):
    """Follows the session that is recorded on this machine; it owns nothing and can stop nothing.

    Args:
        state_dir: Of the edge that records.
    """

    TITLE = "EMBridge"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { align: center middle; background: $background; }
    #prompter { height: 1fr; padding: 1 2; }
    #word { height: 7; content-align: center middle; }
    #word.-act { color: $text-success; }
    #word.-trouble { color: $text-error; }
    #what { height: 5; color: $text-primary; }
    #bar { height: 1; text-align: center; color: $text-success; }
    #hint, #following { height: auto; text-align: center; }
    #following { color: $text-muted; margin-top: 1; }
    #shown { height: 1fr; min-height: 6; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Leave", show=False, id="prompter.quit", tooltip="Close this view; nothing stops."),
    ]

    def __init__(self, state_dir: Path) -> None:
        super().__init__()
        self._state_dir = state_dir
        self._prompt = Prompt()

    def compose(self) -> ComposeResult:
        """Word, gesture, time that is left, hand."""
        with Vertical(id="prompter"):
            yield BigWord("PLEASE WAIT", id="word")
            yield BigWord(id="what")
            yield Static("", id="bar", markup=False)
            yield Static("", id="hint", markup=False)
            with Horizontal(id="shown"):
                yield HandView(id="hand")
            yield Static("", id="following", markup=False)

    def on_mount(self) -> None:
        """Begin to follow."""
        self.query_one("#hand").display = False
        self.run_worker(self._follow(), name="follow", group="follow", exclusive=True)

    async def _follow(self) -> None:
        while True:
            try:
                async for prompt in listen(self._state_dir):
                    self.display_prompt(prompt)
            except NetworkError:
                # The station is not there yet, or ended: it comes back, and so do we.
                pass
            self.display_prompt(Prompt())
            await asyncio.sleep(_AGAIN_S)

    def display_prompt(self, prompt: Prompt) -> None:
        """Show what is asked for now."""
        if prompt.word != self._prompt.word:
            self.bell()
        self._prompt = prompt
        word = self.query_one("#word", BigWord)
        word.say(prompt.word)
        word.set_class(prompt.state in _ACT, "-act")
        word.set_class(prompt.state in _TROUBLE, "-trouble")
        self.query_one("#what", BigWord).say(text.plain(prompt.title))
        width = max(0, self.size.width - 8)
        left = prompt.remaining_s / prompt.length_s if prompt.length_s else 0.0
        self.query_one("#bar", Static).update("━" * round(left * width) if prompt.length_s else "")
        self.query_one("#hint", Static).update(text.plain(prompt.hint))
        self.query_one("#following", Static).update(f"then: {text.plain(prompt.following)}" if prompt.following else "")
        hand = self.query_one("#hand", HandView)
        hand.display = bool(prompt.pose)
        if prompt.pose:
            hand.show(np.array(prompt.pose), Side.LEFT if prompt.left_handed else Side.RIGHT)
