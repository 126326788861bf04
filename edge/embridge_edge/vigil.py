"""The vigil: feeds the service manager's watchdog from the path of the samples.

A loop that turns proves nothing about a recording. While a session is recorded the watchdog is fed only when

* the spool's thread answers, and
* every live band either has had samples written to the spool lately, or is in a state from which its supervisor is
  bringing it back, and that not for longer than a supervisor would ever try.

While nothing is recorded the loop and the spool's thread are all there is to watch. Replays and simulated wearers pause
by themselves: their silence says nothing. When the watchdog bites, the manager starts the agent anew and the session
goes on at the first sample the spool does not have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from embridge_edge.courier import Courier
from embridge_edge.source import Source
from embridge_edge.takes import Take
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError
from embridge_shared.service import Notifier
from embridge_shared.signal import Modality

logger = logging.getLogger(__name__)

RECOVERING: Final = frozenset({"scanning", "connecting", "subscribing", "reconnecting"})
"""States in which a band's supervisor tries, with growing pauses, to bring it back."""
RECOVERY_S: Final = 900.0
"""Longest time without samples in such a state; supervisors give up after 600 s."""
_SILENCE_S = 6.0
_SPOOL_S = 10.0
_BEAT_S = 5.0


class Vigil:
    """Judges whether the agent does its work, and tells the service manager.

    Args:
        notifier: The manager.
        courier: The spool.
        clock: Time.
        chunk_s: Length of a chunk: samples reach the spool no oftener.
        status: What the agent is doing, in a few words.
    """

    def __init__(
        self, notifier: Notifier, courier: Courier, clock: Clock, *, chunk_s: float, status: Callable[[], str]
    ) -> None:
        self._notifier = notifier
        self._courier = courier
        self._clock = clock
        self._silence_s = max(_SILENCE_S, 3 * chunk_s)
        self._status = status
        self._bands: dict[int, Source] = {}
        self._kept_ns: dict[int, int] = {}
        self._answered_ns = clock.monotonic_ns()
        self._asking: asyncio.Task[None] | None = None
        self._fault = ""

    @contextmanager
    def over(self, take: Take) -> Iterator[None]:
        """Watch a recording for the length of the context."""
        emg = {i: s for i, s in enumerate(take.sources) if s.spec.modality is Modality.EMG}
        self._bands = {} if take.name else emg
        self._kept_ns = dict.fromkeys(self._bands, self._clock.monotonic_ns())
        try:
            yield
        finally:
            self._bands, self._kept_ns = {}, {}

    def kept(self, ordinal: int) -> None:
        """Samples of a stream have been written to the spool."""
        if ordinal in self._kept_ns:
            self._kept_ns[ordinal] = self._clock.monotonic_ns()

    def fault(self) -> str:
        """What does not work, or nothing."""
        now_ns = self._clock.monotonic_ns()
        silent_s = (now_ns - self._answered_ns) * 1e-9
        if silent_s > _SPOOL_S:
            return f"the spool has not answered for {silent_s:.0f} s"
        for ordinal, band in self._bands.items():
            age_s = (now_ns - self._kept_ns[ordinal]) * 1e-9
            state = band.state()
            phase = state.phase if state is not None else ""
            if age_s > (RECOVERY_S if phase in RECOVERING else self._silence_s):
                return f"no sample of {band.spec.name} has been kept for {age_s:.0f} s ({phase or 'no state'})"
        return ""

    async def run(self) -> NoReturn:
        """Feed the watchdog for ever, as long as there is no fault."""
        beat_s = min(_BEAT_S, self._notifier.watchdog_s / 4 or _BEAT_S)
        self._answered_ns = self._clock.monotonic_ns()
        self._notifier.ready(self._status())
        try:
            while True:
                self._look()
                await self._clock.sleep(beat_s)
        finally:
            self._notifier.stopping("writing down what came, and leaving")
            self._notifier.close()
            if self._asking is not None:
                self._asking.cancel()

    def _look(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="vigil-spool")
        fault = self.fault()
        if fault:
            if not self._fault:
                logger.error("the watchdog is not fed: %s", fault)
            self._notifier.status(f"not fed: {fault}")
        else:
            self._notifier.watchdog()
            self._notifier.status(self._status())
        self._fault = fault

    async def _ask(self) -> None:
        """Have a look at the spool in its own thread; a fault that it can tell of is an answer."""
        try:
            await self._courier.call(self._courier.spool.session, "")
        except EmbridgeError as error:
            logger.debug("%s", error)
        self._answered_ns = self._clock.monotonic_ns()
