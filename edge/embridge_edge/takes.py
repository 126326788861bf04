"""Takes: the sources and annotations that a session plan asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from embridge_edge import recordings
from embridge_edge.plan import ReplaySource, Selection, SessionPlan
from embridge_edge.playback import ReplayBand, ReplayPose, Spans, spans_between
from embridge_edge.source import Source
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError
from embridge_shared.session import CueShown, Repetition
from embridge_shared.signal import StreamSpec

_FAST_PACKET_S = 0.5
_PACKET_S = 0.05


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


def open_take(plan: SessionPlan, base: Path, clock: Clock) -> Take:
    """Make the sources of a planned session.

    Args:
        plan: The session.
        base: Folder that relative paths start from.
        clock: Paces them.

    Raises:
        DataError: A recording is missing or damaged.
        ConfigError: The plan asks for something the recording does not hold.
    """
    if isinstance(plan.source, ReplaySource):
        return _replay(plan.source, base, clock)
    return _synthetic(plan.source, clock)


def _replay(source: ReplaySource, base: Path, clock: Clock) -> Take:
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

    packet_s = _FAST_PACKET_S if math.isinf(source.speed) else _PACKET_S
    emg, pose = recording.emg, recording.pose
    sources: list[Source] = [
        ReplayBand(
            emg,
            recording.emg_samples,
            clock=clock,
            speed=source.speed,
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
                speed=source.speed,
                packet_s=packet_s,
                spans=spans(pose, len(recording.pose_samples)),
            )
        )
    return Take(f"replay:{recording.name}", tuple(sources), annotations)


def _chosen(annotation: CueShown | Repetition, select: Selection) -> bool:
    return (not select.gestures or annotation.gesture in select.gestures) and (
        not select.repetitions or annotation.repetition in select.repetitions
    )
