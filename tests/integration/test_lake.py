"""The lake against a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.lake import Lake
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.session import Participant
from embridge_shared.wire import codec
from support.postgres import postgres
from support.sessions import T0, assert_sealed_equals, emg_spec, pose_spec, record, session_of

NAME = "subject-4711"


def seal(folder: Path, numbers: list[int]):
    """Sealed sessions of one writer, of two shapes."""
    recordings = {}
    with HotStore(folder / "hot.duckdb") as store:
        sealer = Sealer(store, folder / "sealed", wall_ns=lambda: T0)
        for number in numbers:
            specs = (emg_spec(4 if number % 2 else 6), pose_spec())
            session = msgspec.structs.replace(session_of(*specs, number=number), participant=Participant(id=NAME))
            recording = record(session, number, n_chunks=3)
            batch = Batch(events=[EventRow(recording.session.id, i, e, T0) for i, e in enumerate(recording.events)])
            batch.chunks = [ChunkRow.of(c, codec.encode(c), T0) for run in recording.chunks for c in run]
            store.commit(batch)
            sealer.seal(recording.session.id)
            recordings[recording.session.id] = recording
    return recordings


_WRITER = """
import sys
from pathlib import Path
from embridge_cloud.store.lake import Lake
from embridge_cloud.store.sealed import Catalogue
lake = Lake(sys.argv[1], Path(sys.argv[2]))
print(len(lake.sync(Catalogue(Path(sys.argv[3])))))
"""


@pytest.mark.faults
def test_several_writers_one_catalogue_same_contents(tmp_path):
    data = tmp_path / "lake"
    parts = [tmp_path / "a", tmp_path / "b"]
    recordings = {}
    for folder, numbers in zip(parts, ([1, 2, 3], [4, 5, 6]), strict=True):
        folder.mkdir()
        recordings |= seal(folder, numbers)
    with postgres() as catalog:
        lake = Lake(catalog, data)
        lake.init()
        # Two processes with sessions of their own, and a third that races the first for the same ones.
        sources = [parts[0] / "sealed", parts[1] / "sealed", parts[0] / "sealed"]
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, catalog, str(data), str(source)], stdout=subprocess.PIPE, text=True
            )
            for source in sources
        ]
        brought = [int(writer.communicate(timeout=120)[0]) for writer in writers]
        assert [w.returncode for w in writers] == [0, 0, 0]
        assert brought[1] == 3
        assert brought[0] + brought[2] == 3
        assert lake.ids() == sorted(recordings)
        assert lake.sync(Catalogue(parts[0] / "sealed")) == []
        for session, recording in recordings.items():
            sealed = lake.catalogue().get(session)
            assert_sealed_equals(sealed, recording)
            assert lake.verify(session) == sealed.content_hash
        with lake.connect() as connection:
            rows = connection.execute("SELECT session, count(*) FROM lake.samples_emg GROUP BY 1").fetchall()
        assert dict(rows) == {i: len(r.samples[0]) for i, r in recordings.items()}
        status = lake.status()
        assert (status.sessions, status.streams) == (6, 12)
        _check_forgetting(lake, recordings, catalog)


def _check_forgetting(lake: Lake, recordings, catalog: str) -> None:
    gone, *kept = sorted(recordings)
    assert lake.forget([gone]) == 1
    assert lake.forget([gone]) == 0
    assert lake.ids() == kept
    left = [p for p in lake.data.rglob("*") if p.is_file() and str(gone) in str(p)]
    assert left == []
    for session in kept:
        lake.verify(session)
    with lake.connect() as connection:
        assert connection.execute("SELECT count(DISTINCT session) FROM lake.samples_emg").fetchall() == [(5,)]
    # The catalogue never knew who anybody was.
    folder = Path(catalog.split()[0].removeprefix("host="))
    marks = [NAME.encode(), NAME.encode("utf-16-le")]
    files = [p for p in (folder / "data").rglob("*") if p.is_file()]
    assert files
    assert [p for p in files if any(mark in p.read_bytes() for mark in marks)] == []


def test_a_catalogue_that_does_not_answer_is_named_without_its_password(tmp_path):
    lake = Lake("host=/nowhere password=secret dbname=x", tmp_path)
    with pytest.raises(OperatorError) as caught:
        lake.ids()
    assert caught.value.reason is Reason.UNREACHABLE
    assert "secret" not in str(caught.value)
