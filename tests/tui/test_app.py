"""The shell of the interface: rooms by digit, what is alive, keys, help, palette, jump keys, log, themes, leaving."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import pkgutil

import pytest
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Footer, RichLog, Static

import embridge_tui
from embridge_shared.errors import NetworkError, Reason
from embridge_shared.settings import LogSettings, Settings, TuiSettings
from embridge_tui.app import EmbridgeApp
from embridge_tui.logbook import Logbook, open_logbook
from embridge_tui.model import Snapshot
from embridge_tui.rooms import GESTURES, ROOMS
from embridge_tui.screens.dialogs import HelpDialog, JumpDialog, LogDrawer, QuitDialog
from embridge_tui.screens.gestures import GesturesScreen
from embridge_tui.screens.room import Room
from embridge_tui.themes import THEMES
from embridge_tui.widgets.hand import HandView
from embridge_tui.widgets.records import Records
from support.tui_world import EMPTY, Clock, ScriptedCloud, edge, over, settle, words

SIZES = [(80, 24), (100, 30), (150, 44)]
NAMES = [room.name for room in ROOMS]


@pytest.fixture
def cloud() -> ScriptedCloud:
    return ScriptedCloud(
        Snapshot(**{**{n: getattr(EMPTY, n) for n in EMPTY.__struct_fields__}, "edges": (edge("e1"),)})
    )


@pytest.fixture
def app(cloud) -> EmbridgeApp:
    return over(cloud, "sessions")


def room_of(app: EmbridgeApp) -> str:
    return getattr(app.screen, "ROOM", "")


async def ready(pilot) -> None:
    await settle(pilot, lambda: isinstance(pilot.app.screen, Room) and pilot.app.screen.furnished)


async def test_every_room_opens_by_its_digit_and_says_where_one_is(app):
    async with app.run_test(size=(150, 44)) as pilot:
        await ready(pilot)
        for number in (4, 7, 3):
            await pilot.press(str(number))
            await settle(pilot, lambda n=number: room_of(app) == NAMES[n - 1] and app.screen.furnished)
            (here,) = app.screen.query("TopBar .title.-here").results(Static)
            assert str(here.render()) == ROOMS[number - 1].title


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
async def test_rooms_without_an_edge_say_what_is_missing_and_fit(app, size):
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        for name in ("collect", "devices", "enrol", "live"):
            app.action_go(name)
            await settle(pilot, lambda n=name: room_of(app) == n and app.screen.furnished)
            shown = " ".join(str(w.render()) for w in app.screen.query(Static).results())
            assert "embridge[edge]" in " ".join(shown.split()), name
            assert {w.region.bottom for w in app.screen.query(Footer).results()} == {size[1]}
            if name in ("enrol", "live"):
                assert app.screen.query_one("#participant").region.height == 3, "no room styles another"


async def test_what_is_alive_is_told_and_what_is_old_is_marked(app, cloud):
    async with app.run_test(size=(120, 34)) as pilot:
        await settle(pilot, lambda: "● live 0 s" in words(app, "#vitals"))
        assert not app.screen.query_one("#banner").display
        cloud.error = NetworkError("no cloud answers", reason=Reason.UNREACHABLE, hint="Start `embridge cloud run`.")
        Clock.ns += 3_000_000_000
        await pilot.press("f5")
        await settle(pilot, lambda: "✕ STALE 3 s" in words(app, "#vitals"))
        assert "Start `embridge cloud run`" in words(app, "#banner")
        assert app.screen.has_class("-stale")
        cloud.error = None
        await pilot.press("f5")
        await settle(pilot, lambda: "● live 0 s" in words(app, "#vitals"))
        assert not app.screen.query_one("#banner").display


async def test_what_happens_at_the_cloud_is_asked_for_at_once(app, cloud):
    async with app.run_test(size=(120, 34)) as pilot:
        await settle(pilot, lambda: app.view.snapshot is not None)
        cloud.now = EMPTY
        await cloud.heard.put(("edge.offline", "e1"))
        await settle(pilot, lambda: app.view.snapshot is EMPTY)


async def test_help_is_about_what_has_the_focus_the_room_and_everywhere(app):
    async with app.run_test(size=(120, 44)) as pilot:
        await ready(pilot)
        app.screen.query_one(Records).focus()
        own = {a.binding.tooltip for a in app.screen.active_bindings.values() if a.binding.id}
        await pilot.press("f1")
        assert isinstance(app.screen, HelpDialog)
        text = str(app.screen.query_one(".dialog Static", Static).render())
        assert all(tooltip in text for tooltip in own if tooltip)
        assert text.index("SESSIONS") < text.index("ANYWHERE")
        await pilot.press("escape")
        assert room_of(app) == "sessions"


async def test_another_key_takes_the_place_of_the_old_one(cloud):
    app = over(cloud, "sessions", settings=TuiSettings(keymap={"go.fleet": "f4"}))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("4")
        await pilot.pause(0.1)
        assert room_of(app) == "sessions"
        await pilot.press("f4")
        await settle(pilot, lambda: room_of(app) == "fleet")


async def test_the_palette_goes_to_rooms_edges_and_what_a_room_can_do(app):
    async with app.run_test(size=(120, 34)) as pilot:
        await settle(pilot, lambda: app.view.snapshot is not None)
        offered = {command.title: command for command in app.get_system_commands(app.screen)}
        assert {f"Go: {room.title}" for room in (*ROOMS, GESTURES)} <= set(offered)
        assert "Edge e1" in offered
        assert any(title.startswith("Sessions: ") for title in offered)
        await pilot.press("ctrl+p")
        await pilot.pause(0.2)
        await pilot.press(*"go", "colon", "space", *"enrol")
        await pilot.pause(0.4)
        await pilot.press("enter")
        await settle(pilot, lambda: room_of(app) == "enrol")


async def test_a_letter_jumps_to_what_can_be_focused(app):
    async with app.run_test(size=(120, 34)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await settle(pilot, lambda: isinstance(app.screen, JumpDialog))
        letters = [str(w.render()).strip() for w in app.screen.query(".jump").results(Static)]
        assert letters[0] == "a"
        await pilot.press(letters[-1])
        await settle(pilot, lambda: room_of(app) == "sessions")
        assert app.focused is not None


async def test_the_log_is_a_drawer_and_a_file_and_never_the_screen(cloud, tmp_path, capfd):
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        book = open_logbook(Settings(log=LogSettings(style="text")), tmp_path)
        app = over(cloud, "sessions", logbook=book)
        async with app.run_test(size=(100, 30)) as pilot:
            await ready(pilot)
            logging.getLogger("embridge_edge.uplink").warning("no link to %s", "broker")
            await pilot.press("ctrl+l")
            await settle(pilot, lambda: isinstance(app.screen, LogDrawer))
            await settle(
                pilot, lambda: any("no link to broker" in str(line) for line in app.screen.query_one(RichLog).lines)
            )
            await pilot.press("escape")
        assert "no link to broker" in (tmp_path / "tui.log").read_text()
        assert "no link" not in "".join(capfd.readouterr())
    finally:
        for handler in list(root.handlers):
            if isinstance(handler, Logbook) or getattr(handler, "baseFilename", "").startswith(str(tmp_path)):
                root.removeHandler(handler)
                handler.close()
        for handler in before:
            if handler not in root.handlers:
                root.addHandler(handler)


class Busy(GesturesScreen):
    @property
    def busy(self) -> str:
        return "session p07_001_R_d1 is being recorded"


async def test_leaving_asks_first_and_says_what_it_interrupts(app):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+q")
        await settle(pilot, lambda: isinstance(app.screen, QuitDialog))
        assert "nothing is stopped" in str(app.screen.query_one(".dialog Static", Static).render())
        await pilot.press("escape")
        assert app.is_running
        app._rooms["gestures"] = Busy()
        await pilot.press("ctrl+q")
        await settle(pilot, lambda: isinstance(app.screen, QuitDialog))
        assert "p07_001_R_d1 is being recorded" in str(app.screen.query_one(".dialog Static", Static).render())
        await pilot.press("y")
        await settle(pilot, lambda: app._exit)


async def test_the_vocabulary_needs_no_cloud(app, cloud):
    cloud.error = NetworkError("no cloud answers", reason=Reason.UNREACHABLE)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        app.action_go("gestures")
        await settle(pilot, lambda: room_of(app) == "gestures" and app.screen.furnished)
        await settle(pilot, lambda: "alike" in words(app, "#gesture-words"))
        before = app.screen.query_one(HandView).lines
        await pilot.press("j")
        await settle(pilot, lambda: app.screen.query_one(HandView).lines != before)


@pytest.mark.parametrize("theme", [*(theme.name for theme in THEMES), "textual-light", "no such theme"])
async def test_themes(cloud, theme):
    app = over(cloud, "fleet", settings=TuiSettings(theme=theme))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        assert app.theme == (theme if theme in app.available_themes else THEMES[0].name)
        assert app.export_screenshot()


async def test_nothing_waits_for_a_cloud_that_hangs(cloud):
    hangs = asyncio.Event()

    async def snapshot() -> Snapshot:
        await hangs.wait()
        return EMPTY

    cloud.snapshot = snapshot
    app = over(cloud, "sessions")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        assert "connecting" in words(app, "#vitals")
        await pilot.press("7")
        await settle(pilot, lambda: room_of(app) == "models")
        hangs.set()


def owners() -> list[type[Widget]]:
    found: dict[str, type[Widget]] = {}
    for module in pkgutil.walk_packages(embridge_tui.__path__, "embridge_tui."):
        for _, thing in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if thing.__module__.startswith("embridge_tui") and "BINDINGS" in thing.__dict__:
                found[f"{thing.__module__}.{thing.__name__}"] = thing
    return list(found.values())


def test_bindings_have_ids_and_tooltips_and_no_key_twice():
    everywhere = {key for b in EmbridgeApp.BINDINGS if isinstance(b, Binding) for key in b.key.split(",")}
    assert len(owners()) > 15
    for owner in owners():
        own = [b for b in owner.__dict__["BINDINGS"] if isinstance(b, Binding)]
        keys = [key for b in own for key in b.key.split(",")]
        assert len(keys) == len(set(keys)), owner
        assert all(b.id and b.tooltip for b in own), owner
        assert len({b.id for b in own}) == len(own), owner
        if issubclass(owner, Room):
            assert not everywhere & set(keys), f"{owner} takes a key that works everywhere"
