"""Error of a band's clock rebuilt from arrival times, against the clock it really had.

Three radios: 15 ms intervals with 2 % damaged packets and a crystal 60 ppm slow; 30 ms with 10 % and 40 ppm fast; two
hours in which the crystal warms up by 8 ppm, 200 s of each 900 s are congested and the link is gone for 20 s. Arrivals
come from a model of the radio (`support.arrivals`); 1 % of all packets is missing on top of what a full queue drops.
The first two radios are measured on the real stack too, a virtual band over bumble and bleak for a minute and a half in
real time: then the host's own pauses are in the arrivals.

The spread of the error is what hurts: a constant delay shifts a stream, it does not smear it. Peers in the same run:
ordinary least squares over the whole trace, and liblsl's own dejitter, real liblsl on a real outlet and inlet, which is
told the arrival time of every packet. liblsl counts samples and cannot be told of a missing one, so it gets the packet
after a gap once for each that is missing, as a sender does that fills gaps; without that it is off by seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.framework import Row, compared, row
from embridge_cloud import clockfit
from embridge_edge.bands.protocol import open_profile as wire
from embridge_edge.timing import DeviceClock
from embridge_edge.virtual.air import Air
from embridge_edge.virtual.rig import Rig
from embridge_shared.signal import Arrivals
from support.arrivals import Radio, Trace, simulate, steady, warming
from support.ble import World

GROUP = "clock"

_SHORT_S, _LONG_S = 180.0, 7200.0
_RIG_S = 90.0
_REPEATS = 3
_LSL_CHUNK = 2000
_LSL_WAIT_S = 10.0


def rows() -> list[Row]:
    fast = Radio()
    slow = Radio(interval_s=0.030, errors=lambda _: 0.1)
    crowded = Radio(errors=lambda t: 0.25 if t % 900 >= 700 else 0.02, away=(3000.0, 3020.0))
    rigged = asyncio.run(_rigged())
    return [
        *(r for name, trace in rigged.items() for r in _condition(f"{name}, real stack", lambda _, t=trace: t, 1)),
        *_condition("15 ms, 2 %, +60 ppm", lambda rng: simulate(_SHORT_S, steady(60), fast, rng=rng), _REPEATS),
        *_condition("30 ms, 10 %, -40 ppm", lambda rng: simulate(_SHORT_S, steady(-40), slow, rng=rng), _REPEATS),
        *_condition("2 h", lambda rng: simulate(_LONG_S, warming(30, 38), crowded, rng=rng), 1),
    ]


def _condition(name: str, make: Callable[[np.random.Generator], Trace], repeats: int) -> list[Row]:
    ways = {"edge": online, "cloud": refitted, "least squares": least_squares, "liblsl dejitter": liblsl}
    spread: dict[str, list[float]] = {way: [] for way in ways}
    bias: dict[str, list[float]] = {way: [] for way in ways}
    raw: list[float] = []
    for seed in range(repeats):
        trace = make(np.random.default_rng(seed))
        raw.append(float(trace.error_ms(trace.host_ns).std()))
        for way, stamp in ways.items():
            error = trace.error_ms(stamp(trace))
            spread[way].append(float(error.std()))
            bias[way].append(float(error.mean()))
    out = [row(GROUP, f"arrivals, SD, {name}", "ms", raw)]
    for ours in ("edge", "cloud"):
        for peer in ("least squares", "liblsl dejitter"):
            out.append(
                compared(GROUP, f"{ours}, SD, {name}", "ms", spread[ours], peer=f"{peer}, SD", theirs=spread[peer])
            )
    out += [row(GROUP, f"{way}, mean, {name}", "ms", bias[way]) for way in ways]
    return out


async def _rigged() -> dict[str, Trace]:
    """Arrivals of two virtual bands through bumble and bleak, at the same time."""
    airs = {
        "15 ms, 2 %, +60 ppm": (Air(interval_ms=15, pdu_errors=0.02, jitter_ms=1), -60.0),
        "30 ms, 10 %, -40 ppm": (Air(interval_ms=30, pdu_errors=0.1, jitter_ms=1), 40.0),
    }
    traces = await asyncio.gather(*(_rig(air, drift_ppm) for air, drift_ppm in airs.values()))
    return dict(zip(airs, traces, strict=True))


async def _rig(air: Air, drift_ppm: float) -> Trace:
    rig = Rig(air)
    world = World(rig, rig.adapter())
    band = await world.band("open", drift_ppm=drift_ppm)
    client = await world.connect(band)
    frames: list[tuple[int, int]] = []

    def take(_: object, data: bytearray) -> None:
        host_ns = time.monotonic_ns()
        frame = wire.decode(bytes(data))
        frames.append((frame.first + len(frame.samples) - 1, host_ns))

    await client.start_notify(wire.DATA, take)
    await client.write_gatt_char(wire.CONTROL, wire.encode_command(wire.Command.START), response=True)
    await asyncio.sleep(_RIG_S)
    index, host_ns = np.array(frames, np.int64).T
    true_ns = np.array([band.sample_s(int(i)) for i in index]) * 1e9
    packet = int(np.diff(index).min())
    await world.close()
    return Trace(band.rate_hz, packet, index, host_ns, true_ns)


def online(trace: Trace) -> NDArray[np.float64]:
    """What the edge knew when each packet came."""
    clock = DeviceClock(trace.rate_hz, int(trace.host_ns[0]))
    out = np.empty(len(trace.index))
    for i, (index, host_ns) in enumerate(zip(trace.index.tolist(), trace.host_ns.tolist(), strict=True)):
        clock.observe(index, host_ns)
        out[i] = clock.estimate_ns(index)
    return out


def refitted(trace: Trace) -> NDArray[np.int64]:
    """What the cloud knows afterwards."""
    fitted = clockfit.fit(Arrivals(trace.index, trace.host_ns), trace.rate_hz)
    assert fitted is not None
    return fitted.stamps_ns(trace.index)


def least_squares(trace: Trace) -> NDArray[np.float64]:
    """A straight line through all arrivals."""
    x, y = trace.index - trace.index.mean(), trace.host_ns - trace.host_ns[0]
    return np.polyval(np.polyfit(x, y, 1), x) + trace.host_ns[0]


def liblsl(trace: Trace) -> NDArray[np.float64]:
    """Time stamps as a liblsl inlet with dejitter hands them out; one sample stands for a packet, gaps are filled."""
    import pylsl

    source = f"embridge-clock-{len(trace.index)}-{trace.host_ns[-1]}"
    info = pylsl.StreamInfo("clock", "EMG", 1, trace.rate_hz / trace.packet, pylsl.cf_int32, source)
    outlet = pylsl.StreamOutlet(info)
    [found] = pylsl.resolve_byprop("source_id", source, 1, _LSL_WAIT_S)
    inlet = pylsl.StreamInlet(found, processing_flags=pylsl.proc_dejitter)
    inlet.open_stream(_LSL_WAIT_S)
    number = (trace.index - trace.index[0]) // trace.packet
    filled = trace.host_ns[np.searchsorted(number, np.arange(number[-1] + 1))] * 1e-9
    out: list[float] = []
    for start in range(0, len(filled), _LSL_CHUNK):
        stamps = filled[start : start + _LSL_CHUNK]
        outlet.push_chunk(np.zeros((len(stamps), 1), np.int32), stamps.tolist())
        while len(out) < start + len(stamps):
            _, got = inlet.pull_chunk(_LSL_WAIT_S, start + len(stamps) - len(out))
            assert len(got), "liblsl delivered nothing"
            out += got
    inlet.close_stream()
    return np.array(out)[number] * 1e9
