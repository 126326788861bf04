"""A recording between two formats: what a session holds, in memory, and the messages an edge would have sent of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid5

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.exchange.knots import knots, longest_chunk
from embridge_cloud.store.manifest import ContentDigest, content_hash
from embridge_cloud.store.ranges import Range
from embridge_cloud.store.sealed import NumberedEvent, SealedSession
from embridge_shared.errors import DataError, Reason
from embridge_shared.quality.grades import Grade, Metric
from embridge_shared.session import Event, Marker, QualityFinding, QualitySeen, Session, SessionClosed, SessionOpened
from embridge_shared.signal import Arrivals, Chunk, StreamSpec
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EventMessage, pack
from embridge_shared.wire.topics import chunk_topic, event_topic

IMPORT_EDGE = "import"
"""The edge that sessions from elsewhere are said to come from."""

_NAMESPACE = UUID("6f0b1c0e-5b0f-5d0b-9d8e-2f6a4c8e7d10")


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where an imported session comes from; kept in a marker at its start.

    Attributes:
        format: As in "ninapro".
        file: Name of the file, without its folder.
        sha256: Digest of that file.
        licence: What may be done with it.
        citation: What to cite.
        url: Where it was published.
        notes: What the import changed or could not keep.
    """

    format: str
    file: str
    sha256: str
    licence: str = "unstated"
    citation: str = ""
    url: str = ""
    notes: tuple[str, ...] = ()

    def marker(self, t_ns: int) -> Marker:
        """The marker that keeps it."""
        return Marker(text=f"imported: {msgspec.json.encode(self).decode()}", t_ns=t_ns)


@dataclass(frozen=True, slots=True, eq=False)
class StreamData:
    """Samples of one stream.

    Attributes:
        index: Sample indices, rising; a jump is loss; int64 (n,).
        t_ns: Unix time of each, not falling, int64 (n,).
        values: Raw samples (n, channels) of the stream's type.
        arrivals: When packets reached the edge.
        inferred: Gaps whose length is an estimate.
        tolerance_ns: How far the times may be off once stored.
    """

    index: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    values: NDArray[Any]
    arrivals: Arrivals = field(default_factory=Arrivals)
    inferred: tuple[Range, ...] = ()
    tolerance_ns: float = 0.0

    @property
    def total(self) -> int:
        """Index after the last sample."""
        return int(self.index[-1]) + 1 if len(self.index) else 0

    def runs(self) -> Iterator[tuple[int, int]]:
        """Positions [a, b) of the stretches without loss."""
        cuts = np.flatnonzero(np.diff(self.index) != 1) + 1
        edges = [0, *cuts.tolist(), len(self.index)]
        return ((a, b) for a, b in pairwise(edges) if b > a)

    @property
    def gaps(self) -> tuple[Range, ...]:
        """Ranges of indices that are not there."""
        found, end = [], 0
        for a, b in self.runs():
            if self.index[a] > end:
                found.append((end, int(self.index[a])))
            end = int(self.index[b - 1]) + 1
        return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One session, whole.

    Attributes:
        session: Its description.
        streams: In ordinal order.
        events: All of them, the opening first and the closing last.
        content: Content hash it must have, where that is known.
    """

    session: Session
    streams: tuple[StreamData, ...]
    events: tuple[Event, ...]
    content: str = ""

    def __post_init__(self) -> None:
        if len(self.streams) != len(self.session.streams) or not self.streams:
            raise DataError(f"session {self.session.id} needs data for each stream", reason=Reason.WRONG_SHAPE)
        for spec, data in zip(self.session.streams, self.streams, strict=True):
            _check(spec, data)
        if not isinstance(self.events[0], SessionOpened) or not isinstance(self.events[-1], SessionClosed):
            raise DataError(f"session {self.session.id} neither opens nor closes", reason=Reason.MALFORMED)

    @property
    def content_hash(self) -> str:
        """Digest over all samples, as the sealed session will have it."""
        contents = []
        for spec, data in zip(self.session.streams, self.streams, strict=True):
            digest = ContentDigest(spec)
            for a, b in data.runs():
                digest.update(int(data.index[a]), data.values[a:b])
            contents.append(digest.hexdigest())
        return content_hash(self.session.id, contents)

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Topics and payloads, the same in the same order whenever it is asked."""
        s = self.session
        topic = event_topic(s.edge, s.id)
        yield topic, pack(EventMessage(session=s.id, seq=0, event=self.events[0]))
        for ordinal, (spec, data) in enumerate(zip(s.streams, self.streams, strict=True)):
            for chunk in chunks(s.id, ordinal, spec, data):
                yield chunk_topic(s.edge, s.id, spec.name), codec.encode(chunk)
        for seq, event in enumerate(self.events[1:], 1):
            yield topic, pack(EventMessage(session=s.id, seq=seq, event=event))


