"""The lake: sealed sessions of several cloud processes in one DuckLake catalogue on PostgreSQL.

A sealed folder stays as it is: the same files, the same digests, read by the same `SealedSession`. It is brought under
the lake's data folder (or lies there already), and DuckLake registers the very Parquet files in it, so that one query
reads the samples of all sessions. PostgreSQL is told ids, digests and sizes, and never who anybody is: that stands in
the folders, which can be erased.

Any number of processes may bring sessions in at once: a lock a session keeps two from bringing the same, and a commit
that meets another's is tried again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import duckdb

from embridge_cloud.store.lake_tables import (
    NAME,
    TABLE_NAMES,
    TABLES,
    committed,
    digest_of,
    holds,
    load_extensions,
    quote,
    register,
    statements,
    unregister,
)
from embridge_cloud.store.manifest import (
    content_hash,
)
from embridge_cloud.store.rewrite import sync
from embridge_cloud.store.sealed import Catalogue, SealedSession
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.settings import Settings

logger = logging.getLogger(__name__)

_METADATA = f"__ducklake_metadata_{NAME}"
_PART = ".part-"


@dataclass(frozen=True, slots=True)
class LakeStatus:
    """What a lake holds: sessions, streams, registered files, their bytes, and the number of its last snapshot."""

    sessions: int
    streams: int
    files: int
    bytes: int
    snapshot: int


class Lake:
    """A lake; every call makes connections of its own, so it may be used from any thread and process.

    Args:
        catalog: PostgreSQL, as a connection string.
        data: Folder of its files; all writers and readers see it.
        schema: Schema of the catalogue in PostgreSQL.
        sleep: Waits between two tries, s.
    """

    def __init__(
        self, catalog: str, data: Path, *, schema: str = "embridge", sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._catalog = catalog
        self._schema = schema
        self._sleep = sleep
        self.data = data
        self.sealed = data / "sealed"

    @classmethod
    def of(cls, settings: Settings) -> Lake | None:
        """The lake of a configuration; None where there is none.

        Raises:
            ConfigError: It has no folder.
        """
        store = settings.store
        if not store.lake.get_secret_value():
            return None
        if store.lake_data is None:
            raise ConfigError("store.lake names a catalogue, store.lake_data no folder.", hint="Set store.lake_data.")
        return cls(store.lake.get_secret_value(), store.lake_data, schema=store.lake_schema)

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection with the lake attached as `lake`.

        Raises:
            ConfigError: The extensions are not installed.
            OperatorError: PostgreSQL does not answer, or refuses.
        """
        connection = duckdb.connect()
        try:
            connection.execute("SET enable_progress_bar = false")
            load_extensions(connection)
            connection.execute("SET ducklake_max_retry_count = 50")
            quoted, data = quote(f"ducklake:postgres:{self._catalog}"), quote(f"{self.data}/")
            try:
                connection.execute(
                    f"ATTACH {quoted} AS {NAME} (DATA_PATH {data}, METADATA_SCHEMA {quote(self._schema)})"
                )
            except duckdb.Error as error:
                raise OperatorError(
                    f"the lake's catalogue cannot be reached: {self._without_secrets(str(error))}",
                    reason=Reason.UNREACHABLE,
                    hint="Check store.lake, and that PostgreSQL runs and knows the database.",
                ) from None
            yield connection
        finally:
            connection.close()

    def init(self) -> None:
        """Make the tables; harmless when they are there."""
        self.sealed.mkdir(parents=True, exist_ok=True)
        with self._lock("init"), self.connect() as connection:
            committed(connection, lambda: statements(connection, TABLES), self._sleep)

    def sync(self, catalogue: Catalogue) -> list[UUID]:
        """Bring in every sealed session of a folder that the lake does not hold; those it brought in.

        Raises:
            DataError: A session is not what was sealed.
            OperatorError: The catalogue does not answer, or others were faster too often.
        """
        self.init()
        known, brought = set(self.ids()), []
        for session in catalogue.ids():
            if session not in known and self.add(catalogue.get(session)):
                brought.append(session)
        return brought

    def add(self, sealed: SealedSession) -> bool:
        """Bring a sealed session in; False when the lake holds it.

        Raises:
            DataError: It is not what was sealed.
            OperatorError: The catalogue does not answer.
        """
        with self._lock(str(sealed.id)), self.connect() as connection:
            if connection.execute("SELECT 1 FROM lake.sessions WHERE session = ?", [sealed.id]).fetchone():
                return False
            placed = self._place(sealed)
            placed.verify()
            committed(connection, lambda: register(connection, placed), self._sleep)
        logger.info("session %s is in the lake", sealed.id)
        return True

    def ids(self) -> list[UUID]:
        """Sessions the lake holds."""
        with self.connect() as connection:
            return [i for (i,) in connection.execute("SELECT session FROM lake.sessions ORDER BY session").fetchall()]

    def catalogue(self) -> Catalogue:
        """The sessions as folders, for training, exports and everybody else who reads sealed sessions."""
        return Catalogue(self.sealed)

    def status(self) -> LakeStatus:
        """What the lake holds."""
        with self.connect() as connection:
            sessions, size = connection.execute(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM lake.sessions"
            ).fetchall()[0]
            (streams,) = connection.execute("SELECT count(*) FROM lake.streams").fetchall()[0]
            held = 0
            for (name,) in connection.execute(TABLE_NAMES).fetchall():
                sql = f"SELECT count(*) FROM ducklake_list_files('{NAME}', {quote(name)})"  # noqa: S608
                held += connection.execute(sql).fetchall()[0][0]
            (snapshot,) = connection.execute(f"SELECT max(snapshot_id) FROM ducklake_snapshots('{NAME}')").fetchall()[0]  # noqa: S608
        return LakeStatus(sessions, streams, held, int(size), snapshot)

    def verify(self, session: UUID) -> str:
        """Read a session's samples through the catalogue, recompute its content hash and return it.

        Raises:
            DataError: The lake does not hold it, or holds other samples than were sealed.
        """
        with self.connect() as connection:
            row = connection.execute("SELECT content_hash FROM lake.sessions WHERE session = ?", [session]).fetchone()
            if row is None:
                raise DataError(f"session {session} is not in the lake.", reason=Reason.NOT_FOUND)
            sealed = SealedSession(self.sealed / str(session))
            found = content_hash(session, [digest_of(connection, sealed, e) for e in sealed.manifest.streams])
        if found != row[0]:
            raise DataError(
                f"session {session} holds other samples in the lake than were sealed.",
                reason=Reason.HASH_MISMATCH,
                hint="Restore the lake's folder from a backup.",
            )
        return found

    def forget(self, sessions: Sequence[UUID]) -> int:
        """Take sessions out: rows, files, and snapshots that could still show them; how many there were.

        Raises:
            OperatorError: The catalogue does not answer; ask again.
        """
        self.init()
        with self.connect() as connection:
            there = [s for s in sessions if (self.sealed / str(s)).exists() or holds(connection, s)]
            if not there:
                return 0
            committed(connection, lambda: unregister(connection, there), self._sleep)
            for table in [name for (name,) in connection.execute(TABLE_NAMES).fetchall()]:
                sql = f"CALL ducklake_rewrite_data_files('{NAME}', {quote(table)}, delete_threshold => 0.0)"
                committed(connection, lambda sql=sql: connection.execute(sql), self._sleep)  # type: ignore[misc]
            connection.execute(
                f"SELECT count(*) FROM ducklake_expire_snapshots('{NAME}', older_than => now()::TIMESTAMPTZ)"  # noqa: S608
            )
            connection.execute(f"SELECT count(*) FROM ducklake_cleanup_old_files('{NAME}', cleanup_all => true)")  # noqa: S608
            connection.execute(f"CALL postgres_execute('{_METADATA}', 'VACUUM FULL', use_transaction := false)")
        for session in there:
            shutil.rmtree(self.sealed / str(session), ignore_errors=True)
        return len(there)

    def _place(self, sealed: SealedSession) -> SealedSession:
        """A sealed folder under the lake's own: itself, or a copy."""
        target = self.sealed / str(sealed.id)
        if sealed.directory.resolve() == target.resolve() or target.is_dir():
            return SealedSession(target)
        part = self.sealed / f"{_PART}{sealed.id}"
        if part.exists():
            shutil.rmtree(part)
        shutil.copytree(sealed.directory, part)
        for path in [*part.iterdir(), part]:
            sync(path)
        part.replace(target)
        sync(self.sealed)
        return SealedSession(target)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Nobody else brings the same in."""
        folder = self.data / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / hashlib.sha256(name.encode()).hexdigest()[:2], os.O_RDWR | os.O_CREAT, 0o660)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _without_secrets(self, text: str) -> str:
        return text.replace(self._catalog, "store.lake").splitlines()[0]
