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
from importlib.metadata import PackageNotFoundError
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import msgspec
import numpy as np

from embridge_cloud.store.manifest import (
    INDEX,
    MANIFEST,
    ContentDigest,
    FileEntry,
    StreamEntry,
    column_names,
    content_hash,
    file_sha256,
)
from embridge_cloud.store.rewrite import sync
from embridge_cloud.store.sealed import Catalogue, SealedSession
from embridge_cloud.store.views import view_name
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.settings import Settings

logger = logging.getLogger(__name__)

NAME = "lake"
TRIES = 10
_METADATA = f"__ducklake_metadata_{NAME}"
_EXTENSIONS = (("duckdb_extension_ducklake", "ducklake"), ("duckdb_extension_postgres_scanner", "postgres_scanner"))
_PART = ".part-"
_TABLES = """
CREATE TABLE IF NOT EXISTS lake.sessions (
    session UUID, started_ns BIGINT, sealed_ns BIGINT, purpose VARCHAR, protocol VARCHAR, source VARCHAR,
    content_hash VARCHAR, manifest_sha256 VARCHAR, bytes BIGINT);
CREATE TABLE IF NOT EXISTS lake.streams (
    session UUID, stream INTEGER, name VARCHAR, modality VARCHAR, rate_hz DOUBLE, unit VARCHAR, scale DOUBLE,
    device VARCHAR, samples BIGINT, total BIGINT, sha256 VARCHAR, content VARCHAR, table_name VARCHAR);
CREATE TABLE IF NOT EXISTS lake.gaps (session UUID, stream INTEGER, first BIGINT, "end" BIGINT, inferred BOOLEAN);
"""


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
            _load(connection)
            connection.execute("SET ducklake_max_retry_count = 50")
            quoted, data = _quote(f"ducklake:postgres:{self._catalog}"), _quote(f"{self.data}/")
            try:
                connection.execute(
                    f"ATTACH {quoted} AS {NAME} (DATA_PATH {data}, METADATA_SCHEMA {_quote(self._schema)})"
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
            _committed(connection, lambda: _statements(connection, _TABLES), self._sleep)

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
            _committed(connection, lambda: _register(connection, placed), self._sleep)
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
            for (name,) in connection.execute(_TABLE_NAMES).fetchall():
                sql = f"SELECT count(*) FROM ducklake_list_files('{NAME}', {_quote(name)})"  # noqa: S608
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
            found = content_hash(session, [_digest(connection, sealed, e) for e in sealed.manifest.streams])
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
            there = [s for s in sessions if (self.sealed / str(s)).exists() or _holds(connection, s)]
            if not there:
                return 0
            _committed(connection, lambda: _unregister(connection, there), self._sleep)
            for table in [name for (name,) in connection.execute(_TABLE_NAMES).fetchall()]:
                sql = f"CALL ducklake_rewrite_data_files('{NAME}', {_quote(table)}, delete_threshold => 0.0)"
                _committed(connection, lambda sql=sql: connection.execute(sql), self._sleep)  # type: ignore[misc]
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


_TABLE_NAMES = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY table_name"


def _load(connection: duckdb.DuckDBPyConnection) -> None:
    for package, name in _EXTENSIONS:
        try:
            path = files(package) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
            connection.execute(f"LOAD {_quote(str(path))}")
        except (ModuleNotFoundError, PackageNotFoundError, duckdb.IOException) as error:
            raise ConfigError(
                f"a lake needs DuckDB's extension {name}, which is not installed for {duckdb.__version__}.",
                reason=Reason.MISSING_EXTRA,
                hint='Install it with: pip install "embridge[lake]"',
            ) from error


def _committed(
    connection: duckdb.DuckDBPyConnection, work: Callable[[], object], sleep: Callable[[float], None]
) -> None:
    """Do work in one transaction, again where another's commit came between."""
    for tried in range(TRIES):
        connection.begin()
        try:
            work()
            connection.commit()
        except duckdb.Error as error:
            try:
                connection.rollback()
            except duckdb.Error as failed:
                logger.debug("rollback: %s", failed)
            if "conflict" not in str(error).lower() or tried == TRIES - 1:
                raise OperatorError(
                    f"the lake refused a commit: {error}",
                    reason=Reason.LOCKED,
                    hint="Ask again: nothing of it is kept.",
                ) from error
            sleep(0.05 * (tried + 1) + (os.getpid() % 7) * 0.01)
        else:
            return


def _statements(connection: duckdb.DuckDBPyConnection, script: str) -> None:
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


def _register(connection: duckdb.DuckDBPyConnection, sealed: SealedSession) -> None:
    """Put a placed session on record within a running transaction."""
    session, manifest = sealed.session, sealed.manifest
    size = sum(p.bytes for p in _parts(sealed))
    connection.execute(
        "INSERT INTO lake.sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [sealed.id, session.started_ns, manifest.sealed_ns, session.purpose.value, session.protocol, session.source,
         manifest.content_hash, file_sha256(sealed.directory / MANIFEST), size],
    )  # fmt: skip
    for entry in manifest.streams:
        spec = session.streams[entry.stream]
        table = _stream_table(sealed, entry)
        _add_file(connection, table, sealed.directory / entry.file, view_name(entry.name))
        connection.execute(
            "INSERT INTO lake.streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [sealed.id, entry.stream, entry.name, spec.modality.value, spec.rate_hz, spec.unit, spec.scale, spec.device,
             entry.rows, entry.total, entry.sha256, entry.content, table],
        )  # fmt: skip
        for a, b in entry.gaps:
            row = [sealed.id, entry.stream, a, b, (a, b) in entry.inferred]
            connection.execute("INSERT INTO lake.gaps VALUES (?, ?, ?, ?, ?)", row)
        _add_file(connection, f"clock_of_{table}", sealed.directory / entry.arrivals.file, "")


