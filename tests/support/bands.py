"""Virtual bands in a Bluetooth thread of their own, fed with ramps that tell every sample apart."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from embridge_edge.ble.adapter import Adapter
from embridge_edge.ble.thread import BleThread
from embridge_edge.virtual.air import Air
from embridge_edge.virtual.band import Traits, VirtualBand
from embridge_edge.virtual.feed import SampleFeed
from embridge_edge.virtual.rig import Rig

PERIOD = 190


class Ramp(SampleFeed):
    """Counts that rise by one a sample, from another start in every channel, within what 8 bits hold."""

    def __init__(self, rate_hz: float, channels: int, unit: float) -> None:
        self.rate_hz, self.channels, self._unit = rate_hz, channels, unit
        self._next = 0

    def take(self, n: int) -> np.ndarray:
        at = np.arange(self._next, self._next + n)
        self._next += n
        return (ramp(at, self.channels) * self._unit).astype(np.float32)


def ramp(index: np.ndarray, channels: int) -> np.ndarray:
    """Counts of samples by index, int (n, channels)."""
    return (index[:, None] + 7 * np.arange(channels)) % PERIOD - PERIOD // 2


class RigThread:
    """A rig in a Bluetooth thread, and what `BleBand` needs to get at it. Use it as a context manager.

    Every adapter asked for is the same one on the rig's radio.
    """

    def __init__(self, air: Air | None = None) -> None:
        self._air = air
        self.rig: Rig
        self.thread = BleThread(self._open)

    async def _open(self) -> Adapter:
        adapter = self.rig.adapter()
        await adapter.open()
        return adapter

    async def _make(self) -> None:
        self.rig = Rig(self._air)

    def __enter__(self) -> RigThread:
        self.thread.spawn(self._make()).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.spawn(self.rig.close()).result(10)
        self.thread.close()

    def acquire(self, spec: str) -> BleThread:
        return self.thread

    def release(self, spec: str) -> None:
        pass

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something in the thread and wait for it; from outside any loop, or for what is quick."""
        return self.thread.spawn(coroutine).result(10)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async def called() -> Any:
            return function(*arguments)

        return self.do(called())

    def add(self, kind: str, feed: SampleFeed, **traits: Any) -> VirtualBand:
        """Switch a virtual band on."""
        return self.do(self.rig.add(kind, feed, Traits(**traits)))
