"""Conducted sessions to the cloud's store: from the keys of an operator to what is sealed, kills included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge.collect.setup import Setup
from embridge_edge.collect.virtual import VirtualSource
from embridge_shared.session import CueShown, Marker, RepetitionStatus, SessionClosed, Split
from embridge_tui.screens.collect import Stage
from support.collect import FrailBand, settings, take_of
from support.collect_room import begin, bench, fill, shown
from support.collect_room import until as until_shown
from support.loop import Loop, until

PROTOCOL = """
name = "quick"
version = 3
split = "train"
gestures = ["fist", "open", "point"]
repetitions = 2
[timing]
prepare_s = 1.0
hold_s = 1.5
rest_s = 1.2
"""


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: Any) -> Iterator[Loop]:
    made = Loop(tmp_path, own_mosquitto.port)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_idling(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(min_sleep: float = 0.0, max_sleep: float = 0.0) -> None:
        await asyncio.sleep(0.01)

    monkeypatch.setattr("textual.app.wait_for_idle", at_once)
    monkeypatch.setattr("textual.pilot.wait_for_idle", at_once)


async def test_a_session_led_with_keys_is_sealed_sample_exact(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands: list[FrailBand] = []

    def opened(self: Setup, clock: Any, _: Any) -> Any:
        bands.append(FrailBand(VirtualSource(wearer=3, speed=5.0), clock, away=[(4.0, 1.5)] if bands else []))
        return take_of(bands[-1])

    async def lose_and_find() -> None:
        while len(bands) < 2 or bands[1].state().phase != "reconnecting":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        bands[1].back.set()

    monkeypatch.setattr(Setup, "open", opened)
    await asyncio.to_thread(loop.start_cloud)
    app = bench(tmp_path, settings=settings(tmp_path / "edge", port=loop.port))
    losing = asyncio.create_task(lose_and_find())
    async with app.run_test(size=(80, 24)) as pilot:
        await fill(pilot, tmp_path)
        await begin(pilot)
        await until_shown(pilot, lambda: app.room.stage is Stage.REVIEW, 60)
        await pilot.press("enter")
        await until_shown(pilot, lambda: "the cloud holds all of it" in shown(app), 60)
        assert app.room._report.accepted == 2
    await losing
    (sealed,) = loop.sealed()
    sealed.verify()
    found = sealed.samples("emg")
    index, values = bands[1].truth()
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.values, values)
    assert len(found.index) < index[-1] + 1 - 2000
    accepted = [r for r in sealed.repetitions() if r.status is RepetitionStatus.ACCEPTED]
    assert sorted((r.gesture, r.repetition) for r in accepted) == [("fist", 1), ("open", 1)]
    texts = [e.event.text for e in sealed.events() if isinstance(e.event, Marker)]
    assert any(t.startswith("band back") for t in texts)


@pytest.mark.faults
def test_a_session_that_is_killed_goes_on_at_the_same_repetition(loop: Loop) -> None:
    loop.start_cloud()
    (loop.folder / "quick.toml").write_text(PROTOCOL)
    record = ("session", "record", "--yes", "--state-dir", "edge-1", "--json", "--wait", "30")
    first = (*record, "--protocol", "quick.toml", "--participant", "p07", "--band", "virtual:3", "--speed", "4")
    loop.start("edge-1", *first)
    until(lambda: loop.log("edge-1").count("✓") == 2, 60)
    loop.kill("edge-1")
    listed = loop.run("session", "finish", "--list", "--state-dir", "edge-1")
    assert listed.stdout.startswith("p07_001_R_d1\tp07\tquick/3\t2 done")
    done = loop.run(*record, "--resume", "p07_001_R_d1", timeout_s=90)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["accepted"], report["asked"], report["skipped"]) == (6, 6, 0)
    assert "verified and sealed" in done.stderr
    (sealed,) = loop.sealed()
    sealed.verify()
    assert sealed.session.split is Split.TRAIN
    assert sealed.session.protocol == "quick/3"
    accepted = [(r.gesture, r.repetition) for r in sealed.repetitions() if r.status is RepetitionStatus.ACCEPTED]
    assert sorted(accepted) == sorted((g, n) for g in ("fist", "open", "point") for n in (1, 2))
    events = [e.event for e in sealed.events()]
    assert "recording goes on after an interruption" in [e.text for e in events if isinstance(e, Marker)]
    assert len([e for e in events if isinstance(e, CueShown)]) >= 6
    assert isinstance(events[-1], SessionClosed)
    index = sealed.samples("emg").index
    assert (np.diff(index) > 0).all()


def test_nobody_at_the_keyboard_and_a_preflight_that_fails_are_told(loop: Loop) -> None:
    record = ("session", "record", "--protocol", "first-look", "--participant", "p07")
    asked = loop.run(*record, "--band", "virtual")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    none = loop.run("session", "record", "--yes")
    assert "--protocol first-look" in none.stderr
    full = loop.run(*record, "--band", "virtual", "--speed", "0", "--yes", EMBRIDGE_EDGE__SPOOL_MAX_BYTES=str(1 << 20))
    assert "the preflight does not pass: storage" in full.stderr
    assert full.returncode == 2
