"""A clock that runs faster than the machine's: minutes of probation pass in seconds of a rehearsal."""

from __future__ import annotations

import asyncio
import time


class ScaledClock:
    """The machine's clocks, sped up.

    Args:
        speed: Seconds of this clock a second.
        ahead_s: How far its wall clock is wrong, s.
    """

    def __init__(self, speed: float = 1.0, *, ahead_s: float = 0.0) -> None:
        self._speed = speed
        self._began_ns = time.monotonic_ns()
        self._wall_ns = time.time_ns() + round(ahead_s * 1e9)

    def wall_ns(self) -> int:
        """Unix time, ns."""
        return self._wall_ns + self.monotonic_ns() - self._began_ns

    def monotonic_ns(self) -> int:
        """A clock that never steps, ns."""
        return self._began_ns + round((time.monotonic_ns() - self._began_ns) * self._speed)

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock."""
        await asyncio.sleep(seconds / self._speed)
