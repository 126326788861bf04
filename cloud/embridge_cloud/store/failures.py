"""What can go wrong with the store, by what to do next."""

from __future__ import annotations

import errno
from pathlib import Path

import duckdb

from embridge_shared.errors import DataError, ExitCode, OperatorError, Reason

_FULL = ("no space left", f"errno {errno.ENOSPC}", "disk quota", "file too large", "out of disk")
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


class NotSealableError(DataError):
    """The session does not yet hold everything it announced."""


def translate(error: duckdb.Error) -> StoreError:
    """The database's own error as ours."""
    text = str(error)
    low = text.lower()
    if any(mark in low for mark in _FULL):
        return StoreError(
            f"the store's disk is full: {text}",
            reason=Reason.DISK_FULL,
            hint="Make room; edges keep what was not committed.",
            reopen=any(mark in low for mark in _BROKEN),
        )
    return StoreError(
        f"the database refused a transaction: {text}",
        reason=Reason.INVALID,
        hint="Edges keep what was not committed.",
        reopen=isinstance(error, (duckdb.FatalException, duckdb.ConnectionException))
        or any(mark in low for mark in _BROKEN),
    )