def _add_file(connection: duckdb.DuckDBPyConnection, table: str, path: Path, view: str) -> None:
    """Register a Parquet file in a table of its shape, made when there is none."""
    quoted = _quote(str(path))
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS lake.{table} AS SELECT * FROM read_parquet({quoted}) LIMIT 0"  # noqa: S608
    )
    connection.execute(f"CALL ducklake_add_data_files('{NAME}', {_quote(table)}, {quoted})")
    if view:
        sql = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND starts_with(table_name, ?)"
        names = sorted({table, *(n for (n,) in connection.execute(sql, [f"{view}__"]).fetchall())})
        union = " UNION ALL BY NAME ".join(
            f"SELECT parse_path(filename)[-2]::UUID AS session, * FROM lake.{n}"  # noqa: S608
            for n in names
        )
        connection.execute(f"CREATE OR REPLACE VIEW lake.{view} AS {union}")


def _stream_table(sealed: SealedSession, entry: StreamEntry) -> str:
    """Name of the table that holds streams of this name and these columns."""
    spec = sealed.session.streams[entry.stream]
    shape = msgspec.json.encode([spec.dtype.value, column_names(spec)])
    return f"{view_name(entry.name)}__{hashlib.sha256(shape).hexdigest()[:8]}"


def _parts(sealed: SealedSession) -> list[StreamEntry | FileEntry]:
    streams = sealed.manifest.streams
    return [*streams, *(s.arrivals for s in streams), sealed.manifest.events]


def _unregister(connection: duckdb.DuckDBPyConnection, sessions: Sequence[UUID]) -> None:
    """Delete every row of sessions within a running transaction."""
    for (table,) in connection.execute(_TABLE_NAMES).fetchall():
        for session in sessions:
            where = "session = ?" if table in ("sessions", "streams", "gaps") else "filename LIKE '%/' || ? || '/%'"
            value = session if table in ("sessions", "streams", "gaps") else str(session)
            connection.execute(f"DELETE FROM lake.{table} WHERE {where}", [value])  # noqa: S608


def _holds(connection: duckdb.DuckDBPyConnection, session: UUID) -> bool:
    return connection.execute("SELECT 1 FROM lake.sessions WHERE session = ?", [session]).fetchone() is not None


def _digest(connection: duckdb.DuckDBPyConnection, sealed: SealedSession, entry: StreamEntry) -> str:
    """Content digest of a stream as the lake answers."""
    spec = sealed.session.streams[entry.stream]
    digest = ContentDigest(spec)
    names = ", ".join(f'"{name}"' for name in column_names(spec))
    rows = connection.execute(
        f"SELECT {INDEX}, {names} FROM lake.{_stream_table(sealed, entry)} WHERE filename LIKE ? ORDER BY {INDEX}",  # noqa: S608
        [f"%/{sealed.id}/%"],
    )
    found: dict[str, Any] = rows.fetchnumpy()
    index = np.asarray(found[INDEX])
    if not len(index):
        return digest.hexdigest()
    values = np.stack([np.asarray(found[name]) for name in column_names(spec)], axis=1)
    values = values.astype(spec.dtype.numpy, copy=False)
    cuts = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), len(index)]
    for a, b in pairwise(cuts):
        digest.update(int(index[a]), values[a:b])
    return digest.hexdigest()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
