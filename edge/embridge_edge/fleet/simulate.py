"""A fleet for a while: start edges, cut the network if asked, wait until the cloud has everything, say what it took."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.fleet.edge import SimulatedEdge
from embridge_edge.forearm import CONTROL_HZ, Donning, Forearm, Performance, Wearer
from embridge_shared.clock import Clock
from embridge_shared.cloud_client import CloudApi
from embridge_shared.errors import EmbridgeError
from embridge_shared.gestures import find

logger = logging.getLogger(__name__)

_SIGNAL_S = 16.0
_LOOK_S = 0.05
_VERIFY_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """What a fleet does.

    Attributes:
        seconds: How long every edge records.
        rate_hz: Samples a second and channel.
        chunk_s: Length of a chunk.
        outage_s: The network is gone for so long, from a third of the run on; 0 for never.
        patience_s: How long the cloud may take for what is left when the recording is over.
    """

    seconds: float
    rate_hz: float = 2000.0
    chunk_s: float = 0.5
    outage_s: float = 0.0
    patience_s: float = 60.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it.

    Attributes:
        edges: Edges.
        seconds: Seconds they recorded.
        chunks: Chunks they made.
        events: Events they made.
        samples: Samples in the chunks, of all channels one.
        sent: Messages sent, again or for the first time.
        resent: Of these, again.
        committed: Messages the cloud said it has.
        refused: Messages the cloud will never take.
        lost: Messages the cloud said nothing of in time.
        commit_ms_p50: Median wait from the spool to the cloud's word.
        commit_ms_p99: 99th percentile of it.
        drain_s: From the end of the outage until nothing older than it waited; None without one.
        cpu_s: Processor time of this process.
        verified: Sessions that the cloud's interface says are whole; None when it was not asked.
        faults: What it says of the others.
    """

    edges: int
    seconds: float
    chunks: int
    events: int
    samples: int
    sent: int
    resent: int
    committed: int
    refused: int
    lost: int
    commit_ms_p50: float
    commit_ms_p99: float
    drain_s: float | None
    cpu_s: float
    verified: int | None = None
    faults: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Nothing was lost, refused or doubled, as far as was asked."""
        return not self.lost and not self.refused and not self.faults


def signal(channels: int, seed: int) -> NDArray[np.int16]:
    """EMG of a simulated wearer who performs, counts int16 (T, channels) at 2 kHz; channels beyond 16 repeat."""
    rng = np.random.default_rng(seed)
    gestures = find(("fist", "point", "open", "pinch_index"))
    performance = Performance(Wearer.random(seed), gestures, repetitions=1, rng=rng)
    steps = np.arange(int(_SIGNAL_S * CONTROL_HZ))
    forearm = Forearm(performance.wearer, Donning(), seed=seed)
    emg = forearm.emg(performance.angles(steps / CONTROL_HZ + performance.wearer.lead_s))
    return np.ascontiguousarray(emg[:, np.arange(channels) % emg.shape[1]])


async def run(edges: Sequence[SimulatedEdge], load: Load, clock: Clock) -> Outcome:
    """Let a fleet record, deliver and end."""
    cpu_s = _cpu_s()
    try:
        for edge in edges:
            edge.link()
        recording = asyncio.gather(*(e.record(load.seconds) for e in edges))
        drained = asyncio.create_task(_outage(edges, load, clock)) if load.outage_s else None
        await recording
        await _settled(edges, load.patience_s, clock)
        drain_s = await drained if drained is not None else None
        return _outcome(edges, load, drain_s, _cpu_s() - cpu_s)
    finally:
        await asyncio.gather(*(e.close() for e in edges))


async def verify(
    outcome: Outcome, wanted: dict[UUID, int], cloud: CloudApi, clock: Clock, patience_s: float
) -> Outcome:
    """Ask the cloud for every session: sealed, every sample there once, none missing.

    Args:
        outcome: What the edges saw.
        wanted: Samples of each session.
        cloud: Its HTTP interface.
        clock: Time.
        patience_s: How long sealing may take.

    Raises:
        NetworkError: The interface does not answer.
    """
    end_ns = clock.monotonic_ns() + round(patience_s * 1e9)
    left, faults = dict(wanted), dict[UUID, str]()
    while left:
        for session in list(left):
            fault = await asyncio.to_thread(_fault, cloud, session, left[session])
            if fault:
                faults[session] = fault
            else:
                faults.pop(session, None)
                del left[session]
        if clock.monotonic_ns() > end_ns:
            break
        if left:
            await clock.sleep(_VERIFY_EVERY_S)
    return msgspec.structs.replace(outcome, verified=len(wanted) - len(left), faults=tuple(faults.values()))


def _fault(cloud: CloudApi, session: UUID, samples: int) -> str:
    """What is wrong with a session in the cloud's eyes, or nothing."""
    try:
        body = cloud.get(f"/api/sessions/{session}")
    except EmbridgeError as error:
        return f"session {session}: {error}"
    stream = body["streams"][0]
    held, missing, state = stream["samples"], stream["missing"], body["state"]
    if (held, missing, state) == (samples, 0, "sealed"):
        return ""
    return f"session {session}: {state}, {held} of {samples} samples, {missing} missing"


async def _outage(edges: Sequence[SimulatedEdge], load: Load, clock: Clock) -> float:
    """Cut the network for a while; returns how long the fleet then needs to deliver what had gathered."""
    await clock.sleep(load.seconds / 3)
    await asyncio.gather(*(e.cut() for e in edges))
    logger.info("the network of %d edges is gone for %.1f s", len(edges), load.outage_s)
    await clock.sleep(load.outage_s)
    began_ns = clock.monotonic_ns()
    gathered = [(e, len(e.courier.waits_s) + e.waiting) for e in edges]
    for edge in edges:
        edge.link()
    while any(len(e.courier.waits_s) < goal for e, goal in gathered):
        await clock.sleep(_LOOK_S)
    return (clock.monotonic_ns() - began_ns) * 1e-9


async def _settled(edges: Sequence[SimulatedEdge], patience_s: float, clock: Clock) -> None:
    """Wait until nothing waits any more, or for too long."""
    end_ns = clock.monotonic_ns() + round(patience_s * 1e9)
    while any(e.waiting for e in edges) and clock.monotonic_ns() < end_ns:
        await clock.sleep(_LOOK_S)


def _outcome(edges: Sequence[SimulatedEdge], load: Load, drain_s: float | None, cpu_s: float) -> Outcome:
    waits_ms = np.array([w for e in edges for w in e.courier.waits_s]) * 1e3
    p50, p99 = np.percentile(waits_ms, [50, 99]) if len(waits_ms) else (float("nan"),) * 2
    refused, lost = sum(e.courier.refused for e in edges), sum(e.waiting for e in edges)
    chunks, events = sum(e.chunks for e in edges), sum(e.events for e in edges)
    return Outcome(
        edges=len(edges),
        seconds=load.seconds,
        chunks=chunks,
        events=events,
        samples=sum(e.samples for e in edges),
        sent=sum(e.uplink.sent for e in edges),
        resent=sum(e.uplink.resent for e in edges),
        committed=chunks + events - refused - lost,
        refused=refused,
        lost=lost,
        commit_ms_p50=round(float(p50), 1),
        commit_ms_p99=round(float(p99), 1),
        drain_s=None if drain_s is None else round(drain_s, 3),
        cpu_s=round(cpu_s, 2),
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
