"""The Enrol room over the real engine: a simulated wearer follows the prompts, keys do the rest."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, Static

from embridge_edge.enrol.bench import Acted, Bench
from embridge_edge.enrol.desk import release_of
from embridge_edge.spool import Spool
from embridge_shared.clock import SystemClock
from embridge_shared.errors import DeviceError
from embridge_shared.settings import EdgeSettings
from embridge_tui.screens.enrol import EnrolScreen
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.hand import HandView
from support.enrol_world import SEEN, UNSEEN, release

WEARER, NEW = 22, UNSEEN[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return release_of(release(tmp_path_factory.mktemp("release")))


class OneRoom(App[None]):
    CSS_PATH = str(Path(__file__).parents[2] / "tui" / "embridge_tui" / "theme.tcss")

    def __init__(self, make_bench, missing: str = "") -> None:
        super().__init__()
        self.room = EnrolScreen(make_bench, missing)

    def on_mount(self) -> None:
        self.push_screen(self.room)


@pytest.fixture(scope="module")
def calibrated(made, tmp_path_factory) -> Path:
    """The state folder of an edge that knows w1."""
    folder = tmp_path_factory.mktemp("calibrated")
    bench = Bench(EdgeSettings(state_dir=folder, name="edge-1"), "w1", made, Acted(WEARER, speed=0.0), SystemClock())
    bench.desk.calibrate(asyncio.run(bench.lead(bench.calibrate(repetitions=1), lambda events: None)))
    return folder


@pytest.fixture
def known(opened, calibrated, tmp_path) -> Callable[[str], Bench]:
    shutil.copytree(calibrated, tmp_path, dirs_exist_ok=True)
    return opened


@pytest.fixture
def opened(made, tmp_path) -> Callable[[str], Bench]:
    settings = EdgeSettings(state_dir=tmp_path, name="edge-1")

    def make(participant: str) -> Bench:
        return Bench(settings, participant, made, Acted(WEARER, speed=0.0), SystemClock())

    return make


def advice(app: App) -> str:
    return str(app.screen.query_one("#advice", Static).content)


def said(app: App) -> str:
    return str(app.screen.query_one("#said", Static).content)


async def until(pilot: Pilot, words: str, seconds: float = 60.0) -> str:
    """Wait for advice that holds these words."""
    async with asyncio.timeout(seconds):
        while words not in advice(pilot.app):
            await pilot.pause(0.02)
    return advice(pilot.app)


async def named(pilot: Pilot, who: str, what: str, times: int = 2) -> None:
    await pilot.press(*who, "enter")
    await until(pilot, "Which gesture")
    for key in what:
        await pilot.press("underscore" if key == "_" else key)
    await pilot.press("enter")
    pilot.app.screen.query_one("#repetitions", Input).value = str(times)
    await pilot.press("enter")


async def test_a_wearer_calibrates_enrols_tests_and_takes_back_with_keys_alone(opened, tmp_path):
    app = OneRoom(opened)
    async with app.run_test(size=(120, 36)) as pilot:
        await named(pilot, "w1", NEW)
        await pilot.press("space")
        assert "c calibrates now" in await until(pilot, "calibrat")
        await pilot.press("c")
        await until(pilot, "taken. w writes them")
        assert app.room.busy
        await pilot.press("w")
        await until(pilot, "Calibrated on")
        assert not app.room.busy
        assert opened("w1").desk.calibrations

        await pilot.press("space")
        assert "2 of 2 taken" in await until(pilot, "taken. w writes them")
        assert app.screen.query_one(BigWord).word == "DONE"
        assert app.screen.query_one(HandView).display
        assert said(app).count("✓ good") == 2
        assert opened("w1").desk.store.held().of(NEW) == ()
        await pilot.press("w")
        await until(pilot, "Kept.")
        assert len(opened("w1").desk.store.held().of(NEW)) == 2
        assert "2 repetitions, they decide" in said(app)

        await pilot.press("t")
        assert " right. t tests again" in await until(pilot, "right.")
        await pilot.press("u")
        await until(pilot, "undo:")
        assert opened("w1").desk.store.held().of(NEW) == ()
    spool = Spool(tmp_path / "spool.db", 1 << 30)
    try:
        # Three recordings and three entries of the journal wait for the agent.
        assert spool.backlog().items > 6
    finally:
        spool.close()


async def test_cancel_keeps_nothing_but_the_recording(known):
    before = known("w1").desk.store.held().of(SEEN[0])
    app = OneRoom(known)
    async with app.run_test(size=(80, 24)) as pilot:
        await named(pilot, "w1", SEEN[0], 1)
        await pilot.press("space")
        await until(pilot, "taken. w writes them")
        await pilot.press("n")
        assert "First w writes" in advice(app)
        await pilot.press("escape")
        assert "Nothing was kept" in advice(app)
        assert known("w1").desk.store.held().of(SEEN[0]) == before


async def test_space_stops_in_good_order(known, made, tmp_path):
    slow = EdgeSettings(state_dir=tmp_path, name="edge-1")
    app = OneRoom(lambda who: Bench(slow, who, made, Acted(WEARER, speed=1.0), SystemClock()))
    async with app.run_test(size=(100, 30)) as pilot:
        await named(pilot, "w1", NEW)
        await pilot.press("space")
        await until(pilot, "space stops")
        assert "is being led" in app.room.busy
        await pilot.press("space")
        assert "Nothing was taken" in await until(pilot, "Nothing was taken")
        assert app.screen.query_one(BigWord).word == "STOPPED"


async def test_a_band_that_is_not_there_is_said_with_the_next_step(known, monkeypatch):
    bench = known("w1")

    async def lost(*_, **__):
        raise DeviceError("the band does not advertise", hint="Wake it, then press space.")

    app = OneRoom(lambda who: bench)
    async with app.run_test(size=(80, 24)) as pilot:
        await named(pilot, "w1", NEW)
        monkeypatch.setattr(bench, "lead", lost)
        await pilot.press("space")
        assert await until(pilot, "advertise") == "✕ the band does not advertise. Wake it, then press space."
        assert not app.room.busy


async def test_without_an_edge_it_says_what_is_missing():
    app = OneRoom(None, "No edge is set up here.")
    async with app.run_test(size=(80, 24)) as pilot:
        assert advice(app) == "✕ No edge is set up here."
        await pilot.press("space")
        assert advice(app) == "✕ No edge is set up here."
