"""An edge's side of the agreement, reduced to its rule: forget what a commit report covers, send the rest again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from embridge_shared.session import SessionOpened
from embridge_shared.wire import codec
from embridge_shared.wire.messages import CommitReport, EventMessage, unpack


@dataclass(frozen=True)
class Spooled:
    """A message that waits to be covered: range [first, end) of a stream, or of the events (-1)."""

    topic: str
    payload: bytes
    session: UUID
    stream: int
    first: int
    end: int

    @classmethod
    def of(cls, topic: str, payload: bytes) -> Spooled:
        if "/up/" in topic:
            chunk = codec.decode(payload)
            return cls(topic, payload, chunk.session, chunk.stream, chunk.first, chunk.end)
        message = unpack(payload, EventMessage)
        return cls(topic, payload, message.session, -1, message.seq, message.seq + 1)

    @property
    def opens(self) -> bool:
        return self.stream == -1 and isinstance(unpack(self.payload, EventMessage).event, SessionOpened)


class EdgeSpool:
    """What an edge still has to deliver."""

    def __init__(self, messages: Iterable[tuple[str, bytes]]) -> None:
        self.items = [Spooled.of(*m) for m in messages]
        self.refused: list[tuple[int, int, str]] = []
        self.sealed: set[UUID] = set()

    def settle(self, report: CommitReport) -> None:
        if report.sealed:
            self.sealed.add(report.session)
        for refusal in report.refused:
            self.refused.append((refusal.stream, refusal.first, refusal.reason))
        gone = {(r.stream, r.first) for r in report.refused}
        self.items = [
            i
            for i in self.items
            if i.session != report.session
            or not ((i.stream, i.first) in gone or any(_covers(c, i) for c in report.streams))
        ]


def _covers(commit, item: Spooled) -> bool:
    return (
        commit.stream == item.stream
        and item.end <= commit.until
        and not any(a < item.end and item.first < b for a, b in commit.holes)
    )
