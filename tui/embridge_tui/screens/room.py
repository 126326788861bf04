"""What every room over the cloud has in common."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer

from embridge_tui.view import View
from embridge_tui.widgets.bars import Banner, TopBar


class Room(Screen[None]):
    """A screen under the top bar.

    Attributes:
        ROOM: Its name among the modes.
    """

    ROOM = ""

    def compose(self) -> ComposeResult:
        """The frame around what a room holds."""
        yield TopBar(self.ROOM)
        yield Banner()
        yield from self.furnish()
        yield Footer(show_command_palette=False)

    def furnish(self) -> Iterable[Widget]:
        """What the room holds."""
        return ()

    def on_screen_resume(self) -> None:
        """Catch up with what was learnt while another room was open."""
        self.call_after_refresh(self._catch_up)

    def _catch_up(self) -> None:
        display = getattr(self.app, "display_view", None)
        if callable(display):
            display()

    @property
    def furnished(self) -> bool:
        """All it holds stands; not so while it is put up or taken down."""
        return bool(self.query(TopBar)) and all(child.is_mounted for child in self.query("*"))

    def show(self, view: View, now_ns: int) -> None:
        """Show what is known of the cloud."""
        self.query_one(TopBar).show(view, now_ns)
        self.query_one(Banner).show(view, now_ns)
        self.set_class(view.stale(now_ns), "-stale")
