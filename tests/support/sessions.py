"""Synthetic sessions as an edge would send them, and what the store must hold in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embridge_shared.session import (
    CueShown,
    Event,
    Marker,
    Participant,
    Repetition,
    RepetitionStatus,
    Session,
    SessionClosed,
    SessionOpened,
)
from embridge_shared.signal import Arrivals, Chunk, Modality, SampleType, StreamSpec
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EventMessage, pack
from embridge_shared.wire.topics import chunk_topic, event_topic

T0 = 1_760_000_000_000_000_000


def emg_spec(channels: int = 4, rate_hz: float = 200.0, name: str = "emg") -> StreamSpec:
    return StreamSpec(
        name=name, modality=Modality.EMG, channels=tuple(f"e{i}" for i in range(channels)), rate_hz=rate_hz
    )


def pose_spec(channels: int = 3, rate_hz: float = 50.0) -> StreamSpec:
    return StreamSpec(
        name="pose",
        modality=Modality.POSE,
        channels=tuple(f"j{i}" for i in range(channels)),
        rate_hz=rate_hz,
        dtype=SampleType.FLOAT32,
        unit="rad",
        calibrated=True,
    )


@dataclass
class Recording:
    """One session and every message of it.

    `samples[i]` is {index: row} of stream i as sent; `gaps[i]` the ranges the device lost.
    """

    session: Session
    chunks: list[list[Chunk]]
    events: list[Event]
    samples: list[NDArray[Any]] = field(default_factory=list)
    index: list[NDArray[np.int64]] = field(default_factory=list)

    def messages(self) -> list[tuple[str, bytes]]:
        """Topics and payloads in the order an edge sends them."""
        s = self.session
        first, *rest = self.events
        closing = rest.pop()
        numbered = list(enumerate([first, *rest, closing]))
        out = [self.event_message(0, first)]
        out += [
            (chunk_topic(s.edge, s.id, s.streams[c.stream].name), codec.encode(c)) for run in self.chunks for c in run
        ]
        return out + [self.event_message(i, e) for i, e in numbered[1:]]

    def event_message(self, seq: int, event: Event) -> tuple[str, bytes]:
        s = self.session
        return event_topic(s.edge, s.id), pack(EventMessage(session=s.id, seq=seq, event=event))


def session_of(*specs: StreamSpec, edge: str = "edge-1", number: int = 1, started_ns: int = T0) -> Session:
    return Session(
        id=UUID(int=0xE3B0_0000_0000_0000_0000_0000_0000_0000 + number),
        edge=edge,
        participant=Participant(id="p01", consent_version="v2"),
        streams=specs,
        started_ns=started_ns,
        host_ns=1_000_000_000,
        source="synthetic:1",
    )


def record(
    session: Session,
    seed: int = 0,
    *,
    n_chunks: int = 6,
    chunk_s: float = 0.5,
    gaps: bool = True,
) -> Recording:
    """Record a session: every stream `n_chunks` long, now and then a gap the device declares."""
    rng = np.random.default_rng(seed)
    recording = Recording(session, [], [])
    totals = []
    for ordinal, spec in enumerate(session.streams):
        first, run, rows, index = 0, [], [], []
        for k in range(n_chunks):
            gap = int(rng.integers(1, 9)) if gaps and k and rng.random() < 0.3 else 0
            first += gap
            n = max(1, round(spec.rate_hz * chunk_s) + int(rng.integers(-2, 3)))
            values = rng.normal(0, 300, (n, spec.n_channels)).astype(spec.dtype.numpy)
            t0 = session.started_ns + round(first / spec.rate_hz * 1e9) + int(rng.integers(-20_000, 20_000))
            pairs = np.arange(first + 4, first + n, 5, dtype=np.int64)
            host = session.host_ns + (pairs / spec.rate_hz * 1e9).astype(np.int64)
            run.append(Chunk(session.id, ordinal, first, values, t0, gap, Arrivals(pairs, host)))
            rows.append(values)
            index.append(np.arange(first, first + n))
            first += n
        recording.chunks.append(run)
        recording.samples.append(np.concatenate(rows))
        recording.index.append(np.concatenate(index))
        totals.append(first)
    end = session.started_ns + round(n_chunks * chunk_s * 1e9)
    recording.events = [
        SessionOpened(session=session),
        CueShown(gesture="fist", repetition=1, start_ns=session.started_ns, end_ns=end),
        Repetition(gesture="fist", repetition=1, start_ns=session.started_ns + 10, end_ns=end - 10),
        Marker(text="electrode 3 re-seated ✓", t_ns=end),
        Repetition(
            gesture="point",
            repetition=1,
            start_ns=session.started_ns,
            end_ns=end,
            status=RepetitionStatus.REJECTED,
            reason="moved too early",
        ),
        SessionClosed(t_ns=end, totals=tuple(totals)),
    ]
    return recording


def assert_sealed_equals(sealed: Any, recording: Recording) -> None:
    """Every sample, index and event that was sent is in the sealed session, and nothing else."""
    sealed.verify()
    assert sealed.session == recording.session
    assert [e.event for e in sealed.events()] == recording.events
    for spec, values, index in zip(recording.session.streams, recording.samples, recording.index, strict=True):
        found = sealed.samples(spec.name)
        assert found.values.dtype == values.dtype
        np.testing.assert_array_equal(found.index, index)
        np.testing.assert_array_equal(found.values, values)
