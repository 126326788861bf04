"""The core of the ingester: which messages the store takes, which it has, which it will never take.

A round is `take` → `HotStore.commit` → `committed`. Only `committed` and `coverage` make reports, and both speak of
what the database holds, never of what it is about to.

    unknown session         held in quarantine until the session opens; the edge is told nothing and keeps it
    known key, same content acknowledged again
    known key, other content, or a partial overlap   quarantine, refused
    other edge, stream, shape                        quarantine, refused
    of somebody who was erased                       refused, kept nowhere
    foreign, damaged, truncated                      quarantine; nobody is told, for nobody can be trusted to be meant

Nearly every chunk simply comes next in an open session's stream. Those are told apart first and cost no more than a few
comparisons; everything else is judged one by one. Both may be done in any order: what lies behind the end of all
that is stored of a stream cannot touch anything that is not (decision 0012).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from uuid import UUID

from embridge_cloud import parcels
from embridge_cloud.lanes import Lanes
from embridge_cloud.parcels import STATE_PREFIX, Incoming, Parcel, Sifted
from embridge_cloud.placement import misplaced, past_end, same_samples
from embridge_cloud.rounds import Counters, Report, Taken, stream_commits
from embridge_cloud.store.embargo import Embargo
from embridge_cloud.store.reader import ChunkKey, Reader
from embridge_cloud.store.rows import (
    EVENTS,
    ChunkRow,
    EventRow,
    QuarantineRow,
    StoredSession,
    quarantine_id,
)
from embridge_shared.errors import DataError, Reason
from embridge_shared.session import SessionClosed, SessionOpened
from embridge_shared.wire import topics
from embridge_shared.wire.codec import Head
from embridge_shared.wire.messages import CommitReport, EdgeState, EventMessage, Refusal, StreamCommit

logger = logging.getLogger(__name__)

HELD_AT_ONCE = 256
RECENTLY_SEALED = 32


class Intake:
    """Sorts messages by what the store knows. Not thread safe: one thread runs whole rounds.

    Args:
        read: The store.
        first_shard: First shard this process owns.
        last_shard: Last shard it owns; states of other edges are left to their owners.

    Attributes:
        counters: What came and was committed.
    """

    def __init__(self, read: Reader, *, first_shard: int = 0, last_shard: int = topics.SHARDS - 1) -> None:
        self._read = read
        self._shards = range(first_shard, last_shard + 1)
        self._sealed: dict[UUID, StoredSession] = {}
        self._online: dict[str, bool] = {}
        self.counters = Counters()
        self.reload()

    def reload(self) -> None:
        """Forget what was not committed and start from what the store holds."""
        self._known = self._read.session_ids()
        self._live = {s.session.id: s for s in self._read.unsealed()}
        self._lanes = Lanes(self._live)
        self._waiting = self._read.held_sessions()
        self._pending = False
        self._embargo = Embargo(self._read)

    @property
    def unsettled(self) -> bool:
        """A round was begun and is not committed."""
        return self._pending

    def take(self, messages: Sequence[Incoming] | Sifted) -> Taken:
        """Sort out a round's messages, read or not; the batch must be committed before the next round.

        Raises:
            RuntimeError: The last round was not committed.
        """
        if self._pending:
            raise RuntimeError("the last round was not committed")
        self._pending = True
        self._sealed.clear()
        taken = Taken()
        sifted = messages if isinstance(messages, Sifted) else parcels.sift(messages)
        self._note(taken, sifted)
        # A session opens before its samples are looked at, whatever order they came in.
        readable = sorted(self._lanes.take(taken, sifted.parcels), key=lambda parcel: not parcel.opens)
        readable = [p for p in readable if not self._barred(taken, p)]
        opened = [p.session for p in readable if p.opens]
        self._judge_all(taken, readable)
        self._waiting.update(s for s in opened if s in self._live)
        self._judge_all(taken, self._released(taken))
        taken.more = bool(self._waiting)
        return taken

    def committed(self, taken: Taken) -> list[Report]:
        """What to tell the edges now that the round's batch is in the database."""
        reports = []
        for (edge, session), reply in taken.replies.items():
            streams: tuple[StreamCommit, ...] = ()
            found = self._find(session)
            if found is not None and found.session.edge == edge:
                streams = stream_commits({i: found.of(i) for i in sorted(reply.streams)})
            reports.append(
                (
                    edge,
                    CommitReport(
                        session=session,
                        streams=streams,
                        refused=tuple(reply.refused),
                        sealed=found is not None and found.sealed and bool(streams),
                    ),
                )
            )
        self._pending = False
        self.counters.add(taken.counts)
        return reports

    def complete(self, among: Iterable[UUID] | None = None) -> list[UUID]:
        """Sessions that can be sealed, of all or of those given."""
        ids = self._live if among is None else among
        return [i for i in ids if (found := self._live.get(i)) is not None and found.complete]

    def sealed(self, session: UUID) -> Report | None:
        """Note that a session was sealed; returns what to tell its edge."""
        found = self._live.pop(session, None)
        if found is None:
            return None
        self._lanes.forget()
        report = CommitReport(session=session, streams=stream_commits(found.ranges), sealed=True)
        return found.session.edge, report

    def greet(self) -> list[Report]:
        """Where all sessions stand; every edge that is online will count as having appeared."""
        self._online.clear()
        return self.coverage()

    def coverage(self, edge: str | None = None) -> list[Report]:
        """Where sessions stand, read from the database: all that are not sealed, or one edge's and its latest."""
        reports = []
        for found in self._live.values():
            if edge in (None, found.session.edge):
                held = self._read.coverage(found.session.id)
                reports.append(
                    (found.session.edge, CommitReport(session=found.session.id, streams=stream_commits(held)))
                )
        if edge is not None:
            sql = (
                "SELECT session FROM sealed_sessions JOIN sessions USING (session) WHERE edge = ? "
                "ORDER BY sealed_ns DESC LIMIT ?"
            )
            for (session,) in self._read.rows(sql, [edge, RECENTLY_SEALED]):
                held = self._read.coverage(session)
                reports.append((edge, CommitReport(session=session, streams=stream_commits(held), sealed=True)))
        return reports

    def _note(self, taken: Taken, sifted: Sifted) -> None:
        """Count messages, keep states, and put what cannot be trusted into quarantine."""
        taken.counts.messages += sifted.messages
        taken.counts.bytes += sifted.bytes
        foreign = list(sifted.foreign)
        for message in sifted.states:
            try:
                self._note_state(taken, message)
            except DataError as error:
                foreign.append((message, error))
        taken.counts.foreign += len(foreign)
        for message, why in foreign:
            if not self._embargo.bars_topic(message.topic):
                self._quarantine(taken, message, why.reason, why.message)

    def _barred(self, taken: Taken, parcel: Parcel) -> bool:
        """Refuse what is of somebody who was erased, and keep nothing of it."""
        body = parcel.body
        if isinstance(body, EventMessage) and isinstance(body.event, SessionOpened):
            erasure = self._embargo.erasure(body.event.session)
            if erasure is not None:
                taken.batch.barred[parcel.session] = erasure
        if not self._embargo.bars(parcel.session):
            return False
        taken.counts.refused += 1
        detail = "its participant was erased"
        refusal = Refusal(stream=parcel.stream, first=parcel.first, reason=Reason.ERASED.value, detail=detail)
        taken.reply(parcel.address.edge, parcel.session).refused.append(refusal)
        return True

    def _note_state(self, taken: Taken, message: Incoming) -> None:
        edge = message.topic.removeprefix(STATE_PREFIX)
        # An empty retained message takes a state back.
        if not message.payload or topics.shard(edge) not in self._shards:
            return
        state: EdgeState = parcels.read_state(message)
        if state.online and not self._online.get(edge):
            taken.appeared.append(edge)
        self._online[edge] = state.online
        taken.batch.edges[edge] = (state, message.received_ns)

    def _released(self, taken: Taken) -> list[Parcel]:
        """Messages held for sessions that are open now, as many as fit a round."""
        found: list[Parcel] = []
        for session in sorted(self._waiting):
            room = HELD_AT_ONCE - len(found)
            if room == 0:
                break
            rows = self._read.held(session, room)
            if len(rows) < room:
                self._waiting.discard(session)
            for row in rows:
                message = Incoming(row.topic, row.payload, row.received_ns)
                try:
                    found.append(parcels.read(message, row.id))
                except DataError as error:
                    self._quarantine(taken, message, error.reason, error.message)
        return found

    def _judge_all(self, taken: Taken, readable: Sequence[Parcel]) -> None:
        taken.stored.update(self._read.stored_chunks(self._suspects(readable)))
        for parcel in readable:
            if isinstance(parcel.body, Head):
                self._judge_chunk(taken, parcel, parcel.body)
            else:
                self._judge_event(taken, parcel, parcel.body)

    def _suspects(self, readable: Sequence[Parcel]) -> list[ChunkKey]:
        """Keys of chunks that touch what is stored: asked for in one query."""
        keys = []
        for parcel in readable:
            found = self._find(parcel.session)
            if isinstance(parcel.body, Head) and found is not None and not found.sealed:
                body = parcel.body
                if body.stream in found.ranges and found.of(body.stream).stored.overlaps(body.first, body.end):
                    keys.append((body.session, body.stream, body.first))
        return keys

    def _judge_chunk(self, taken: Taken, parcel: Parcel, chunk: Head) -> None:
        found = self._find(chunk.session)
        fault = misplaced(parcel, found)
        if fault is not None:
            self._refuse(taken, parcel, *fault)
        elif found is None:
            self._hold(taken, parcel)
        elif found.of(chunk.stream).stored.overlaps(chunk.first, chunk.end):
            if self._has(taken, found, chunk, parcel.incoming.payload):
                self._settle(taken, parcel)
                taken.counts.duplicates += 1
            else:
                detail = f"samples {chunk.first}..{chunk.end} are there with other bounds or other content"
                self._refuse(taken, parcel, Reason.OVERLAP, detail)
        elif found.sealed or past_end(found, chunk):
            self._refuse(taken, parcel, Reason.SESSION_ENDED, f"samples {chunk.first}..{chunk.end} of an ended session")
        else:
            row = ChunkRow.of(chunk, parcel.incoming.payload, parcel.incoming.received_ns)
            taken.batch.chunks.append(row)
            found.of(chunk.stream).add(chunk.first, chunk.n, chunk.gap_before)
            taken.counts.chunks += 1
            taken.counts.samples += chunk.n
            self._settle(taken, parcel)

    def _has(self, taken: Taken, found: StoredSession, chunk: Head, payload: bytes) -> bool:
        """Whether the samples of a chunk are the ones held under its key."""
        if found.sealed:
            return found.of(chunk.stream).stored.covers(chunk.first, chunk.end)
        key = (chunk.session, chunk.stream, chunk.first)
        if taken.stored.get(key) == (chunk.n, chunk.crc):
            return True
        held = taken.fresh_chunk(key) or (self._read.payload(key) if key in taken.stored else None)
        return held is not None and (held == payload or same_samples(held, payload))

    def _judge_event(self, taken: Taken, parcel: Parcel, message: EventMessage) -> None:
        found = self._find(message.session)
        fault = misplaced(parcel, found)
        if fault is not None:
            self._refuse(taken, parcel, *fault)
        elif wrong := parcels.fault_of_event(message):
            self._refuse(taken, parcel, Reason.MALFORMED, wrong)
        elif found is None and isinstance(message.event, SessionOpened):
            found = self._live[message.session] = StoredSession(message.event.session)
            self._known.add(message.session)
            self._accept_event(taken, parcel, found, message)
        elif found is None:
            self._hold(taken, parcel)
        elif found.of(EVENTS).stored.covers(message.seq, message.seq + 1):
            held = taken.fresh_events.get((message.session, message.seq))
            if (held or self._read.event(message.session, message.seq)) == message.event:
                self._settle(taken, parcel)
                taken.counts.duplicates += 1
            else:
                self._refuse(taken, parcel, Reason.OVERLAP, f"event {message.seq} is there with other content")
        elif found.closed_seq is not None and (
            message.seq > found.closed_seq or isinstance(message.event, SessionClosed)
        ):
            self._refuse(taken, parcel, Reason.SESSION_ENDED, f"event {message.seq} of an ended session")
        elif isinstance(message.event, SessionClosed) and len(message.event.totals) != len(found.session.streams):
            self._refuse(taken, parcel, Reason.WRONG_SHAPE, "one total a stream ends a session")
        else:
            self._accept_event(taken, parcel, found, message)

    def _accept_event(self, taken: Taken, parcel: Parcel, found: StoredSession, message: EventMessage) -> None:
        if isinstance(message.event, SessionClosed):
            found.totals, found.closed_seq = message.event.totals, message.seq
        taken.batch.events.append(EventRow(message.session, message.seq, message.event, parcel.incoming.received_ns))
        taken.fresh_events[(message.session, message.seq)] = message.event
        found.of(EVENTS).add(message.seq, 1)
        taken.counts.events += 1
        self._settle(taken, parcel)

    def _settle(self, taken: Taken, parcel: Parcel) -> None:
        """It is in the store, or will be with this batch."""
        taken.reply(parcel.address.edge, parcel.session).streams.add(parcel.stream)
        if parcel.held_id:
            taken.batch.released.append(parcel.held_id)

    def _hold(self, taken: Taken, parcel: Parcel) -> None:
        taken.counts.held += 1
        detail = "waits for the event that opens its session"
        self._quarantine(taken, parcel.incoming, Reason.UNKNOWN_SESSION, detail, parcel=parcel)

    def _refuse(self, taken: Taken, parcel: Parcel, reason: Reason, detail: str) -> None:
        taken.counts.refused += 1
        refusal = Refusal(stream=parcel.stream, first=parcel.first, reason=reason.value, detail=detail)
        taken.reply(parcel.address.edge, parcel.session).refused.append(refusal)
        self._quarantine(taken, parcel.incoming, reason, detail, parcel=parcel, owed=True)
        where = {"edge": parcel.address.edge, "session": str(parcel.session), "stream": parcel.stream}
        logger.warning("refused %s at %s: %s", parcel.incoming.topic, parcel.first, detail, extra=where)

    def _quarantine(
        self,
        taken: Taken,
        message: Incoming,
        reason: Reason,
        detail: str,
        *,
        parcel: Parcel | None = None,
        owed: bool = False,
    ) -> None:
        row_id = quarantine_id(message.topic, message.payload)
        taken.batch.quarantined[row_id] = QuarantineRow(
            row_id,
            message.topic,
            message.payload,
            message.received_ns,
            reason.value,
            detail,
            edge=parcel.address.edge if parcel else "",
            session=parcel.session if parcel else None,
            stream=parcel.stream if parcel else None,
            first=parcel.first if parcel else None,
            owed=owed,
        )

    def _find(self, session: UUID) -> StoredSession | None:
        found = self._live.get(session) or self._sealed.get(session)
        if found is None and session in self._known:
            found = self._read.session(session)
            if found is not None:
                self._sealed[session] = found
        return found
