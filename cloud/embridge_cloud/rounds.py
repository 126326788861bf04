"""A round of the ingester: what was taken, what will be said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from embridge_cloud.store.ranges import CommittedRanges
from embridge_cloud.store.reader import ChunkKey
from embridge_cloud.store.rows import Batch
from embridge_shared.session import Event
from embridge_shared.wire.messages import CommitReport, Refusal, StreamCommit

MAX_HOLES = 256

Report = tuple[str, CommitReport]
"""An edge and what to tell it."""


@dataclass(slots=True)
class Counters:
    """What came."""

    messages: int = 0
    bytes: int = 0
    chunks: int = 0
    samples: int = 0
    events: int = 0
    duplicates: int = 0
    held: int = 0
    refused: int = 0
    foreign: int = 0

    def add(self, other: Counters) -> None:
        """Count what another counted too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Reply:
    """What will be said to an edge about a session: streams that changed, and what was refused."""

    streams: set[int] = field(default_factory=set)
    refused: list[Refusal] = field(default_factory=list)


@dataclass(slots=True)
class Taken:
    """A round's messages, sorted out.

    Attributes:
        batch: What to commit.
        appeared: Edges that came online: they want to know where they stand.
        more: Messages that waited for their session are left for the next round.
        counts: What was in it.
        replies: What will be said, by edge and session.
        stored: Sample count and checksum of chunks the database has under keys that came again.
        fresh_events: Events this round takes, by session and number.
    """

    batch: Batch = field(default_factory=Batch)
    appeared: list[str] = field(default_factory=list)
    more: bool = False
    counts: Counters = field(default_factory=Counters)
    replies: dict[tuple[str, UUID], Reply] = field(default_factory=dict)
    stored: dict[ChunkKey, tuple[int, int]] = field(default_factory=dict)
    fresh_events: dict[tuple[UUID, int], Event] = field(default_factory=dict)
    _indexed: dict[ChunkKey, bytes] = field(default_factory=dict)

    def fresh_chunk(self, key: ChunkKey) -> bytes | None:
        """The payload this round takes under a key; few rounds are ever asked, so the index is made when one is."""
        for row in self.batch.chunks[len(self._indexed) :]:
            self._indexed[row.session, row.stream, row.first] = row.payload
        return self._indexed.get(key)

    def reply(self, edge: str, session: UUID) -> Reply:
        """What will be said to an edge about a session."""
        return self.replies.setdefault((edge, session), Reply())


def stream_commits(held: Mapping[int, CommittedRanges]) -> tuple[StreamCommit, ...]:
    """What is held of each stream; past `MAX_HOLES` holes a report goes only as far as it can be exact."""
    commits = []
    for stream, ranges in sorted(held.items()):
        holes, until = ranges.awaited(), ranges.stored.end
        if len(holes) > MAX_HOLES:
            until = holes[MAX_HOLES][0]
        commits.append(StreamCommit(stream=stream, until=until, holes=tuple(holes[:MAX_HOLES])))
    return tuple(commits)
