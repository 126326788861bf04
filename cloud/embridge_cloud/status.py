"""How the ingester is doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class IngestState(StrEnum):
    """Where the ingester stands."""

    STARTING = "starting"
    CONNECTING = "connecting"
    READY = "ready"
    DISK_FULL = "disk full"
    STORE_FAILING = "store failing"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(slots=True)
class IngestStatus:
    """How the ingester is doing.

    Attributes:
        state: Where it stands.
        connected: To the broker.
        connections: Made since the start.
        commits: Transactions since the start.
        commit_ms_last: How long the last one took, queueing included.
        commit_ms_worst: How long the longest one took.
        commit_ms_total: All of them together.
        reports: Commit reports published.
        sealed: Sessions sealed since the start.
        unsealable: Complete sessions whose sealing failed; tried again every minute.
        last_error: The last thing that went wrong.
        on_commit: Told the length of every transaction, ms.
    """

    state: IngestState = IngestState.STARTING
    connected: bool = False
    connections: int = 0
    commits: int = 0
    commit_ms_last: float = 0.0
    commit_ms_worst: float = 0.0
    commit_ms_total: float = 0.0
    reports: int = 0
    sealed: int = 0
    unsealable: set[str] = field(default_factory=set)
    last_error: str = ""
    on_commit: Callable[[float], None] | None = None

    def note_commit(self, took_ms: float) -> None:
        """Count a transaction."""
        self.commits += 1
        self.commit_ms_last = took_ms
        self.commit_ms_worst = max(self.commit_ms_worst, took_ms)
        self.commit_ms_total += took_ms
        if self.on_commit is not None:
            self.on_commit(took_ms)
