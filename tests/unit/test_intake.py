from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embridge_cloud.intake import Intake
from embridge_cloud.parcels import Incoming
from embridge_cloud.rounds import MAX_HOLES, stream_commits
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.ranges import CommittedRanges
from embridge_cloud.store.sealing import Sealer
from embridge_shared.session import Marker, SessionClosed, SessionOpened
from embridge_shared.signal import Chunk
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EdgeState, EventMessage, StreamCommit, pack
from embridge_shared.wire.topics import chunk_topic, event_topic, state_topic
from support.edges import EdgeSpool
from support.sessions import T0, assert_sealed_equals, emg_spec, pose_spec, record, session_of


class World:
    """A store and an intake, driven a round at a time."""

    def __init__(self, tmp_path):
        self.store = HotStore(tmp_path / "hot.duckdb", quarantine_max_bytes=1 << 20).open()
        self.sealer = Sealer(self.store, tmp_path / "sealed", wall_ns=lambda: T0)
        self.intake = Intake(self.store.read)

    def round(self, *messages):
        taken = self.intake.take([Incoming(t, p, T0) for t, p in messages])
        self.store.commit(taken.batch)
        return self.intake.committed(taken)

    def quarantine(self):
        rows = self.store.read.rows("SELECT reason, edge, session, stream, first FROM quarantine ORDER BY ALL")
        return [(reason, edge, stream, first) for reason, edge, _, stream, first in rows]

    def restart(self):
        self.store.reopen()
        self.intake = Intake(self.store.read)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def recording():
    return record(session_of(emg_spec(), pose_spec()), 3)


def chunk_message(session, chunk, *, edge=None, stream=None):
    name = stream or session.streams[chunk.stream].name
    return chunk_topic(edge or session.edge, session.id, name), codec.encode(chunk)


def opened(recording):
    return recording.event_message(0, recording.events[0])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_order_duplication_and_loss_ends_in_exactly_what_was_sent(tmp_path_factory, data):
    world = World(tmp_path_factory.mktemp("w"))
    recordings = [record(session_of(emg_spec(2), pose_spec(1), number=i), i, n_chunks=4) for i in range(2)]
    random = data.draw(st.randoms(use_true_random=False))
    spool = EdgeSpool(m for r in recordings for m in r.messages())
    rounds = 0
    while spool.items:
        rounds += 1
        everything = rounds > 8
        sent = [i for i in spool.items if everything or random.random() < 0.5]
        sent += [i for i in sent if random.random() < 0.3]
        random.shuffle(sent)
        reports = world.round(*((i.topic, i.payload) for i in sent))
        if not everything and random.random() < 0.2:
            world.restart()
        for edge, report in reports:
            assert edge == "edge-1"
            if everything or random.random() < 0.7:
                spool.settle(report)
        assert rounds < 14
    assert spool.refused == []
    while world.quarantine():
        world.round()
    assert set(world.intake.complete()) == {r.session.id for r in recordings}
    for r in recordings:
        assert_sealed_equals(world.sealer.seal(r.session.id), r)
    world.store.close()


def test_reports_say_what_is_there_and_what_is_awaited(world, recording):
    emg = recording.chunks[0]
    gapped = next(i for i, c in enumerate(emg) if c.gap_before)
    reports = world.round(opened(recording), *(chunk_message(recording.session, c) for c in emg if c is not emg[2]))
    ((edge, report),) = reports
    assert edge == "edge-1"
    assert gapped != 2
    assert report.streams == (
        StreamCommit(stream=-1, until=1),
        StreamCommit(stream=0, until=emg[-1].end, holes=((emg[2].first - emg[2].gap_before, emg[2].end),)),
    )
    ((_, report),) = world.round(chunk_message(recording.session, emg[2]))
    assert report.streams == (StreamCommit(stream=0, until=emg[-1].end),)
    assert world.intake.coverage() == [
        ("edge-1", msgspec.structs.replace(report, streams=(StreamCommit(stream=-1, until=1), *report.streams)))
    ]


def test_a_duplicate_is_acknowledged_again_and_not_stored_twice(world, recording):
    message = chunk_message(recording.session, recording.chunks[0][0])
    world.round(opened(recording), message, message)
    world.restart()
    ((_, report),) = world.round(message, message)
    assert report.streams[0].until == recording.chunks[0][0].end
    assert world.intake.counters.duplicates == 2
    assert world.store.read.rows("SELECT count(*) FROM chunks") == [(1,)]


