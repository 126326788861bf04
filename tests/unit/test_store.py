from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_cloud.store import columns, schema
from embridge_cloud.store.failures import StoreDamagedError, StoreError, StoreLockedError
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.ranges import CommittedRanges, RangeSet
from embridge_cloud.store.rows import EVENTS, Batch, ChunkRow, EventRow, QuarantineRow, quarantine_id
from embridge_shared.errors import DataError, ExitCode, Reason
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EdgeState
from support.sessions import T0, emg_spec, pose_spec, record, session_of


def batch_of(recording, *, chunks=True, events=True) -> Batch:
    batch = Batch()
    if events:
        batch.events = [EventRow(recording.session.id, i, e, T0) for i, e in enumerate(recording.events)]
    if chunks:
        batch.chunks = [ChunkRow.of(c, codec.encode(c), T0) for run in recording.chunks for c in run]
    return batch


def foreign(n: int, size: int = 1000, *, owed: bool = False) -> QuarantineRow:
    payload = n.to_bytes(4, "big") * (size // 4)
    return QuarantineRow(quarantine_id("t", payload), "t", payload, T0, "foreign", "", owed=owed)


@pytest.fixture
def recording():
    return record(session_of(emg_spec(), pose_spec()), 3)


@pytest.fixture
def store(tmp_path: Path):
    with HotStore(tmp_path / "hot.duckdb", quarantine_max_bytes=10_000) as opened:
        yield opened


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 8)), max_size=30), st.integers(0, 45), st.integers(0, 9))
def test_range_set_agrees_with_a_set_of_integers(parts, start, length):
    ranges, truth = RangeSet(), set()
    for a, n in parts:
        ranges.add(a, a + n)
        truth |= set(range(a, a + n))
    end = start + length
    window = set(range(start, end))
    assert {i for a, b in ranges for i in range(a, b)} == truth
    assert all(b < a for (_, b), (a, _) in zip(list(ranges), list(ranges)[1:], strict=False))
    assert ranges.count == len(truth)
    assert ranges.overlaps(start, end) == bool(window & truth)
    if length:
        assert ranges.covers(start, end) == (window <= truth)
    assert {i for a, b in ranges.missing(start, end) for i in range(a, b)} == window - truth


def test_awaited_leaves_out_what_the_device_lost():
    held = CommittedRanges()
    held.add(0, 10)
    held.add(15, 5, gap_before=3)
    held.add(30, 5, gap_before=10)
    assert held.awaited() == [(10, 12)]
    assert held.awaited(40) == [(10, 12), (35, 40)]


def test_coverage_survives_a_reopen_and_is_loaded_from_the_database(tmp_path, recording):
    path = tmp_path / "hot.duckdb"
    session = recording.session.id
    batch = batch_of(recording)
    del batch.chunks[2]
    with HotStore(path) as store:
        store.commit(batch)
        before = store.coverage(session)
    with HotStore(path) as store:
        after = store.coverage(session)
        found = store.read.session(session)
    expected: dict[int, CommittedRanges] = {}
    for row in batch.chunks:
        expected.setdefault(row.stream, CommittedRanges()).add(row.first, row.n, row.gap_before)
    assert before == after == {**expected, EVENTS: CommittedRanges(RangeSet([(0, 6)]))}
    assert found is not None
    assert found.session == recording.session
    assert found.totals == recording.events[-1].totals
    assert not found.complete
    assert list(found.awaited()) == [0]


def test_a_batch_written_twice_is_written_once(store, recording):
    batch = batch_of(recording)
    batch.quarantined = {r.id: r for r in [foreign(1)]}
    batch.edges = {"edge-1": (EdgeState(edge="edge-1", online=True), T0)}
    store.commit(batch)
    batch.edges = {"edge-1": (EdgeState(edge="edge-1", online=False), T0 + 1)}
    store.commit(batch)
    counts = {
        t: store.read.rows(f"SELECT count(*) FROM {t}")[0][0]
        for t in ("sessions", "participants", "streams", "chunks", "events", "cues", "repetitions", "quarantine")
    }
    assert counts == {
        "sessions": 1, "participants": 1, "streams": 2, "chunks": 12, "events": 6, "cues": 1, "repetitions": 2,
        "quarantine": 1,
    }  # fmt: skip
    assert store.read.rows("SELECT edge, online FROM edges") == [("edge-1", False)]


