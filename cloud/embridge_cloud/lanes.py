"""The way of a chunk that simply comes next: of an open session, of the stream's shape, behind all that is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from embridge_cloud.parcels import Parcel
from embridge_cloud.rounds import Taken
from embridge_cloud.store.ranges import CommittedRanges
from embridge_cloud.store.rows import ChunkRow, StoredSession
from embridge_shared.session import SessionClosed
from embridge_shared.signal import SampleType
from embridge_shared.wire.codec import Head
from embridge_shared.wire.messages import EventMessage


@dataclass(slots=True)
class Lane:
    """A stream of an open session.

    Attributes:
        found: The session.
        stream: Ordinal of the stream in it.
        shape: Session, ordinal, channels and sample type that its chunks must name.
        ranges: What is held of it.
    """

    found: StoredSession
    stream: int
    shape: tuple[UUID, int, int, SampleType]
    ranges: CommittedRanges


class Lanes:
    """The streams that chunks may follow, by topic.

    Args:
        live: Sessions that are not sealed.
    """

    def __init__(self, live: Mapping[UUID, StoredSession]) -> None:
        self._live = live
        self._lanes: dict[str, Lane] = {}

    def forget(self) -> None:
        """Look at every session anew."""
        self._lanes.clear()

    def take(self, taken: Taken, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Take what comes next in its stream into the round; returns everything else, in its order."""
        rows, others = taken.batch.chunks, []
        closing = {p.session for p in parcels if _closes(p)}
        touched: dict[int, Lane] = {}
        for parcel in parcels:
            head = parcel.body
            lane = self._lanes.get(parcel.incoming.topic) or self._open(parcel)
            if lane is None or not isinstance(head, Head) or not _follows(lane, head) or head.session in closing:
                others.append(parcel)
                continue
            _, payload, received_ns = parcel.incoming
            rows.append(ChunkRow.of(head, payload, received_ns))
            lane.ranges.add(head.first, head.n, head.gap_before)
            touched[id(lane)] = lane
            taken.counts.samples += head.n
        taken.counts.chunks += len(rows)
        for lane in touched.values():
            session = lane.found.session
            taken.reply(session.edge, session.id).streams.add(lane.stream)
        return others

    def _open(self, parcel: Parcel) -> Lane | None:
        """The lane of a topic, or None where its session is not open or not of that edge and stream."""
        address = parcel.address
        found = self._live.get(address.session)
        if found is None or found.session.edge != address.edge or found.totals is not None:
            return None
        for stream, spec in enumerate(found.session.streams):
            if spec.name == address.stream:
                shape = (found.session.id, stream, spec.n_channels, spec.dtype)
                lane = Lane(found, stream, shape, found.of(stream))
                self._lanes[parcel.incoming.topic] = lane
                return lane
        return None


def _closes(parcel: Parcel) -> bool:
    return isinstance(parcel.body, EventMessage) and isinstance(parcel.body.event, SessionClosed)


def _follows(lane: Lane, head: Head) -> bool:
    return (
        (head.session, head.stream, head.channels, head.sample_type) == lane.shape
        and head.first >= lane.ranges.stored.end
        and lane.found.totals is None
    )
