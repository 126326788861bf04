"""The terminal interface: rooms over the edge in this process and a cloud elsewhere; either may be missing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import EmbridgeError
from embridge_shared.settings import TuiSettings
from embridge_tui import text
from embridge_tui.client import CloudClient
from embridge_tui.rooms import GESTURES, ROOMS
from embridge_tui.screens.dialogs import HelpDialog, JumpDialog, LogDrawer, QuitDialog
from embridge_tui.screens.room import Room
from embridge_tui.themes import DEFAULT, THEMES
from embridge_tui.trace import Glyphs
from embridge_tui.view import View

if TYPE_CHECKING:
    from embridge_edge.collect.station import Vitals
    from embridge_tui.logbook import Logbook
    from embridge_tui.part import EdgePart

PERIOD_S: Final = 2.0
_VITALS_S: Final = 0.5
_AGAIN_S: Final = 2.0
_LEAST_S: Final = 0.5
_OFFERED: Final = 40
NO_EDGE: Final = (
    "This interface has no edge: it was started with --no-edge, or without the extra. "
    'Start `embridge tui` on the machine the band is at, after `pip install "embridge[edge]"`.'
)


def _room(number: int) -> Binding:
    room = ROOMS[number - 1]
    action, about = f"go('{room.name}')", room.about
    return Binding(str(number), action, room.title, id=f"go.{room.name}", tooltip=about, show=False)


class Ground(NamedTuple):
    """What the rooms stand on.

    Attributes:
        client: Asks the cloud.
        part: The edge in this process; None where there is none.
        missing: Why there is none, and how to get one.
        logbook: What is logged; None for no drawer.
    """

    client: CloudClient
    part: EdgePart | None = None
    missing: str = NO_EDGE
    logbook: Logbook | None = None


class EmbridgeApp(App[None]):
    """What field people live in.

    Args:
        client: Asks the cloud; None where `prepare` brings it.
        part: The edge in this process; None where there is none.
        missing: Why there is none, and how to get one.
        settings: Theme, glyphs, keys.
        logbook: What is logged; None for no drawer.
        clock: Tells how old what is shown is.
        period_s: Time between two readings of the cloud; what happens there is told meanwhile.
        room: To begin in; Collect where there is an edge, Sessions where not, by default.
        prepare: Brings what the rooms stand on, after the first paint.
        starting: What is shown meanwhile.

    Attributes:
        failure: Why it could not be brought; the interface ends with it.
    """

    TITLE = "EMBridge"
    CSS_PATH = "theme.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (116, "-wide"), (150, "-broad")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *(_room(number) for number in range(1, len(ROOMS) + 1)),
        Binding("f5", "refresh_now", "Refresh", show=False, id="refresh", tooltip="Ask the cloud now."),
        Binding("question_mark,f1", "help", "Help", id="help", tooltip="Every key that works here."),
        Binding("ctrl+o", "jump", "Jump", show=False, id="jump", tooltip="A letter on everything that has keys."),
        Binding("ctrl+l", "log", "Log", show=False, id="log", tooltip="The last lines of the log."),
        Binding("f12", "picture", "Picture", show=False, id="picture", tooltip="Save this screen as an SVG."),
        Binding("ctrl+q", "quit", "Quit", id="quit", tooltip="Leave; asks first."),
    ]

    def __init__(
        self,
        client: CloudClient | None = None,
        part: EdgePart | None = None,
        *,
        missing: str = NO_EDGE,
        settings: TuiSettings | None = None,
        logbook: Logbook | None = None,
        clock: Clock | None = None,
        period_s: float = PERIOD_S,
        room: str = "",
        prepare: Callable[[], Awaitable[Ground]] | None = None,
        starting: str = "starting …",
    ) -> None:
        super().__init__()
        self.tui = settings or TuiSettings()
        self.failure: EmbridgeError | None = None
        self._prepare, self._starting, self._room = prepare, starting, room
        self._clock = clock or SystemClock()
        self._period_s = period_s
        self._asked = asyncio.Event()
        self._told = False
        self._rooms: dict[str, Room] = {}
        self._station: asyncio.Task[None] | None = None
        self.client: CloudClient
        self.part: EdgePart | None = None
        self._logbook: Logbook | None = None
        self.view = View("")
        if client is not None:
            self._stand(Ground(client, part, missing, logbook))

    def _stand(self, ground: Ground) -> None:
        self.client, self.part, self.missing, self._logbook = ground
        self.view = View(self.client.address)

    @property
    def glyphs(self) -> Glyphs:
        """What scope and hand are drawn with."""
        return Glyphs(self.tui.glyphs)

    def compose(self) -> ComposeResult:
        """What is shown until the first room opens."""
        if self._prepare is not None:
            yield Static(f"EMBridge\n\n{self._starting}", id="starting", markup=False)

    def on_mount(self) -> None:
        """Open the first room, or show that it is on its way."""
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self.tui.theme if self.tui.theme in self.available_themes else DEFAULT
        self.set_keymap(self.tui.keymap)
        if self._prepare is None:
            self._begin()
        else:
            self.call_after_refresh(self.run_worker, self._bring(self._prepare), name="prepare", group="prepare")

    async def _bring(self, prepare: Callable[[], Awaitable[Ground]]) -> None:
        """Begin once there is something to stand on."""
        try:
            self._stand(await prepare())
        except EmbridgeError as error:
            self.failure = error
            self.exit()
            return
        self._begin()

    def _begin(self) -> None:
        """Open the first room, start the edge, follow the cloud."""
        for name in (*(room.name for room in ROOMS), GESTURES.name):
            self.add_mode(name, partial(self._furnished, name))
        if self.part is not None:
            self._station = asyncio.create_task(self.part.run(), name="station")
        self.switch_mode(self._room or ("collect" if self.part is not None else "sessions"))
        self.run_worker(self._follow(), name="follow", group="follow", exclusive=True)
        self.run_worker(self._listen(), name="events", group="events", exclusive=True)
        self.set_interval(_VITALS_S, self.display_frame)

    def _furnished(self, name: str) -> Room:
        """Make a room the first time it is entered: what it imports is not paid for before."""
        if name not in self._rooms:
            self._rooms[name] = _MAKE[name](self)
        return self._rooms[name]

    async def on_unmount(self) -> None:
        """End the station in good order: what is recorded lies in the spool."""
        if self.part is not None and self._station is not None:
            await self.part.stop(self._station)

    # the cloud

    async def _follow(self) -> None:
        """Ask the cloud, show what it says, wait; for as long as the interface is open."""
        while True:
            try:
                snapshot = await self.client.snapshot()
            except EmbridgeError as error:
                self.view = replace(self.view, error=error)
            else:
                self.view = replace(self.view, snapshot=snapshot, read_ns=self._clock.monotonic_ns(), error=None)
            self.display_view()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period_s):
                    await self._asked.wait()
            self._asked.clear()

    async def _listen(self) -> None:
        """Ask at once when something happens there."""
        while True:
            with contextlib.suppress(EmbridgeError):
                async for _ in self.client.events():
                    # A training tells of every step: what happens within a moment is one reading.
                    if not self._told:
                        self._told = True
                        self.set_timer(_LEAST_S, self._ask_now)
            await asyncio.sleep(_AGAIN_S)

    def _ask_now(self) -> None:
        self._told = False
        self._asked.set()

    def vitals(self) -> Vitals | None:
        """What the edge in this process is doing."""
        return None if self.part is None else self.part.vitals()

    def display_view(self) -> None:
        """Show what is known of the cloud in the room that is open."""
        now_ns = self._clock.monotonic_ns()
        for room in self._open_rooms():
            with contextlib.suppress(NoMatches):  # It is taken down, and has lost some of what it holds.
                room.show_frame(self.view, now_ns, self.vitals())
                room.show(self.view, now_ns)

    def display_frame(self) -> None:
        """Show what is alive."""
        now_ns = self._clock.monotonic_ns()
        for room in self._open_rooms():
            with contextlib.suppress(NoMatches):
                room.show_frame(self.view, now_ns, self.vitals())

    def _open_rooms(self) -> list[Room]:
        return [screen for screen in self.screen_stack if isinstance(screen, Room) and screen.furnished]

    # keys that work everywhere

    def action_go(self, room: str) -> None:
        """Open a room."""
        if not isinstance(self.screen, Room):
            return
        self.switch_mode(room)

    def action_refresh_now(self) -> None:
        """Ask the cloud now."""
        self._asked.set()

    def action_help(self) -> None:
        """Show every key that works now: of what has the focus, of the room, of everywhere."""
        places: dict[str, dict[str, list[str]]] = {"here": {}, "room": {}, "anywhere": {}}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.id and binding.tooltip:
                where = "anywhere" if active.node is self else "room" if active.node is self.screen else "here"
                places[where].setdefault(binding.tooltip, []).append(self.get_key_display(binding))
        places["anywhere"]["Find a command, a session or an edge by name; themes are there too."] = ["^p"]
        places["anywhere"]["Move; tab goes to the next field or table."] = ["↑ ↓ pgup pgdn tab"]
        focused = self.focused
        name = str(focused.border_title or focused.id or "here") if focused is not None else "here"
        entry = next((r for r in (*ROOMS, GESTURES) if r.name == getattr(self.screen, "ROOM", "")), None)
        about = {"here": (name, ""), "room": (entry.title, entry.about) if entry else ("room", "")}
        sections = [
            (*about.get(where, (where, "")), [(" ".join(keys), words) for words, keys in rows.items()])
            for where, rows in places.items()
            if rows
        ]
        self.push_screen(HelpDialog(sections))

    def action_jump(self) -> None:
        """Show a letter on everything that can be focused."""
        targets = [w for w in self.screen.focus_chain if w.region.area]

        def go(widget: Widget | None) -> None:
            if widget is not None:
                widget.focus()

        self.push_screen(JumpDialog(sorted(targets, key=lambda w: (w.region.y, w.region.x))), go)

    def action_log(self) -> None:
        """Show the log."""
        book = self._logbook
        if book is None:
            self.notify("Nothing is logged here.")
        else:
            self.push_screen(LogDrawer(lambda: book.lines, book.path))

    def action_picture(self) -> None:
        """Save this screen as an SVG in the working directory."""
        name = f"embridge-{getattr(self.screen, 'ROOM', '') or 'screen'}-{self._clock.wall_ns() // 1_000_000_000}.svg"
        try:
            path = self.save_screenshot(name, str(Path.cwd()))
        except OSError as error:
            self.notify(f"No picture: {error.strerror}.", severity="error")
        else:
            self.notify(f"Saved {path}.")

    async def action_quit(self) -> None:
        """Ask before leaving, and say what that interrupts."""
        if isinstance(self.screen, QuitDialog):
            return
        busy = [words for room in self._rooms.values() if (words := room.busy)]
        if self.part is not None and self.part.busy:
            busy.insert(0, self.part.busy)
        dialog = QuitDialog(list(dict.fromkeys(busy)), edge=self.part is not None)
        self.push_screen(dialog, lambda leave: self.exit() if leave else None)

    # the palette

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: Textual's own, the rooms, what this room can do, sessions and edges."""
        yield from super().get_system_commands(screen)
        for room in (*ROOMS, GESTURES):
            yield SystemCommand(f"Go: {room.title}", room.about, lambda name=room.name: self.action_go(name))
        for active in screen.active_bindings.values():
            if active.node is screen and active.binding.tooltip:
                action = active.binding.action
                words = f"{getattr(screen, 'ROOM', '').capitalize()}: {active.binding.description}"
                yield SystemCommand(words, active.binding.tooltip, lambda a=action: self._act(screen, a))
        snapshot = self.view.snapshot
        for session in () if snapshot is None else snapshot.sessions[:_OFFERED]:
            about = f"{text.plain(session.participant)}, {session.state}"
            yield SystemCommand(
                f"Session {str(session.session)[:8]}", about, lambda s=session: self._open("sessions", str(s.session))
            )
        for edge in () if snapshot is None else snapshot.edges[:_OFFERED]:
            about = "online" if edge.online else "away"
            yield SystemCommand(f"Edge {text.plain(edge.edge)}", about, lambda e=edge: self._open("fleet", e.edge))

    def _act(self, screen: Screen[Any], action: str) -> None:
        self.run_worker(screen.run_action(action), group="palette")

    def _open(self, room: str, key: str) -> None:
        """Go to a room and choose a record there."""
        from embridge_tui.widgets.records import Records

        self.action_go(room)

        def choose() -> None:
            for table in self.screen.query(Records):
                if table.choose(key):
                    table.focus()

        self.call_after_refresh(lambda: self.set_timer(0.05, choose))


