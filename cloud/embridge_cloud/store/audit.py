"""The audit log: who did what when, in a chain of digests, and never about whom.

A row holds the digest of the row before it, so a row that is changed, taken out or put in breaks the chain; the head of
the chain stands in a file beside the database, in every backup and in the process's own log, so a chain that was cut
short or written anew as a whole does not end where it did.

Participants and sessions appear as codes, keyed with a secret that is kept in the participant's own row. Erasing that
row leaves a log that nobody can trace back to a person, and that still verifies.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb

from embridge_cloud.store.hot import HotStore
from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, Reason

logger = logging.getLogger(__name__)

GENESIS = "0" * 64
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_MAX_TEXT = 512


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row of the log.

    Attributes:
        seq: Its number, from 1.
        wall_ns: Unix time, ns.
        actor: Who: `cli:USER`, `token:NAME`, `retention`, `edge:NAME`.
        action: What: noun and verb, as in `participant.erase`.
        subject: To what; people and sessions as codes.
        detail: Figures and words.
        previous: Digest of the row before it.
        digest: Its own.
    """

    seq: int
    wall_ns: int
    actor: str
    action: str
    subject: str
    detail: Mapping[str, str | int | float]
    previous: str
    digest: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends: the number of its last row and that row's digest."""

    seq: int
    digest: str


class AuditLog:
    """Appends to and checks the log of a store.

    Args:
        store: The open store.
    """

    def __init__(self, store: HotStore) -> None:
        self._store = store

    @property
    def head_path(self) -> Path:
        """The file that says where the log ends."""
        return self._store.path.with_name(self._store.path.name + ".audit")

    def record(
        self, actor: str, action: str, subject: str, detail: Mapping[str, str | int | float], wall_ns: int
    ) -> AuditEntry:
        """Append a row; committed when this returns.

        Ids of participants and sessions in `subject` and in the words of `detail` are replaced by codes, so a caller
        may name them as they are.

        Args:
            actor: Who did it; never a participant.
            action: Noun and verb, as in `session.export`.
            subject: To what, as in `participant:P07`, `session:UUID`, `release:NAME`.
            detail: Figures and words, JSON scalars.
            wall_ns: Unix time, ns.

        Raises:
            StoreError: The database refused; nothing was recorded.
        """
        with self._store.transaction() as connection:
            entry = append(connection, actor, action, subject, detail, wall_ns=wall_ns)
        self.anchor(Head(entry.seq, entry.digest))
        return entry

    def anchor(self, head: Head) -> None:
        """Say in the file beside the database where the log ends."""
        write_atomically(self.head_path, json.dumps({"seq": head.seq, "digest": head.digest}).encode())
        logger.debug("audit log at %d: %s", head.seq, head.digest)

    def head(self) -> Head:
        """Where the log ends."""
        rows = self._store.read.rows("SELECT seq, digest FROM audit ORDER BY seq DESC LIMIT 1")
        return Head(*rows[0]) if rows else Head(0, GENESIS)

    def entries(self, *, after: int = 0, limit: int | None = None, newest: bool = False) -> list[AuditEntry]:
        """Rows in order of number.

        Args:
            after: Leave out rows up to this number.
            limit: No more than so many.
            newest: The last ones rather than the first where there are more.
        """
        order = "DESC" if newest else "ASC"
        rows = self._store.read.rows(
            f"SELECT * FROM audit WHERE seq > ? ORDER BY seq {order} LIMIT ?",  # noqa: S608
            [after, 2**62 if limit is None else limit],
        )
        return [_entry(row) for row in sorted(rows)]

    def about(self, subject: str, *, limit: int) -> list[AuditEntry]:
        """Rows on one subject, in order of number; the last ones where there are more than `limit`."""
        rows = self._store.read.rows(
            "SELECT * FROM audit WHERE subject = ? ORDER BY seq DESC LIMIT ?", [subject, limit]
        )
        return [_entry(row) for row in sorted(rows)]

    def verify(self, anchors: Mapping[int, str] | None = None) -> Head:
        """Recompute the chain from its start and return where it ends.

        Args:
            anchors: Number → digest as known from elsewhere, as from a backup: each must stand in the chain.

        Raises:
            DataError: The log was changed; the message says from which row on.
        """
        head, wanted = Head(0, GENESIS), dict(anchors or {})
        for entry in self._walk():
            if entry.seq != head.seq + 1:
                raise _broken(f"row {head.seq + 1} is missing")
            if entry.previous != head.digest or _digest(entry) != entry.digest:
                raise _broken(f"row {entry.seq} is not what was recorded")
            if wanted.pop(entry.seq, entry.digest) != entry.digest:
                raise _broken(f"row {entry.seq} is not the one that is known from elsewhere")
            head = Head(entry.seq, entry.digest)
        self._check_end(head)
        if wanted:
            raise _broken(f"row {min(wanted)}, known from elsewhere, is missing")
        return head

    def _check_end(self, head: Head) -> None:
        try:
            noted = json.loads(self.head_path.read_bytes())
            known = Head(int(noted["seq"]), str(noted["digest"]))
        except FileNotFoundError:
            if head.seq:
                raise _broken(f"{self.head_path.name}, which says where it ends, is missing") from None
            return
        except (ValueError, KeyError, TypeError):
            raise _broken(f"{self.head_path.name}, which says where it ends, cannot be read") from None
        # A crash between the commit and the note leaves the note one row or more behind, never ahead.
        if known.seq > head.seq:
            raise _broken(f"rows {head.seq + 1} to {known.seq} are missing")
        rows = self._store.read.rows("SELECT digest FROM audit WHERE seq = ?", [known.seq])
        if known.seq and rows != [(known.digest,)]:
            raise _broken(f"row {known.seq} is not the one that was recorded")

    def _walk(self) -> Iterator[AuditEntry]:
        after = 0
        while page := self.entries(after=after, limit=1000):
            yield from page
            after = page[-1].seq


