"""Writing the hot file anew: what was deleted leaves the disk only with the pages it stood in.

DuckDB marks deleted rows and reuses their pages; their bytes stay. So every row that is left is copied into a fresh
file, which then takes the place of the old one in one rename. Until that rename the old file is the truth, after it the
new one is; the old one has no write-ahead log at that moment, so none can be taken for the new one's.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import duckdb

from embridge_cloud.store.failures import StoreError
from embridge_cloud.store.schema import CATALOG, attach, migrate
from embridge_shared.errors import Reason

logger = logging.getLogger(__name__)

_FRESH = "fresh"
_VERSIONS = "schema_migrations"


def fresh_path(path: Path) -> Path:
    """Where the copy of the file at `path` is made."""
    return path.with_name(path.name + ".fresh")


def clear(path: Path) -> None:
    """Remove what a crash left of a copy."""
    for left in path.parent.glob(fresh_path(path).name + "*"):
        left.unlink()


def copy(connection: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Copy every row of the attached hot file, as of one moment, into a fresh file, on the disk when this returns.

    Raises:
        StoreError: A table of the copy holds other rows than its original.
    """
    made = attach(target)
    try:
        migrate(made)
    finally:
        made.close()
    quoted = str(target).replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS {_FRESH} (ROW_GROUP_SIZE 2048)")
    try:
        connection.begin()
        try:
            for table in tables(connection):
                if table != _VERSIONS:
                    _copy_table(connection, table)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        connection.execute(f"CHECKPOINT {_FRESH}")
    finally:
        connection.execute(f"DETACH {_FRESH}")
    sync(target)


def swap(path: Path) -> None:
    """Put the copy in the place of the closed file at `path`.

    Raises:
        StoreError: The file was not closed cleanly.
    """
    log = path.with_name(path.name + ".wal")
    if log.exists():
        raise StoreError(
            f"{log.name} is still there: the file was not closed.", reason=Reason.INVALID, hint="Try again."
        )
    fresh_path(path).replace(path)
    sync(path.parent)


def tables(connection: duckdb.DuckDBPyConnection, catalog: str = CATALOG) -> list[str]:
    """Tables of an attached file."""
    sql = "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND NOT internal ORDER BY table_name"
    return [name for (name,) in connection.execute(sql, [catalog]).fetchall()]


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_table(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    old, new = f"{CATALOG}.main.{table}", f"{_FRESH}.main.{table}"
    connection.execute(f"INSERT INTO {new} BY NAME SELECT * FROM {old}")  # noqa: S608
    (rows,) = connection.execute(
        f"SELECT (SELECT count(*) FROM {old}) = (SELECT count(*) FROM {new})"  # noqa: S608
    ).fetchall()
    if rows != (True,):
        raise StoreError(
            f"{table} was not copied whole.", reason=Reason.INVALID, hint="Nothing was changed; see the log."
        )
