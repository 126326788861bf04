"""What was acknowledged is there, or the store refuses to open and the repair says what is gone."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from embridge_cloud.store.custody import Room
from embridge_cloud.store.failures import StoreDamagedError, StoreError, StoreLockedError
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.ledger import Ledger
from embridge_cloud.store.ranges import RangeSet
from embridge_cloud.store.rows import EVENTS, Batch, ChunkRow, EventRow
from embridge_cloud.store.salvage import repair
from embridge_cloud.store.sealing import Sealer
from embridge_shared.disk import DiskLevel
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.wire import codec
from support.sessions import Recording, assert_sealed_equals, emg_spec, pose_spec, record, session_of

FILE, LOG, ACKS = "hot.duckdb", "hot.duckdb.wal", "hot.acks"


def batch_of(recording: Recording, *, closed: bool = True) -> Batch:
    events = [EventRow(recording.session.id, i, e, 1) for i, e in enumerate(recording.events)]
    chunks = [ChunkRow.of(c, codec.encode(c), 1) for run in recording.chunks for c in run]
    return Batch(chunks=chunks, events=events if closed else events[:-1])


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [record(session_of(emg_spec(8, 500.0), pose_spec(), number=n + 1), n, n_chunks=12) for n in range(4)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, recordings: list[Recording]) -> Path:
    """Two sessions in the file, two in its log, as a killed process leaves them."""
    folder, left = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("left")
    with HotStore(folder / FILE) as store:
        for recording in recordings[:2]:
            store.commit(batch_of(recording, closed=False))
    with HotStore(folder / FILE) as store:
        for recording in recordings[2:]:
            store.commit(batch_of(recording, closed=False))
        for path in folder.iterdir():
            shutil.copy(path, left)
    return left


@pytest.fixture
def folder(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path / "hot")
    return tmp_path / "hot"


def held(path: Path) -> int:
    with HotStore(path) as store:
        return store.read.rows("SELECT sum(n) FROM chunks")[0][0] or 0


def total(recordings: list[Recording]) -> int:
    return sum(len(s) for r in recordings for s in r.samples)


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - size))


def overwrite(path: Path, at: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(random.Random(at).randbytes(size))


def test_a_ledger_says_what_was_noted_and_survives_a_torn_line(tmp_path: Path, recordings: list[Recording]) -> None:
    ledger = Ledger(tmp_path / ACKS)
    ledger.note(batch_of(recordings[0]))
    ledger.note(batch_of(recordings[1]))
    first = recordings[0].session.id
    ledger.leave([first])
    with ledger.path.open("ab") as file:
        file.write(b'00000000 {"left":["')
    ledger.note(batch_of(recordings[2]))
    accounts = ledger.read()
    # The line behind a torn one is lost with it: less is said, never more.
    assert recordings[1].session.id in accounts
    assert first not in accounts
    ledger.close()
    account = accounts[recordings[1].session.id]
    assert account.session == recordings[1].session
    index = recordings[1].index[0]
    assert all(account.held[0].covers(int(i), int(i) + 1) for i in index)
    assert account.held[EVENTS] == RangeSet([(0, len(recordings[1].events))])


def test_a_ledger_that_cannot_be_written_holds_the_acknowledgement_back(
    tmp_path: Path, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    with HotStore(tmp_path / FILE) as store:

        def full(_: Batch) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store.ledger, "note", full)
        with pytest.raises(StoreError) as caught:
            store.commit(batch_of(recordings[0]))
        assert caught.value.reason is Reason.DISK_FULL
        monkeypatch.undo()
        store.commit(batch_of(recordings[0]))
        assert len(store.ledger.read()) == 1


def test_a_store_below_its_reserve_takes_nothing_until_there_is_room(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    free = 100
    with HotStore(tmp_path / FILE, reserve_bytes=100, free=lambda _: free) as store:
        with pytest.raises(StoreError, match=r"cloud\.reserve_bytes") as caught:
            store.commit(batch_of(recordings[0]))
        assert caught.value.reason is Reason.DISK_FULL
        assert store.room.level is DiskLevel.FULL
        assert store.read.session_ids() == set()
        free = 150
        store.commit(batch_of(recordings[0]))
        assert store.room.level is DiskLevel.LOW


def test_a_disk_that_does_not_answer_is_named(tmp_path: Path) -> None:
    def gone(_: Path) -> int:
        raise OSError(5, "Input/output error")

    with pytest.raises(StoreError, match="does not answer"):
        Room(tmp_path, 1, gone).check()


def test_a_killed_store_is_whole(folder: Path, recordings: list[Recording]) -> None:
    assert repair(folder / FILE, folder / "sealed", wall_ns=1) is None
    assert held(folder / FILE) == total(recordings)


@pytest.mark.parametrize("harm", ["log lost", "log cut", "file zeros", "file cut"])
def test_a_store_that_lost_something_refuses_and_its_repair_tells_what(
    folder: Path, recordings: list[Recording], harm: str
) -> None:
    path, log = folder / FILE, folder / LOG
    {
        "log lost": log.unlink,
        "log cut": lambda: cut(log, 40_000),
        "file zeros": lambda: path.write_bytes(bytes(path.stat().st_size)),
        "file cut": lambda: cut(path, 300_000),
    }[harm]()
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ACKS}
    with pytest.raises(StoreDamagedError, match="embridge cloud repair"):
        HotStore(path).open()
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ACKS} == before
    done = repair(path, folder / "sealed", wall_ns=5 * 10**9)
    assert done is not None
    aside = folder / "damaged-5"
    assert {p.name: p.read_bytes() for p in aside.iterdir() if p.name in before} == before
    missing = sum(m.count for m in done.missing if m.stream != EVENTS)
    assert held(path) + missing == total(recordings)
    for part in done.missing:
        if part.stream != EVENTS:
            sent = {int(i) for r in recordings if r.session.id == part.session for i in r.index[part.stream]}
            assert all(set(range(a, b)) <= sent for a, b in part.ranges)
    assert repair(path, folder / "sealed", wall_ns=6 * 10**9) is None
    with HotStore(path) as store:
        assert store.read.session_ids() == {r.session.id for r in recordings}


def test_a_damaged_block_costs_the_chunk_in_it_alone(folder: Path, recordings: list[Recording]) -> None:
    path = folder / FILE
    payload = codec.encode(recordings[0].chunks[0][3])
    at = path.read_bytes().find(payload)
    assert at > 0
    overwrite(path, at + 100, 8)
    done = repair(path, folder / "sealed", wall_ns=1)
    assert done is not None
    chunk = recordings[0].chunks[0][3]
    assert [(m.session, m.name, m.ranges) for m in done.missing] == [
        (recordings[0].session.id, "emg", ((chunk.first, chunk.end),))
    ]
    assert held(path) == total(recordings) - chunk.n


def test_sealed_sessions_come_back_from_their_folders(tmp_path: Path, recordings: list[Recording]) -> None:
    path, sealed = tmp_path / FILE, tmp_path / "sealed"
    with HotStore(path) as store:
        sealer = Sealer(store, sealed, wall_ns=lambda: 7)
        for recording in recordings[:2]:
            store.commit(batch_of(recording))
        sealer.prepare()
        sealer.seal(recordings[0].session.id)
    path.write_bytes(b"nothing of it" * 1000)
    done = repair(path, sealed, wall_ns=1)
    assert done is not None
    assert done.adopted == [recordings[0].session.id]
    assert {m.session for m in done.missing} == {recordings[1].session.id}
    with HotStore(path) as store:
        known = store.read.session(recordings[0].session.id)
        assert known is not None
        assert known.sealed
        assert_sealed_equals(Sealer(store, sealed, wall_ns=lambda: 8).write(known.session.id), recordings[0])


def test_repair_needs_a_store_that_nobody_has_open(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        repair(tmp_path / FILE, tmp_path, wall_ns=1)
    assert caught.value.reason is Reason.NOT_FOUND
    with HotStore(tmp_path / FILE), pytest.raises(StoreLockedError):
        repair(tmp_path / FILE, tmp_path, wall_ns=1)


def test_what_is_taken_out_of_ranges_is_gone() -> None:
    ranges = RangeSet([(0, 10), (20, 30)])
    ranges.discard(5, 25)
    assert list(ranges) == [(0, 5), (25, 30)]
    ranges.discard(26, 27)
    assert list(ranges) == [(0, 5), (25, 26), (27, 30)]
