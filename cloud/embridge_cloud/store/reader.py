"""Questions to the hot file, each on a connection of its own so that a commit does not wait for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from uuid import UUID

import duckdb
import msgspec

from embridge_cloud.store.columns import table
from embridge_cloud.store.failures import translate
from embridge_cloud.store.gate import Gate
from embridge_cloud.store.ranges import CommittedRanges
from embridge_cloud.store.rows import QuarantineRow, StoredSession
from embridge_shared.errors import Reason
from embridge_shared.session import INCOMPLETE, Event, Session

ChunkKey = tuple[UUID, int, int]

_ISLANDS = """
SELECT {key}, min(first), max("end") FROM (
    SELECT {key}, first, "end", sum(fresh) OVER (PARTITION BY {key} ORDER BY first) AS island FROM (
        SELECT {key}, first, "end",
               CASE WHEN first = lag("end") OVER (PARTITION BY {key} ORDER BY first) THEN 0 ELSE 1 END AS fresh
        FROM ({rows}))
) GROUP BY {key}, island
"""


class Anchor(NamedTuple):
    """Where a chunk stands: first sample, samples, lost before it, Unix time of the first, ns, loss estimated."""

    first: int
    n: int
    gap_before: int
    t0_ns: int
    gap_inferred: bool = False


class Reader:
    """Reads the hot file.

    Every question may raise `StoreError`.

    Args:
        cursor: Makes a connection to the attached file.
        gate: Closed while the file is written anew.
    """

    def __init__(self, cursor: Callable[[], duckdb.DuckDBPyConnection], gate: Gate | None = None) -> None:
        self._cursor = cursor
        self._gate = gate or Gate()

    @contextmanager
    def _query(self) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            with self._gate.shared(), self._cursor() as cursor:
                yield cursor
        except duckdb.Error as error:
            raise translate(error) from error

    def snapshot(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """A connection of its own, for what reads much at once; nothing is written through it."""
        return self._query()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._query() as cursor:
            return cursor.execute(sql, list(parameters)).fetchall()

    def records(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """All rows of a query, column names as keys."""
        with self._query() as cursor:
            result = cursor.execute(sql, list(parameters))
            names = [d[0] for d in result.description or ()]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def session_ids(self) -> set[UUID]:
        """Every session that was ever opened."""
        return {row[0] for row in self.rows("SELECT session FROM sessions")}

    def unsealed(self) -> list[StoredSession]:
        """Sessions that are open or ended, with what is held of them."""
        ids = self.rows("SELECT session FROM sessions ANTI JOIN sealed_sessions USING (session) ORDER BY session")
        return [found for (i,) in ids if (found := self.session(i)) is not None]

    def session(self, session: UUID) -> StoredSession | None:
        """One session with what is held of it."""
        head = self.rows(
            "SELECT s.description, e.seq, z.session IS NOT NULL, coalesce(starts_with(e.reason, ?), false) "
            "FROM sessions s LEFT JOIN session_ends e USING (session) LEFT JOIN sealed_sessions z USING (session) "
            "WHERE s.session = ?",
            [INCOMPLETE, session],
        )
        if not head:
            return None
        description, closed_seq, sealed, forced = head[0]
        totals = self.rows("SELECT total FROM session_totals WHERE session = ? ORDER BY stream", [session])
        return StoredSession(
            msgspec.json.decode(description, type=Session),
            self.coverage(session),
            tuple(t for (t,) in totals) if closed_seq is not None else None,
            closed_seq,
            sealed,
            forced,
        )

    def is_sealed(self, session: UUID) -> bool:
        """Whether a sealed folder of a session is on record."""
        return bool(self.rows("SELECT 1 FROM sealed_sessions WHERE session = ?", [session]))

    def coverage(self, session: UUID) -> dict[int, CommittedRanges]:
        """What is held of each stream by ordinal, and of the events under `rows.EVENTS`."""
        held: dict[int, CommittedRanges] = defaultdict(CommittedRanges)
        chunks = 'SELECT stream, first, first + n AS "end" FROM chunks WHERE session = $1'
        events = 'SELECT -1 AS stream, seq AS first, seq + 1 AS "end" FROM events WHERE session = $1'
        sealed = 'SELECT stream, first, "end" FROM sealed_ranges WHERE session = $1'
        union = f"{chunks} UNION ALL {events} UNION ALL {sealed}"
        for stream, start, end in self.rows(_ISLANDS.format(key="stream", rows=union), [session]):
            held[stream].stored.add(start, end)
        gaps = "SELECT stream, first - gap_before, first FROM chunks WHERE session = ? AND gap_before > 0"
        for stream, start, end in self.rows(gaps, [session]):
            held[stream].declared.add(start, end)
        # What a session ended by force lacks may still lie with its edge, which must not forget it.
        totals = (
            "SELECT stream, total FROM session_totals SEMI JOIN sealed_sessions USING (session) "
            "JOIN session_ends USING (session) WHERE session = ? AND NOT starts_with(reason, ?)"
        )
        for stream, total in self.rows(totals, [session, INCOMPLETE]):
            for start, end in held[stream].stored.missing(0, total):
                held[stream].declared.add(start, end)
        return dict(held)

    def stored_chunks(self, keys: Sequence[ChunkKey]) -> dict[ChunkKey, tuple[int, int]]:
        """Sample count and checksum of those of `keys` that are stored."""
        if not keys:
            return {}
        with self._query() as cursor:
            cursor.register("wanted", table("keys", [(str(s), i, f) for s, i, f in keys]))
            found = cursor.execute(
                "SELECT c.session, c.stream, c.first, c.n, c.crc FROM chunks c JOIN wanted w "
                "ON c.session = w.session::UUID AND c.stream = w.stream AND c.first = w.first"
            ).fetchall()
        return {(s, i, f): (n, crc) for s, i, f, n, crc in found}

    def payload(self, key: ChunkKey) -> bytes | None:
        """A chunk as received."""
        rows = self.rows("SELECT payload FROM chunks WHERE session = ? AND stream = ? AND first = ?", key)
        return rows[0][0] if rows else None

    def event(self, session: UUID, seq: int) -> Event | None:
        """One event of a session."""
        rows = self.rows("SELECT body FROM events WHERE session = ? AND seq = ?", [session, seq])
        return msgspec.json.decode(rows[0][0], type=Event) if rows else None

    def events(self, session: UUID) -> list[tuple[int, Event]]:
        """All events of a session with their numbers, in order."""
        rows = self.rows("SELECT seq, body FROM events WHERE session = ? ORDER BY seq", [session])
        return [(seq, msgspec.json.decode(body, type=Event)) for seq, body in rows]

    def anchors(self, session: UUID, stream: int) -> list[Anchor]:
        """Where the chunks of a stream stand, in order."""
        rows = self.rows(
            "SELECT first, n, gap_before, t0_ns, coalesce(gap_inferred, false) FROM chunks "
            "WHERE session = ? AND stream = ? ORDER BY first",
            [session, stream],
        )
        return [Anchor(*row) for row in rows]

    def payloads(self, session: UUID, stream: int, anchors: Sequence[Anchor], *, at_once: int = 256) -> Iterator[bytes]:
        """The chunks that stand at `anchors` as received, in order, `at_once` in memory."""
        for at in range(0, len(anchors), at_once):
            block = anchors[at : at + at_once]
            rows = self.rows(
                "SELECT payload FROM chunks WHERE session = ? AND stream = ? AND first BETWEEN ? AND ? ORDER BY first",
                [session, stream, block[0].first, block[-1].first],
            )
            yield from (payload for (payload,) in rows)

    def held_sessions(self) -> set[UUID]:
        """Sessions that are known and still have messages held from before they were."""
        sql = "SELECT DISTINCT session FROM quarantine SEMI JOIN sessions USING (session) WHERE reason = ?"
        return {row[0] for row in self.rows(sql, [Reason.UNKNOWN_SESSION.value])}

    def held(self, session: UUID, limit: int) -> list[QuarantineRow]:
        """Messages that wait for their session to be opened."""
        rows = self.rows(
            "SELECT id, topic, payload, received_ns, reason, detail, edge, session, stream, first FROM quarantine "
            "WHERE session = ? AND reason = ? ORDER BY received_ns, stream, first LIMIT ?",
            [session, Reason.UNKNOWN_SESSION.value, limit],
        )
        return [QuarantineRow(*row) for row in rows]

    def quarantined_bytes(self) -> int:
        """Size of the quarantine."""
        return int(self.rows("SELECT coalesce(sum(bytes), 0) FROM quarantine")[0][0])
