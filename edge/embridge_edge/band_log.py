"""What the devices of a session go through while it is recorded, written down as events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from embridge_edge.takes import Take
from embridge_shared.clock import Clock
from embridge_shared.session import BandChanged, Event, Session

_EVERY_S = 0.5


class BandLog:
    """Turns the states that devices enter into events of a session.

    Args:
        session: Its anchor turns host time into Unix time.
        take: The devices.
        write: Keeps events.

    Attributes:
        seen: Every change so far, in order.
    """

    def __init__(self, session: Session, take: Take, write: Callable[[Sequence[Event]], Awaitable[None]]) -> None:
        self._offset_ns = session.started_ns - session.host_ns
        self._take = take
        self._write = write
        self.seen: list[BandChanged] = []

    async def note(self) -> None:
        """Write what happened since the last call."""
        new = [BandChanged(t_ns=host_ns + self._offset_ns, band=band) for host_ns, band in self._take.changes()]
        self.seen += new
        await self._write(new)

    async def follow(self, clock: Clock) -> None:
        """Write, until cancelled, what happens: a crash must not take it along."""
        while True:
            await self.note()
            await clock.sleep(_EVERY_S)
