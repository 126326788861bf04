"""A simulated wearer who follows guided capture, so that it can be shown and tested without a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import numpy as np

from embridge_edge.bands.synthetic import SyntheticBand
from embridge_edge.enrol.events import EnrolEvent, Phase, Prompted
from embridge_edge.forearm import Donning, Link, Manner, PromptedPerformance, Wearer
from embridge_edge.source import Packet
from embridge_shared.clock import Clock
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.gestures import Gesture, vocabulary


class ScriptedBand(SyntheticBand):
    """A band on a simulated wearer who does what they are told, or what a script says instead.

    Args:
        wearer: Seed of the wearer's anatomy.
        performance: Seed of this performance: how each gesture is made.
        donned: Seed of this donning: contacts, noise. A wearer who keeps the band on keeps it.
        shapes: What the wearer does for labels that are not in the vocabulary.
        manners: How the next prompts are followed; well once they are used up.
        donning: How the band sits.
        speed: Seconds of the session a second; `math.inf` is as fast as it is taken.
        clock: The host's clock.
        loss: Share of packets that never arrive.
        packet_samples: Samples a packet.
    """

    def __init__(
        self,
        wearer: int,
        performance: int,
        *,
        donned: int = 0,
        shapes: Mapping[str, Gesture] | None = None,
        manners: Iterable[Manner] = (),
        donning: Donning | None = None,
        speed: float = 1.0,
        clock: Clock | None = None,
        loss: float = 0.0,
        packet_samples: int = 100,
    ) -> None:
        self._acting = PromptedPerformance(Wearer.random(wearer), np.random.default_rng([wearer, performance, 0xE]))
        self._shapes = {**vocabulary(), **(shapes or {})}
        self._manners = list(manners)
        self._stopped = False
        super().__init__(
            self._acting,
            donning=donning,
            link=Link(drift_ppm=-18.0, start_s=0.012, loss=loss, seed=performance),
            seed=donned,
            packet_samples=packet_samples,
            speed=speed,
            clock=clock,
        )

    def hear(self, events: Sequence[EnrolEvent]) -> None:
        """Follow what guided capture says.

        Raises:
            OperatorError: NOT_FOUND: nobody told this wearer what the hand does.
        """
        for event in events:
            if not isinstance(event, Prompted):
                continue
            t_s = event.at / self.spec.rate_hz
            if event.phase is Phase.PERFORM:
                self._acting.perform(self._shape(event.gesture), t_s, self._next())
            elif event.phase in (Phase.RELEASE, Phase.RELAX):
                self._acting.relax(t_s)

    async def packets(self) -> AsyncIterator[Packet]:
        """The band's packets until it is stopped."""
        async for packet in super().packets():
            if self._stopped:
                return
            yield packet

    def stop(self) -> None:
        """End after what has come so far."""
        self._stopped = True

    def _next(self) -> Manner:
        return self._manners.pop(0) if self._manners else Manner()

    def _shape(self, label: str) -> Gesture:
        if label not in self._shapes:
            raise OperatorError(
                f"the simulated wearer does not know what the hand does for {label!r}.",
                reason=Reason.NOT_FOUND,
                hint="Give its shape, as in --acts peace.",
            )
        return self._shapes[label]
