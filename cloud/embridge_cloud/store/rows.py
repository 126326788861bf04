"""Rows on their way into the store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from embridge_cloud.store.ranges import CommittedRanges
from embridge_shared.session import Event, Session
from embridge_shared.signal import Chunk
from embridge_shared.wire.codec import Head
from embridge_shared.wire.messages import EdgeState

EVENTS = -1
"""Stands for a session's events where a stream's ordinal would stand."""

INT64_MAX = 2**63 - 1


class ChunkRow(NamedTuple):
    """A chunk as received.

    Attributes:
        session: Its session.
        stream: Ordinal in the session.
        first: Index of the first sample.
        n: Samples.
        gap_before: Samples declared lost just before.
        t0_ns: Unix time of the first sample, ns.
        crc: The checksum its header carries.
        received_ns: Unix time of arrival, ns.
        payload: The message's bytes.
        gap_inferred: How many were lost is an estimate.
    """

    session: UUID
    stream: int
    first: int
    n: int
    gap_before: int
    t0_ns: int
    crc: int
    received_ns: int
    payload: bytes
    gap_inferred: bool = False

    @classmethod
    def of(cls, chunk: Chunk | Head, payload: bytes, received_ns: int) -> ChunkRow:
        """Describe a chunk whose bytes are `payload`."""
        crc = int.from_bytes(payload[60:64], "little")
        return cls(
            chunk.session, chunk.stream, chunk.first, chunk.n, chunk.gap_before, chunk.t0_ns, crc,
            received_ns, payload, chunk.gap_inferred,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EventRow:
    """A session event and its number."""

    session: UUID
    seq: int
    event: Event
    received_ns: int


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A message the store could not place.

    Attributes:
        id: Digest of topic and payload: a message sent again is the same row.
        topic: Where it came.
        payload: Its bytes.
        received_ns: Unix time of arrival, ns.
        reason: A `Reason` value.
        detail: One sentence.
        edge: From the topic, or empty.
        session: From the header, or None where it cannot be trusted.
        stream: From the header; -1 for events.
        first: First sample or event number.
        owed: The edge is told to forget it, so it is kept whatever the quarantine's bound says.
    """

    id: str
    topic: str
    payload: bytes
    received_ns: int
    reason: str
    detail: str
    edge: str = ""
    session: UUID | None = None
    stream: int | None = None
    first: int | None = None
    owed: bool = False


def quarantine_id(topic: str, payload: bytes) -> str:
    """Name of a quarantined message."""
    return hashlib.blake2b(payload, digest_size=16, key=hashlib.sha256(topic.encode()).digest()).hexdigest()


def session_digest(session: UUID) -> str:
    """What is kept of an erased session: enough to know it again, too little to find it by."""
    return hashlib.sha256(b"embridge-erased\0" + session.bytes).hexdigest()


@dataclass(slots=True)
class Batch:
    """What one transaction writes; writing it twice is writing it once.

    Attributes:
        chunks: New chunks.
        events: New events.
        quarantined: By `QuarantineRow.id`.
        released: Ids of quarantined messages that found their place.
        edges: Last state of each edge, with the time of arrival, ns.
        barred: Sessions that fall under an erasure, with its number: what waits of them goes.
    """

    chunks: list[ChunkRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    quarantined: dict[str, QuarantineRow] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    edges: dict[str, tuple[EdgeState, int]] = field(default_factory=dict)
    barred: dict[UUID, UUID] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.chunks or self.events or self.quarantined or self.released or self.edges or self.barred)


@dataclass(slots=True)
class StoredSession:
    """A session as the store knows it.

    Attributes:
        session: Its description.
        ranges: What is held of each stream by ordinal, and of the events under `EVENTS`.
        totals: Index after the last sample of each stream, once it was closed.
        closed_seq: Number of the closing event.
        sealed: It is sealed.
        forced: An operator ended it without what it lacks.
    """

    session: Session
    ranges: dict[int, CommittedRanges] = field(default_factory=dict)
    totals: tuple[int, ...] | None = None
    closed_seq: int | None = None
    sealed: bool = False
    forced: bool = False

    def of(self, stream: int) -> CommittedRanges:
        """What is held of one stream."""
        return self.ranges.setdefault(stream, CommittedRanges())

    def awaited(self) -> dict[int, list[tuple[int, int]]]:
        """What a closed session still lacks, a stream; empty when it is complete."""
        if self.totals is None or self.closed_seq is None:
            raise ValueError("an open session does not know what it lacks")
        if self.forced:
            return {}
        ends = {EVENTS: self.closed_seq + 1, **dict(enumerate(self.totals))}
        lacks = {stream: self.of(stream).awaited(end) for stream, end in ends.items()}
        return {stream: holes for stream, holes in lacks.items() if holes}

    @property
    def complete(self) -> bool:
        """Closed, and everything announced is there or was declared lost."""
        return self.totals is not None and not self.awaited()
