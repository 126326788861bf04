"""bleak on bumble: notifications a second, processor time a band, loss, and the way back after a lost link.

Our way hands notifications from HCI straight to their callback; the peer is bumble's own way through ACL, L2CAP and
ATT, on the same link in the same run. Bands in the rows about processor time live in another process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np

from benchmarks.framework import Row, compared, row
from embridge_edge.bands.device import BleBand
from embridge_edge.bands.open import OpenDriver
from embridge_edge.bands.protocol import gforce
from embridge_edge.bands.protocol import open_profile as wire
from embridge_edge.bands.streams import BandStream
from embridge_edge.ble.stack import BumbleAdapter
from embridge_edge.ble.status import Phase
from embridge_edge.ble.thread import RADIOS
from embridge_edge.source import Packet
from embridge_edge.virtual.air import Air
from embridge_edge.virtual.feed import LoopFeed
from embridge_edge.virtual.rig import Rig
from embridge_shared.clock import SystemClock
from support.bands import RigThread
from support.ble import Received, World, ramp, start, until

T = TypeVar("T")

GROUP = "radio"

_FLOOD_S, _STREAM_S, _REPEATS, _DROPS = 1.0, 3.0, 3, 5
_PAYLOADS = {20: 247, 100: 247, 244: 247, 514: 517}
_BANDS = (1, 2, 4, 8)
_SIMULATE = "import typer; from embridge_edge.virtual.cli import simulate; typer.run(simulate)"


def rows() -> list[Row]:
    measured: list[Row] = []
    for payload, mtu in _PAYLOADS.items():
        ours, theirs = _in_turn(lambda fast, p=payload, m=mtu: _flood(p, m, fast=fast))
        name = f"notifications of {payload} B, both ends in one process"
        measured.append(compared(GROUP, name, "1/s of processor time", ours, peer="bumble's own way", theirs=theirs))
    for bands in _BANDS:
        ours, theirs = _in_turn(lambda fast, n=bands: _stream(n, fast=fast))
        share = [cpu for cpu, _ in ours]
        peer = [cpu for cpu, _ in theirs]
        name = f"{bands} × 16 ch × 2 kHz"
        measured.append(
            compared(GROUP, f"processor a band, {name}", "% of a core", share, peer="bumble's own way", theirs=peer)
        )
        measured.append(row(GROUP, f"samples lost, {name}", "samples", [float(lost) for _, lost in ours]))
    measured.append(row(GROUP, "samples lost, 8 bands and host in one process", "samples", [_together(8)]))
    for bands in (1, 8):
        turns = [asyncio.run(_drivers(bands)) for _ in range(_REPEATS)]
        name = f"{bands} × 16 ch × 2 kHz"
        measured.append(row(GROUP, f"processor a band with driver, {name}", "% of a core", [t[0] for t in turns]))
        measured.append(row(GROUP, f"samples lost with driver, {name}", "samples", [float(t[1]) for t in turns]))
    back = asyncio.run(_way_back(_DROPS))
    measured.append(row(GROUP, "from a lost link to the first sample", "s", back))
    measured.append(row(GROUP, "from a lost link to the first sample, supervised", "s", _way_back_supervised(_REPEATS)))
    return measured


def _in_turn(measure: Callable[[bool], Coroutine[Any, Any, T]]) -> tuple[list[T], list[T]]:
    """Our way and bumble's, by turns."""
    turns = [(asyncio.run(measure(True)), asyncio.run(measure(False))) for _ in range(_REPEATS)]
    return [ours for ours, _ in turns], [theirs for _, theirs in turns]


async def _flood(payload: int, mtu: int, *, fast: bool) -> float:
    """Notifications a second of processor time."""
    rig = Rig(Air(ideal=True))
    world = World(rig, rig.adapter(mtu=mtu))
    band = await world.band("gforce", LoopFeed(np.zeros((10, 8)), 1000.0))
    client = await world.connect(band)
    got = 0

    def take(_: object, data: bytearray) -> None:
        nonlocal got
        got += len(data) == payload

    await client.start_notify(gforce.DATA, take)
    _choose(world.adapter, fast=fast)
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < began + _FLOOD_S:
        for _ in range(16):
            band.notify(band._data, bytes(payload))
        await asyncio.sleep(0)
    rate = got / (time.process_time() - cpu)
    await world.close()
    return rate


def _choose(adapter: object, *, fast: bool) -> None:
    """Take the direct way off for bumble's own."""
    assert isinstance(adapter, BumbleAdapter)
    if not fast:
        adapter.host.notified.clear()


