from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from embridge_edge.spool import EVENTS, Item, Spool
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.wire.messages import CommitReport, Refusal, StreamCommit

SESSION = UUID(int=1)


def chunk(first: int, n: int = 10, stream: int = 0, size: int = 100) -> Item:
    return Item(SESSION, stream, first, n, "t", bytes(size))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool.db", 1 << 20)


def firsts(spool: Spool) -> list[int]:
    return [i.first for i in spool.pending(0, 1000)]


def test_only_a_covering_commit_lets_an_item_go(spool: Spool) -> None:
    spool.put([chunk(0), chunk(10), chunk(30), chunk(40)])
    spool.settle(CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=40, holes=((10, 30),)),)))
    assert firsts(spool) == [10, 40]
    spool.settle(CommitReport(session=SESSION, streams=(StreamCommit(stream=1, until=999),)))
    spool.settle(CommitReport(session=UUID(int=2), streams=(StreamCommit(stream=0, until=999),)))
    spool.settle(CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=45, holes=((10, 20),)),)))
    assert firsts(spool) == [10, 40]
    assert spool.backlog().items == 2
    assert spool.backlog().bytes == 200


def test_a_refused_item_is_kept_aside(spool: Spool) -> None:
    spool.put([chunk(0), chunk(10)])
    spool.settle(CommitReport(session=SESSION, refused=(Refusal(stream=0, first=0, reason="overlap", detail="x"),)))
    assert firsts(spool) == [10]
    assert spool.refused() == [(SESSION, 0, 0, "overlap", "x")]


def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 250)
    spool.put([chunk(0), chunk(10)])
    with pytest.raises(OperatorError) as caught:
        spool.put([chunk(20)])
    assert caught.value.reason is Reason.DISK_FULL
    assert firsts(spool) == [0, 10]


def test_sessions_and_progress_survive_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 1 << 20)
    spool.begin(SESSION, "a", b"what", Item(SESSION, EVENTS, 0, 1, "t", b"open"))
    spool.put([chunk(0), chunk(15)])
    spool.settle(CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=25, holes=((10, 15),)),)))
    spool.close()
    again = Spool(tmp_path / "s.db", 1 << 20)
    known = again.session("a")
    assert known is not None
    assert (known.session, known.description, known.closed) == (SESSION, b"what", False)
    far = again.progress(SESSION)
    assert (far[0].until, far[0].items, far[0].samples) == (25, 2, 20)
    assert far[EVENTS].until == 1
    with pytest.raises(OperatorError):
        again.begin(UUID(int=3), "a", b"", Item(UUID(int=3), EVENTS, 0, 1, "t", b""))
    again.end(SESSION, Item(SESSION, EVENTS, 1, 1, "t", b"close"))
    assert again.sessions()[0].closed


def test_an_item_is_never_there_twice(spool: Spool) -> None:
    spool.put([chunk(0)])
    with pytest.raises(Exception, match="UNIQUE"):
        spool.put([chunk(10), chunk(0)])
    assert firsts(spool) == [0]
    assert spool.backlog().items == 1


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match="no spool"):
        Spool(tmp_path / "s.db", 1)


_WRITER = """
import sys
from pathlib import Path
from uuid import UUID
from embridge_edge.spool import Item, Spool
spool = Spool(Path(sys.argv[1]), 1 << 30)
first = spool.progress(UUID(int=1)).get(0)
first = first.until if first else 0
while True:
    spool.put([Item(UUID(int=1), 0, first, 10, "t", first.to_bytes(8, "little") * 50)])
    first += 10
    print(first, flush=True)
"""


def test_what_was_put_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    promised = 0
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(40):
                promised = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split(b"\n")[:-1]
            promised = int(rest[-1]) if rest else promised
    spool = Spool(path, 1 << 30)
    items = spool.pending(0, 10**6)
    assert [i.first for i in items] == list(range(0, len(items) * 10, 10))
    assert items[-1].first + 10 >= promised
    assert all(i.payload == i.first.to_bytes(8, "little") * 50 for i in items)


def test_recording_leaves_the_reserve_of_the_disk(tmp_path: Path) -> None:
    free = 1000
    spool = Spool(tmp_path / "s.db", 1 << 30, reserve_bytes=500, free=lambda _: free)
    spool.put([chunk(0)])
    free = 550
    with pytest.raises(OperatorError, match=r"edge\.reserve_bytes") as caught:
        spool.put([chunk(10)])
    assert caught.value.reason is Reason.DISK_FULL
    assert spool.room == 550
    # Forgetting is what makes room, so it may use the reserve.
    free = 10
    spool.settle(CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=10),)))
    assert spool.backlog().items == 0
    free = 1000
    spool.put([chunk(10)])
    assert firsts(spool) == [10]


def test_what_a_spool_does_not_use_counts_as_room_and_goes_back_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    spool = Spool(path, 1 << 30, reserve_bytes=1 << 29, free=lambda _: 1 << 30)
    spool.put([Item(SESSION, 0, k, 1, "t", bytes(1 << 18)) for k in range(80)])
    spool.sync()
    full = path.stat().st_size
    assert full > 20 << 20
    spool.settle(CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=80),)))
    spool.sync()
    assert spool.room > (1 << 30) + (10 << 20)
    for _ in range(4):
        spool.sync()
    assert path.stat().st_size < full / 4


def test_ballast_is_what_lets_a_full_disk_forget(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.db", 1 << 30, reserve_bytes=1 << 10)
    assert (tmp_path / "s.ballast").stat().st_size == 4 << 20
    spool.put([chunk(0)])
    real, tries = spool._settle, 0

    def full_once(report: CommitReport) -> list[int]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OperatorError("full", reason=Reason.DISK_FULL)
        return real(report)

    spool._settle = full_once
    assert spool.settle(CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=10),)))
    assert not (tmp_path / "s.ballast").exists()
    spool.sync()
    assert (tmp_path / "s.ballast").exists()


def test_a_spool_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    from embridge_edge.spool_faults import explain

    codes = {
        sqlite3.SQLITE_FULL: Reason.DISK_FULL,
        sqlite3.SQLITE_READONLY: Reason.DENIED,
        sqlite3.SQLITE_BUSY: Reason.LOCKED,
        sqlite3.SQLITE_CORRUPT: Reason.MALFORMED,
        sqlite3.SQLITE_IOERR: Reason.INVALID,
    }
    for code, reason in codes.items():
        error = sqlite3.OperationalError("x")
        error.sqlite_errorcode = code
        found = explain(error, tmp_path)
        assert found.reason is reason
        assert found.hint