def _check(spec: StreamSpec, data: StreamData) -> None:
    n = len(data.index)
    if data.values.shape != (n, spec.n_channels) or data.values.dtype != spec.dtype.numpy or len(data.t_ns) != n:
        raise DataError(
            f"stream {spec.name}: {data.values.shape} of {data.values.dtype} is not {n} × {spec.n_channels} of "
            f"{spec.dtype.value}",
            reason=Reason.WRONG_SHAPE,
        )
    if n and (data.index[0] < 0 or (np.diff(data.index) <= 0).any() or (np.diff(data.t_ns) < 0).any()):
        raise DataError(f"stream {spec.name}: its index or its time runs backwards", reason=Reason.OVERLAP)


def chunks(session: UUID, ordinal: int, spec: StreamSpec, data: StreamData) -> Iterator[Chunk]:
    """Cut a stream into chunks that keep its times and its arrivals."""
    longest = longest_chunk(spec.n_channels, spec.dtype.numpy.itemsize)
    cuts = knots(data.index, data.t_ns, spec.rate_hz, longest=longest, tolerance_ns=data.tolerance_ns)
    firsts = data.index[cuts]
    owner = np.maximum(np.searchsorted(firsts, data.arrivals.index, side="right") - 1, 0)
    bounds = np.searchsorted(owner, np.arange(len(cuts) + 1))
    estimated = {end for _, end in data.inferred}
    end = 0
    for k, (a, b) in enumerate(zip(cuts.tolist(), [*cuts[1:].tolist(), len(data.index)], strict=True)):
        first = int(data.index[a])
        mine = slice(bounds[k], bounds[k + 1])
        yield Chunk(
            session=session,
            stream=ordinal,
            first=first,
            samples=data.values[a:b],
            t0_ns=int(data.t_ns[a]),
            gap_before=first - end,
            arrivals=Arrivals(data.arrivals.index[mine], data.arrivals.host_ns[mine]),
            gap_inferred=first > end and first in estimated,
        )
        end = int(data.index[b - 1]) + 1


def session_id(*parts: str) -> UUID:
    """Id of what comes from elsewhere: the same parts give the same id, so a second import meets the first."""
    return uuid5(_NAMESPACE, "\x1f".join(parts))


def of_sealed(sealed: SealedSession) -> Recording:
    """Read a sealed session whole.

    Raises:
        DataError: It is damaged.
    """
    streams = []
    for entry in sealed.manifest.streams:
        samples = sealed.samples(entry.name)
        streams.append(
            StreamData(samples.index, samples.t_ns, samples.values, sealed.arrivals(entry.name), tuple(entry.inferred))
        )
    frame = sealed.quality()
    rows = [] if frame is None else frame.collect().to_dicts()
    events = numbered(sealed.session, sealed.events(), rows)
    return Recording(sealed.session, tuple(streams), events, sealed.content_hash)


def numbered(session: Session, events: Sequence[NumberedEvent], quality: Sequence[dict[str, Any]]) -> tuple[Event, ...]:
    """All events in order of number, what was seen of the quality among them.

    Args:
        session: Its streams.
        events: As in `events.json`.
        quality: Rows as in `quality.parquet`.

    Raises:
        DataError: A number is missing or there twice.
    """
    found: dict[int, Event] = {e.seq: e.event for e in events}
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in quality:
        rows.setdefault(int(row["seq"]), []).append(row)
    seen = {seq: _quality(session, group) for seq, group in rows.items()}
    if len(found) + len(seen) != len(events) + len(rows) or found.keys() & seen.keys():
        raise DataError(f"session {session.id}: an event is there twice", reason=Reason.OVERLAP)
    found |= seen
    if sorted(found) != list(range(len(found))):
        raise DataError(f"session {session.id}: an event is missing", reason=Reason.TRUNCATED)
    return tuple(found[i] for i in range(len(found)))


def _quality(session: Session, rows: list[dict[str, Any]]) -> QualitySeen:
    """The event that rows of one number were made of; which metric told is not kept there and does not matter here."""
    head = rows[0]
    stream = next(i for i, s in enumerate(session.streams) if s.name == head["stream"])
    names = session.streams[stream].channels
    by_channel = {names.index(r["channel"]): r for r in rows}
    width = max(by_channel) + 1
    values = {}
    for metric in Metric:
        column = tuple(by_channel.get(c, {}).get(metric.value) for c in range(width))
        if any(v is not None for v in column):
            values[metric] = column
    told = (Grade.WARN.value, Grade.BAD.value)
    findings = tuple(
        QualityFinding(channel=c, metric=Metric.LOSS, grade=Grade(r["grade"]), reason=r["reasons"])
        for c, r in sorted(by_channel.items())
        if r["grade"] in told
    )
    if not values:
        # A window of which nothing could be computed still counts its channels.
        values = {Metric.LOSS: (None,) * width}
    return QualitySeen(
        stream=stream, first=head["first"], n=head["n"], t_ns=head["t_ns"], values=values, findings=findings
    )
