"""The lake's tables: what PostgreSQL is told of a sealed session, and how its files are registered."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
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
    file_sha256,
)
from embridge_cloud.store.sealed import SealedSession
from embridge_cloud.store.views import view_name
from embridge_shared.errors import ConfigError, OperatorError, Reason

logger = logging.getLogger(__name__)

NAME = "lake"
TRIES = 10
_EXTENSIONS = (("duckdb_extension_ducklake", "ducklake"), ("duckdb_extension_postgres_scanner", "postgres_scanner"))
TABLES = """
CREATE TABLE IF NOT EXISTS lake.sessions (
    session UUID, started_ns BIGINT, sealed_ns BIGINT, purpose VARCHAR, protocol VARCHAR, source VARCHAR,
    content_hash VARCHAR, manifest_sha256 VARCHAR, bytes BIGINT);
CREATE TABLE IF NOT EXISTS lake.streams (
    session UUID, stream INTEGER, name VARCHAR, modality VARCHAR, rate_hz DOUBLE, unit VARCHAR, scale DOUBLE,
    device VARCHAR, samples BIGINT, total BIGINT, sha256 VARCHAR, content VARCHAR, table_name VARCHAR);
CREATE TABLE IF NOT EXISTS lake.gaps (session UUID, stream INTEGER, first BIGINT, "end" BIGINT, inferred BOOLEAN);
"""


TABLE_NAMES = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY table_name"


def load_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    """Load DuckDB's extensions from their wheels; nothing is downloaded."""
    for package, name in _EXTENSIONS:
        try:
            path = files(package) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
            connection.execute(f"LOAD {quote(str(path))}")
        except (ModuleNotFoundError, PackageNotFoundError, duckdb.IOException) as error:
            raise ConfigError(
                f"a lake needs DuckDB's extension {name}, which is not installed for {duckdb.__version__}.",
                reason=Reason.MISSING_EXTRA,
                hint='Install it with: pip install "embridge[lake]"',
            ) from error


def committed(
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


def statements(connection: duckdb.DuckDBPyConnection, script: str) -> None:
    """Run the statements of a script."""
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


def register(connection: duckdb.DuckDBPyConnection, sealed: SealedSession) -> None:
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
    quoted = quote(str(path))
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS lake.{table} AS SELECT * FROM read_parquet({quoted}) LIMIT 0"  # noqa: S608
    )
    connection.execute(f"CALL ducklake_add_data_files('{NAME}', {quote(table)}, {quoted})")
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


def unregister(connection: duckdb.DuckDBPyConnection, sessions: Sequence[UUID]) -> None:
    """Delete every row of sessions within a running transaction."""
    for (table,) in connection.execute(TABLE_NAMES).fetchall():
        for session in sessions:
            where = "session = ?" if table in ("sessions", "streams", "gaps") else "filename LIKE '%/' || ? || '/%'"
            value = session if table in ("sessions", "streams", "gaps") else str(session)
            connection.execute(f"DELETE FROM lake.{table} WHERE {where}", [value])  # noqa: S608


def holds(connection: duckdb.DuckDBPyConnection, session: UUID) -> bool:
    """Whether the catalogue holds a session."""
    return connection.execute("SELECT 1 FROM lake.sessions WHERE session = ?", [session]).fetchone() is not None


def digest_of(connection: duckdb.DuckDBPyConnection, sealed: SealedSession, entry: StreamEntry) -> str:
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


def quote(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
