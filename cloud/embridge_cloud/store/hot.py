"""The hot store: one DuckDB file, one writer, nothing acknowledged before its commit."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import duckdb

from embridge_cloud.store import rewrite
from embridge_cloud.store.columns import insert, write_batch
from embridge_cloud.store.custody import Room, check_fresh, reconcile
from embridge_cloud.store.failures import NotSealableError, StoreError, disk_full, translate, unopenable
from embridge_cloud.store.gate import Gate
from embridge_cloud.store.ledger import Ledger
from embridge_cloud.store.manifest import Manifest
from embridge_cloud.store.ranges import CommittedRanges
from embridge_cloud.store.reader import Reader
from embridge_cloud.store.rows import Batch, QuarantineRow
from embridge_cloud.store.schema import CATALOG, attach, migrate
from embridge_shared.disk import FreeSpace, free_bytes
from embridge_shared.errors import Reason

logger = logging.getLogger(__name__)


class HotStore:
    """Sessions being recorded, and the catalogue of those that were.

    The quarantine is bounded by `quarantine_max_bytes`. When it is full, messages nobody vouches for (foreign,
    damaged, of a session not yet opened) are counted and not kept: no edge was told to forget them, so nothing
    recorded is lost. What an edge is told to forget is kept even beyond the bound.

    Attributes:
        path: The file.
        read: Questions to it; usable from any thread.
        quarantine_skipped: Messages the full quarantine did not take.
        ledger: What edges were told to forget.
        room: What is left on its disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        quarantine_max_bytes: int = 256 << 20,
        reserve_bytes: int = 0,
        free: FreeSpace = free_bytes,
    ) -> None:
        self.path = path
        self.quarantine_skipped = 0
        self.ledger = Ledger(path.with_suffix(".acks"))
        self.room = Room(path.parent, reserve_bytes, free)
        self._quarantine_max_bytes = quarantine_max_bytes
        self._lock = threading.RLock()
        self._root: duckdb.DuckDBPyConnection | None = None
        self._writer: duckdb.DuckDBPyConnection | None = None
        self._quarantine_bytes = 0
        self._gate = Gate()
        self.read = Reader(self._cursor, self._gate)

    def open(self) -> HotStore:
        """Open the file, creating and migrating it as needed.

        Raises:
            StoreLockedError: Another process has it.
            StoreError: Its disk is full or may not be written.
            StoreDamagedError: It is damaged, or holds less than was acknowledged.
            DataError: Its schema is newer than this code.
        """
        if not self.path.exists():
            # Before a new file is made that its log does not belong to.
            check_fresh(self.path, self.ledger)
        self._root = attach(self.path, keep_log=True)
        try:
            self._migrate(self._root)
            self._writer = self._cursor()
            reconcile(self.ledger, self.read, self.path)
            self._root.execute("PRAGMA enable_checkpoint_on_shutdown")
            self._quarantine_bytes = self.read.quarantined_bytes()
        except BaseException:
            self.close()
            raise
        return self

    def _migrate(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            migrate(connection)
        except duckdb.Error as error:
            raise unopenable(self.path, error) from error

    def close(self) -> None:
        """Close the file, which also checkpoints it; safe to call twice."""
        with self._lock:
            for connection in (self._writer, self._root):
                if connection is not None:
                    connection.close()
            self._writer = self._root = None
            self.ledger.close()

    def reopen(self) -> None:
        """Close and open again, after an error that makes the connection useless."""
        with self._lock:
            self.close()
            self.open()

    def __enter__(self) -> HotStore:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def quarantine_bytes(self) -> int:
        """Size of the quarantine."""
        return self._quarantine_bytes

    def coverage(self, session: UUID) -> dict[int, CommittedRanges]:
        """What is held of each stream by ordinal, and of the events under -1."""
        return self.read.coverage(session)

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction of the one writer: committed at the end, rolled back on any error.

        Raises:
            StoreError: The database refused; nothing was kept.
        """
        with self._lock, _Transaction(self._connection()) as connection:
            yield connection

    def rewrite(self) -> None:
        """Write the file anew without what was deleted from it; reads and writes wait meanwhile.

        Whatever happens, the old file or the new one is in place, whole.

        Raises:
            StoreError: The database refused; nothing changed, but the old pages are still there.
        """
        with self._lock, self._gate.alone():
            rewrite.clear(self.path)
            try:
                rewrite.copy(self._connection(), rewrite.fresh_path(self.path))
                self.close()
                rewrite.swap(self.path)
            except duckdb.Error as error:
                raise translate(error) from error
            finally:
                if self._root is None:
                    self.open()

    def commit(self, batch: Batch) -> None:
        """Write a batch in one transaction; writing it again changes nothing.

        Raises:
            StoreError: The database refused; nothing of it was kept, or all of it was and the answer was lost.
        """
        self.room.check()
        kept = self._admit(list(batch.quarantined.values()))
        try:
            self._write(batch, kept)
        except StoreError as error:
            # Chunks of a batch whose first commit lost its answer, or that were put in from outside.
            if not isinstance(error.__cause__, duckdb.ConstraintException):
                raise
            self._write(batch, kept, again=True)
        self._note(batch)
        self.quarantine_skipped += len(batch.quarantined) - len(kept)
        if batch.quarantined or batch.released:
            self._quarantine_bytes = self.read.quarantined_bytes()

    def _write(self, batch: Batch, kept: Sequence[QuarantineRow], *, again: bool = False) -> None:
        with self._lock, _Transaction(self._connection()) as connection:
            write_batch(connection, batch, kept, again=again)

    def register_sealed(self, manifest: Manifest, path: Path) -> None:
        """Put a sealed session on record and let go of its hot rows, in one transaction.

        Raises:
            NotSealableError: The hot rows are not what was sealed.
            StoreError: The database refused.
        """
        session = str(manifest.session.id)
        with self._lock, _Transaction(self._connection()) as connection:
            for part in manifest.streams:
                count = "SELECT coalesce(sum(n), 0) FROM chunks WHERE session = ? AND stream = ?"
                hot = connection.execute(count, [session, part.stream]).fetchall()[0][0]
                if hot != part.rows:
                    raise NotSealableError(
                        f"session {session} changed under the seal: {part.name} holds {hot}, {part.rows} sealed."
                    )
            self._record_sealed(connection, manifest, path)
        self._leave(manifest.session.id)

    def adopt_sealed(self, manifest: Manifest, path: Path) -> None:
        """Put a sealed session on record whatever its hot rows are, as `cloud repair` does.

        Raises:
            StoreError: The database refused.
        """
        with self._lock, _Transaction(self._connection()) as connection:
            self._record_sealed(connection, manifest, path)
        self._leave(manifest.session.id)

    def _leave(self, session: UUID) -> None:
        with suppress(OSError):
            # What is sealed is not looked for in the ledger: the line only makes it shorter.
            self.ledger.leave([session])

    def _record_sealed(self, connection: duckdb.DuckDBPyConnection, manifest: Manifest, path: Path) -> None:
        session = str(manifest.session.id)
        connection.execute(
            "INSERT INTO sealed_sessions VALUES (?, ?, ?, ?)",
            [session, str(path), manifest.content_hash, manifest.sealed_ns],
        )
        rows = [(session, p.stream, str(path / p.file), p.sha256, p.rows, p.bytes) for p in manifest.streams]
        insert(connection, "sealed", rows)
        ranges = [(session, p.stream, a, b) for p in manifest.streams for a, b in p.stored()]
        insert(connection, "sealed_ranges", ranges)
        gaps = [(session, p.stream, a, b, (a, b) in p.inferred) for p in manifest.streams for a, b in p.gaps]
        insert(connection, "sealed_gaps", gaps)
        connection.execute(
            "INSERT OR IGNORE INTO sealed_quality SELECT session, stream, channel, windows, warn, bad, reasons "
            "FROM v_quality WHERE session = ?",
            [session],
        )
        for name in ("chunks", "quality"):
            connection.execute(f"DELETE FROM {name} WHERE session = ?", [session])  # noqa: S608

    def _note(self, batch: Batch) -> None:
        """Write down what may now be acknowledged."""
        try:
            self.ledger.note(batch)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            why = f"{self.ledger.path} cannot be written: {error.strerror or error}"
            if full:
                raise disk_full(why) from error
            raise StoreError(why, reason=Reason.DENIED, hint="Nothing is acknowledged until it can.") from error

    def _admit(self, rows: Sequence[QuarantineRow]) -> list[QuarantineRow]:
        """Those of `rows` the quarantine has room for, and those that are owed."""
        size = self._quarantine_bytes
        kept = []
        for row in rows:
            if row.owed or size + len(row.payload) <= self._quarantine_max_bytes:
                kept.append(row)
                size += len(row.payload)
        return kept

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._root is None:
            raise StoreError(
                f"the store {self.path} is not open", reason=Reason.INVALID, hint="Open it first.", reopen=True
            )
        cursor = self._root.cursor()
        cursor.execute(f"USE {CATALOG}")
        return cursor

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._writer is None:
            self._writer = self._cursor()
        return self._writer


class _Transaction:
    """Commits at the end, rolls back on any error and translates the database's own."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def __enter__(self) -> duckdb.DuckDBPyConnection:
        try:
            self._connection.begin()
        except duckdb.Error as error:
            raise translate(error) from error
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._connection.commit()
                return
        except duckdb.Error as failed:
            error = failed
        try:
            self._connection.rollback()
        except duckdb.Error as failed:
            logger.debug("rollback: %s", failed)
        if isinstance(error, duckdb.Error):
            raise translate(error) from error
