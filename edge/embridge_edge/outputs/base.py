"""The interface of outputs, and what keeps them from holding anybody up.

Every output reads from a bounded queue in a task of its own. One that cannot follow loses hops at which nothing
changed, then the oldest ones; decoding waits for none of them.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np

from embridge_edge.decode.decision import Decided, DecisionFeed
from embridge_edge.outputs.messages import Notice
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError

logger = logging.getLogger(__name__)

_KEPT: Final = 64
_DELAYS: Final = 4096
_CLOSE_S: Final = 3.0


class Output(ABC):
    """One place decisions go to.

    Attributes:
        name: As in the settings.
    """

    name: str

    @property
    def where(self) -> str:
        """Where it is reached by others, once started; empty for one that is not."""
        return ""

    async def start(self) -> None:  # noqa: B027
        """Get ready.

        Raises:
            EmbridgeError: It cannot work here; the hint says what to do.
        """

    @abstractmethod
    async def tell(self, decided: Decided) -> None:
        """Take the next decision. Called hop by hop, in order, with the events of the hop in it.

        Raises:
            EmbridgeError: It was not delivered; the next one is tried all the same.
            OSError: The same.
        """

    def notice(self, notice: Notice) -> None:  # noqa: B027
        """Take something the wearer should know; returns at once."""

    async def close(self) -> None:  # noqa: B027
        """Let go of everything; safe to call twice, and after a `start` that failed."""


class Pace:
    """Lets so many decisions a second pass.

    Args:
        hz: How many; 0 lets none pass.
    """

    def __init__(self, hz: float) -> None:
        self.hz = hz
        self._every_ns = round(1e9 / hz) if hz > 0 else 0
        self._due_ns: int | None = None

    def due(self, t_ns: int) -> bool:
        """Whether the decision of `t_ns` passes; a time that went back begins anew."""
        if self.hz <= 0:
            return False
        every, due = self._every_ns, self._due_ns
        if due is None or t_ns < due - 2 * every:
            self._due_ns = t_ns + every
            return True
        # Hops lie on a grid of their own: one that is nearly due passes, or the rate would be a whole share of it.
        if t_ns < due - every // 10:
            return False
        self._due_ns = due + every if t_ns < due + every else t_ns + every
        return True


@dataclass(slots=True)
class Lane:
    """An output with its queue.

    Attributes:
        output: The output.
        told: Decisions it took.
        failed: Decisions it did not.
        delays_s: From the arrival of the samples to the decision's delivery, s; the last few thousand.
    """

    output: Output
    feed: DecisionFeed = field(default_factory=lambda: DecisionFeed(kept=_KEPT))
    told: int = 0
    failed: int = 0
    delays_s: deque[float] = field(default_factory=lambda: deque(maxlen=_DELAYS))

    @property
    def dropped(self) -> int:
        """Decisions it was too slow for."""
        return self.feed.dropped

    async def run(self, clock: Clock) -> None:
        """Deliver until the feed is closed."""
        async for decided in self.feed:
            try:
                await self.output.tell(decided)
            except Exception as error:  # whatever it is, the others go on
                self.failed += 1
                if self.failed == 1:
                    known = isinstance(error, EmbridgeError | OSError)
                    logger.warning("output %s: %s", self.output.name, error, exc_info=None if known else error)
                continue
            self.told += 1
            self.delays_s.append((clock.monotonic_ns() - decided.arrived_ns) * 1e-9)

    def sum_up(self) -> str:
        """What became of the decisions, in a line."""
        delay = f", median {1e3 * float(np.median(self.delays_s)):.1f} ms after the samples" if self.delays_s else ""
        return f"{self.output.name}: {self.told} decisions told, {self.dropped} dropped, {self.failed} failed{delay}"


class Outputs:
    """Tells every output; a sink of decisions. Use it as a context manager.

    Args:
        outputs: Where decisions go.
        clock: Measures how late they are.
        lenient: One that cannot work is told of in the log and left out.
    """

    def __init__(self, outputs: Sequence[Output], *, clock: Clock, lenient: bool = False) -> None:
        self.lanes = [Lane(output) for output in outputs]
        self._clock = clock
        self._lenient = lenient
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start all outputs.

        Raises:
            EmbridgeError: One cannot work here; none is left open.
        """
        try:
            for lane in tuple(self.lanes):
                await self._start(lane)
        except BaseException:
            await self._close()
            raise
        self._tasks = [
            asyncio.create_task(lane.run(self._clock), name=f"output-{lane.output.name}") for lane in self.lanes
        ]
        return self

    async def _start(self, lane: Lane) -> None:
        try:
            await lane.output.start()
        except EmbridgeError as error:
            if not self._lenient:
                raise
            logger.error("output %s is left out: %s", lane.output.name, error)
            self.lanes.remove(lane)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deliver what waits, for a moment, and close all of them."""
        for lane in self.lanes:
            lane.feed.close()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=_CLOSE_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._close()
        for lane in self.lanes:
            logger.info("%s", lane.sum_up())

    async def _close(self) -> None:
        for lane in self.lanes:
            try:
                await lane.output.close()
            except (EmbridgeError, OSError) as error:
                logger.warning("output %s does not close: %s", lane.output.name, error)

    def decided(self, decided: Decided) -> None:
        """Hand a decision to every queue; returns at once."""
        for lane in self.lanes:
            lane.feed.decided(decided)

    def ended(self, decided: Decided) -> None:
        """Hand on what ended without a window of its own."""
        for lane in self.lanes:
            lane.feed.ended(decided)

    def notice(self, notice: Notice) -> None:
        """Hand on something the wearer should know."""
        for lane in self.lanes:
            lane.output.notice(notice)
