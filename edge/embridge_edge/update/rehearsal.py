"""Rehearses a release on the sessions that are recorded meanwhile: when a shadow run begins, goes on and is over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from embridge_edge.decode.runtime import Decoder
from embridge_edge.live import LiveDecoding
from embridge_edge.update.shadow import Comparison, Fit, Shadow
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError
from embridge_shared.fleet import ReleaseHealth, Trial

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A session that decodes.

    Attributes:
        live: Its decoding.
        fit: Fits another release to it.
    """

    live: LiveDecoding
    fit: Fit


class Rehearsals:
    """Shadow runs beside whatever is decoded.

    Args:
        clock: Says how long.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stage: Stage | None = None
        self._news = asyncio.Event()

    @contextlib.contextmanager
    def on(self, stage: Stage) -> Iterator[None]:
        """A session decodes inside."""
        self._stage = stage
        self._news.set()
        try:
            yield
        finally:
            self._stage = None
            self._news.set()

    async def run(self, release: str, trial: Trial, load: Callable[[], Awaitable[Decoder]]) -> ReleaseHealth:
        """Let a release decode the same windows as the one in force.

        It ends with enough windows, after `shadow_s`, or when the release breaks; where nothing is decoded, or the
        release cannot decode what is, there are none.

        Args:
            release: Its name.
            trial: How many windows, and how long at most.
            load: Gives its decoder; asked once, when it is needed.

        Returns:
            How it fared.
        """
        comparison = Comparison(release)
        ends_ns = self._clock.monotonic_ns() + round(trial.shadow_s * 1e9)
        decoder: Decoder | None = None
        while not _enough(comparison, trial) and (left_s := (ends_ns - self._clock.monotonic_ns()) * 1e-9) > 0:
            self._news.clear()
            stage = self._stage
            if stage is None:
                await self._wait(left_s)
                continue
            decoder = decoder or await load()
            try:
                await self._on(stage, decoder, comparison, trial, ends_ns)
            except EmbridgeError as error:
                logger.warning("no shadow run of %s on this session: %s", release, error)
                while self._stage is stage and (left_s := (ends_ns - self._clock.monotonic_ns()) * 1e-9) > 0:
                    self._news.clear()
                    await self._wait(left_s)
        if comparison.dropped:
            logger.warning("this machine had no time for %d packets of the shadow run", comparison.dropped)
        return comparison.now()

    async def _on(self, stage: Stage, decoder: Decoder, comparison: Comparison, trial: Trial, ends_ns: int) -> None:
        stream, decision = await asyncio.to_thread(stage.fit, decoder)
        shadow = Shadow(stream, decision, comparison)
        task = asyncio.create_task(shadow.run(), name="shadow")
        stage.live.shadow = shadow
        try:
            while self._stage is stage and not task.done() and not _enough(comparison, trial):
                if self._clock.monotonic_ns() >= ends_ns:
                    break
                await self._clock.sleep(_LOOK_S)
        finally:
            stage.live.shadow = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _wait(self, most_s: float) -> None:
        """For news of sessions."""
        tasks = [asyncio.ensure_future(self._clock.sleep(most_s)), asyncio.ensure_future(self._news.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _enough(comparison: Comparison, trial: Trial) -> bool:
    return comparison.windows >= trial.shadow_windows or bool(comparison.vitals.now().broken)
