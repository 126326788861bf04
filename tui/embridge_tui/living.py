"""What the room Live shows: a sitting that decodes, folded into words and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from embridge_shared.decision import UNKNOWN
from embridge_tui.ring import SignalRing
from embridge_tui.widgets.probabilities import Likelihoods

if TYPE_CHECKING:
    from pathlib import Path

    from embridge_edge.agent import Agent
    from embridge_edge.band_plan import AnyBand, BandsSource
    from embridge_edge.live_score import Latency, Score
    from embridge_edge.live_seat import Told, View
    from embridge_edge.live_sitting import LiveSitting
    from embridge_edge.plan import ReplaySource, SyntheticSource
    from embridge_edge.source import Packet
    from embridge_shared.clock import Clock
    from embridge_shared.session import WearingChanged
    from embridge_shared.settings import EdgeSettings
    from embridge_shared.wire.messages import StreamQuality

__all__ = ["UNKNOWN", "Living", "Scene", "Sitting", "maker", "scene_of"]

_MINUTE_S: Final = 60.0


class Living(Protocol):
    """A session that decodes, as a screen needs it."""

    @property
    def participant(self) -> str:
        """Who wears the band."""
        ...

    @property
    def donning(self) -> int:
        """Which time the band was put on; 0 where nobody counted."""
        ...

    @property
    def ring(self) -> SignalRing:
        """The band's newest samples."""
        ...

    @property
    def now_ns(self) -> int:
        """Unix time of the signal, ns."""
        ...

    @property
    def age_s(self) -> float:
        """Since the last packet, s."""
        ...

    @property
    def lasted_s(self) -> float:
        """Since the first packet, s."""
        ...

    @property
    def wearing(self) -> WearingChanged | None:
        """How the band sits; None where nobody watches."""
        ...

    def view(self, which: str) -> View | None:
        """What a release does; None before it decodes."""
        ...

    async def run(self) -> str:
        """Record and decode to the end; why it ended."""
        ...

    def stop(self) -> None:
        """End in good order."""
        ...

    async def label(self, gesture: str, t_ns: int) -> str:
        """Keep what the movement at a moment was; what was kept, in words."""
        ...

    async def retune(self, by: int) -> float:
        """Take the next operating point; false activations an hour."""
        ...

    async def compare(self) -> None:
        """Let the release before decode too."""
        ...


@dataclass(frozen=True, slots=True)
class Scene:
    """What is shown at a moment.

    Attributes:
        release: That decodes.
        said: What is decided; empty before anything is.
        likelihoods: How likely each gesture is.
        lines: What was told, the newest last.
        latency: How soon, in a line.
        worth: How well, in a line.
        beside: How the other release does, in a sentence; empty without one.
        age_s: Since the last packet, s.
    """

    release: str
    said: str
    likelihoods: Likelihoods
    lines: tuple[Told, ...]
    latency: str
    worth: str
    beside: str
    age_s: float


def scene_of(living: Living, which: str) -> Scene | None:
    """What is shown of a release; None before it decodes."""
    view = living.view(which)
    if view is None:
        return None
    decided, least = view.decided, {label: view.decision.least(label) for label in view.labels}
    values = (0.0,) * len(view.labels) if decided is None else tuple(decided.decision.probabilities.tolist())
    said = "" if decided is None else decided.decision.label
    other = living.view("b" if which == "a" else "a")
    return Scene(
        release=f"{which.upper()} {view.release}",
        said=said,
        likelihoods=Likelihoods(view.labels, values, least, said),
        lines=view.lines,
        latency=_latency(view.latency),
        worth=_worth(living, view),
        beside="" if other is None else f"The other one, {other.release}: {_scored(other.score)}.",
        age_s=living.age_s,
    )


def _latency(found: Latency | None) -> str:
    if found is None:
        return "latency: nothing is decoded yet"
    return (
        f"latency  radio {found.radio_ms:.0f} · hop {found.hop_ms:.0f} · infer {found.infer_ms:.1f} · "
        f"total {found.total_ms:.0f} ms (p99 {found.worst_ms:.0f})"
    )


