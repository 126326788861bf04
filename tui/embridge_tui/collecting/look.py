"""The look before a session, as lines: sign, what was found, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from embridge_edge.collect.preflight import Level, Line
from embridge_edge.collect.setup import Setup
from embridge_edge.collect.telling import SIGNS
from embridge_shared.quality import Grade
from embridge_tui import text
from embridge_tui.ring import Lane
from embridge_tui.trace import Glyphs
from embridge_tui.widgets.scope import Scope

_STYLES: Final = {
    Level.GREEN: "$text-success",
    Level.AMBER: "$text-warning",
    Level.RED: "$text-error",
    Level.OPEN: "$text-muted",
}


class LookView(Vertical):
    """Shows the lines of a preflight over the signal.

    Args:
        glyphs: What the signal is drawn with.
        id: Of the widget.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.begin", "Start", id="collect.begin", tooltip="Record; amber lines ask for a reason."),
        Binding("t", "screen.retest", "Retest", id="collect.retest", tooltip="Forget what was seen, look again."),
        Binding("m", "screen.effort", "MVC", id="collect.effort", tooltip="Capture the greatest effort, 3 s."),
        Binding("c", "screen.reconnect", "Reconnect", id="collect.reconnect", tooltip="Look for the band now."),
        Binding("escape", "screen.back", "Back", id="collect.back", tooltip="To the form; nothing was recorded."),
    ]

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._glyphs = glyphs

    def compose(self) -> ComposeResult:
        """Lines, then the signal."""
        yield Static("", id="look-title", markup=False)
        yield Static("", id="look-lines")
        yield Scope(glyphs=self._glyphs, id="look-scope")

    def open(self, setup: Setup) -> None:
        """Say whose session it is."""
        words = f"PREFLIGHT  {setup.name}   {setup.participant}   {setup.protocol.ref}"
        self.query_one("#look-title", Static).update(text.plain(words))
        self.query_one("#look-lines", Static).update("")
        self.query_one(Scope).focus()

    def show(self, lines: Sequence[Line]) -> None:
        """Show the lines."""
        parts: list[Content | tuple[str, str]] = []
        width = max(20, self.size.width - 2)
        for line in lines:
            style = _STYLES[line.level]
            need = f"  {line.need}"
            what = text.plain(line.what)
            room = width - 15 - len(need)
            parts.append((f" {SIGNS[line.level]} {line.key:<11}", style))
            parts.append((text.fit(what, room), "$foreground"))
            parts.append((need + "\n", "$text-muted"))
            if line.level is not Level.GREEN and (line.action or len(what) > room):
                more = what[room - 1 :] if len(what) > room else ""
                parts.append((text.fit(f"{'':14}{more} → {text.plain(line.action)}", width) + "\n", style))
        self.query_one("#look-lines", Static).update(Content.assemble(*parts))


def lanes(channels: Sequence[str], faults: dict[int, str]) -> list[Lane]:
    """What the channels are worth, for the scope."""
    return [Lane(Grade.BAD, faults[c]) if c in faults else Lane(Grade.GOOD) for c in range(len(channels))]
