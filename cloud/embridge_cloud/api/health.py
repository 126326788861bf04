"""Whether the process does what it is there for: each check looks at the thing itself."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embridge_cloud.ingest import Ingester
from embridge_cloud.status import IngestState
from embridge_cloud.store.hot import HotStore
from embridge_shared.clock import Clock
from embridge_shared.disk import FreeSpace, free_bytes, mib
from embridge_shared.errors import EmbridgeError

logger = logging.getLogger(__name__)

LAG_MAX_S: Final = 2.0
_LAG_EVERY_S = 0.5
_LAG_KEPT_S = 15.0
_PROBE_S = 2.0
_FRESH_NS = 2 * 10**9
_UNWELL = (IngestState.STORE_FAILING, IngestState.FAILED, IngestState.STOPPED)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold.

    Attributes:
        name: "ingester", "broker", "database", "disk" or "loop".
        ok: It holds.
        detail: What was found.
    """

    name: str
    ok: bool
    detail: str


class LoopLag:
    """How late the event loop is: everything in the process waits as long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._late: deque[float] = deque([0.0], maxlen=round(_LAG_KEPT_S / _LAG_EVERY_S))

    @property
    def worst_s(self) -> float:
        """Longest it was late within the last 15 s."""
        return max(self._late)

    async def watch(self, stopping: asyncio.Event) -> None:
        """Measure until `stopping` is set."""
        while not stopping.is_set():
            began = self._clock.monotonic_ns()
            await self._clock.sleep(_LAG_EVERY_S)
            self._late.append(max(0.0, (self._clock.monotonic_ns() - began) * 1e-9 - _LAG_EVERY_S))


class Health:
    """Looks at a cloud process.

    Args:
        ingester: Its ingester.
        store: Its store.
        reserve: Bytes below which nothing is committed.
        lag: Of its event loop.
        clock: Time.
        free: Tells what is free on the disk.
    """

    def __init__(
        self,
        ingester: Ingester,
        store: HotStore,
        *,
        reserve: int,
        lag: LoopLag,
        clock: Clock,
        free: FreeSpace = free_bytes,
    ) -> None:
        self._ingester = ingester
        self._store = store
        self._reserve = reserve
        self._clock = clock
        self._free = free
        self._found: tuple[int, list[Check]] | None = None
        self._asking: dict[str, asyncio.Future[str]] = {}
        self._one = asyncio.Lock()
        self.lag = lag

    async def check(self) -> list[Check]:
        """Every check; what the disk and the database said is at most two seconds old."""
        now = self._clock.monotonic_ns()
        async with self._one:
            if self._found is None or now - self._found[0] > _FRESH_NS:
                slow = await asyncio.gather(self._ask("database", self._query), self._ask("disk", self._write))
                self._found = (now, list(slow))
        status, lag_s = self._ingester.status, self.lag.worst_s
        database, disk = self._found[1]
        return [
            Check("ingester", status.state is IngestState.READY, status.state.value),
            Check("broker", status.connected, "connected" if status.connected else "not connected"),
            database if status.state not in _UNWELL else Check("database", False, status.last_error),
            disk,
            Check("loop", lag_s <= LAG_MAX_S, f"{lag_s:.2f} s late at most"),
        ]

    async def _ask(self, name: str, probe: Callable[[], str]) -> Check:
        """Run what may block; an earlier question that still waits is not asked again."""
        if name not in self._asking:
            self._asking[name] = asyncio.ensure_future(asyncio.to_thread(probe))
        asking = self._asking[name]
        try:
            async with asyncio.timeout(_PROBE_S):
                said = await asyncio.shield(asking)
        except TimeoutError:
            return Check(name, False, f"no answer within {_PROBE_S:g} s")
        except (EmbridgeError, OSError) as error:
            del self._asking[name]
            return Check(name, False, str(error))
        del self._asking[name]
        return Check(name, True, said)

    def _query(self) -> str:
        self._store.read.rows("SELECT count(*) FROM schema_migrations")
        return "answers"

    def _write(self) -> str:
        folder = self._store.path.parent
        free = self._free(folder)
        if free <= self._reserve:
            raise OSError(f"{mib(free)} free, {mib(self._reserve)} are kept back")
        _write_through(folder / f".{self._store.path.name}.probe")
        return f"{mib(free)} free"


def _write_through(path: Path) -> None:
    """Write a block to the disk itself and take it away."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    try:
        os.write(handle, b"\0" * 4096)
        os.fsync(handle)
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)
