"""What every room has in common."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, cast

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer

from embridge_tui.view import View
from embridge_tui.widgets.bars import Banner, TopBar

if TYPE_CHECKING:
    from embridge_edge.collect.station import Vitals


class Room(Screen[None]):
    """A screen under the top bar.

    Attributes:
        ROOM: Its name among the modes.
        OF_CLOUD: What it shows is the cloud's, so it says when that is old.
    """

    ROOM = ""
    OF_CLOUD = False

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
    def busy(self) -> str:
        """What would be lost or cut off by leaving now; empty if nothing."""
        return ""

    @property
    def furnished(self) -> bool:
        """All it holds stands; not so while it is put up or taken down."""
        return bool(self.query(TopBar)) and all(child.is_mounted for child in self.query("*"))

    def show(self, view: View, now_ns: int) -> None:
        """Show what is known of the cloud, in rooms that are about it."""

    def background(self, work: Callable[[], Coroutine[Any, Any, None]], group: str, *, alone: bool = True) -> None:
        """Do something beside the screen.

        Args:
            work: What; begun only when its turn comes, so that what is called off in time was never begun.
            group: What it belongs to.
            alone: Whatever else of its group is under way is called off.
        """
        self.run_worker(cast(Any, work), name=group, group=group, exclusive=alone)

    def show_frame(self, view: View, now_ns: int, vitals: Vitals | None) -> None:
        """Show what is alive, and what is wrong."""
        self.query_one(TopBar).show(view, now_ns, vitals)
        self.query_one(Banner).show(view.trouble(now_ns) if self.OF_CLOUD else "")
        self.set_class(self.OF_CLOUD and view.stale(now_ns), "-stale")
