"""What can go wrong with the store, by what to do next."""

from __future__ import annotations

from pathlib import Path

from embridge_shared.errors import DataError, ExitCode, OperatorError, Reason


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
