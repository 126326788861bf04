"""From scores to decisions on the edge: where evidence comes from, and who is told what was decided."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embridge_shared.decision import Decision, DecisionConfig, Evidence
from embridge_shared.manifest import Manifest

logger = logging.getLogger(__name__)

CAUTIOUS: Final = DecisionConfig(otherwise=0.9, onset_s=0.25)
"""How the model of a wearer decides under a release that was fitted without one."""

_KEPT = 256


class EvidenceSource(Protocol):
    """Looks at a window and says what speaks for which gesture."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Gestures in the order of the evidence (G,)."""
        ...

    def evidence(self, window: NDArray[np.float32], end: int) -> Evidence:
        """What a window of scaled features says.

        Args:
            window: float32 (T, C).
            end: Absolute feature index after it.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """What was decided at a hop, for who wants to act on it.

    Attributes:
        session: Recording it belongs to.
        release: Release that decodes.
        labels: Gestures in the order of the probabilities (G,).
        number: Index of the window in the streams of scores and decisions.
        t_ns: Unix time of the newest sample it rests on, ns.
        arrived_ns: When that sample's packet reached the host, monotonic clock, ns.
        latency_s: From the arrival of the samples that completed the window to its scores, s.
        decision: What.
    """

    session: UUID
    release: str
    labels: tuple[str, ...]
    number: int
    t_ns: int
    arrived_ns: int
    latency_s: float
    decision: Decision


class DecisionSink(Protocol):
    """Is told of decisions as they fall, hop by hop, events with them."""

    def decided(self, decided: Decided) -> None:
        """Take a decision. Called on the event loop: must return at once, and what it raises is logged and dropped."""
        ...

    def ended(self, decided: Decided) -> None:
        """Take what ended without a window of its own: at a gap, or because decoding ends.

        Its decision is that of the last window, with the events that end what was on.
        """
        ...


class DecisionFeed:
    """A sink to iterate over: `async for decided in feed`; it ends when it is closed.

    A reader that falls behind loses the oldest hops first, those with events last; recording waits for nobody.

    Args:
        events_only: Leave out hops at which nothing changed.
        kept: Decisions that wait at most.
    """

    def __init__(self, *, events_only: bool = False, kept: int = _KEPT) -> None:
        self._events_only = events_only
        self._kept = kept
        self._waiting: deque[Decided] = deque()
        self._news = asyncio.Event()
        self._closed = False
        self.dropped = 0

    def decided(self, decided: Decided) -> None:
        """Keep a decision for the reader."""
        if self._events_only and not decided.decision.events:
            return
        self._waiting.append(decided)
        if len(self._waiting) > self._kept:
            quiet = next((i for i, d in enumerate(self._waiting) if not d.decision.events), 0)
            del self._waiting[quiet]
            self.dropped += 1
        self._news.set()

    def ended(self, decided: Decided) -> None:
        """Keep what ended for the reader."""
        self.decided(decided)

    def close(self) -> None:
        """End the iteration once everything kept is read."""
        self._closed = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[Decided]:
        """Decisions in order."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()


class Sinks:
    """Everybody who is told; they may come and go while a session is decoded."""

    def __init__(self) -> None:
        self._sinks: list[DecisionSink] = []

    def add(self, sink: DecisionSink) -> None:
        """Tell `sink` from now on."""
        self._sinks.append(sink)

    def remove(self, sink: DecisionSink) -> None:
        """Tell it no more; nothing happens when it was not told."""
        if sink in self._sinks:
            self._sinks.remove(sink)

    def tell(self, decided: Decided, *, ended: bool = False) -> None:
        """Tell all; one that fails keeps no other from hearing."""
        for sink in tuple(self._sinks):
            try:
                (sink.ended if ended else sink.decided)(decided)
            except Exception:  # whatever it is, the recording goes on
                logger.exception("a receiver of decisions failed")


def decision_for(
    manifest: Manifest, *, wearer: bool = False, target_per_hour: float | None = None
) -> DecisionConfig | None:
    """How a release decides.

    Args:
        manifest: Of the release.
        wearer: By a model made the wearer's own, whose evidence comes from an `EvidenceSource`.
        target_per_hour: False activations an hour to put up with, where not those the release was fitted for.

    Returns:
        None where the release says nothing of how its scores become decisions.
    """
    found = (manifest.wearer_decision or CAUTIOUS) if wearer else manifest.decision
    if found is None or target_per_hour is None or target_per_hour == found.target_per_hour:
        return found
    if not found.points:
        # A release must not stop a recording by what it leaves out.
        logger.warning(
            "%s knows thresholds for %g false activations an hour only", manifest.release, found.target_per_hour
        )
        return found
    return found.at(target_per_hour)
