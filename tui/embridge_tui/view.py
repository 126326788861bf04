"""What is known of the cloud now, and how old that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embridge_shared.errors import EmbridgeError
from embridge_tui import text
from embridge_tui.model import Snapshot

STALE_S: Final = 6.0


@dataclass(frozen=True)
class View:
    """The last answer of the cloud and what has gone wrong since.

    Attributes:
        address: Whom it was asked of.
        snapshot: The last answer; None before the first.
        read_ns: When it came, on the app's monotonic clock.
        error: Why the latest attempt failed; None if it did not.
    """

    address: str
    snapshot: Snapshot | None = None
    read_ns: int = 0
    error: EmbridgeError | None = None

    def age_s(self, now_ns: int) -> float:
        """Seconds since the last answer."""
        return (now_ns - self.read_ns) * 1e-9

    def stale(self, now_ns: int) -> bool:
        """Whether what is shown may no longer be so."""
        return self.snapshot is not None and (self.error is not None or self.age_s(now_ns) > STALE_S)

    def status(self, now_ns: int) -> str:
        """One short line for the top of every screen."""
        if self.snapshot is None:
            return "✕ no data" if self.error else "… connecting"
        age = text.age(self.age_s(now_ns))
        if self.stale(now_ns):
            return f"✕ STALE {age}"
        return f"{'●' if self.snapshot.readiness.ready else '▲'} live {age}"

    def trouble(self, now_ns: int) -> str:
        """What is wrong and what to do next; empty when all is well."""
        if self.error is not None:
            return f"✕ {text.plain(str(self.error))} {self._shown(now_ns)} Press r to ask again."
        if self.stale(now_ns):
            return f"✕ The cloud at {self.address} has not answered yet. {self._shown(now_ns)}"
        if self.snapshot is not None and not self.snapshot.readiness.ready:
            ready = self.snapshot.readiness
            why = f" ({text.plain(ready.last_error)})" if ready.last_error else ""
            return (
                f"▲ The cloud answers but does not ingest: {text.plain(ready.state)}{why}. "
                "Edges keep what they record; check the broker and the cloud's log."
            )
        return ""

    def _shown(self, now_ns: int) -> str:
        if self.snapshot is None:
            return "There is nothing to show yet."
        return f"What is shown is {text.age(self.age_s(now_ns))} old."