def append(
    connection: duckdb.DuckDBPyConnection,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, str | int | float],
    *,
    wall_ns: int,
) -> AuditEntry:
    """Append a row within a running transaction; see `AuditLog.record`. `AuditLog.anchor` follows its commit."""
    hide = _Cover(connection)
    last = connection.execute("SELECT seq, digest FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    seq, previous = (int(last[0]), str(last[1])) if last else (0, GENESIS)
    covered = {str(k)[:64]: hide(v) if isinstance(v, str) else v for k, v in detail.items()}
    blank = AuditEntry(seq + 1, wall_ns, hide(actor), action, hide(subject), covered, previous, "")
    digest = _digest(blank)
    connection.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [blank.seq, wall_ns, blank.actor, action, blank.subject, _text(covered), previous, digest],
    )
    return AuditEntry(blank.seq, wall_ns, blank.actor, action, blank.subject, covered, previous, digest)


def participant_code(secret: bytes) -> str:
    """What the log calls the participant who has `secret`."""
    return "p~" + hmac.digest(secret, b"participant", "sha256").hex()[:16]


def session_code(secret: bytes, session: UUID) -> str:
    """What the log calls a session of the participant who has `secret`."""
    return "s~" + hmac.digest(secret, session.bytes, "sha256").hex()[:16]


def secret_of(connection: duckdb.DuckDBPyConnection, participant: str, wall_ns: int) -> bytes:
    """The participant's secret, made when there is none, within a running transaction."""
    row = connection.execute("SELECT secret FROM people WHERE participant = ?", [participant]).fetchone()
    if row is not None:
        return bytes(row[0])
    secret = secrets.token_bytes(32)
    connection.execute("INSERT INTO people VALUES (?, ?, ?)", [participant, secret, wall_ns])
    return secret


class _Cover:
    """Puts codes in the place of people and sessions."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._codes: dict[str, str] | None = None

    def __call__(self, text: str) -> str:
        text = _UUID.sub(lambda found: self._session(UUID(found[0])), text[:_MAX_TEXT])
        codes = self._participants()
        if not codes:
            return text
        names = "|".join(re.escape(name) for name in sorted(codes, key=len, reverse=True))
        return re.sub(rf"(?<![^\W_])(?:{names})(?![^\W_])", lambda found: codes[found[0]], text)

    def _participants(self) -> dict[str, str]:
        if self._codes is None:
            known = self._connection.execute("SELECT participant, secret FROM people").fetchall()
            self._codes = {name: participant_code(bytes(secret)) for name, secret in known if name}
            stated = "SELECT DISTINCT participant FROM sessions ANTI JOIN people USING (participant)"
            for (name,) in self._connection.execute(stated).fetchall():
                if name:
                    self._codes[name] = participant_code(secret_of(self._connection, name, 0))
        return self._codes

    def _session(self, session: UUID) -> str:
        sql = "SELECT participant FROM sessions WHERE session = ?"
        row = self._connection.execute(sql, [session]).fetchone()
        if row is None:
            known = "SELECT 1 FROM exports WHERE export = $1 UNION ALL SELECT 1 FROM erasures WHERE erasure = $1"
            if self._connection.execute(known, [session]).fetchone():
                return str(session)
            # Nothing here can say whose it is, so the log keeps nothing that could.
            return "s~unknown"
        return session_code(secret_of(self._connection, row[0], 0), session)


def _entry(row: tuple[Any, ...]) -> AuditEntry:
    seq, wall_ns, actor, action, subject, detail, previous, digest = row
    return AuditEntry(seq, wall_ns, actor, action, subject, json.loads(detail), previous, digest)


def _text(detail: Mapping[str, str | int | float]) -> str:
    return json.dumps(dict(detail), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _digest(entry: AuditEntry) -> str:
    parts = [entry.previous, entry.seq, entry.wall_ns, entry.actor, entry.action, entry.subject, _text(entry.detail)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _broken(what: str) -> DataError:
    return DataError(
        f"the audit log was changed: {what}.",
        reason=Reason.HASH_MISMATCH,
        hint="Compare it with the last backup; whoever could write to the state folder could do this.",
    )
