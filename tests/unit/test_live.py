"""Live decoding: streams on one grid, events once and in order whatever is cut off, and who is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest

from embridge_edge import lsl_out
from embridge_edge.decode.decision import CAUTIOUS, Decided, DecisionFeed, Sinks, decision_for
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.live import ACTIVITY, ANSWER, DECISIONS, STREAM, LiveDecoding, Outcome
from embridge_edge.source import Packet
from embridge_shared.decision import Decider, DecisionConfig, Evidence, OperatingPoint, activity_of
from embridge_shared.preprocess import WearerScale
from embridge_shared.release import Bundle, read_bundle
from embridge_shared.session import GestureChange, GestureDecoded, Participant, Session
from embridge_shared.signal import Chunk, Modality, StreamSpec
from support.bundles import C, G, T, make_bundle, parts

RATE_HZ = 1000.0
SPEC = StreamSpec(name="emg", modality=Modality.EMG, channels=tuple(f"e{i}" for i in range(C)), rate_hz=RATE_HZ)
CONFIG = DecisionConfig(
    temperature=0.02, rest_below=60, rest_above=90, otherwise=0.5, steady_s=0.05, onset_s=0.1, release_s=0.1, hold_s=0.4
)
PACKET = 100


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(make_bundle(tmp_path_factory.mktemp("release")))


def emg(*active: int | None, seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    """A second of each channel active, or of rest."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE_HZ)
    level = np.full((n * len(active), C), 10.0)
    for i, channel in enumerate(active):
        if channel is not None:
            level[i * n : (i + 1) * n, channel] = 800.0
    return (rng.normal(size=level.shape) * level).astype(np.int16)


COURSE = emg(None, 0, None, 1, None)


def begin(live: LiveDecoding, until: int = 0) -> LiveDecoding:
    session = Session(
        id=UUID(int=1),
        edge="edge-1",
        participant=Participant(id="p1"),
        streams=(SPEC, *live.specs),
        started_ns=0,
        host_ns=0,
    )
    live.begin(session, 1, until)
    return live


def new(bundle: Bundle, until: int = 0, **more: Any) -> LiveDecoding:
    return begin(LiveDecoding(StreamDecoder(Decoder(bundle), SPEC, WearerScale.identity(C)), CONFIG, **more), until)


def packets(raw: np.ndarray, lost: range = range(0)) -> list[Packet]:
    return [
        Packet(a, raw[a : a + PACKET], round((a + PACKET) / RATE_HZ * 1e9))
        for a in range(0, len(raw), PACKET)
        if a not in lost
    ]


def time_ns(index: int) -> int:
    return round(index / RATE_HZ * 1e9)


async def played(live: LiveDecoding, given: list[Packet], *, end: bool = True) -> list[Outcome]:
    out = [await live.push(p, time_ns) for p in given]
    return [*out, live.finish()] if end else out


def events(outcomes: list[Outcome]) -> list[GestureDecoded]:
    return [e for o in outcomes for e in o.events]


def stream(outcomes: list[Outcome], ordinal: int) -> tuple[np.ndarray, np.ndarray]:
    chunks: list[Chunk] = [c for o in outcomes for c in o.chunks if c.stream == ordinal]
    return np.concatenate([np.arange(c.first, c.end) for c in chunks]), np.concatenate([c.samples for c in chunks])


async def test_scores_and_decisions_are_two_streams_on_one_grid(bundle: Bundle) -> None:
    live = new(bundle)
    outcomes = await played(live, packets(COURSE))
    assert [s.name for s in live.specs] == [STREAM, DECISIONS]
    assert live.specs[1].channels == (ANSWER, ACTIVITY, "g0", "g1", "g2")
    (at, scores), (index, rows) = stream(outcomes, 1), stream(outcomes, 2)
    np.testing.assert_array_equal(at, np.arange(live.until))
    np.testing.assert_array_equal(index, at)
    assert scores.shape[1] == G
    np.testing.assert_allclose(rows[:, 2:].sum(axis=1), 1, atol=1e-5)

    decider = Decider(CONFIG, ("g0", "g1", "g2"), 0.05)
    again = StreamDecoder(Decoder(bundle), SPEC, WearerScale.identity(C))
    said = [decider.push(r.evidence).label for r in again.push(COURSE)]
    names = {-1: "rest", -2: "unknown", 0: "g0", 1: "g1", 2: "g2"}
    assert [names[int(a)] for a in rows[:, 0]] == said
    assert {"rest", "g0", "g1"} <= set(said)


