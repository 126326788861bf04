"""What the wall clock does while a session runs.

Samples are timed by the monotonic clock, which never steps, so a wall clock that NTP sets right in the middle of a
session spoils nothing. The difference of the two clocks is read every ten seconds and recorded, so that sessions of
several edges can be laid on one time afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from embridge_shared.clock import Clock
from embridge_shared.session import ClockRead, Event

logger = logging.getLogger(__name__)

READ_EVERY_S = 10.0

_PROBES = 5
_STEP_NS = 50_000_000


def read(clock: Clock) -> ClockRead:
    """Both clocks at one moment, from the quickest of some probes."""
    probes = []
    for _ in range(_PROBES):
        before = clock.monotonic_ns()
        wall_ns = clock.wall_ns()
        after = clock.monotonic_ns()
        probes.append((after - before, wall_ns, (before + after) // 2))
    _, wall_ns, host_ns = min(probes)
    return ClockRead(t_ns=wall_ns, host_ns=host_ns)


async def keep_reading(clock: Clock, write: Callable[[Sequence[Event]], Awaitable[None]]) -> None:
    """Record the two clocks every ten seconds until cancelled.

    Args:
        clock: Both of them.
        write: Records events.
    """
    last = read(clock)
    while True:
        await clock.sleep(READ_EVERY_S)
        now = read(clock)
        step_ns = (now.t_ns - now.host_ns) - (last.t_ns - last.host_ns)
        if abs(step_ns) > _STEP_NS:
            logger.warning("the wall clock stepped by %.3f s; samples keep their times", step_ns * 1e-9)
        last = now
        await write([now])
