"""Whole conducted sessions in this process: what the operator did is in the session, and not a sample is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embridge_edge.collect.protocol import Demands, Stretches
from embridge_edge.collect.report import Collected
from embridge_edge.collect.setup import Setup
from embridge_edge.collect.steps import Entered, Held, State
from embridge_edge.collect.virtual import VirtualSource
from embridge_edge.erasures import erase
from embridge_edge.forearm import Manner
from embridge_edge.spool import Spool
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, OperatorError, Reason
from embridge_shared.session import CueShown, Marker, Repetition, RepetitionStatus, SessionClosed, SessionOpened, Split
from support.collect import (
    QUICK,
    FrailBand,
    conducted,
    events_of,
    samples_of,
    settings,
    setup,
    station,
    take_of,
    when,
)


def wear(monkeypatch: pytest.MonkeyPatch, **how) -> list[FrailBand]:
    """Every session is recorded with a band like this; the bands, as they are opened."""
    bands: list[FrailBand] = []

    def opened(self: Setup, clock, _):
        bands.append(FrailBand(self.source, clock, **(how if not bands else {})))
        return take_of(bands[-1])

    monkeypatch.setattr(Setup, "open", opened)
    return bands


def attempts(made) -> int:
    return 0 if made.leader is None else made.leader.conductor.attempts


def of(kind, events):
    return [e for e in events if isinstance(e, kind)]


async def test_a_session_holds_every_sample_cue_and_repetition(tmp_path: Path, monkeypatch) -> None:
    bands = wear(monkeypatch)
    seen = []
    protocol = msgspec.structs.replace(QUICK, stretches=Stretches(rest_s=2.0, free_s=2.0), split=Split.TRAIN)
    async with station(tmp_path) as made:
        made.taps.append(lambda ordinal, packet: seen.append((ordinal, packet.first)))
        report, operator = await conducted(made, setup(protocol=protocol, split=Split.TRAIN), reasons=("rained",))
    assert isinstance(report, Collected)
    assert (report.accepted, report.rejected, report.skipped, report.asked) == (4, 0, 0, 4)
    index, samples = samples_of(tmp_path, "p07_001_R_d1")
    sent_index, sent = bands[0].truth()
    np.testing.assert_array_equal(index, sent_index)
    np.testing.assert_array_equal(samples, sent)
    assert len(seen) == len(bands[0].sent)
    assert report.payload_bytes > 10_000
    events = events_of(tmp_path, "p07_001_R_d1")
    (opened,) = of(SessionOpened, events)
    assert opened.session.split is Split.TRAIN
    assert opened.session.placement.donning == 1
    assert opened.session.protocol == "quick/1"
    cues, repetitions = of(CueShown, events), of(Repetition, events)
    assert Counter(c.gesture for c in cues) == {"fist": 2, "open": 2, "rest": 1, "unknown": 1}
    assert [r.status for r in repetitions] == [RepetitionStatus.ACCEPTED] * 4
    for r in repetitions:
        (cue,) = [c for c in cues if (c.gesture, c.repetition) == (r.gesture, r.repetition)]
        assert (cue.end_ns - cue.start_ns) * 1e-9 == pytest.approx(1.5, abs=0.01)
        # a person is asked, reacts, and lets go after the word
        assert 0.2e9 < r.start_ns - cue.start_ns < 0.9e9
        assert 0.1e9 < r.end_ns - cue.end_ns < 1.1e9
    assert "rained" in [m.text for m in of(Marker, events)]
    assert of(SessionClosed, events)[0].reason == "complete"
    assert operator.states[-1] is State.DONE
    kept = msgspec.json.decode((tmp_path / "digests" / "p07_001_R_d1.collected.json").read_bytes(), type=Collected)
    assert kept == report
    assert any("4 of 4" in line for line in report.lines())


async def test_bad_repetitions_come_again_and_stay_with_their_reason(tmp_path: Path, monkeypatch) -> None:
    wear(monkeypatch, manners=[Manner(reach=0.0), Manner(hold_s=0.05), Manner()])
    async with station(tmp_path) as made:
        report, _ = await conducted(made, setup())
    repetitions = of(Repetition, events_of(tmp_path, "p07_001_R_d1"))
    first = [r for r in repetitions if r.gesture == repetitions[0].gesture and r.repetition == 1]
    assert [r.status.value for r in first] == ["rejected", "rejected", "accepted"]
    assert first[0].reason.split(":")[0] in ("no_activity", "too_weak")
    assert first[1].reason.startswith("too_short")
    assert (report.accepted, report.rejected) == (4, 2)
    assert dict(report.why).keys() == {first[0].reason.split(":")[0], "too_short"}


async def test_what_the_operator_presses_is_in_the_session(tmp_path: Path, monkeypatch) -> None:
    wear(monkeypatch, manners=[Manner(reach=0.0)])
    keys = {
        # the first is bad and taken all the same, the second is taken back, the third left out
        State.COUNTDOWN: [
            None,
            lambda at, now: at.accept(now),
            None,
            lambda at, now: at.redo(now),
            None,
            lambda at, now: [*at.mark(now, "the phone rang"), *at.skip(now)],
        ],
        State.HOLD: [],
    }
    async with station(tmp_path) as made:
        report, _ = await conducted(made, setup(), keys=keys)
    events = events_of(tmp_path, "p07_001_R_d1")
    texts = [m.text for m in of(Marker, events)]
    assert any(t.startswith("accepted by the operator although ") for t in texts)
    assert "the phone rang" in texts
    assert any(t.startswith("skipped ") for t in texts)
    assert [r.reason for r in of(Repetition, events) if r.status is RepetitionStatus.REJECTED] == ["operator: redo"]
    assert (report.accepted, report.skipped, report.rejected) == (3, 1, 1)


async def test_a_lost_band_stops_the_prompts_not_the_file(tmp_path: Path, monkeypatch) -> None:
    bands = wear(monkeypatch, away=[(6.0, 2.5)])
    async with station(tmp_path) as made:

        async def back() -> None:
            await when(lambda: made.leader is not None and made.leader.conductor.state is State.LOST)
            assert made.vitals().state is State.LOST
            assert made.vitals().band.phase == "reconnecting"
            bands[0].back.set()

        waiting = asyncio.create_task(back())
        report, operator = await conducted(made, setup())
        await waiting
    assert State.LOST in operator.states
    assert report.accepted == 4
    assert report.streams[0].lost == pytest.approx(2.5 * 2000, abs=80)
    index, samples = samples_of(tmp_path, "p07_001_R_d1")
    np.testing.assert_array_equal(index, bands[0].truth()[0])
    np.testing.assert_array_equal(samples, bands[0].truth()[1])
    texts = [m.text for m in of(Marker, events_of(tmp_path, "p07_001_R_d1"))]
    assert "band lost: reconnecting" in texts
    assert any(t.startswith("band back, goes on with ") for t in texts)


async def test_a_band_that_is_gone_for_good_ends_a_session_in_order(tmp_path: Path, monkeypatch) -> None:
    wear(monkeypatch, dies_s=8.0)
    async with station(tmp_path) as made:
        report, _ = await conducted(made, setup())
        assert made.leader is None
    assert report.reason.startswith("device lost")
    assert report.accepted + report.skipped == 4
    events = events_of(tmp_path, "p07_001_R_d1")
    assert isinstance(events[-1], SessionClosed)
    assert all(r.end_ns >= r.start_ns for r in of(Repetition, events))


async def test_after_a_kill_the_same_repetition_comes_again_and_nothing_twice(tmp_path: Path, monkeypatch) -> None:
    bands = wear(monkeypatch)
    given = setup()
    async with station(tmp_path) as made:

        async def until_third() -> None:
            recording = asyncio.create_task(conducted(made, given))
            await when(lambda: attempts(made) >= 2 and made.leader.conductor.state is State.HOLD)
            recording.cancel()
            await asyncio.gather(recording, return_exceptions=True)

        await until_third()
    async with station(tmp_path) as made:
        (found,) = await made.interrupted()
        assert found.name == given.name
        assert found.journal.setup == given
        done = len(found.journal.outcomes)
        assert 1 <= done < 4
        assert found.name in await made.names()
        report, operator = await conducted(made, found.journal)
        assert not await made.interrupted()
    assert report.accepted == 4
    events = events_of(tmp_path, given.name)
    accepted = [(r.gesture, r.repetition) for r in of(Repetition, events) if r.status is RepetitionStatus.ACCEPTED]
    assert sorted(accepted) == sorted((g, n) for g in ("fist", "open") for n in (1, 2))
    assert len(of(SessionOpened, events)) == len(of(SessionClosed, events)) == 1
    assert "recording goes on after an interruption" in [m.text for m in of(Marker, events)]
    assert len([s for s in operator.steps if isinstance(s, Held)]) == 4 - done
    index, _ = samples_of(tmp_path, given.name)
    assert len(index) == len(set(index.tolist()))
    assert index[-1] == bands[1].truth()[0][-1]


async def test_an_interrupted_session_can_be_ended_instead(tmp_path: Path, monkeypatch) -> None:
    wear(monkeypatch)
    async with station(tmp_path) as made:
        recording = asyncio.create_task(conducted(made, setup()))
        await when(lambda: attempts(made))
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)
        assert await made.finish("p07_001_R_d1")
        assert not await made.finish("p07_001_R_d1")
        assert not await made.interrupted()
    closed = of(SessionClosed, events_of(tmp_path, "p07_001_R_d1"))
    assert [c.reason for c in closed] == ["interrupted: ended without the rest"]
    assert closed[0].totals[0] == samples_of(tmp_path, "p07_001_R_d1")[0][-1] + 1


async def test_a_full_spool_stops_the_recording_and_it_goes_on_later(tmp_path: Path, monkeypatch) -> None:
    wear(monkeypatch)
    small = settings(tmp_path, spool_max_bytes=1 << 20)
    long = msgspec.structs.replace(QUICK, repetitions=12)
    async with station(tmp_path, settings=small) as made:
        with pytest.raises(OperatorError) as caught:
            await conducted(made, setup(protocol=long))
        assert caught.value.reason is Reason.DISK_FULL
        assert made.leader is None
        (found,) = await made.interrupted()
    async with station(tmp_path) as made:
        report, _ = await conducted(made, found.journal)
    assert report.accepted == 24


async def test_one_session_at_a_time_and_names_are_free(tmp_path: Path, monkeypatch) -> None:
    wear(monkeypatch)
    async with station(tmp_path) as made:
        recording = asyncio.create_task(conducted(made, setup()))
        await when(lambda: made.leader is not None)
        with pytest.raises(OperatorError, match="is being recorded"):
            await conducted(made, setup("p07_002_R_d1"))
        await recording
        assert await made.free_name("p07", setup().placement) == "p07_002_R_d1"
        assert await made.free_name("p08", setup().placement) == "p08_001_R_d1"
        placed = setup(placement=msgspec.structs.replace(setup().placement, donning=3))
        with pytest.raises(ConfigError, match="there is no number 3"):
            await made.look(placed)


async def test_erasing_a_participant_leaves_no_journal(tmp_path: Path, monkeypatch) -> None:
    wear(monkeypatch)
    async with station(tmp_path) as made:
        recording = asyncio.create_task(conducted(made, setup()))
        await when(lambda: attempts(made))
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)
        await conducted(made, setup("p07_002_R_d1"))
    spool = Spool(tmp_path / "spool.db", 1 << 30)
    erase(spool, tmp_path, lambda who: who == "p07")
    spool.close()
    assert b"p07" not in (tmp_path / "spool.db").read_bytes()
    assert not list((tmp_path / "digests").glob("*"))


async def test_a_virtual_band_goes_on_where_the_time_is() -> None:
    clock = SystemClock()
    band = FrailBand(VirtualSource(speed=1.0), clock)
    await band.open(clock.monotonic_ns() - 3_000_000_000, first=2000)
    packet = await anext(band.packets())
    assert 5900 < packet.first < 8000
    assert packet.first % len(packet.samples) == 0
    await band.close()


async def test_three_bad_tries_wait_for_somebody(tmp_path: Path, monkeypatch) -> None:
    wear(monkeypatch, manners=[Manner(reach=0.0)] * 2)
    patient = msgspec.structs.replace(QUICK, demands=Demands(retries=2))
    async with station(tmp_path) as made:
        _, operator = await conducted(made, setup(protocol=patient))
    paused = [s.why for s in operator.steps if isinstance(s, Entered) and s.state is State.PAUSED]
    assert paused == ["2 tries in a row were bad: look at the band"]
