"""What can go wrong with the store, by what to do next."""

from __future__ import annotations

import errno
from pathlib import Path

import duckdb

from embridge_shared.errors import DataError, ExitCode, OperatorError, Reason

_FULL = ("no space left", f"errno {errno.ENOSPC}", "disk quota", "file too large", "out of disk")
_DENIED = ("permission denied", "read-only file system", "read-only mode")
_DAMAGED = (
    "corrupt",
    "not a valid duckdb database",
    "checksum",
    "failure while replaying wal",
    "serializationexception",
)
_REPAIR = "Restore a backup, or let `embridge cloud repair` save what can be read and say what cannot."
_BROKEN = ("invalidated", "fatal error", "connection already closed")


class StoreLockedError(OperatorError):
    """Another process has the hot file open."""

    exit_code = ExitCode.BUSY

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is open in another process.",
            reason=Reason.LOCKED,
            hint="One `embridge cloud run` owns it: stop that one, or ask its HTTP interface instead.",
        )


class StoreError(OperatorError):
    """The database refused; nothing of the transaction was kept.

    Attributes:
        reopen: The connection is of no further use; `HotStore.reopen` may help.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, reason: Reason, hint: str, reopen: bool = False) -> None:
        super().__init__(message, reason=reason, hint=hint)
        self.reopen = reopen


class StoreDamagedError(DataError):
    """The file does not hold what was committed to it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason=Reason.DAMAGED, hint=_REPAIR)


class NotSealableError(DataError):
    """The session does not yet hold everything it announced."""


def translate(error: duckdb.Error) -> StoreError:
    """The database's own error as ours."""
    text = str(error)
    low = text.lower()
    broken = isinstance(error, (duckdb.FatalException, duckdb.ConnectionException)) or _any(_BROKEN, low)
    if _any(_FULL, low):
        return disk_full(f"the store's disk is full: {text}", reopen=broken)
    if _any(_DENIED, low):
        return StoreError(
            f"the store may not be written: {text}",
            reason=Reason.DENIED,
            hint="Mount its disk for writing and give the process the right to write there; edges keep everything.",
            reopen=True,
        )
    if _any(_DAMAGED, low):
        return StoreError(f"the store is damaged: {text}", reason=Reason.DAMAGED, hint=_REPAIR, reopen=broken)
    return StoreError(
        f"the database refused a transaction: {text}",
        reason=Reason.INVALID,
        hint="Edges keep what was not committed.",
        reopen=broken,
    )


def disk_full(message: str, *, reopen: bool = False) -> StoreError:
    """Nothing is committed until there is room."""
    return StoreError(
        message,
        reason=Reason.DISK_FULL,
        hint="Make room: ingest goes on by itself, and the edges keep everything meanwhile.",
        reopen=reopen,
    )


def unopenable(path: Path, error: duckdb.Error) -> StoreLockedError | StoreError | StoreDamagedError:
    """Why a file cannot be opened."""
    text = str(error)
    if "Could not set lock" in text or "already attached" in text:
        return StoreLockedError(path)
    found = translate(error)
    if found.reason in (Reason.DISK_FULL, Reason.DENIED):
        return found
    return StoreDamagedError(f"the store {path} cannot be opened: {text}")


def _any(marks: tuple[str, ...], text: str) -> bool:
    return any(mark in text for mark in marks)
