"""From a muscle that contracts to an event at a WebSocket client, stage by stage, through the virtual radio.

The band and its radio are a process of their own, and so is the client; between them runs what `embridge live` runs.
The muscles step from rest to a held gesture at known samples: a hand takes longer to get there than that.

    radio      the first sample of the contraction is taken -> its packet is at the host
    window     -> the first window that holds it is complete
    decision   -> the window that decides is complete: filters, window, averaging, onset; the algorithm's own
    inference  -> the decision is told
    output     -> the client has the event
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks.framework import Row, row
from embridge_edge.band_plan import OpenSource
from embridge_edge.decode.decision import Decided, Sinks
from embridge_edge.decode.runtime import Decoder
from embridge_edge.live_run import LiveRun, Told
from embridge_edge.outputs.base import Outputs
from embridge_edge.outputs.websocket import WebSocketOutput
from embridge_edge.plan import SessionPlan
from embridge_edge.source import Packet
from embridge_shared.clock import SystemClock
from embridge_shared.preprocess import FrontEnd
from embridge_shared.release import Bundle, read_bundle, write_bundle
from embridge_shared.session import GestureChange
from embridge_shared.settings import EdgeSettings
from embridge_shared.signal import StreamSpec
from support.live_release import GESTURES, WEARER, live_release

GROUP = "latency"
HOPS_S = (0.05, 0.1)
STAGES = ("radio", "window", "decision", "inference", "output")
EVENTS = 24
REST_S, HOLD_S, CALIBRATE_S = 0.93, 1.21, 9.0
TESTS = Path(__file__).parents[2]

_CLIENT = """
import asyncio, json, sys, time
from websockets.asyncio.client import connect
async def main():
    async with connect(sys.argv[1]) as socket:
        async for text in socket:
            now = time.monotonic_ns()
            m = json.loads(text)
            if m["type"] == "gesture":
                print(json.dumps([m["number"], m["change"], now]), flush=True)
