"""The Collect room: whole sessions with keys alone, and every state in which something is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from textual.widgets import Input

from embridge_edge.collect.consent import ConsentSeen, Standing
from embridge_edge.collect.setup import Setup
from embridge_edge.collect.steps import State
from embridge_edge.collect.virtual import VirtualSource
from embridge_edge.forearm import Manner
from embridge_shared.session import Marker, Repetition, RepetitionStatus, SessionClosed
from embridge_tui.screens.collect import Stage
from embridge_tui.screens.collect_dialogs import LostDialog, TextDialog
from embridge_tui.widgets.bigword import BigWord
from support.collect import FrailBand, events_of, samples_of, settings, take_of
from support.collect_room import PROTOCOL, Bench, advice, begin, bench, fill, shown, until, word

SIZES = [(80, 24), (100, 30), (150, 44)]
ONE_OF_THREE = [(80, 24), *(pytest.param(size, marks=pytest.mark.faults) for size in SIZES[1:])]
"""Whole sessions take seconds: the smallest screen in every run, the others with the long runs."""


@pytest.fixture(autouse=True)
def no_idling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A band that streams never lets the process idle, which every key would wait a second for."""

    async def at_once(min_sleep: float = 0.0, max_sleep: float = 0.0) -> None:
        await asyncio.sleep(0.01)

    monkeypatch.setattr("textual.app.wait_for_idle", at_once)
    monkeypatch.setattr("textual.pilot.wait_for_idle", at_once)