async def test_gestures_are_told_with_the_window_that_decided(bundle: Bundle) -> None:
    outcomes = await played(new(bundle), packets(COURSE))
    found = events(outcomes)
    assert [(e.change.value, e.gesture) for e in found] == [
        (c, g) for g in ("g0", "g1") for c in ("onset", "hold", "release")
    ]
    index, rows = stream(outcomes, 2)
    for e in found:
        row = rows[list(index).index(e.number)]
        answers = row[0] == int(e.gesture[1])
        assert answers == (e.change is not GestureChange.RELEASE)
        assert e.t_ns == pytest.approx((T + 5 * e.number) * 1e7, abs=1.1e7)
    for o in outcomes:
        # kept together or not at all
        assert all(any(c.stream == 2 and c.end == e.number + 1 for c in o.chunks) for e in o.events)


@pytest.mark.parametrize("crash_after", [3, 14, 16, 19, 24, 37, 49])
async def test_a_session_cut_off_goes_on_without_an_event_twice_or_missing(bundle: Bundle, crash_after: int) -> None:
    whole = await played(new(bundle), packets(COURSE))
    before = await played(new(bundle), packets(COURSE)[:crash_after], end=False)
    stored = max((c.end for o in before for c in o.chunks), default=0)
    told: list[Decided] = []
    sinks = Sinks()
    sinks.add(_Kept(told))
    after = await played(new(bundle, stored, sinks=sinks), packets(COURSE))
    assert events(before) + events(after) == events(whole)
    both = [*before, *after]
    for ordinal in (1, 2):
        for a, b in zip(stream(both, ordinal), stream(whole, ordinal), strict=True):
            np.testing.assert_array_equal(a, b)
    assert all(d.number >= stored for d in told)


async def test_a_gap_ends_what_was_on_and_decides_anew(bundle: Bundle) -> None:
    raw = emg(None, 0, 0, 0, None)
    lost = range(1800, 2400)
    live = new(bundle)
    outcomes = await played(live, packets(raw, lost))
    found = events(outcomes)
    assert [(e.change.value, e.gesture) for e in found] == [
        ("onset", "g0"), ("hold", "g0"), ("release", "g0"), ("onset", "g0"), ("hold", "g0"), ("release", "g0"),
    ]  # fmt: skip
    assert found[2].t_ns < 1.8e9 < 2.4e9 < found[3].t_ns
    index, _ = stream(outcomes, 2)
    assert len(index) < live.until
    gaps = [c.gap_before for o in outcomes for c in o.chunks if c.stream == 2 and c.gap_before]
    assert gaps == [live.until - len(index)]

    for crash_after in range(15, 30):
        before = await played(new(bundle), packets(raw, lost)[:crash_after], end=False)
        stored = max((c.end for o in before for c in o.chunks), default=0)
        after = await played(new(bundle, stored), packets(raw, lost))
        assert events(before) + events(after) == found


async def test_the_end_of_a_session_ends_what_is_on(bundle: Bundle) -> None:
    told: list[Decided] = []
    kept = _Kept(told)
    sinks = Sinks()
    sinks.add(kept)
    outcomes = await played(new(bundle, sinks=sinks), packets(emg(None, 0)))
    assert events(outcomes)[-1].change is GestureChange.RELEASE
    assert [e.kind for e in kept.over[0].decision.events] == [GestureChange.RELEASE]
    assert kept.over[0].decision.label == "rest"


async def test_a_model_of_the_wearer_gives_the_evidence_and_its_own_labels(bundle: Bundle) -> None:
    source = _Own()
    decoder = StreamDecoder(Decoder(bundle), SPEC, WearerScale.identity(C), source=source)
    live = begin(LiveDecoding(decoder, msgspec.structs.replace(CONFIG, temperature=1.0)))
    assert live.specs[0].channels == ("g0", "g1", "g2")
    assert live.specs[1].channels[2:] == ("mine", "yours")
    outcomes = await played(live, packets(COURSE))
    assert {e.gesture for e in events(outcomes)} == {"mine"}
    assert source.shapes == {(T, C)}


