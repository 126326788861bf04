"""Opening a hot file: settings that suit blobs, migrations in order."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import duckdb

from embridge_cloud.store.failures import unopenable
from embridge_shared.errors import DataError, Reason

CATALOG = "hot"
_FILE = re.compile(r"(\d{4})_\w+\.sql")


def migrations() -> dict[int, tuple[str, str]]:
    """Version → (name, SQL) of every migration this version of the code brings."""
    found = {}
    for entry in files("embridge_cloud.store").joinpath("migrations").iterdir():
        match = _FILE.fullmatch(entry.name)
        if match:
            found[int(match[1])] = (entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


def attach(path: Path, *, keep_log: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the file at `path`, creating it when there is none, and return the connection that owns it.

    Small row groups and rare checkpoints keep a transaction of blobs at some 20 ms; with the defaults a checkpoint
    rewrites ever more of the table and takes seconds. Payloads come compressed, so nothing is gained by looking for a
    compression of them, and one thread a connection writes them for two thirds of the processor time of two.

    Args:
        path: The file.
        keep_log: Closing the connection leaves the log as it is, until `PRAGMA enable_checkpoint_on_shutdown`: what is
            wrong with a log cannot be looked into once it was worked in.

    Raises:
        StoreLockedError: Another process has it.
        StoreError: Its disk is full or may not be written.
        StoreDamagedError: It is no database, or a damaged one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    try:
        connection.execute("SET checkpoint_threshold = '256MB'")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET force_compression = 'uncompressed'")
        connection.execute("SET threads = 1")
        if keep_log:
            connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        quoted = str(path).replace("'", "''")
        connection.execute(f"ATTACH '{quoted}' AS {CATALOG} (ROW_GROUP_SIZE 2048)")
        connection.execute(f"USE {CATALOG}")
    except duckdb.Error as error:
        connection.close()
        raise unopenable(path, error) from error
    return connection


def migrate(connection: duckdb.DuckDBPyConnection) -> int:
    """Bring an attached file to this version's schema and return the version.

    Raises:
        DataError: The file's schema is newer than this code.
    """
    known = migrations()
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations "
        "(version INTEGER PRIMARY KEY, name VARCHAR NOT NULL, applied_at TIMESTAMP DEFAULT current_timestamp)"
    )
    applied = {int(v) for (v,) in connection.execute("SELECT version FROM schema_migrations").fetchall()}
    current = max(applied, default=0)
    newest = max(known)
    if current > newest:
        raise DataError(
            f"the store has schema {current}, this version of EMBridge knows {newest}.",
            reason=Reason.UNSUPPORTED_VERSION,
            hint="Update EMBridge, or point cloud.state_dir at another folder.",
        )
    for version, (name, sql) in known.items():
        if version in applied:
            continue
        connection.begin()
        try:
            connection.execute(sql)
            connection.execute("INSERT INTO schema_migrations (version, name) VALUES (?, ?)", [version, name])
            connection.commit()
        except duckdb.Error:
            connection.rollback()
            raise
    return newest
