"""What stands above every screen: where one is, how fresh it is, and what is wrong."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from embridge_tui.view import View

ROOMS: tuple[tuple[str, str], ...] = (("sessions", "Sessions"), ("fleet", "Fleet"), ("gestures", "Gestures"))


class TopBar(Horizontal):
    """Names the rooms and says whether the data are live.

    Args:
        room: The room it stands in.
    """

    def __init__(self, room: str) -> None:
        super().__init__()
        self._room = room

    def compose(self) -> ComposeResult:
        """The name, the rooms, the state."""
        yield Static("EMBridge", id="name")
        for number, (room, title) in enumerate(ROOMS, 1):
            here = room == self._room
            label = f"▸{number} {title}" if here else f" {number} {title}"
            yield Static(f"[@click=app.go('{room}')]{label}[/]", classes="room -here" if here else "room")
        yield Static("", id="status", markup=False)

    def show(self, view: View, now_ns: int) -> None:
        """Say how old the data are."""
        status = self.query_one("#status", Static)
        address = view.address.partition("://")[2]
        status.update(f"{view.status(now_ns)} · {address}")
        status.set_class(view.stale(now_ns) or view.error is not None, "-bad")


class Banner(Static):
    """What is wrong and what to do next; takes no room when all is well."""

    def __init__(self) -> None:
        super().__init__("", id="banner", markup=False)
        self.display = False

    def show(self, view: View, now_ns: int) -> None:
        """Say what is wrong, if anything is."""
        trouble = view.trouble(now_ns)
        self.display = bool(trouble)
        self.set_class(trouble.startswith("✕"), "-bad")
        self.update(trouble)