def _collect(app: EmbridgeApp) -> Room:
    from embridge_tui.screens.collect import CollectScreen

    return CollectScreen(None if app.part is None else app.part.station, app.missing)


def _devices(app: EmbridgeApp) -> Room:
    from embridge_tui.screens.devices import DevicesScreen

    return DevicesScreen(app.part, app.missing, glyphs=app.glyphs)


def _sessions(app: EmbridgeApp) -> Room:
    from embridge_tui.screens.sessions import SessionsScreen

    return SessionsScreen(app.client)


def _fleet(app: EmbridgeApp) -> Room:
    from embridge_tui.screens.fleet import FleetScreen

    return FleetScreen(app.client, app._clock)


def _enrol(app: EmbridgeApp) -> Room:
    from embridge_tui.screens.enrol import EnrolScreen

    part = app.part
    if part is None:
        return EnrolScreen(None, app.missing)
    return EnrolScreen(part.bench, courier=lambda: part.courier, glyphs=app.glyphs)


def _live(app: EmbridgeApp) -> Room:
    from embridge_tui.screens.live import LiveScreen

    return LiveScreen(None if app.part is None else app.part.living, app.missing, glyphs=app.glyphs)


def _models(app: EmbridgeApp) -> Room:
    from embridge_tui.screens.models import ModelsScreen

    return ModelsScreen(app.client)


def _gestures(_: EmbridgeApp) -> Room:
    from embridge_tui.screens.gestures import GesturesScreen

    return GesturesScreen()


_MAKE: Final[dict[str, Callable[[EmbridgeApp], Room]]] = {
    "collect": _collect,
    "devices": _devices,
    "sessions": _sessions,
    "fleet": _fleet,
    "enrol": _enrol,
    "live": _live,
    "models": _models,
    "gestures": _gestures,
}

__all__: Sequence[str] = ("NO_EDGE", "EmbridgeApp")