@asynccontextmanager
async def _simulated(bands: int):
    """Bands in another process; their adapter, addresses and, at the end, their tallies."""
    command = [sys.executable, "-c", _SIMULATE, "open", "--count", str(bands), "--port", "0", "--json", "--ideal"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = json.loads(await process.stdout.readline())
    told["tally"] = {}
    try:
        yield told
    finally:
        process.terminate()
        out, _ = await process.communicate()
        told["tally"] = json.loads(out.splitlines()[-1])["tally"]


async def _stream(bands: int, *, fast: bool) -> tuple[float, int]:
    """Share of a core the host spends on each band, %, and samples lost anywhere."""
    received = [Received() for _ in range(bands)]
    async with _simulated(bands) as told, BumbleAdapter(told["adapter"]) as adapter:
        seen: dict[str, object] = {}
        async with adapter.make_scanner(lambda device, _: seen.setdefault(device.address, device)):
            while len(seen) < bands:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for device, taken in zip(seen.values(), received, strict=True):
            client = adapter.make_client(device)
            await client.connect()
            await start(client, taken)
        _choose(adapter, fast=fast)
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(_STREAM_S)
        share = 100 * (time.process_time() - cpu) / (time.monotonic() - began) / bands
    lost = sum(r.missing for r in received) + sum(t["dropped_samples"] for t in told["tally"].values())
    return share, lost


async def _drivers(bands: int) -> tuple[float, int]:
    """The same with the drivers of the edge: supervision in a thread of its own, placed and counted samples."""
    async with _simulated(bands) as told:
        clock = SystemClock()
        devices = [
            BleBand(OpenDriver(), clock=clock, radios=RADIOS, adapter=told["adapter"], address=band["address"])
            for band in told["bands"]
        ]
        streams = [device.streams[0] for device in devices]
        for stream in streams:
            await stream.open(clock.monotonic_ns())
        readers = [asyncio.create_task(_read(stream)) for stream in streams]
        await until(lambda: all(stream.state().battery is not None for stream in streams), 30)
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(_STREAM_S)
        share = 100 * (time.process_time() - cpu) / (time.monotonic() - began) / bands
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        lost = sum(stream.lost for stream in streams) + sum(device.dropped for device in devices)
        for stream in streams:
            await stream.close()
    return share, lost + sum(t["dropped_samples"] for t in told["tally"].values())


async def _read(stream: BandStream, into: list[Packet] | None = None) -> None:
    async for packet in stream.packets():
        if into is not None:
            into.append(packet)


def _way_back_supervised(drops: int) -> list[float]:
    """Seconds from a lost link to the first sample where the supervisor brings it back."""

    async def run(rig: RigThread) -> list[float]:
        clock = SystemClock()
        band = rig.add("open", ramp())
        device = BleBand(OpenDriver(), clock=clock, radios=rig, adapter="", address=band.address)
        (stream,) = device.streams
        took, packets = [], []
        await stream.open(clock.monotonic_ns())
        reader = asyncio.create_task(_read(stream, packets))
        for _ in range(drops):
            # A link that held for a while is brought back at once; one that just failed, after a pause.
            await until(lambda: device.status.phase is Phase.STREAMING and not device.status.attempt, 30)
            rig.call(rig.rig.cut)
            cut_ns = clock.monotonic_ns()
            await until(lambda cut_ns=cut_ns: packets[-1].host_ns > cut_ns, 30)
            took.append(1e-9 * (next(p.host_ns for p in packets if p.host_ns > cut_ns) - cut_ns))
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await stream.close()
        return took

    with RigThread() as rig:
        return asyncio.run(run(rig))


def _together(bands: int) -> float:
    """Samples lost when bands, radio and host share one process."""

    async def run() -> float:
        rig = Rig(Air(ideal=True))
        world = World(rig, rig.adapter())
        noise = np.random.default_rng(0).normal(0, 100, (4000, wire.CHANNELS))
        received = [Received() for _ in range(bands)]
        for i, taken in enumerate(received):
            band = await world.band("open", LoopFeed(noise, 2000.0), name=f"band {i}")
            await start(await world.connect(band), taken)
        await asyncio.sleep(_STREAM_S)
        lost = sum(r.missing for r in received) + sum(b.tally.dropped_samples for b in world.bands)
        await world.close()
        return float(lost)

    return asyncio.run(run())


async def _way_back(drops: int) -> list[float]:
    """Seconds from a lost link to the first sample: scan, connect, discover, subscribe, start."""
    rig = Rig()
    world = World(rig, rig.adapter())
    band = await world.band()
    took = []
    for _ in range(drops):
        ended = asyncio.Event()
        client = await world.connect(band, disconnected=lambda _, ended=ended: ended.set())
        received = Received()
        await start(client, received)
        await received.at_least(100)
        began = time.monotonic()
        rig.cut()
        await ended.wait()
        again = Received()
        client = await world.connect(band)
        await start(client, again)
        await again.at_least(1)
        took.append(time.monotonic() - began)
        await client.disconnect()
    await world.close()
    return took
