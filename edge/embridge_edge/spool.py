"""The spool: every chunk and event rests here until the cloud says that its database holds it.

One SQLite file in WAL mode. An item leaves it for two reasons only: a commit report covers it, or the cloud refused it
for good, and then it moves to `refused`, payload and all. The spool also remembers how far each session got, so that a
killed agent resumes where it stopped.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from embridge_edge.ballast import Ballast
from embridge_edge.spool_faults import at_reserve, explain, over_budget
from embridge_shared.disk import DiskLevel, FreeSpace, free_bytes, level
from embridge_shared.errors import EmbridgeError, OperatorError, Reason
from embridge_shared.wire.messages import CommitReport, Refusal, StreamCommit

logger = logging.getLogger(__name__)

EVENTS = -1
"""The ordinal under which a session's events are kept."""
ANNOTATIONS = -2
"""The ordinal under which the number of a session's annotations is kept, which are some of its events."""

# Pages given back to the disk at a time: each may have to be moved.
_SHRINK_PAGES = 2048

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session BLOB NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL, n INTEGER NOT NULL,
    topic TEXT NOT NULL, payload BLOB NOT NULL,
    UNIQUE (session, stream, first)
);
CREATE TABLE IF NOT EXISTS progress (
    session BLOB NOT NULL, stream INTEGER NOT NULL, until INTEGER NOT NULL,
    items INTEGER NOT NULL, samples INTEGER NOT NULL,
    PRIMARY KEY (session, stream)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    session BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, description BLOB NOT NULL,
    closed INTEGER NOT NULL DEFAULT 0, sealed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (
    session BLOB NOT NULL, stream INTEGER NOT NULL, first INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (session, stream, first)
);
CREATE TABLE IF NOT EXISTS notes (session BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (id BLOB PRIMARY KEY, done_ns INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Item:
    """A message to deliver.

    Attributes:
        session: Its session.
        stream: Ordinal of its stream, or `EVENTS`.
        first: Index of its first sample, or its seq.
        n: Samples it holds; 1 for an event.
        topic: Where it goes.
        payload: The message.
        id: Its place in the spool; 0 before it is there.
    """

    session: UUID
    stream: int
    first: int
    n: int
    topic: str
    payload: bytes
    id: int = 0


@dataclass(frozen=True, slots=True)
class KnownSession:
    """A session this edge has begun."""

    session: UUID
    name: str
    description: bytes
    closed: bool
    sealed: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: number of items and their payload bytes."""

    items: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream got: index after its last sample, items and samples spooled."""

    until: int = 0
    items: int = 0
    samples: int = 0


class Spool:
    """The store of one edge; used from one thread at a time.

    Args:
        path: The SQLite file.
        max_bytes: Payload bytes that may wait; nothing is evicted to stay below.
        reserve_bytes: Room on its disk that is left for forgetting and for everybody else.
        free: Tells how much of its disk is free.

    Raises:
        DataError: The file is no spool.
        OperatorError: Another agent has it, or its disk is full or may not be written.
    """

    def __init__(self, path: Path, max_bytes: int, *, reserve_bytes: int = 0, free: FreeSpace = free_bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._max_bytes = max_bytes
        self._reserve = reserve_bytes
        self._free = free
        self._ballast = Ballast(path.with_suffix(".ballast"), reserve_bytes, free=free)
        try:
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA journal_size_limit=67108864")
            self._db.executescript(_SCHEMA)
            self._page = int(self._db.execute("PRAGMA page_size").fetchone()[0])
            self._count, self._bytes = self._db.execute(
                "SELECT count(*), coalesce(sum(length(payload)), 0) FROM items"
            ).fetchone()
        except sqlite3.Error as error:
            raise explain(error, path) from error
        self._room = self._measure()
        if reserve_bytes:
            self._ballast.load()

    def close(self) -> None:
        """Write everything to the main file and close it."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            # What is in the write-ahead log is as safe there.
            logger.warning("%s", explain(error, self._path))
        self._db.close()

    def sync(self) -> None:
        """Make everything put so far survive a power cut, and give the disk back what is no longer needed.

        Raises:
            EmbridgeError: The disk is full or fails.
        """
        try:
            self._write_back()
        except EmbridgeError as error:
            if error.reason is not Reason.DISK_FULL or not self._ballast.drop():
                raise
            self._write_back()
        finally:
            self._room = self._measure()
        if self._reserve:
            self._ballast.load()

    def _write_back(self) -> None:
        # The log keeps its size when it is emptied, which a disk that has little room cannot afford.
        mode = "PASSIVE" if level(self._room, self._reserve) is DiskLevel.OK else "TRUNCATE"
        try:
            self._db.execute(f"PRAGMA wal_checkpoint({mode})")
            if self._unused() > _SHRINK_PAGES:
                # A step of this statement gives back one page, and `execute` makes one step.
                self._db.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        except OSError as error:
            raise OperatorError(
                f"the spool {self._path} cannot be synced: {error.strerror}",
                reason=Reason.INVALID,
                hint="See the system's log; the disk may be failing.",
            ) from error

    def _unused(self) -> int:
        """Pages of the file that hold nothing."""
        return int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

    def _measure(self) -> int:
        """Bytes that can be written: what the disk has free and what the file does not use."""
        return self._free(self._path.parent) + self._unused() * self._page

    @property
    def room(self) -> int:
        """Bytes that could be written when it was last looked at, the reserve included; may be read from any thread."""
        return self._room

    def put(self, items: Iterable[Item], annotated: int | None = None, note: bytes | None = None) -> None:
        """Keep items; all or none.

        Args:
            items: Of one session.
            annotated: How many of its annotations are kept with them.
            note: Replaces the session's note together with them.

        Raises:
            OperatorError: The spool or the disk is full; recording must stop, since nothing may be dropped.
        """
        items = list(items)
        with self._transaction(items):
            self._insert(items)
            if annotated is not None:
                self._db.execute(
                    "INSERT INTO progress VALUES (?, ?, ?, 0, 0) ON CONFLICT DO UPDATE SET until = excluded.until",
                    (items[0].session.bytes, ANNOTATIONS, annotated),
                )
            if note is not None:
                self._write_note(items[0].session, note)

    @contextmanager
    def _transaction(self, adding: list[Item]) -> Iterator[None]:
        adds = sum(len(i.payload) for i in adding)
        if adding:
            self._check_room(adds)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        self._bytes += adds
        self._count += len(adding)

    def _check_room(self, adds: int) -> None:
        if self._bytes + adds > self._max_bytes:
            raise over_budget(self._bytes)
        if self._reserve:
            self._room = self._measure()
            if self._room - adds < self._reserve:
                raise at_reserve(self._path, self._room, self._reserve)

    def _insert(self, items: list[Item]) -> None:
        self._db.executemany(
            "INSERT INTO items (session, stream, first, n, topic, payload) VALUES (?, ?, ?, ?, ?, ?)",
            [(i.session.bytes, i.stream, i.first, i.n, i.topic, i.payload) for i in items],
        )
        self._db.executemany(
            "INSERT INTO progress VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE "
            "SET until = max(until, excluded.until), items = items + 1, samples = samples + excluded.samples",
            [(i.session.bytes, i.stream, i.first + i.n, i.n) for i in items],
        )

    def pending(self, after: int, limit: int) -> list[Item]:
        """The oldest items with an id above `after`."""
        return self._items("WHERE id > ? ORDER BY id LIMIT ?", (after, limit))

    def fetch(self, ids: list[int]) -> list[Item]:
        """Items by id, in order; those that left are missing."""
        marks = ",".join("?" * len(ids))
        return self._items(f"WHERE id IN ({marks}) ORDER BY id", tuple(ids))

    def of_stream(self, session: UUID, stream: int) -> list[Item]:
        """What waits of one stream, in the order of its samples."""
        return self._items("WHERE session = ? AND stream = ? ORDER BY first", (session.bytes, stream))

    def _items(self, where: str, values: tuple[int | bytes, ...]) -> list[Item]:
        sql = f"SELECT session, stream, first, n, topic, payload, id FROM items {where}"  # noqa: S608
        try:
            return [Item(UUID(bytes=r[0]), *r[1:]) for r in self._db.execute(sql, values)]
        except sqlite3.Error as error:
            raise explain(error, self._path) from error

    def settle(self, report: CommitReport) -> list[int]:
        """Forget what the cloud holds, set aside what it refused; return the ids that left.

        Raises:
            EmbridgeError: The disk is full or fails; nothing is forgotten.
        """
        try:
            return self._settle(report)
        except EmbridgeError as error:
            # Forgetting writes too, a little.
            if error.reason is not Reason.DISK_FULL or not self._ballast.drop():
                raise
            return self._settle(report)

    def _settle(self, report: CommitReport) -> list[int]:
        key = report.session.bytes
        gone: dict[int, int] = {}
        with self._transaction([]):
            for refusal in report.refused:
                gone |= self._set_aside(key, refusal)
            for commit in report.streams:
                gone |= self._covered(key, commit)
            self._db.executemany("DELETE FROM items WHERE id = ?", [(i,) for i in gone])
            if report.sealed:
                self._db.execute("UPDATE sessions SET sealed = 1 WHERE session = ?", (key,))
        self._bytes -= sum(gone.values())
        self._count -= len(gone)
        return list(gone)

    def _covered(self, key: bytes, commit: StreamCommit) -> dict[int, int]:
        """Ids and sizes of the items that a commit covers whole."""
        rows = self._db.execute(
            "SELECT id, first, first + n, length(payload) FROM items "
            "WHERE session = ? AND stream = ? AND first + n <= ?",
            (key, commit.stream, commit.until),
        )
        return {i: size for i, first, end, size in rows if not any(a < end and first < b for a, b in commit.holes)}

    def _set_aside(self, key: bytes, refusal: Refusal) -> dict[int, int]:
        """Copy a refused item to its own table; its id and size."""
        where = "WHERE session = ? AND stream = ? AND first = ?"
        place = (key, refusal.stream, refusal.first)
        self._db.execute(
            f"INSERT OR IGNORE INTO refused SELECT session, stream, first, ?, ?, payload FROM items {where}",  # noqa: S608
            (refusal.reason, refusal.detail, *place),
        )
        return dict(self._db.execute(f"SELECT id, length(payload) FROM items {where}", place))  # noqa: S608

    def erase(self, sessions: list[UUID]) -> None:
        """Remove sessions and every page their bytes may still stand in; harmless when done again.

        Raises:
            EmbridgeError: The disk is full or fails; ask again when it is not.
        """
        keys = [(s.bytes,) for s in sessions]
        with self._transaction([]):
            for table in ("items", "progress", "refused", "notes", "sessions"):
                self._db.executemany(f"DELETE FROM {table} WHERE session = ?", keys)  # noqa: S608
        self._ballast.drop()
        try:
            # What was delivered long ago stands in free pages too: only a whole new file is without it.
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise explain(error, self._path) from error
        self._count, self._bytes = self._db.execute(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM items"
        ).fetchone()

    def obeyed(self, order: UUID, done_ns: int, *, keep: int) -> None:
        """Remember that an order was carried out; the last `keep` are kept."""
        with self._transaction([]):
            self._db.execute("INSERT OR REPLACE INTO orders VALUES (?, ?)", (order.bytes, done_ns))
            self._db.execute(
                "DELETE FROM orders WHERE id NOT IN (SELECT id FROM orders ORDER BY done_ns DESC LIMIT ?)", (keep,)
            )

    def orders(self) -> tuple[UUID, ...]:
        """Orders that were carried out, the latest last."""
        return tuple(UUID(bytes=r[0]) for r in self._db.execute("SELECT id FROM orders ORDER BY done_ns"))

    def backlog(self) -> Backlog:
        """What waits; may be read from any thread."""
        return Backlog(self._count, self._bytes)

    @property
    def fill(self) -> float:
        """Share of the bytes it may hold; may be read from any thread."""
        return float(self._bytes / self._max_bytes)

    def refused(self) -> list[tuple[UUID, int, int, str, str]]:
        """What the cloud will never take: session, stream, first, reason, detail."""
        rows = self._db.execute("SELECT session, stream, first, reason, detail FROM refused ORDER BY 1, 2, 3")
        return [(UUID(bytes=r[0]), r[1], r[2], r[3], r[4]) for r in rows]

    def note(self, session: UUID) -> bytes | None:
        """What whoever leads an open session wrote down to go on from; None where nothing was."""
        row = self._db.execute("SELECT body FROM notes WHERE session = ?", (session.bytes,)).fetchone()
        return None if row is None else bytes(row[0])

    def remember(self, session: UUID, note: bytes) -> None:
        """Replace the note of an open session; it goes when the session ends."""
        with self._transaction([]):
            self._write_note(session, note)

    def _write_note(self, session: UUID, note: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (session.bytes, note))

    def begin(self, session: UUID, name: str, description: bytes, opening: Item, note: bytes | None = None) -> None:
        """Remember a session together with its opening event, and with a note if there is one.

        Raises:
            OperatorError: A session of that name exists already.
        """
        try:
            with self._transaction([opening]):
                self._db.execute("INSERT INTO sessions VALUES (?, ?, ?, 0, 0)", (session.bytes, name, description))
                self._insert([opening])
                if note is not None:
                    self._write_note(session, note)
        except sqlite3.IntegrityError:
            raise OperatorError(f"a session named {name!r} exists already", hint="Choose another name.") from None

    def end(self, session: UUID, *closing: Item) -> None:
        """Close a session with its last items; all or none."""
        with self._transaction(list(closing)):
            self._insert(list(closing))
            self._db.execute("UPDATE sessions SET closed = 1 WHERE session = ?", (session.bytes,))
            self._db.execute("DELETE FROM notes WHERE session = ?", (session.bytes,))

    def session(self, name: str) -> KnownSession | None:
        """The session begun under `name`."""
        row = self._db.execute(
            "SELECT session, name, description, closed, sealed FROM sessions WHERE name = ?", (name,)
        ).fetchone()
        return None if row is None else KnownSession(UUID(bytes=row[0]), row[1], row[2], bool(row[3]), bool(row[4]))

    def sessions(self) -> list[KnownSession]:
        """Every session begun here."""
        rows = self._db.execute("SELECT session, name, description, closed, sealed FROM sessions")
        return [KnownSession(UUID(bytes=r[0]), r[1], r[2], bool(r[3]), bool(r[4])) for r in rows]

    def progress(self, session: UUID) -> dict[int, Progress]:
        """How far each stream got, by ordinal."""
        rows = self._db.execute(
            "SELECT stream, until, items, samples FROM progress WHERE session = ?", (session.bytes,)
        )
        return {stream: Progress(*far) for stream, *far in rows}