asyncio.run(main())
"""


@dataclass
class Seen:
    """What was noted on the way; times on the monotonic clock, ns."""

    packets: list[tuple[int, int, int]] = field(default_factory=list)  # first, n, arrival
    hops: dict[int, tuple[int, int]] = field(default_factory=dict)  # number -> arrival, told
    onsets: list[tuple[int, str]] = field(default_factory=list)  # number, gesture
    received: dict[int, int] = field(default_factory=dict)
    spec: StreamSpec | None = None

    def decided(self, decided: Decided) -> None:
        self.hops[decided.number] = decided.arrived_ns, time.monotonic_ns()
        for event in decided.decision.events:
            if event.kind is GestureChange.ONSET:
                self.onsets.append((decided.number, event.label))

    def ended(self, decided: Decided) -> None:
        pass


class Watched(LiveRun):
    """Notes when packets came."""

    seen: Seen

    async def _push(self, live, packet: Packet, chunker, told) -> None:
        self.seen.packets.append((packet.first, len(packet.samples), packet.host_ns))
        await super()._push(live, packet, chunker, told)

    async def _calibrated(self, spec, *more):
        self.seen.spec = spec
        return await super()._calibrated(spec, *more)


def rows() -> list[Row]:
    torch.set_num_threads(1)
    measured: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        trained = read_bundle(live_release(Path(folder)))
        for hop_s in HOPS_S:
            bundle = at_hop(trained, hop_s, Path(folder))
            found = asyncio.run(measure(bundle, EVENTS, Path(folder)))
            measured += told(found, f"hop {hop_s * 1e3:.0f} ms")
    return measured


@dataclass
class Split:
    """Milliseconds of every stage, gesture by gesture.

    Attributes:
        stages: By name; of gestures that were said right.
        first: Until any gesture was said, right or not, from the contraction to the decision.
        missed: Gestures that were never said right.
    """

    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    first: list[float] = field(default_factory=list)
    missed: int = 0


def told(found: Split, hop: str) -> list[Row]:
    """Rows of one hop."""
    out = []
    totals = [sum(parts) for parts in zip(*found.stages.values(), strict=True)]
    shown = {**found.stages, "in all": totals, "any gesture is said": found.first}
    for name, values in shown.items():
        for q in (50, 99):
            p = float(np.percentile(values, q))
            out.append(msgspec.structs.replace(row(GROUP, f"{name}, {hop}, p{q}", "ms", values), value=p))
    said = f"of {found.missed + len(totals)}"
    return [*out, row(GROUP, f"gestures never said right, {hop}", said, [float(found.missed)])]


def at_hop(bundle: Bundle, hop_s: float, folder: Path) -> Bundle:
    """The same release with windows at another hop."""
    preprocess = bundle.manifest.preprocess
    window = msgspec.structs.replace(preprocess.window, hop=round(hop_s * preprocess.front_end.rate_hz))
    manifest = msgspec.structs.replace(bundle.manifest, preprocess=msgspec.structs.replace(preprocess, window=window))
    path = folder / f"hop-{window.hop}.embridge"
    write_bundle(path, manifest, bundle.files)
    return read_bundle(path)


async def measure(bundle: Bundle, events: int, folder: Path) -> Split:
    """Let a band stream, decode it, and note when what happened."""
    band = await _child("-m", "support.timed_band", str(WEARER), str(REST_S), str(HOLD_S), *GESTURES)
    adapter = json.loads(await band.stdout.readline())["adapter"]
    clock, seen = SystemClock(), Seen()
    plan = SessionPlan(name="live", participant="", source=OpenSource(adapter=adapter), decode=True)
    run = Watched(plan, Decoder(bundle), EdgeSettings(state_dir=folder), clock=clock, calibrate_s=CALIBRATE_S)
    run.seen = seen
    output = WebSocketOutput("127.0.0.1", 0, edge="bench")
    sinks = Sinks()
    sinks.add(seen)
    async with Outputs([output], clock=clock) as outputs:
        sinks.add(outputs)
        client = await _child("-c", _CLIENT, f"{output.where}?hz=20")
        reading = asyncio.create_task(_read(client, seen))
        live = asyncio.create_task(run.run(sinks, Told(outputs.notice, lambda _: None)))
        began_s = json.loads(await band.stdout.readline())["began_s"]
        await asyncio.wait([live], timeout=CALIBRATE_S + 3 + events * (REST_S + HOLD_S))
        run.stop()
        await asyncio.wait([live], timeout=5)
        live.cancel()
        await asyncio.gather(live, return_exceptions=True)
    await asyncio.wait([reading], timeout=3)
    for process in (client, band):
        if process.stdin is not None:
            process.stdin.close()
        if process is client and process.returncode is None:
            process.terminate()
        await process.wait()
    return split(seen, bundle, began_s)


async def _child(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


async def _read(client: asyncio.subprocess.Process, seen: Seen) -> None:
    assert client.stdout is not None
    async for line in client.stdout:
        number, change, t_ns = json.loads(line)
        if change == GestureChange.ONSET.value:
            seen.received[number] = t_ns


def split(seen: Seen, bundle: Bundle, began_s: float) -> Split:
    """Stages of every gesture."""
    assert seen.spec is not None
    rate_hz = seen.spec.rate_hz
    window = bundle.manifest.preprocess.window
    front_end = FrontEnd(bundle.manifest.preprocess.front_end, seen.spec)
    newest = {n: front_end.input_index(n * window.hop + window.length - 1) for n in sorted(seen.hops)}
    out = Split()
    last = seen.packets[-1][0]
    for at, gesture in contractions(seen.packets[0][0], last, rate_hz):
        end = at + round(HOLD_S * rate_hz)
        arrived = next((t for first, n, t in seen.packets if first <= at < first + n), None)
        holding = next((n for n, sample in newest.items() if sample >= at), None)
        taken_ns = 1e9 * (began_s + at / rate_hz)
        onsets = [(n, label) for n, label in seen.onsets if at <= newest[n] < end]
        out.first += [1e-6 * (seen.hops[n][1] - taken_ns) for n, _ in onsets[:1]]
        said = next((n for n, label in onsets if label == gesture), None)
        if said is None or said not in seen.received or arrived is None or holding is None:
            out.missed += 1
            continue
        complete, _ = seen.hops[holding]
        deciding, told_ns = seen.hops[said]
        marks = [taken_ns, arrived, complete, deciding, told_ns, seen.received[said]]
        for stage, ms in zip(STAGES, np.diff(marks) * 1e-6, strict=True):
            out.stages[stage].append(float(ms))
    return out


def contractions(first: int, last: int, rate_hz: float) -> Iterator[tuple[int, str]]:
    """Samples at which the wearer steps into a gesture, within what was decoded whole."""
    rest, hold = round(REST_S * rate_hz), round(HOLD_S * rate_hz)
    number = 0
    while (at := number * (rest + hold) + rest) + hold < last:
        if at - rest > first:
            yield at, GESTURES[number % len(GESTURES)]
        number += 1