def test_views_answer_a_persons_questions(store, recording):
    store.commit(batch_of(recording))
    (row,) = store.read.records("SELECT * FROM v_sessions")
    samples = sum(len(s) for s in recording.samples)
    lost = sum(recording.events[-1].totals) - samples
    assert lost > 0
    assert (row["state"], row["samples"], row["missing"], row["declared_lost"]) == ("ended", samples, lost, lost)
    assert (row["events"], row["cues"], row["accepted"], row["rejected"]) == (6, 1, 1, 1)
    assert row["started_at"].year == 2025
    streams = store.read.records("SELECT name, samples, hot_chunks FROM v_streams ORDER BY stream")
    assert [(s["name"], s["samples"]) for s in streams] == [
        (spec.name, len(v)) for spec, v in zip(recording.session.streams, recording.samples, strict=True)
    ]


def test_payloads_come_back_as_received_and_in_order(store, recording):
    store.commit(batch_of(recording))
    session = recording.session.id
    anchors = store.read.anchors(session, 0)
    payloads = list(store.read.payloads(session, 0, anchors, at_once=4))
    assert payloads == [codec.encode(c) for c in recording.chunks[0]]
    key = (session, 0, anchors[1].first)
    assert store.read.payload(key) == payloads[1]
    assert store.read.stored_chunks([key, (session, 9, 0)]) == {
        key: (anchors[1].n, int.from_bytes(payloads[1][60:64], "little"))
    }
    assert store.read.event(session, 2) == recording.events[2]


def test_a_full_quarantine_counts_foreign_messages_and_keeps_what_is_owed(store):
    rows = [foreign(n) for n in range(14)]
    store.commit(Batch(quarantined={r.id: r for r in rows}))
    assert store.quarantine_bytes == 10_000
    assert store.quarantine_skipped == 4
    assert store.read.rows("SELECT count(*) FROM quarantine")[0][0] == 10
    owed = foreign(99, owed=True)
    store.commit(Batch(quarantined={owed.id: owed}))
    assert store.read.rows("SELECT count(*) FROM quarantine WHERE id = ?", [owed.id])[0][0] == 1
    store.commit(Batch(released=[r.id for r in rows]))
    assert store.quarantine_bytes == 1000


def test_extreme_but_valid_values_can_be_stored(store):
    spec = emg_spec(1)
    session = session_of(spec, started_ns=-(2**62))
    recording = record(session, n_chunks=1)
    recording.events[3] = type(recording.events[3])(text="a\0b\U0001f44b'; DROP TABLE chunks", t_ns=2**63 - 1)
    store.commit(batch_of(recording))
    assert store.read.event(session.id, 3) == recording.events[3]


def test_a_failed_transaction_leaves_nothing_and_the_store_goes_on(store, recording, monkeypatch):
    def failing(rows):
        raise duckdb.IOException("IO Error: could not write: No space left on device")

    monkeypatch.setattr(columns, "chunk_table", failing)
    with pytest.raises(StoreError) as caught:
        store.commit(batch_of(recording))
    assert caught.value.reason is Reason.DISK_FULL
    assert store.read.session_ids() == set()
    monkeypatch.undo()
    store.commit(batch_of(recording))
    assert store.read.session_ids() == {recording.session.id}


def test_a_real_write_error_is_a_store_error_and_nothing_is_half_written(tmp_path, recording):
    code = """
import resource, signal, sys
sys.path.insert(0, "tests")
from pathlib import Path
from support.sessions import *
from unit_store_batch import batch_of
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.failures import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = HotStore(Path(sys.argv[1])).open()
small = record(session_of(emg_spec(), number=1))
store.commit(batch_of(small))
size = Path(sys.argv[1] + ".wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
big = record(session_of(emg_spec(16, 2000.0), number=2), n_chunks=40)
try:
    store.commit(batch_of(big))
except StoreError as error:
    print("refused", error.reason.value)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    store.commit(batch_of(big))
except StoreError:
    store.reopen()
    store.commit(batch_of(big))
print(len(store.read.anchors(small.session.id, 0)), len(store.read.anchors(big.session.id, 0)))
store.close()
"""
    code = code.replace("from unit_store_batch import batch_of\n", _BATCH_OF)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "hot.duckdb")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == ["refused disk_full", "6 40"], done.stderr