async def test_without_a_decision_only_scores_are_recorded(bundle: Bundle) -> None:
    live = begin(LiveDecoding(StreamDecoder(Decoder(bundle), SPEC, WearerScale.identity(C))))
    outcomes = await played(live, packets(COURSE))
    assert [s.name for s in live.specs] == [STREAM]
    assert {c.stream for o in outcomes for c in o.chunks} == {1}
    assert not events(outcomes)
    np.testing.assert_array_equal(stream(outcomes, 1)[0], np.arange(live.until))
    assert {c.t0_ns > 0 for o in outcomes for c in o.chunks} == {True}


async def test_a_reader_that_falls_behind_loses_hops_before_events(bundle: Bundle) -> None:
    sinks, all_of_it, changes, small = Sinks(), DecisionFeed(), DecisionFeed(events_only=True), DecisionFeed(kept=8)
    for sink in (_Broken(), all_of_it, changes, small):
        sinks.add(sink)
    live = new(bundle, sinks=sinks)
    await played(live, packets(COURSE))
    sinks.remove(all_of_it)
    sinks.remove(all_of_it)
    for feed in (all_of_it, changes, small):
        feed.close()
    read = [d async for d in all_of_it]
    assert [d.number for d in read] == list(range(live.until))
    assert [e.kind.value for d in [d async for d in changes] for e in d.decision.events] == [
        "onset",
        "hold",
        "release",
    ] * 2
    left = [d async for d in small]
    assert len(left) == 8
    assert sum(bool(d.decision.events) for d in left) == 6
    assert small.dropped == live.until - 8


async def test_a_feed_waits_for_what_is_decided(bundle: Bundle) -> None:
    feed = DecisionFeed(events_only=True)
    sinks = Sinks()
    sinks.add(feed)

    async def first() -> str:
        async for d in feed:
            return d.decision.events[0].label
        return ""

    reading = asyncio.create_task(first())
    await played(new(bundle, sinks=sinks), packets(COURSE))
    assert await asyncio.wait_for(reading, 1) == "g0"


def test_every_kind_of_stream_has_a_type_for_lsl() -> None:
    assert set(lsl_out._TYPES) == set(Modality)


def test_thresholds_for_another_target(caplog: pytest.LogCaptureFixture) -> None:
    loose, strict = (
        OperatingPoint(target_per_hour=t, accept={"g0": p}, otherwise=p) for t, p in ((60.0, 0.5), (6.0, 0.9))
    )
    fitted = DecisionConfig(target_per_hour=6.0, accept={"g0": 0.9}, otherwise=0.9, points=(loose, strict))
    manifest, _ = parts(decision=fitted)
    assert decision_for(manifest) is fitted
    asked = decision_for(manifest, target_per_hour=80.0)
    assert asked is not None
    assert (asked.target_per_hour, asked.accept, asked.otherwise) == (60.0, {"g0": 0.5}, 0.5)
    assert decision_for(manifest, wearer=True) is CAUTIOUS
    assert decision_for(manifest, wearer=True, target_per_hour=1.0) is CAUTIOUS
    assert "thresholds for" in caplog.text
    assert decision_for(parts()[0]) is None


def test_decisions_travel_in_a_release_and_older_ones_stay_readable(tmp_path: Path) -> None:
    fitted = DecisionConfig(accept={"g0": 0.9}, novelty=2.0)
    found = read_bundle(make_bundle(tmp_path, decision=fitted, wearer_decision=fitted)).manifest
    assert found.decision == found.wearer_decision == fitted
    plain = make_bundle(tmp_path, version=2).read_bytes()
    assert b"decision" not in plain


class _Kept:
    def __init__(self, told: list[Decided]) -> None:
        self.told = told
        self.over: list[Decided] = []

    def decided(self, decided: Decided) -> None:
        self.told.append(decided)

    def ended(self, decided: Decided) -> None:
        self.over.append(decided)


class _Broken:
    def decided(self, decided: Decided) -> None:
        raise RuntimeError("no")

    def ended(self, decided: Decided) -> None:
        raise RuntimeError("no")


class _Own:
    labels = ("mine", "yours")

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def evidence(self, window: np.ndarray, end: int) -> Evidence:
        self.shapes.add(window.shape)
        return Evidence(end, np.array([5.0, 0.0]), activity_of(window, 100.0))
