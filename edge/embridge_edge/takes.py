"""Takes: the sources and annotations that a session plan asks for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge import recordings
from embridge_edge.bands.synthetic import SyntheticBand
from embridge_edge.forearm import EMG_RATE_HZ, Donning, ElectrodeFault, Link, Performance, Wearer
from embridge_edge.plan import Fault, ReplaySource, Selection, SessionPlan, SyntheticSource
from embridge_edge.playback import ReplayBand, ReplayPose, Spans, spans_between
from embridge_edge.pose.synthetic import SyntheticPose
from embridge_edge.source import Packet, Source
from embridge_shared import gestures as vocabulary
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError
from embridge_shared.session import BandState, CueShown, Repetition
from embridge_shared.signal import Modality, StreamSpec

_FAST_PACKET_S = 0.5
_PACKET_S = 0.02
_DECODE_PACKET_S = 0.1
_POSE_HZ = 120.0


@dataclass(frozen=True, slots=True)
class Take:
    """What a session records.

    Attributes:
        name: What feeds it, for the session's `source`.
        sources: The band first.
        annotations: In order of their end, ns from the session's start.
    """

    name: str
    sources: tuple[Source, ...]
    annotations: tuple[CueShown | Repetition, ...]

    @property
    def band(self) -> Source:
        """The first source of EMG."""
        return next(s for s in self.sources if s.spec.modality is Modality.EMG)

    async def reach(self) -> None:
        """Make sure that every device is there, before a session is begun.

        Raises:
            DeviceError: One cannot be reached; none is held any more.
        """
        try:
            await asyncio.gather(*(s.reach() for s in self.sources))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let every device go; safe to call twice."""
        for source in self.sources:
            await source.close()

    def states(self) -> tuple[BandState, ...]:
        """What is known of its devices."""
        return tuple(state for s in self.sources if (state := s.state()) is not None)

    def changes(self) -> list[tuple[int, BandState]]:
        """States its devices entered since the last call, each with the host's monotonic time, ns; in order."""
        return sorted((c for s in self.sources for c in s.changes()), key=lambda c: c[0])

    def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed`, from any thread, when what is known of a device changes."""
        for source in self.sources:
            source.watch(changed)

    def retry(self) -> None:
        """Look for devices that are away now, instead of when their turn comes."""
        for source in self.sources:
            source.retry()

    def stop(self) -> None:
        """Let every source end that does not end by itself."""
        for source in self.sources:
            source.stop()


class Tap(Source):
    """A source that keeps what passes through it.

    Attributes:
        chunks: (index of the first sample, raw samples) of every packet so far.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.chunks: list[tuple[int, NDArray[Any]]] = []

    @classmethod
    def on_band(cls, take: Take) -> tuple[Tap, Take]:
        """Tap a take's band; the tap and the take that goes through it."""
        tap = cls(take.band)
        return tap, replace(take, sources=tuple(tap if s is take.band else s for s in take.sources))

    @property
    def spec(self) -> StreamSpec:
        """What the source delivers."""
        return self._source.spec

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Open the source."""
        await self._source.open(host_ns, first)

    async def packets(self) -> AsyncIterator[Packet]:
        """The source's packets."""
        async for packet in self._source.packets():
            self.chunks.append((packet.first, packet.samples))
            yield packet

    async def close(self) -> None:
        """Close the source."""
        await self._source.close()

    async def reach(self) -> None:
        """Make sure that the source's device is there."""
        await self._source.reach()

    def retry(self) -> None:
        """Look for the source's device now."""
        self._source.retry()

    def stop(self) -> None:
        """Let the source end."""
        self._source.stop()

    def state(self) -> BandState | None:
        """What is known of the source's device."""
        return self._source.state()

    def changes(self) -> list[tuple[int, BandState]]:
        """States the source's device entered."""
        return self._source.changes()

    def watch(self, changed: Callable[[], object]) -> None:
        """Watch the source's device."""
        self._source.watch(changed)


def open_take(plan: SessionPlan, base: Path, clock: Clock, *, adapter: str = "") -> Take:
    """Make the sources of a planned session.

    Args:
        plan: The session.
        base: Folder that relative paths start from.
        clock: Paces them.
        adapter: Bluetooth adapter of bands for which the plan names none.

    Raises:
        DataError: A recording is missing or damaged.
        ConfigError: The plan asks for something the recording does not hold, or for a band that cannot be.
    """
    source = plan.source
    if isinstance(source, ReplaySource):
        return _replay(source, base, clock, _packet_s(source, plan))
    if isinstance(source, SyntheticSource):
        return _synthetic(source, clock, _packet_s(source, plan))
    # Bluetooth is loaded by edges that have a band.
    from embridge_edge.bands.catalogue import open_bands
    from embridge_edge.ble.thread import RADIOS

    sources = open_bands(source, base, clock, radios=RADIOS, adapter=adapter)
    if plan.pose is not None:
        from embridge_edge.pose.catalogue import open_pose

        sources = (*sources, open_pose(plan.pose, base, clock))
    return Take("", sources, ())


def _synthetic(source: SyntheticSource, clock: Clock, packet_s: float) -> Take:
    performance = Performance(
        Wearer.random(source.wearer),
        vocabulary.find(source.gestures),
        repetitions=source.repetitions,
        rng=np.random.default_rng([source.wearer, source.performance]),
        shuffled=source.shuffled,
    )
    speed = source.speed or math.inf
    seed = source.performance
    band = SyntheticBand(
        performance,
        donning=Donning(rotation_deg=source.rotation_deg, faults=tuple(map(_fault, source.faults))),
        link=Link(drift_ppm=-18.0, start_s=0.012, loss=source.loss, seed=seed),
        seed=seed,
        packet_samples=max(1, round(packet_s * EMG_RATE_HZ)),
        speed=speed,
        clock=clock,
    )
    sources: list[Source] = [band]
    if source.pose:
        frames = max(1, round(packet_s * _POSE_HZ))
        sources.append(
            SyntheticPose(performance, rate_hz=_POSE_HZ, seed=seed, packet_frames=frames, speed=speed, clock=clock)
        )
    notes = dict(zip(source.gestures, source.written, strict=True)) if source.written else {}
    annotations = _noted(performance.annotations(), notes)
    return Take(f"synthetic:{source.wearer}/{source.performance}", tuple(sources), annotations)


def _noted(annotations: Iterable[CueShown | Repetition], notes: Mapping[str, str]) -> tuple[CueShown | Repetition, ...]:
    """What was written down of what was done."""
    return tuple(msgspec.structs.replace(a, gesture=notes.get(a.gesture, a.gesture)) for a in annotations)


def _fault(fault: Fault) -> ElectrodeFault:
    end_s = math.inf if fault.end_s is None else fault.end_s
    return ElectrodeFault(fault.channel, fault.kind, fault.start_s, end_s)


def _packet_s(source: ReplaySource | SyntheticSource, plan: SessionPlan) -> float:
    """As a device would at real speed; longer where only throughput counts, but a decoder is fed hop by hop."""
    if source.speed:
        return _PACKET_S
    return _DECODE_PACKET_S if plan.decode else _FAST_PACKET_S


def _replay(source: ReplaySource, base: Path, clock: Clock, packet_s: float) -> Take:
    recording = recordings.load(base / source.path, source.rate_hz)
    annotations = recording.annotations
    times_s: list[tuple[float, float]] | None = None
    if source.select is not None:
        annotations = tuple(a for a in annotations if _chosen(a, source.select))
        if not annotations:
            raise ConfigError(f"{source.path} holds nothing of what the plan selects", hint="Check gesture names.")
        margin_s = source.select.margin_s
        times_s = [
            (a.start_ns * 1e-9 - margin_s, a.end_ns * 1e-9 + margin_s) for a in annotations if isinstance(a, Repetition)
        ]

    def spans(spec: StreamSpec, length: int) -> Spans | None:
        return None if times_s is None else spans_between(times_s, spec.rate_hz, length)

    emg, pose, speed = recording.emg, recording.pose, source.speed or math.inf
    sources: list[Source] = [
        ReplayBand(
            emg,
            recording.emg_samples,
            clock=clock,
            speed=speed,
            packet_s=packet_s,
            spans=spans(emg, len(recording.emg_samples)),
        )
    ]
    if source.pose and pose is not None and recording.pose_samples is not None:
        sources.append(
            ReplayPose(
                pose,
                recording.pose_samples,
                clock=clock,
                speed=speed,
                packet_s=packet_s,
                spans=spans(pose, len(recording.pose_samples)),
            )
        )
    return Take(f"replay:{recording.name}", tuple(sources), _noted(annotations, source.written))


def _chosen(annotation: CueShown | Repetition, select: Selection) -> bool:
    return (not select.gestures or annotation.gesture in select.gestures) and (
        not select.repetitions or annotation.repetition in select.repetitions
    )
