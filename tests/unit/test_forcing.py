"""A session that will never be whole is sealed by force: what lacks is declared, and no edge is told to forget it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from embridge_cloud import parcels
from embridge_cloud.rounds import stream_commits
from embridge_cloud.store.failures import NotSealableError
from embridge_cloud.store.forcing import IncompleteError, end_incomplete
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import EVENTS, Batch, ChunkRow, EventRow
from embridge_cloud.store.sealing import Sealer
from embridge_shared.errors import DataError, ExitCode, OperatorError
from embridge_shared.session import INCOMPLETE, Marker, SessionClosed
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EventMessage
from support.sessions import Recording, emg_spec, pose_spec, record, session_of


@pytest.fixture
def recording() -> Recording:
    return record(session_of(emg_spec(), pose_spec()), 3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot.duckdb") as store:
        yield store


def deliver(store: HotStore, recording: Recording, *, lost: set[int], events: list[int]) -> None:
    """All chunks of both streams but those at the places `lost`, and the events at `events`."""
    store.commit(
        Batch(
            chunks=[
                ChunkRow.of(c, codec.encode(c), 1)
                for run in recording.chunks
                for at, c in enumerate(run)
                if at not in lost
            ],
            events=[EventRow(recording.session.id, i, recording.events[i], 1) for i in events],
        )
    )


def test_a_session_whose_edge_died_is_sealed_with_its_gaps_declared(
    tmp_path: Path, store: HotStore, recording: Recording
) -> None:
    # Chunk 2 was refused, event 2 never came, and the edge died before it ended the session.
    deliver(store, recording, lost={2}, events=[0, 1, 3])
    session, sealer = recording.session.id, Sealer(store, tmp_path / "sealed", wall_ns=lambda: 9)
    with pytest.raises(NotSealableError):
        sealer.seal(session)
    with pytest.raises(IncompleteError) as caught:
        end_incomplete(store, session, "", wall_ns=5, force=False)
    assert caught.value.exit_code is ExitCode.REJECTED
    assert "never ended" in caught.value.message
    with pytest.raises(OperatorError, match="no reason"):
        end_incomplete(store, session, " ", wall_ns=5, force=True)
    lacks = end_incomplete(store, session, "its edge was run over", wall_ns=5, force=True)
    gone = recording.chunks[0][2]
    assert lacks.streams["emg"] == ((gone.first, gone.end),)
    assert lacks.streams["events"] == ((2, 3),)
    sealed = sealer.seal(session)
    sealed.verify()
    assert sealed.manifest.closed.reason.startswith(f"{INCOMPLETE}its edge was run over (open")
    assert (gone.first, gone.end) in sealed.entry("emg").gaps or any(
        a <= gone.first and gone.end <= b for a, b in sealed.entry("emg").gaps
    )
    keep = (recording.index[0] < gone.first) | (recording.index[0] >= gone.end)
    np.testing.assert_array_equal(sealed.samples("emg").values, recording.samples[0][keep])
    assert isinstance(sealed.events()[2].event, Marker)
    with pytest.raises(OperatorError, match="sealed already"):
        end_incomplete(store, session, "again", wall_ns=5, force=True)


def test_an_edge_that_comes_back_is_not_told_to_forget_what_was_given_up(
    tmp_path: Path, store: HotStore, recording: Recording
) -> None:
    deliver(store, recording, lost={2}, events=list(range(len(recording.events))))
    session, gone = recording.session.id, recording.chunks[0][2]
    end_incomplete(store, session, "a chunk was refused", wall_ns=5, force=True)
    for _ in range(2):
        commit = stream_commits(store.read.coverage(session))[1]
        assert commit.stream == 0
        assert any(a <= gone.first and gone.end <= b for a, b in commit.holes)
        Sealer(store, tmp_path / "sealed", wall_ns=lambda: 9).seal(session)
    known = store.read.session(session)
    assert known is not None
    assert known.of(EVENTS).stored.end == len(recording.events) + 1
    assert known.totals == recording.events[-1].totals


def test_force_is_not_for_sessions_that_are_whole_or_unknown(store: HotStore, recording: Recording) -> None:
    deliver(store, recording, lost=set(), events=list(range(len(recording.events))))
    assert end_incomplete(store, recording.session.id, "", wall_ns=5, force=True).streams == {}
    assert len(store.read.events(recording.session.id)) == len(recording.events)
    with pytest.raises(DataError):
        end_incomplete(store, UUID(int=9), "x", wall_ns=5, force=True)


def test_no_edge_may_end_a_session_as_incomplete(recording: Recording) -> None:
    closing = SessionClosed(t_ns=1, totals=(1, 1), reason=f"{INCOMPLETE}I say so")
    assert "operator" in parcels.fault_of_event(EventMessage(session=recording.session.id, seq=3, event=closing))
