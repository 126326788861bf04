"""What SQLite's errors mean for a spool, by what to do next."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from embridge_shared.disk import mib
from embridge_shared.errors import DataError, EmbridgeError, OperatorError, Reason

_SAFE = "what was recorded before is safe."


def explain(error: sqlite3.Error, path: Path) -> EmbridgeError:
    """SQLite's own error as ours.

    Args:
        error: What it raised.
        path: The spool.
    """
    primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DataError(
            f"{path} is no spool: {error}",
            reason=Reason.MALFORMED,
            hint="Move it aside; it may hold recordings that can be recovered with sqlite3's .recover.",
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OperatorError(
            f"the spool {path} is in use: {error}",
            reason=Reason.LOCKED,
            hint="Is another agent running with the same state directory?",
        )
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return OperatorError(
            f"the spool {path} may not be written: {error}",
            reason=Reason.DENIED,
            hint=f"Mount its disk for writing and give the agent's user the right to write there; {_SAFE}",
        )
    if primary == sqlite3.SQLITE_IOERR:
        return OperatorError(
            f"the disk of the spool {path} fails: {error}",
            reason=Reason.INVALID,
            hint=f"See the system's log and replace the disk if it says so; {_SAFE}",
        )
    return OperatorError(
        f"the spool {path} cannot be written: {error}",
        reason=Reason.DISK_FULL,
        hint=f"Free disk space; {_SAFE}",
    )


def over_budget(waiting: int) -> OperatorError:
    """The spool may not grow further."""
    return OperatorError(
        f"the spool is full: {waiting >> 20} MiB wait for the cloud",
        reason=Reason.DISK_FULL,
        hint="Restore the connection, or raise edge.spool_max_bytes.",
    )


def at_reserve(path: Path, room: int, reserve: int) -> OperatorError:
    """Recording would eat what is kept back."""
    return OperatorError(
        f"the disk of the spool {path} is full: {mib(room)} are left, and edge.reserve_bytes keeps {mib(reserve)} back",
        reason=Reason.DISK_FULL,
        hint=f"Free disk space or restore the connection; {_SAFE}",
    )
