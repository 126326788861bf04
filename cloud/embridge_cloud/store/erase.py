"""Erasing a participant: every trace in the store, and an order to every edge.

    begun     the name and the sessions are on record; nothing of them is taken in any more
    files     sealed folders, jobs, exports and backups are cleared of them
    rewrite   their rows are deleted, and the name with them; the hot file is written anew without its old pages
    edges     every edge is told until it has answered
    done      salt and digest are gone too

Every stage can be done twice. A process that dies goes on with the stage on record when it starts again.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from uuid import UUID, uuid4

import duckdb

from embridge_cloud.store import traces
from embridge_cloud.store.audit import AuditLog, append
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.people import People
from embridge_cloud.store.rewrite import tables
from embridge_cloud.store.rows import session_digest
from embridge_cloud.store.schema import CATALOG
from embridge_shared.erasure import ErasureOrder, fingerprint
from embridge_shared.errors import OperatorError, Reason

logger = logging.getLogger(__name__)

_KEPT = {"erasures", "erasure_edges", "erased_sessions", "audit", "schema_migrations"}


class Stage(StrEnum):
    """How far an erasure is."""

    BEGUN = "begun"
    REWRITE = "rewrite"
    EDGES = "edges"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Affected:
    """A release that was trained on the participant, and the edges that ran it when it was last heard of them."""

    release: str
    edges: tuple[str, ...]
    names: bool = False


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What was erased and what is left to do; names nobody.

    Attributes:
        sessions: Sessions erased.
        chunks: Chunks deleted from the hot file.
        quarantined: Messages deleted from the quarantine.
        folders: Sealed folders, jobs, exports and backups that were cleared.
        unreachable: Exports and backups on record that were not there: whoever holds them has to erase them.
        releases: Releases whose lineage holds the participant.
    """

    sessions: int = 0
    chunks: int = 0
    quarantined: int = 0
    folders: int = 0
    unreachable: tuple[str, ...] = ()
    releases: tuple[Affected, ...] = ()


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure.

    Attributes:
        id: Its number.
        stage: How far it is.
        issued_ns: When it was asked for, Unix time, ns.
        waiting: Edges that have yet to answer.
        report: What was erased.
    """

    id: UUID
    stage: Stage
    issued_ns: int
    waiting: tuple[str, ...]
    report: ErasureReport


class Eraser:
    """Erases participants.

    Args:
        store: The open store; no commit may run meanwhile.
        state_dir: The cloud's state folder.
        people: The participants of the store.
        wall_ns: Unix time, ns.
        forget: Other places that hold sessions, told their ids and the participant: a lake, views.
        reached: Called with the name of every step that was done; for tests.
    """

    def __init__(
        self,
        store: HotStore,
        state_dir: Path,
        *,
        people: People,
        wall_ns: Callable[[], int],
        forget: Sequence[Callable[[Sequence[UUID]], None]] = (),
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._state_dir = state_dir
        self._people = people
        self._wall_ns = wall_ns
        self._forget = forget
        self._reached = reached
        self._audit = AuditLog(store)

    def erase(self, participant: str, *, actor: str) -> Erasure:
        """Erase a participant here, and put the orders to the edges on record.

        Raises:
            OperatorError: There is no such participant.
            StoreError: The database refused; ask again, or start the process again: it goes on.
        """
        return self.run(self.begin(participant, actor=actor))

    def begin(self, participant: str, *, actor: str) -> UUID:
        """Put an erasure on record; from here on it will be carried out, whatever happens.

        Raises:
            OperatorError: There is no such participant.
            StoreError: The database refused; nothing was begun.
        """
        read = self._store.read
        rows = read.rows("SELECT erasure FROM erasures WHERE participant = ?", [participant])
        if rows:
            return UUID(str(rows[0][0]))
        self._people.show(participant)
        erasure, salt, now = uuid4(), secrets.token_bytes(16), self._wall_ns()
        edges = read.rows("SELECT edge FROM edges UNION SELECT edge FROM sessions WHERE participant = ?", [participant])
        with self._store.transaction() as connection:
            append(connection, actor, "participant.erase", f"participant:{participant}", {}, wall_ns=now)
            connection.execute(
                "INSERT INTO erasures VALUES (?, ?, ?, ?, ?, ?, '{}')",
                [erasure, participant, salt, fingerprint(participant, salt), now, Stage.BEGUN],
            )
            for (edge,) in edges:
                connection.execute("INSERT INTO erasure_edges VALUES (?, ?)", [erasure, edge])
            for session in self._sessions(participant):
                connection.execute(
                    "INSERT OR IGNORE INTO erased_sessions VALUES (?, ?)", [session_digest(session), erasure]
                )
        self._audit.anchor(self._audit.head())
        self._reached("begun")
        return erasure

    def run(self, erasure: UUID) -> Erasure:
        """Carry an erasure out, or go on with it."""
        rows = self._store.read.rows("SELECT participant, stage FROM erasures WHERE erasure = ?", [erasure])
        if not rows:
            raise OperatorError(f"there is no erasure {erasure}", reason=Reason.NOT_FOUND)
        participant, stage = rows[0]
        if stage == Stage.BEGUN:
            self._clear(erasure, participant)
            stage = Stage.REWRITE
        if stage == Stage.REWRITE:
            self._store.rewrite()
            self._reached("rewritten")
            self._to(erasure, Stage.EDGES)
        return self.show(erasure)

    def resume(self) -> list[Erasure]:
        """Go on with what a crash broke off."""
        sql = "SELECT erasure FROM erasures WHERE stage IN (?, ?) ORDER BY issued_ns"
        return [self.run(UUID(str(i))) for (i,) in self._store.read.rows(sql, [Stage.BEGUN, Stage.REWRITE])]

    def all(self) -> list[Erasure]:
        """All erasures, the oldest first."""
        return [self.show(i) for (i,) in self._store.read.rows("SELECT erasure FROM erasures ORDER BY issued_ns")]

    def show(self, erasure: UUID) -> Erasure:
        """One erasure."""
        sql = "SELECT stage, issued_ns, report FROM erasures WHERE erasure = ?"
        ((stage, issued_ns, report),) = self._store.read.rows(sql, [erasure])
        edges = self._store.read.rows("SELECT edge FROM erasure_edges WHERE erasure = ? ORDER BY edge", [erasure])
        return Erasure(erasure, Stage(stage), issued_ns, tuple(e for (e,) in edges), _report(report))

    def orders(self) -> list[ErasureOrder]:
        """What edges have yet to be told."""
        rows = self._store.read.rows(
            "SELECT erasure, edge, salt, fingerprint, issued_ns FROM erasures JOIN erasure_edges USING (erasure) "
            "WHERE fingerprint IS NOT NULL ORDER BY issued_ns, edge"
        )
        return [
            ErasureOrder(id=i, edge=edge, salt=bytes(salt), fingerprint=bytes(digest), issued_ns=ns)
            for i, edge, salt, digest, ns in rows
        ]

    def answered(self, edge: str, done: Iterable[UUID]) -> list[UUID]:
        """Note that an edge has carried orders out; erasures that are done with that."""
        ids = [i for i in done if self._waits(i, edge)]
        for erasure in ids:
            with self._store.transaction() as connection:
                connection.execute("DELETE FROM erasure_edges WHERE erasure = ? AND edge = ?", [erasure, edge])
                append(connection, f"edge:{edge}", "erasure.answer", f"erasure:{erasure}", {}, wall_ns=self._wall_ns())
            self._audit.anchor(self._audit.head())
        return self.finish()

    def finish(self) -> list[UUID]:
        """Close erasures that every edge has answered, and forget by what they could be told."""
        rows = self._store.read.rows(
            "SELECT erasure FROM erasures ANTI JOIN erasure_edges USING (erasure) WHERE stage = ?", [Stage.EDGES]
        )
        for (erasure,) in rows:
            with self._store.transaction() as connection:
                sql = "UPDATE erasures SET stage = ?, salt = NULL, fingerprint = NULL WHERE erasure = ?"
                connection.execute(sql, [Stage.DONE, erasure])
        return [UUID(str(i)) for (i,) in rows]

    def _waits(self, erasure: UUID, edge: str) -> bool:
        sql = "SELECT 1 FROM erasure_edges WHERE erasure = ? AND edge = ?"
        return bool(self._store.read.rows(sql, [erasure, edge]))

    def _sessions(self, participant: str) -> list[UUID]:
        sql = "SELECT session FROM sessions WHERE participant = ? ORDER BY session"
        return [session for (session,) in self._store.read.rows(sql, [participant])]

    def _clear(self, erasure: UUID, participant: str) -> None:
        """Clear files, then delete the rows that tell of them."""
        sessions = self._sessions(participant)
        report = traces.clear(self._store, self._state_dir, participant, sessions)
        self._reached("files")
        for forget in self._forget:
            forget(sessions)
        self._reached("elsewhere")
        found = ErasureReport(
            sessions=len(sessions),
            folders=report.folders,
            unreachable=tuple(path.replace(participant, "…") for path in report.unreachable),
            releases=tuple(Affected(name, self._running(name), names) for name, names in report.releases.items()),
        )
        with self._store.transaction() as connection:
            chunks, quarantined = delete_rows(connection, participant, sessions)
            found = replace(found, chunks=chunks, quarantined=quarantined)
            for session in sessions:
                connection.execute(
                    "INSERT OR IGNORE INTO erased_sessions VALUES (?, ?)", [session_digest(session), erasure]
                )
            connection.execute(
                "UPDATE erasures SET participant = NULL, stage = ?, report = ? WHERE erasure = ?",
                [Stage.REWRITE, json.dumps(asdict(found)), erasure],
            )
        self._reached("rows")
        self._people.publish()

    def _running(self, release: str) -> tuple[str, ...]:
        rows = self._store.read.rows("SELECT edge FROM edges WHERE release = ? ORDER BY edge", [release])
        return tuple(edge for (edge,) in rows)

    def _to(self, erasure: UUID, stage: Stage) -> None:
        with self._store.transaction() as connection:
            connection.execute("UPDATE erasures SET stage = ? WHERE erasure = ?", [stage, erasure])
        self._reached(str(stage))


def delete_rows(connection: duckdb.DuckDBPyConnection, participant: str, sessions: Sequence[UUID]) -> tuple[int, int]:
    """Delete every row of a participant within a running transaction; chunks and quarantined messages deleted."""
    quarantined = _delete_quarantined(connection, participant, sessions)
    chunks = delete_sessions(connection, sessions)
    for table in _tables_with(connection, "participant"):
        connection.execute(f"DELETE FROM {table} WHERE participant = ?", [participant])  # noqa: S608
    connection.execute("DELETE FROM participants WHERE id = ?", [participant])
    connection.execute("DELETE FROM exports WHERE export NOT IN (SELECT export FROM export_sessions)")
    return chunks, quarantined


def delete_sessions(connection: duckdb.DuckDBPyConnection, sessions: Sequence[UUID]) -> int:
    """Delete every row of sessions within a running transaction; how many chunks there were."""
    ids = list(sessions)
    ((chunks,),) = connection.execute("SELECT count(*) FROM chunks WHERE session = ANY(?)", [ids]).fetchall()
    connection.execute(
        "UPDATE edges SET recording = NULL, body = json_merge_patch(body, '{\"recording\": null}') "
        "WHERE recording = ANY(?)",
        [ids],
    )
    for table in _tables_with(connection, "session"):
        connection.execute(f"DELETE FROM {table} WHERE session = ANY(?)", [ids])  # noqa: S608
    return int(chunks)


def _tables_with(connection: duckdb.DuckDBPyConnection, column: str) -> list[str]:
    """Tables of the attached file that name a session or a participant, whatever migrations bring."""
    sql = "SELECT table_name FROM duckdb_columns() WHERE database_name = ? AND column_name = ? AND NOT internal"
    named = {name for (name,) in connection.execute(sql, [CATALOG, column]).fetchall()}
    return sorted((named & set(tables(connection))) - _KEPT)


def _delete_quarantined(connection: duckdb.DuckDBPyConnection, participant: str, sessions: Sequence[UUID]) -> int:
    """Delete messages that belong to a session or speak of the participant; how many."""
    marks = [participant.encode(), *(s.bytes for s in sessions), *(str(s).encode() for s in sessions)]
    gone = []
    for row_id, topic, detail, payload in connection.execute(
        "SELECT id, topic, detail, payload FROM quarantine"
    ).fetchall():
        text = topic.encode() + b" " + detail.encode()
        if any(mark in payload or mark in text for mark in marks):
            gone.append(row_id)
    connection.execute("DELETE FROM quarantine WHERE id = ANY(?)", [gone])
    return len(gone)


def _report(text: str) -> ErasureReport:
    body = json.loads(text)
    releases = tuple(Affected(r["release"], tuple(r["edges"]), r["names"]) for r in body.pop("releases", ()))
    unreachable = tuple(body.pop("unreachable", ()))
    return ErasureReport(**body, releases=releases, unreachable=unreachable)