def test_the_same_samples_in_another_codec_are_a_duplicate(world, recording):
    chunk = recording.chunks[0][0]
    other = (chunk_message(recording.session, chunk)[0], codec.encode(chunk, codec.RAW))
    world.round(opened(recording), chunk_message(recording.session, chunk))
    ((_, report),) = world.round(other)
    assert report.refused == ()
    assert report.streams[0].until == chunk.end
    ((_, report),) = world.round(other, other)
    assert report.refused == ()


def test_other_content_under_a_known_key_is_refused_and_kept(world, recording):
    chunk = recording.chunks[0][0]
    changed = replace(chunk, samples=chunk.samples + 1)
    world.round(opened(recording), chunk_message(recording.session, chunk))
    ((_, report),) = world.round(chunk_message(recording.session, changed))
    assert [(r.stream, r.first, r.reason) for r in report.refused] == [(0, chunk.first, "overlap")]
    assert report.streams == ()
    assert world.quarantine() == [("overlap", "edge-1", 0, chunk.first)]
    anchors = world.store.read.anchors(recording.session.id, 0)
    assert list(world.store.read.payloads(recording.session.id, 0, anchors)) == [codec.encode(chunk)]


@pytest.mark.parametrize("same_round", [True, False])
def test_a_partial_overlap_is_refused(world, recording, same_round):
    chunk = recording.chunks[0][0]
    shifted = Chunk(chunk.session, 0, chunk.first + 5, chunk.samples, chunk.t0_ns)
    first = [opened(recording), chunk_message(recording.session, chunk)]
    second = [chunk_message(recording.session, shifted)]
    rounds = [first + second] if same_round else [first, second]
    for messages in rounds:
        reports = world.round(*messages)
    ((_, report),) = reports
    assert [(r.first, r.reason) for r in report.refused] == [(5, "overlap")]


def test_chunks_before_their_session_wait_and_are_taken_in(world, recording):
    messages = recording.messages()
    early = [messages[2], messages[1], messages[-1]]
    assert world.round(*early, *early) == []
    assert world.round(*early) == []
    assert len(world.quarantine()) == 3
    world.restart()
    ((_, report),) = world.round(messages[0])
    assert report.refused == ()
    assert {c.stream for c in report.streams} == {-1, 0}
    assert world.quarantine() == []
    assert world.store.read.rows("SELECT count(*) FROM chunks") == [(2,)]
    for message in messages:
        world.round(message)
    assert_sealed_equals(world.sealer.seal(recording.session.id), recording)


def test_more_held_chunks_than_a_round_takes_are_taken_in_turn(world, monkeypatch):
    from embridge_cloud import intake

    monkeypatch.setattr(intake, "HELD_AT_ONCE", 4)
    recording = record(session_of(emg_spec(1)), 1, n_chunks=11)
    world.round(*recording.messages()[1:])
    taken = world.intake.take([Incoming(*opened(recording), T0)])
    assert taken.more
    world.store.commit(taken.batch)
    world.intake.committed(taken)
    world.restart()
    rounds = 0
    while world.quarantine():
        world.round()
        rounds += 1
    assert rounds == 3
    assert_sealed_equals(world.sealer.seal(recording.session.id), recording)


def test_held_chunks_of_the_wrong_edge_are_refused_when_the_session_opens(world, recording):
    chunk = recording.chunks[0][0]
    assert world.round(chunk_message(recording.session, chunk, edge="intruder")) == []
    reports = dict(world.round(opened(recording)))
    assert [r.reason for r in reports["intruder"].refused] == ["wrong_edge"]
    assert reports["intruder"].streams == ()
    assert reports["edge-1"].streams == (StreamCommit(stream=-1, until=1),)
    assert world.quarantine() == [("wrong_edge", "intruder", 0, 0)]


def test_an_edge_learns_nothing_of_anothers_session(world, recording):
    chunk = recording.chunks[0][0]
    world.round(opened(recording), chunk_message(recording.session, chunk))
    ((edge, report),) = world.round(chunk_message(recording.session, chunk, edge="intruder"))
    assert edge == "intruder"
    assert report.streams == ()
    assert not report.sealed
    assert [r.reason for r in report.refused] == ["wrong_edge"]


@pytest.mark.parametrize(
    ("change", "stream", "reason"),
    [
        (lambda c: replace(c, stream=7), None, "unknown_stream"),
        (lambda c: c, "pose", "unknown_stream"),
        (lambda c: replace(c, samples=c.samples[:, :2]), None, "wrong_shape"),
        (lambda c: replace(c, samples=c.samples.astype("<i4")), None, "wrong_shape"),
    ],
)
def test_what_does_not_fit_the_stream_is_refused_and_disturbs_nobody(world, recording, change, stream, reason):
    good, bad = recording.chunks[0][:2]
    message = chunk_message(recording.session, change(bad), stream=stream or "emg")
    ((_, report),) = world.round(message, opened(recording), message, chunk_message(recording.session, good))
    assert {r.reason for r in report.refused} == {reason}
    assert report.streams[-1] == StreamCommit(stream=0, until=good.end)
    assert [q[0] for q in world.quarantine()] == [reason]


