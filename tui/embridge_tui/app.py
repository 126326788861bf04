"""The terminal interface: rooms over a running cloud process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import NetworkError
from embridge_tui.client import CloudClient
from embridge_tui.screens.dialogs import HelpDialog, QuitDialog
from embridge_tui.screens.fleet import FleetScreen
from embridge_tui.screens.gestures import GesturesScreen
from embridge_tui.screens.room import Room
from embridge_tui.screens.sessions import SessionsScreen
from embridge_tui.view import View
from embridge_tui.widgets.bars import ROOMS

PERIOD_S = 2.0


class EmbridgeApp(App[None]):
    """Looks at a cloud; changes nothing there.

    Args:
        client: Reads the cloud.
        clock: Tells how old what is shown is.
        period_s: Time between two readings.
    """

    TITLE = "EMBridge"
    CSS_PATH = "theme.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (116, "-wide"), (150, "-broad")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "go('sessions')", "Sessions", id="go.sessions", tooltip="What was recorded."),
        Binding("2", "go('fleet')", "Fleet", id="go.fleet", tooltip="Edges, releases and training."),
        Binding("3", "go('gestures')", "Gestures", id="go.gestures", tooltip="The shapes of a hand that have a name."),
        Binding("r,f5", "refresh_now", "Refresh", id="refresh", tooltip="Ask the cloud now instead of in 2 s."),
        Binding("question_mark,f1", "help", "Help", id="help", tooltip="Every key that works here."),
        Binding("q", "quit", "Quit", id="quit", tooltip="Leave; asks first."),
        Binding("ctrl+q", "quit", "Quit", show=False, id="quit.anywhere", tooltip="Leave; asks first."),
    ]

    def __init__(self, client: CloudClient, *, clock: Clock | None = None, period_s: float = PERIOD_S) -> None:
        super().__init__()
        self._client = client
        self._clock = clock or SystemClock()
        self._period_s = period_s
        self._asked = asyncio.Event()
        self.view = View(client.address)

    def on_mount(self) -> None:
        """Open the first room and begin to follow the cloud."""
        self.add_mode("sessions", lambda: SessionsScreen(self._client))
        self.add_mode("fleet", FleetScreen)
        self.add_mode("gestures", GesturesScreen)
        self.switch_mode("sessions")
        self.run_worker(self._follow(), name="follow", group="follow", exclusive=True)
        self.set_interval(1.0, self.display_view)

    async def _follow(self) -> None:
        """Ask the cloud, show what it says, wait; for as long as the interface is open."""
        while True:
            try:
                snapshot = await self._client.snapshot()
            except NetworkError as error:
                self.view = replace(self.view, error=error)
            else:
                self.view = replace(self.view, snapshot=snapshot, read_ns=self._clock.monotonic_ns(), error=None)
            self.display_view()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period_s):
                    await self._asked.wait()
            self._asked.clear()

    def display_view(self) -> None:
        """Show what is known, and how old it is, in the room that is open."""
        now_ns = self._clock.monotonic_ns()
        for screen in self.screen_stack:
            if isinstance(screen, Room) and screen.furnished:
                screen.show(self.view, now_ns)

    def action_go(self, room: str) -> None:
        """Open a room."""
        self.switch_mode(room)

    def action_refresh_now(self) -> None:
        """Ask the cloud now."""
        self._asked.set()

    def action_help(self) -> None:
        """Show every key that works now."""
        keys: dict[str, list[str]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.id and binding.tooltip:
                keys.setdefault(binding.tooltip, []).append(self.get_key_display(binding))
        keys["Move within a table or pane; tab goes to the next one."] = ["↑ ↓ pgup pgdn tab"]
        keys["Find a command by its name; themes are there too."] = ["^p"]
        self.push_screen(HelpDialog([(" ".join(names), words) for words, names in keys.items()]))

    async def action_quit(self) -> None:
        """Ask before leaving."""
        self.push_screen(QuitDialog(), lambda leave: self.exit() if leave else None)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: Textual's own, and the rooms."""
        yield from super().get_system_commands(screen)
        for room, title in ROOMS:
            yield SystemCommand(f"Go: {title}", f"Open the room {title}", lambda room=room: self.action_go(room))
