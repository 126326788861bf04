"""Virtual bands and an adapter that sees them, on the simulated radio or on real controllers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from bleak import BleakClient
from bleak.backends.device import BLEDevice

from embridge_edge.bands.protocol import open_profile as wire
from embridge_edge.ble.adapter import Adapter, make_adapter
from embridge_edge.virtual.air import Air
from embridge_edge.virtual.band import VirtualBand
from embridge_edge.virtual.feed import LoopFeed, SampleFeed
from embridge_edge.virtual.rig import Rig, kind_of
from embridge_edge.virtual.traits import Traits

PERIOD = 3001
"""Samples after which `ramp` repeats."""


def ramp() -> LoopFeed:
    """16 channels at 2 kHz in which every sample tells its index."""
    counts = np.arange(PERIOD)[:, None] * 4 + np.arange(wire.CHANNELS)
    return LoopFeed(counts * wire.UV_PER_COUNT, 2000.0)


def ramp_counts(first: int, n: int) -> np.ndarray:
    """What an open band that plays `ramp` sends."""
    return (np.arange(first, first + n) % PERIOD)[:, None] * 4 + np.arange(wire.CHANNELS)


@dataclass
class World:
    """Bands on one side, an adapter on the other."""

    rig: Rig | None
    adapter: Adapter
    transport: str = ""
    bands: list[VirtualBand] = field(default_factory=list)

    @classmethod
    async def make(cls, config: pytest.Config, air: Air | None = None, **options: Any) -> World:
        given = config.getoption("--ble-adapter")
        if given is None:
            rig = Rig(air)
            return cls(rig, rig.adapter(**options))
        if air is not None:
            pytest.skip("needs the simulated radio")
        adapter, _, transport = given.partition(",")
        if not transport:
            raise pytest.UsageError("--ble-adapter takes two transports, the edge's and the bands'")
        return cls(None, make_adapter(adapter), transport)

    @property
    def radio(self) -> Rig:
        """The simulated radio with all that is on it."""
        if self.rig is None:
            pytest.skip("needs the simulated radio")
        return self.rig

    async def band(self, kind: str = "open", feed: SampleFeed | None = None, **traits: Any) -> Any:
        """Switch a band on."""
        if self.rig is not None:
            band = await self.rig.add(kind, feed or ramp(), Traits(**traits))
        else:
            if self.bands:
                pytest.skip("one controller serves one band")
            band = kind_of(kind)(self.transport, feed or ramp(), Traits(**traits))
            await band.start()
        self.bands.append(band)
        return band

    async def find(self, band: VirtualBand, timeout_s: float = 10.0) -> BLEDevice:
        """What a scanner of the adapter makes of a band."""
        found: asyncio.Future[BLEDevice] = asyncio.get_running_loop().create_future()

        def take(device: BLEDevice, _: Any) -> None:
            if device.address == band.address and not found.done():
                found.set_result(device)

        async with self.adapter.make_scanner(take):
            return await asyncio.wait_for(found, timeout_s)

    async def connect(
        self, band: VirtualBand, *, disconnected: Callable[[BleakClient], None] | None = None, timeout_s: float = 10.0
    ) -> BleakClient:
        """A client connected to a band."""
        client = self.adapter.make_client(await self.find(band), disconnected=disconnected, timeout_s=timeout_s)
        await client.connect()
        return client

    async def close(self) -> None:
        await self.adapter.close()
        if self.rig is not None:
            await self.rig.close()
        else:
            for band in self.bands:
                await band.stop()


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something is so; bands live by the wall clock."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Received:
    """Data packets of an open band, as they came."""

    def __init__(self) -> None:
        self.frames: list[wire.Frame] = []

    def __call__(self, _: Any, data: bytearray) -> None:
        self.frames.append(wire.decode(bytes(data)))

    @property
    def samples(self) -> int:
        return sum(len(f.samples) for f in self.frames)

    @property
    def end(self) -> int:
        """Index after the last sample that came."""
        return self.frames[-1].first + len(self.frames[-1].samples)

    @property
    def missing(self) -> int:
        """Samples the counter says are missing between the packets that came."""
        ends = [f.first + len(f.samples) for f in self.frames]
        return sum(f.first - end for f, end in zip(self.frames[1:], ends, strict=False)) + self.frames[0].first

    @property
    def jumps(self) -> int:
        """Packets missing by the packet counter."""
        seqs = [f.seq for f in self.frames]
        return sum((b - a - 1) % wire.SEQ_MODULUS for a, b in pairwise(seqs))

    async def at_least(self, samples: int, timeout_s: float = 20.0) -> None:
        """Wait until so many samples have come."""
        await until(lambda: self.samples >= samples, timeout_s)


async def start(client: BleakClient, received: Received) -> None:
    """Let an open band stream into `received`."""
    await client.start_notify(wire.DATA, received)
    await client.write_gatt_char(wire.CONTROL, wire.encode_command(wire.Command.START), response=True)


async def stop(client: BleakClient) -> None:
    """Stop an open band."""
    await client.write_gatt_char(wire.CONTROL, wire.encode_command(wire.Command.STOP), response=True)