def test_payloads_that_cannot_be_trusted_are_kept_and_nobody_is_told(world, recording):
    topic, payload = chunk_message(recording.session, recording.chunks[0][0])
    flipped = bytearray(payload)
    flipped[100] ^= 1
    liar = bytearray(payload)
    liar[28:32] = (2**31).to_bytes(4, "little")
    bad = [
        (topic, payload[:40]),
        (topic, payload[:-3]),
        (topic, b"temperature 21"),
        (topic, bytes(flipped)),
        (topic, bytes(liar)),
        (topic, b""),
        ("embridge/v1/up/1/nobody/x/emg", payload),
        ("embridge/v1/event/0/é/x", b"\x80"),
        (event_topic("edge-1", recording.session.id), b"\xc1"),
        (event_topic("edge-1", recording.session.id), payload),
        (state_topic("edge-1"), pack(EdgeState(edge="edge-2", online=True))),
        (state_topic("edge-1"), b"junk"),
    ]
    ((_, report),) = world.round(*bad, opened(recording), *bad, (topic, payload))
    assert report.refused == ()
    assert [c.stream for c in report.streams] == [-1, 0]
    assert len(world.quarantine()) == len(bad)
    assert world.intake.counters.foreign == 2 * len(bad)
    assert {q[0] for q in world.quarantine()} == {"truncated", "foreign", "checksum", "malformed"}


def test_a_valid_checksum_over_a_lying_sample_count_is_caught(world, recording):
    import zlib

    topic, payload = chunk_message(recording.session, recording.chunks[0][0])
    for at, value, size in ((28, 50_000, 4), (28, 3, 4), (32, 2**64 - 1, 8), (32, 2**63 - 5, 8)):
        liar = bytearray(payload)
        liar[at : at + size] = value.to_bytes(size, "little")
        liar[60:64] = zlib.crc32(liar[64:], zlib.crc32(liar[:60])).to_bytes(4, "little")
        world.round(opened(recording), (topic, bytes(liar)))
    assert {q[0] for q in world.quarantine()} <= {"sample_count", "malformed"}
    assert len(world.quarantine()) == 4
    assert world.store.read.rows("SELECT count(*) FROM chunks") == [(0,)]


def event(recording, seq, body, **kw):
    message = EventMessage(session=kw.get("session", recording.session.id), seq=seq, event=body)
    return event_topic(kw.get("edge", "edge-1"), recording.session.id), pack(message)


def test_events_that_cannot_be(world, recording):
    session = recording.session
    infinite = msgspec.structs.replace(session, streams=(msgspec.structs.replace(session.streams[0], scale=np.inf),))
    twins = msgspec.structs.replace(session, streams=(session.streams[0],) * 2)
    stranger = msgspec.structs.replace(session, edge="edge-9")
    other = msgspec.structs.replace(session, id=UUID(int=1))
    cases = [
        (event(recording, 0, Marker(text="first", t_ns=0)), "malformed"),
        (event(recording, 3, SessionOpened(session=session)), "malformed"),
        (event(recording, 0, SessionOpened(session=infinite)), "malformed"),
        (event(recording, 0, SessionOpened(session=twins)), "malformed"),
        (event(recording, 0, SessionOpened(session=other)), "malformed"),
        (event(recording, 0, SessionOpened(session=stranger)), "wrong_edge"),
        (event(recording, 1, Marker(text="x", t_ns=2**64 - 1)), "malformed"),
    ]
    for message, reason in cases:
        ((_, report),) = world.round(message)
        assert [r.reason for r in report.refused] == [reason]
    world.round(opened(recording))
    later = [
        (
            event(recording, 0, SessionOpened(session=msgspec.structs.replace(session, purpose="calibration"))),
            "overlap",
        ),
        (event(recording, 2, SessionClosed(t_ns=0, totals=(1,))), "wrong_shape"),
        (event(recording, 2, SessionClosed(t_ns=0, totals=(1, -1))), "malformed"),
    ]
    for message, reason in later:
        ((_, report),) = world.round(message)
        assert [r.reason for r in report.refused] == [reason]
    assert world.store.read.rows("SELECT count(*) FROM events") == [(1,)]


def test_negative_event_numbers_are_not_trusted(world, recording):
    assert world.round(event(recording, -1, Marker(text="x", t_ns=0))) == []
    assert [q[0] for q in world.quarantine()] == ["malformed"]


