"""Hands notifications from the Bluetooth thread to whoever consumes them, in another event loop, without waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notification:
    """Bytes a band sent.

    Attributes:
        host_ns: Arrival on the host's monotonic clock, ns.
        epoch: Which connection it came over, from 1.
        channel: Which of the driver's subscriptions.
        data: The bytes.
    """

    host_ns: int
    epoch: int
    channel: int
    data: bytes


class Mailbox:
    """A bounded queue between two threads: one puts, one takes.

    Args:
        capacity: Notifications it holds; what comes beyond is dropped and counted.

    Attributes:
        dropped: Notifications dropped because the consumer was too slow.
        deepest: Most notifications that waited at once.
    """

    def __init__(self, capacity: int = 8192) -> None:
        self._capacity = capacity
        self._items: deque[Notification] = deque()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._closed = False
        self.dropped = 0
        self.deepest = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Nothing more will come."""
        return self._closed

    def put(self, item: Notification) -> bool:
        """Put from any thread; False when it is full."""
        waiting = len(self._items)
        if waiting >= self._capacity:
            self.dropped += 1
            return False
        if waiting >= self.deepest:
            self.deepest = waiting + 1
        self._items.append(item)
        if self._waiter is not None:
            self._rouse()
        return True

    def close(self) -> None:
        """Nothing more will come; `take` gives what is left and then nothing."""
        self._closed = True
        self._rouse()

    def nudge(self) -> None:
        """Let a waiting `take` return without anything."""
        self._rouse()

    async def take(self, timeout_s: float | None = None) -> list[Notification]:
        """All that waits, after waiting for the first; empty after a time-out, a nudge, or the end."""
        if not self._items and not self._closed:
            waiter = (asyncio.get_running_loop(), asyncio.Event())
            self._waiter = waiter
            # Put may have come between the look and the waiter.
            if not self._items and not self._closed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await waiter[1].wait()
            self._waiter = None
        found = []
        while self._items:
            found.append(self._items.popleft())
        return found

    def _rouse(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with suppress(RuntimeError):  # the consumer's loop is closed: nobody waits any more
                waiter[0].call_soon_threadsafe(waiter[1].set)
