"""A virtual band whose wearer follows the prompts: for trying a protocol out, for demonstrations, for tests.

Unlike simulated performances that are played from their beginning, it behaves as a live band does: a session that goes
on after a crash finds it where the time is, with a gap before.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import ClassVar

import msgspec
import numpy as np

from embridge_edge.bands.synthetic import SyntheticBand
from embridge_edge.collect.protocol import Kind, Trial
from embridge_edge.collect.steps import Entered, State, Step
from embridge_edge.forearm import EMG_RATE_HZ, Donning, ElectrodeFault, Link, Manner, PromptedPerformance, Wearer
from embridge_edge.forearm.electrodes import FaultKind
from embridge_edge.source import Changes, Packet
from embridge_shared.clock import Clock
from embridge_shared.errors import ConfigError
from embridge_shared.gestures import Gesture, vocabulary
from embridge_shared.session import BandState

KIND = "virtual"
_PACKET_S = 0.02
_LONGEST_S = 86400.0


class VirtualSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="virtual", tag_field="kind"
):
    """A virtual band on a simulated wearer who follows the prompts.

    Attributes:
        wearer: Seed of the wearer's anatomy.
        performance: Seed of this performance.
        speed: Seconds of the session a second; 0 is as fast as it is taken.
        rotation_deg: How the band is turned today.
        loss: Share of packets that never arrive.
        dead: Channels whose electrode is off.
    """

    wearer: int = 1
    performance: int = 1
    speed: float = 1.0
    rotation_deg: float = 0.0
    loss: float = 0.0
    dead: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What a session states as its source."""
        return f"synthetic:{self.wearer}/{self.performance}"


def parse(word: str) -> VirtualSource:
    """`virtual` or `virtual:WEARER` or `virtual:WEARER/PERFORMANCE`.

    Raises:
        ConfigError: It is none of these.
    """
    _, _, rest = word.partition(":")
    wearer, _, performance = rest.partition("/")
    if not all(not part or part.isdecimal() for part in (wearer, performance)):
        raise ConfigError(f"{word!r} names no virtual band", hint='Give a seed, as in "virtual:7" or "virtual:7/2".')
    return VirtualSource(wearer=int(wearer or 1), performance=int(performance or 1))


class VirtualBand(SyntheticBand):
    """The band.

    Args:
        source: Whose arm, how it is worn, how fast time passes.
        clock: The host's clock.
        shapes: What the hand does for labels that are not in the vocabulary.
        manners: How the next prompts are followed; well once they are used up.
    """

    follows: ClassVar[bool] = False

    def __init__(
        self,
        source: VirtualSource,
        clock: Clock,
        *,
        shapes: dict[str, Gesture] | None = None,
        manners: Iterable[Manner] = (),
    ) -> None:
        rng = np.random.default_rng([source.wearer, source.performance, 0xC])
        self._acting = PromptedPerformance(Wearer.random(source.wearer), rng, duration_s=_LONGEST_S)
        self._shapes = {**vocabulary(), **(shapes or {})}
        self._manners = list(manners)
        self._rng = rng
        self._source = source
        self._clock = clock
        self._from = 0
        self._stopped = False
        self._received = 0
        self._phase = ""
        self._changes = Changes()
        faults = tuple(ElectrodeFault(c, FaultKind.DEAD, 0.0, math.inf) for c in source.dead)
        super().__init__(
            self._acting,
            donning=Donning(rotation_deg=source.rotation_deg, faults=faults),
            link=Link(drift_ppm=-18.0, start_s=0.012, loss=source.loss, seed=source.performance),
            seed=source.performance,
            packet_samples=round(_PACKET_S * EMG_RATE_HZ),
            speed=source.speed or math.inf,
            clock=clock,
        )

    async def open(self, host_ns: int, first: int = 0) -> None:
        """Start it; a session that goes on finds it where the time is."""
        rate = self.spec.rate_hz
        if first and math.isfinite(self._delivery.speed):
            passed_s = (self._clock.monotonic_ns() - host_ns) * 1e-9 * self._delivery.speed
            first = max(first, round(passed_s * rate))
        packet = self._delivery.packet
        self._from = -(-first // packet) * packet
        origin_ns = host_ns + round(self._from / rate * 1e9) if self._from else host_ns
        await super().open(origin_ns)
        self._enter("streaming")

    async def packets(self) -> AsyncIterator[Packet]:
        """The band's packets until it is stopped."""
        async for packet in super().packets():
            if self._stopped:
                return
            self._received += len(packet.samples)
            yield Packet(packet.first + self._from, packet.samples, packet.host_ns)

    async def close(self) -> None:
        """Stop it; safe to call twice."""
        if self._phase == "streaming":
            self._enter("stopped")
        await super().close()

    def stop(self) -> None:
        """End after what has come so far."""
        self._stopped = True

    def state(self) -> BandState:
        """What a real one would say."""
        lost = 0 if not self._source.loss else round(self._received * self._source.loss)
        return BandState(
            stream=self.spec.name,
            kind=KIND,
            address=self._source.name,
            phase=self._phase or "idle",
            battery=100,
            received=self._received,
            lost=lost,
        )

    def changes(self) -> list[tuple[int, BandState]]:
        """States it entered since the last call."""
        return self._changes.take()

    def hear(self, steps: Sequence[Step], trial: Trial | None) -> None:
        """Follow what the conductor says.

        Args:
            steps: What happened.
            trial: What is asked for now.
        """
        for step in steps:
            if not isinstance(step, Entered):
                continue
            t_s = step.at_s - self._from / self.spec.rate_hz
            if step.state is State.HOLD and trial is not None and trial.kind is Kind.GESTURE:
                self._acting.perform(self._shapes[trial.gesture], t_s, self._next())
            elif step.state is not State.HOLD:
                self._acting.relax(t_s)

    def _next(self) -> Manner:
        return self._manners.pop(0) if self._manners else Manner()

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._changes.add(self._clock.monotonic_ns(), self.state())