def test_nothing_new_enters_a_session_that_is_complete(world, recording):
    world.round(*recording.messages())
    assert world.intake.complete() == [recording.session.id]
    gapped = next(c for c in recording.chunks[0] if c.gap_before)
    into_gap = Chunk(gapped.session, 0, gapped.first - 1, gapped.samples[:1], T0)
    past_end = Chunk(gapped.session, 0, recording.chunks[0][-1].end, gapped.samples, T0)
    messages = [chunk_message(recording.session, c) for c in (into_gap, past_end)]
    messages.append(event(recording, 6, Marker(text="late", t_ns=0)))
    ((_, report),) = world.round(*messages)
    assert [r.reason for r in report.refused] == ["session_ended"] * 3
    assert_sealed_equals(world.sealer.seal(recording.session.id), recording)


def test_a_chunk_in_a_declared_gap_of_an_open_session_is_taken(world, recording):
    gapped = next(c for c in recording.chunks[0] if c.gap_before)
    late = Chunk(gapped.session, 0, gapped.first - 1, gapped.samples[:1], T0)
    world.round(opened(recording), chunk_message(recording.session, gapped), chunk_message(recording.session, late))
    assert world.store.coverage(recording.session.id)[0].stored.covers(gapped.first - 1, gapped.end)


def test_a_sealed_session_acknowledges_what_it_has_and_refuses_what_it_has_not(world, recording):
    world.round(*recording.messages())
    world.sealer.seal(recording.session.id)
    edge, report = world.intake.sealed(recording.session.id)
    assert report.sealed
    assert {c.stream: (c.until, c.holes) for c in report.streams} == {
        -1: (6, ()),
        0: (recording.chunks[0][-1].end, ()),
        1: (recording.chunks[1][-1].end, ()),
    }
    for restart in (False, True):
        if restart:
            world.restart()
        ((edge, report),) = world.round(recording.messages()[1], recording.messages()[-1])
        assert edge == "edge-1"
        assert report.sealed
        assert not report.refused
        assert all(not c.holes for c in report.streams)
    ((_, report),) = world.round(
        chunk_message(recording.session, Chunk(recording.session.id, 0, 10**6, recording.chunks[0][0].samples, T0))
    )
    assert [r.reason for r in report.refused] == ["session_ended"]
    assert world.store.read.rows("SELECT count(*) FROM chunks") == [(0,)]
    assert world.intake.coverage() == []
    ((_, report),) = world.intake.coverage("edge-1")
    assert report.sealed


def test_states_are_kept_and_an_edge_that_appears_is_noticed(world):
    online = (state_topic("edge-1"), pack(EdgeState(edge="edge-1", online=True, agent="1")))
    offline = (state_topic("edge-1"), pack(EdgeState(edge="edge-1", online=False)))

    def appeared(*messages):
        taken = world.intake.take([Incoming(t, p, T0) for t, p in messages])
        world.store.commit(taken.batch)
        world.intake.committed(taken)
        return taken.appeared

    assert appeared(online) == ["edge-1"]
    assert appeared(online, (state_topic("edge-2"), b"")) == []
    assert appeared(offline, online) == ["edge-1"]
    assert world.store.read.rows("SELECT edge, online, agent FROM edges") == [("edge-1", True, "1")]
    foreign = Intake(world.store.read, first_shard=0, last_shard=0)
    assert foreign.take([Incoming(*online, T0)]).batch.edges == {}


def test_nothing_is_reported_before_the_commit(world, recording):
    taken = world.intake.take([Incoming(*m, T0) for m in recording.messages()])
    assert all(report.streams == () for _, report in world.intake.coverage())
    with pytest.raises(RuntimeError):
        world.intake.take([])
    world.intake.reload()
    assert world.intake.coverage() == []
    assert world.round(*recording.messages()[1:2]) == []
    assert taken.batch.chunks


def test_reports_stay_short_and_exact():
    held = CommittedRanges()
    for i in range(1000):
        held.add(10 * i, 5)
    (commit,) = stream_commits({0: held})
    assert len(commit.holes) == MAX_HOLES
    assert commit.until == 10 * MAX_HOLES + 5
    assert not any(held.stored.overlaps(a, b) for a, b in commit.holes)


@pytest.mark.parametrize("edge", ["'; DROP TABLE edges; --", "a b", "..", "x" * 65, "a\nb", ""])
def test_a_state_of_what_can_name_no_edge_is_foreign(world, edge):
    taken = world.intake.take([Incoming(f"embridge/v1/state/{edge}", pack(EdgeState(edge=edge, online=True)), 1)])
    assert (taken.counts.foreign, taken.batch.edges, taken.appeared) == (1, {}, [])