_BATCH_OF = """
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_shared.wire import codec
def batch_of(r):
    return Batch(
        chunks=[ChunkRow.of(c, codec.encode(c), T0) for run in r.chunks for c in run],
        events=[EventRow(r.session.id, i, e, T0) for i, e in enumerate(r.events)],
    )
"""


def test_a_file_in_use_says_so(tmp_path):
    path = tmp_path / "hot.duckdb"
    code = (
        "import sys\nfrom pathlib import Path\nfrom embridge_cloud.store.hot import HotStore\n"
        "from embridge_shared.errors import EmbridgeError\n"
        "try:\n    HotStore(Path(sys.argv[1])).open()\n"
        "except EmbridgeError as e:\n    print(type(e).__name__, e.reason.value, int(e.exit_code), bool(e.hint))"
    )
    with HotStore(path):
        with pytest.raises(StoreLockedError):
            HotStore(path).open()
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["StoreLockedError", "locked", str(int(ExitCode.BUSY)), "True"], done.stderr


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "hot.duckdb"
    with HotStore(path) as store:
        newest = max(schema.migrations())
        assert store.read.rows("SELECT max(version) FROM schema_migrations") == [(newest,)]
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO schema_migrations (version, name) VALUES (999, 'from the future')")
    with pytest.raises(DataError) as caught:
        HotStore(path).open()
    assert caught.value.reason is Reason.UNSUPPORTED_VERSION
    assert "999" in str(caught.value)


def test_gaps_of_sessions_from_before_they_were_kept_are_found(tmp_path, recording, monkeypatch):
    newest = schema.migrations()
    old = {v: m for v, m in newest.items() if v < 3}
    path, session = tmp_path / "hot.duckdb", recording.session.id
    monkeypatch.setattr(schema, "migrations", lambda: old)
    with HotStore(path) as store:
        chunks = [
            (str(session), 0, 0, 10, 0, T0, 1, T0, 4, b"abcd"),
            (str(session), 0, 14, 10, 4, T0, 1, T0, 4, b"abcd"),
        ]
        with store._cursor() as cursor:
            cursor.execute("INSERT INTO sealed VALUES (?, 1, 'p', 'x', 30, 1), (?, 2, 'p', 'x', 10, 1)", [session] * 2)
            cursor.execute(
                "INSERT INTO sealed_ranges VALUES (?, 1, 5, 15), (?, 1, 20, 40), (?, 2, 0, 10)", [session] * 3
            )
            cursor.execute("INSERT INTO session_totals VALUES (?, 1, 44), (?, 2, 10)", [session] * 2)
            cursor.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", chunks)
    monkeypatch.setattr(schema, "migrations", lambda: newest)
    with HotStore(path) as store:
        found = store.read.rows('SELECT stream, first, "end", inferred FROM sealed_gaps ORDER BY ALL')
        assert found == [(1, 0, 5, False), (1, 15, 20, False), (1, 40, 44, False)]
        assert [a[4] for a in store.read.anchors(session, 0)] == [False, False]
        assert store.read.payload((session, 0, 14)) == b"abcd"


def test_a_damaged_file_names_the_way_out(tmp_path):
    path = tmp_path / "hot.duckdb"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreDamagedError) as caught:
        HotStore(path).open()
    assert "embridge cloud repair" in caught.value.hint
    assert path.read_bytes() == b"not a database" * 1000


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_unsealed_sessions_are_found_in_any_order_of_arrival(tmp_path_factory, random):
    recordings = [record(session_of(emg_spec(1, 20), number=i), i, n_chunks=3) for i in range(3)]
    rows = [row for r in recordings for row in batch_of(r).chunks]
    random.shuffle(rows)
    with HotStore(tmp_path_factory.mktemp("s") / "hot.duckdb") as store:
        store.commit(Batch(events=[EventRow(r.session.id, 0, r.events[0], T0) for r in recordings]))
        for row in rows:
            store.commit(Batch(chunks=[row]))
        found = {s.session.id: s for s in store.read.unsealed()}
    for r in recordings:
        assert found[r.session.id].of(0).stored.count == len(r.samples[0])
        assert found[r.session.id].totals is None


def test_no_such_session(store):
    assert store.read.session(UUID(int=5)) is None
    assert store.read.unsealed() == []
