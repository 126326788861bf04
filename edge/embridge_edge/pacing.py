"""Pace of sources that make or replay their samples."""

from __future__ import annotations

import asyncio
import math

from embridge_shared.clock import Clock
from embridge_shared.errors import OperatorError


class Pacer:
    """Lets simulated time pass: at the clock's pace, faster, or as fast as the consumer takes it.

    Args:
        clock: The host's clock.
        speed: Seconds of simulation a second; `math.inf` does not wait.
        host_ns: The host's monotonic clock at the session's start, ns.
        resumed: The session goes on later: time starts where it is first waited for.

    Raises:
        OperatorError: The speed is not positive.
    """

    def __init__(self, clock: Clock, speed: float, host_ns: int, *, resumed: bool = False) -> None:
        if not speed > 0:
            raise OperatorError(f"time cannot run at {speed} times its speed", hint="Give a positive speed.")
        self._clock = clock
        self._speed = speed
        self._origin_ns: int | None = None if resumed else host_ns

    async def until(self, t_s: float) -> None:
        """Wait until `t_s` of simulated time since the session's start."""
        if math.isinf(self._speed):
            await asyncio.sleep(0)
            return
        now_ns, passed_ns = self._clock.monotonic_ns(), round(t_s / self._speed * 1e9)
        if self._origin_ns is None:
            self._origin_ns = now_ns - passed_ns
        wait_ns = self._origin_ns + passed_ns - now_ns
        await (self._clock.sleep(wait_ns * 1e-9) if wait_ns > 0 else asyncio.sleep(0))