def _worth(living: Living, view: View) -> str:
    score, minutes = view.score, living.lasted_s / _MINUTE_S
    wearer = living.participant + (f" donning {living.donning}" if living.donning else "")
    parts = [wearer, f"thresholds for {view.decision.target_per_hour:g} false/h"]
    if score.labelled or score.false:
        rate = f" ({score.false / minutes:.1f}/min)" if minutes >= 1 else ""
        parts.append(f"{_scored(score)}, false {score.false}{rate}")
    else:
        parts.append("no labels yet: l")
    worn = living.wearing
    if worn is not None and worn.level != "unknown":
        farther = "" if worn.farther is None else f" {worn.farther:.2f}"
        parts.append(f"drift {worn.level}{farther}{': ' + worn.said if worn.level != 'ok' and worn.said else ''}")
    if view.dropped:
        parts.append(f"{view.dropped} packets left out")
    if living.age_s > 1.0:
        parts.insert(0, f"{'✕' if living.age_s > 3.0 else '▲'} no packet for {living.age_s:.0f} s")
    return " · ".join(parts)


def _scored(score: Score) -> str:
    return f"right {score.right}/{score.labelled}, missed {score.missed}"


class Sitting:
    """A sitting of this machine's edge.

    Args:
        make: Makes it, shown where its packets go.
        clock: Tells how old the last packet is.
    """

    def __init__(self, make: Callable[[Callable[[int, Packet], None]], LiveSitting], clock: Clock) -> None:
        self._sitting = sitting = make(self._seen)
        self._clock = clock
        self._ring = SignalRing(sitting.spec)
        self._quality: StreamQuality | None = None

    @property
    def participant(self) -> str:
        """Who wears the band."""
        return self._sitting.plan.participant

    @property
    def donning(self) -> int:
        """Which time the band was put on; 0 where nobody counted."""
        return self._sitting.plan.placement.donning

    @property
    def ring(self) -> SignalRing:
        """The band's newest samples."""
        return self._ring

    @property
    def now_ns(self) -> int:
        """Unix time of the signal, ns."""
        return self._sitting.now_ns

    @property
    def age_s(self) -> float:
        """Since the last packet, s."""
        last_ns = self._sitting.last_ns
        return (self._clock.monotonic_ns() - last_ns) * 1e-9 if last_ns else 0.0

    @property
    def lasted_s(self) -> float:
        """Since the first packet, s."""
        began_ns = self._sitting.began_ns
        return (self._clock.monotonic_ns() - began_ns) * 1e-9 if began_ns else 0.0

    @property
    def wearing(self) -> WearingChanged | None:
        """How the band sits; None where nobody watches."""
        return self._sitting.wearing

    def view(self, which: str) -> View | None:
        """What a release does; None before it decodes."""
        from embridge_edge.live_seat import Which

        return self._sitting.view(Which(which))

    async def run(self) -> str:
        """Record and decode to the end; why it ended."""
        return (await self._sitting.run()).reason

    def stop(self) -> None:
        """End in good order."""
        self._sitting.stop()

    async def label(self, gesture: str, t_ns: int) -> str:
        """Keep what the movement at a moment was; what was kept, in words."""
        found = await self._sitting.label(gesture, t_ns)
        decoded = found.said or "nothing"
        kept = "the repetition and a marker are" if found.kept else "a marker is"
        return f"{found.outcome.value.capitalize()}: labelled {gesture}, decoded {decoded}; {kept} in the session."

    async def retune(self, by: int) -> float:
        """Take the next operating point; false activations an hour."""
        return await self._sitting.retune(by)

    async def compare(self) -> None:
        """Let the release before decode too."""
        await self._sitting.compare()

    def _seen(self, ordinal: int, packet: Packet) -> None:
        recorder = self._sitting.recorder
        if recorder is None or ordinal != recorder.lead:
            return
        self._ring.push(packet.first, packet.samples)
        quality = next((q for q in recorder.quality() if q.stream == self._sitting.spec.name), None)
        if quality is not None and quality is not self._quality:
            self._quality = quality
            self._ring.judged(quality)


def maker(
    agent: Agent,
    settings: EdgeSettings,
    source: AnyBand | BandsSource | SyntheticSource | ReplaySource,
    clock: Clock,
    base: Path,
) -> Callable[[str], Living]:
    """What gives the room its sittings: by a participant's code, with one band and one running agent."""
    from embridge_edge.live_sitting import sitting_of

    def make(participant: str) -> Living:
        return Sitting(
            lambda tap: sitting_of(agent, settings, participant, source, clock, base=base, taps=(tap,)), clock
        )

    return make