@pytest.fixture
def wear(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[FrailBand]]:
    """Bands that sessions and looks are made with, in the order they are opened: a look comes first."""

    def with_how(**how: Any) -> list[FrailBand]:
        bands: list[FrailBand] = []
        speed = how.pop("speed", 6.0)
        looked = how.pop("looked", {})

        def opened(self: Setup, clock: Any, _: Any) -> Any:
            source = VirtualSource(wearer=3, speed=speed)
            bands.append(FrailBand(source, clock, **(how if len(bands) % 2 else looked)))
            return take_of(bands[-1])

        monkeypatch.setattr(Setup, "open", opened)
        return bands

    return with_how


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every word that was shown large, in order; some stand for a moment only."""
    words: list[str] = []
    say = BigWord.say

    def heard(self: BigWord, word: str) -> None:
        if self.id == "word" and word != self.word:
            words.append(word)
        say(self, word)

    monkeypatch.setattr(BigWord, "say", heard)
    return words


@pytest.mark.parametrize("size", ONE_OF_THREE)
async def test_a_session_with_keys_alone(tmp_path: Path, wear, spoken, size) -> None:
    bands = wear()
    app = bench(tmp_path)
    async with app.run_test(size=size) as pilot:
        await fill(pilot, tmp_path)
        await until(pilot, lambda: "16/16" in shown(app))
        for words in ("electrodes", "consent", "storage", "device"):
            assert words in shown(app)
        await begin(pilot)
        await until(pilot, lambda: "HOLD" in spoken)
        await pilot.press("space")
        await until(pilot, lambda: word(app) == "PAUSED")
        for words in ("█", "rep 1 / 1", "queue", "stored"):
            await until(pilot, lambda words=words: words in shown(app))
        await pilot.press("space")
        await until(pilot, lambda: app.room.stage is Stage.REVIEW)
        await until(pilot, lambda: "Everything was done" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.room._report is not None)
        await until(pilot, lambda: "2 of 2 repetitions accepted" in shown(app))
        assert "the cloud is away" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.room.stage is Stage.FORM)
        assert app.room.query_one("#participant", Input).value == "p07"
    index, samples = samples_of(tmp_path / "edge", "p07_001_R_d1")
    np.testing.assert_array_equal(index, bands[1].truth()[0])
    np.testing.assert_array_equal(samples, bands[1].truth()[1])
    repetitions = [e for e in events_of(tmp_path / "edge", "p07_001_R_d1") if isinstance(e, Repetition)]
    assert [r.status for r in repetitions].count(RepetitionStatus.ACCEPTED) == 2
    # what stands for a moment only may fall between two pictures on a busy machine
    assert {"HOLD", "PAUSED"} <= set(spoken)


async def test_redo_marker_note_and_end_are_kept(tmp_path: Path, wear, spoken) -> None:
    wear(speed=2.0)
    app = bench(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await fill(pilot, tmp_path)
        await begin(pilot)
        await until(pilot, lambda: app.station.leader.conductor.state is State.HOLD)
        await pilot.press("backspace")
        await until(pilot, lambda: app.station.leader.rejected == 1)
        await pilot.press("m", "n")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        await pilot.press(*"cable", "enter", "ctrl+e")
        await until(pilot, lambda: "end the session?" in shown(app))
        await pilot.press("y")
        await until(pilot, lambda: app.room.stage is Stage.REVIEW)
        assert "left out" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.room._report is not None)
    events = events_of(tmp_path / "edge", "p07_001_R_d1")
    texts = [e.text for e in events if isinstance(e, Marker)]
    assert "marker" in texts
    assert "note: cable" in texts
    assert any("not done" in t for t in texts)
    rejected = [e.reason for e in events if isinstance(e, Repetition) and e.status is RepetitionStatus.REJECTED]
    assert rejected[0] == "operator: redo"


@pytest.mark.faults
async def test_a_bad_repetition_is_offered_again_and_can_be_taken(tmp_path: Path, wear) -> None:
    wear(manners=[Manner(reach=0.0)], speed=4.0)
    app = bench(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await fill(pilot, tmp_path)
        await begin(pilot)
        await until(pilot, lambda: app.station.leader.conductor.offers_redo)
        await until(pilot, lambda: "comes again" in shown(app))
        assert "no_activity" in shown(app) or "too_weak" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.station.leader.conductor.outcomes)
    texts = [e.text for e in events_of(tmp_path / "edge", "p07_001_R_d1") if isinstance(e, Marker)]
    assert any(t.startswith("accepted by the operator although") for t in texts)


@pytest.mark.parametrize("size", ONE_OF_THREE)
async def test_a_lost_band_shows_and_comes_back(tmp_path: Path, wear, size) -> None:
    bands = wear(away=[(3.0, 2.0)], speed=4.0)
    app = bench(tmp_path)
    async with app.run_test(size=size) as pilot:
        await fill(pilot, tmp_path)
        await begin(pilot)
        await until(pilot, lambda: isinstance(app.screen, LostDialog))
        await until(pilot, lambda: "the file is kept" in shown(app))
        assert "comes again" in shown(app)
        await pilot.press("c")
        assert "looking for it now" in shown(app)
        assert word(app) == "LOST"
        bands[1].back.set()
        await until(pilot, lambda: app.screen is app.room)
        await until(pilot, lambda: app.room.stage is Stage.REVIEW)


@pytest.mark.faults
async def test_a_lost_band_can_end_the_session(tmp_path: Path, wear) -> None:
    bands = wear(away=[(3.0, 2.0)], speed=4.0)
    app = bench(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await fill(pilot, tmp_path)
        await begin(pilot)
        await until(pilot, lambda: isinstance(app.screen, LostDialog))
        await pilot.press("e")
        await until(pilot, lambda: app.room.stage is Stage.REVIEW)
        await pilot.press("enter")
        bands[1].back.set()
        await until(pilot, lambda: app.room._report is not None)
    assert any(isinstance(e, SessionClosed) for e in events_of(tmp_path / "edge", "p07_001_R_d1"))


@pytest.mark.faults
async def test_a_session_that_was_cut_off_goes_on(tmp_path: Path, wear) -> None:
    wear(speed=4.0)
    app = bench(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await fill(pilot, tmp_path)
        await begin(pilot)
        await until(pilot, lambda: app.station.leader.conductor.settled)
        assert "is being recorded" in app.room.busy
    again = bench(tmp_path)
    async with again.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "was interrupted with 1 done" in advice(again))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: again.room.stage is Stage.RUN and again.station.leader is not None)
        await until(pilot, lambda: again.station.leader.conductor.state is State.READY)
        assert again.station.leader.conductor.left == 1
        await pilot.press("space")
        await until(pilot, lambda: again.room.stage is Stage.REVIEW)
        await pilot.press("enter")
        await until(pilot, lambda: again.room._report is not None)
        assert again.room._report.accepted == 2


async def missing(_: str) -> ConsentSeen:
    return ConsentSeen(Standing.MISSING)


@pytest.mark.parametrize("size", SIZES)
async def test_nothing_begins_without_consent(tmp_path: Path, wear, size, monkeypatch) -> None:
    wear()
    monkeypatch.setattr(Setup, "simulated", property(lambda self: False))
    app = bench(tmp_path, consent=missing)
    async with app.run_test(size=size) as pilot:
        await fill(pilot, tmp_path)
        await until(pilot, lambda: "none of p07 is on record" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Not yet: consent" in advice(app))
        assert app.station.leader is None
        await pilot.press("escape")
        await until(pilot, lambda: app.room.stage is Stage.FORM)


async def test_a_disk_that_is_nearly_full_is_red_before(tmp_path: Path, wear) -> None:
    wear()
    app = bench(tmp_path, settings=settings(tmp_path / "edge", spool_max_bytes=1 << 20))
    async with app.run_test(size=(80, 24)) as pilot:
        await fill(pilot, tmp_path)
        await until(pilot, lambda: "the session takes about" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Not yet: storage" in advice(app))


async def test_a_band_that_is_not_there_says_so_and_is_looked_for_again(tmp_path: Path, wear) -> None:
    wear(looked={"dies_s": 0.0})
    app = bench(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await fill(pilot, tmp_path)
        await until(pilot, lambda: "lost for good" in shown(app))
        await pilot.press("c")
        await until(pilot, lambda: "16/16" in shown(app))


@pytest.mark.faults
async def test_a_full_spool_stops_and_tells_what_to_do(tmp_path: Path, wear, monkeypatch) -> None:
    wear()
    monkeypatch.setattr("embridge_edge.collect.preflight._SPARE_H", -1.0)
    app = bench(tmp_path, settings=settings(tmp_path / "edge", spool_max_bytes=1 << 20))
    long = PROTOCOL.replace("repetitions = 1", "repetitions = 30")
    async with app.run_test(size=(100, 30)) as pilot:
        (tmp_path / "quick.toml").write_text(long)
        await fill(pilot, tmp_path)
        await begin(pilot)
        await until(pilot, lambda: app.room.stage is Stage.FORM)
        await until(pilot, lambda: app.room._cut_off is not None)
        await until(pilot, lambda: "spool" in advice(app))


async def test_a_wrong_protocol_or_nobody_is_told_on_the_form(tmp_path: Path, wear) -> None:
    wear()
    app = bench(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.focused is not None)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "nobody is named" in advice(app))
        (tmp_path / "quick.toml").write_text('name = "x"')
        app.room.query_one("#participant", Input).value = "p07"
        app.room.query_one("#protocol", Input).value = str(tmp_path / "quick.toml")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: "missing required field" in advice(app))
        assert app.room.stage is Stage.FORM


async def test_without_an_edge_the_room_says_what_is_missing() -> None:
    app = Bench(None)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "install embridge[edge]" in shown(app)


async def test_what_was_typed_is_there_again(tmp_path: Path, wear) -> None:
    wear()
    app = bench(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await fill(pilot, tmp_path)
    kept = msgspec.json.decode((tmp_path / "edge" / "collect.json").read_bytes())
    assert kept["protocol"].endswith("quick.toml")
    assert "p07" not in str(kept)
