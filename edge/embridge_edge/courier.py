"""The spool's own thread: a slow disk must not stall the loop that listens to a band."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from embridge_edge.spool import Item, Spool
from embridge_shared.wire.messages import CommitReport

T = TypeVar("T")


class Courier:
    """Asynchronous access to a spool.

    Args:
        spool: Used by this object alone from now on.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Run a method of the spool in its thread; once begun it is carried out, even if nobody waits any more."""
        # Without the shield a cancelled caller would take its samples out of the thread's queue, unwritten.
        work = asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args))
        return await asyncio.shield(work)

    async def put(self, items: list[Item], annotated: int | None = None, note: bytes | None = None) -> None:
        """Keep items, how many annotations there are with them, and the session's note; on disk when this returns."""
        await self.call(self.spool.put, items, annotated, note)

    async def pending(self, after: int, limit: int) -> list[Item]:
        """The oldest items with an id above `after`."""
        return await self.call(self.spool.pending, after, limit)

    async def fetch(self, ids: list[int]) -> list[Item]:
        """Items by id; those that left meanwhile are missing."""
        return await self.call(self.spool.fetch, ids)

    async def settle(self, report: CommitReport) -> list[int]:
        """Apply a commit report; the ids that left."""
        return await self.call(self.spool.settle, report)

    async def close(self) -> None:
        """Close the spool and its thread."""
        await self.call(self.spool.close)
        self._thread.shutdown()
