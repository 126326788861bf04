"""A band that is looked at without being recorded: its samples, its channels' worth, what is known of its link."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embridge_edge.bands.monitor import Meter
from embridge_edge.collect.setup import source_of
from embridge_edge.collect.virtual import VirtualBand, VirtualSource
from embridge_edge.plan import SessionPlan
from embridge_edge.quality import QualityWatch
from embridge_edge.source import Source
from embridge_edge.takes import open_take
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, OperatorError, Reason
from embridge_shared.settings import EdgeSettings
from embridge_tui.ring import SignalRing


@dataclass
class Watched:
    """A band that is watched.

    Attributes:
        word: What it was named by.
        source: Its first stream of EMG.
        meter: Counts what comes.
        ring: The newest of it.
        fault: Why it is over; empty while it goes on.
    """

    word: str
    source: Source
    meter: Meter
    ring: SignalRing
    fault: str = ""

    def __post_init__(self) -> None:
        self._rate_hz = self.source.spec.rate_hz

    async def run(self, clock: Clock) -> None:
        """Follow it until it is stopped or lost."""
        began_ns, wall_ns = clock.monotonic_ns(), clock.wall_ns()
        quality = QualityWatch(self.source.spec, 0, first=0, clock=clock)

        def time_ns(sample: int) -> int:
            return wall_ns + round(sample / self._rate_hz * 1e9)

        try:
            await self.source.open(began_ns)
            async for packet in self.source.packets():
                self.meter.take(packet)
                self.ring.push(packet.first, packet.samples)
                quality.push(packet, time_ns)
                if quality.state is not None:
                    self.ring.judged(quality.state)
        except EmbridgeError as error:
            self.fault = str(error)
        finally:
            await self.source.close()

    def row(self) -> dict[str, Any]:
        """What is known of it now."""
        return self.meter.row()

    async def identify(self) -> str:
        """Let it vibrate or blink; what it did.

        Raises:
            OperatorError: It has nothing to show.
            DeviceError: It is not connected, or does not answer.
        """
        device = getattr(self.source, "device", None)
        if device is None:
            raise OperatorError(
                f"{self.word} can neither vibrate nor blink.", reason=Reason.INVALID, hint="Look at its scope instead."
            )
        await device.identify()
        return f"{self.word} {device.driver.info.identify}"


def watch(word: str, settings: EdgeSettings, clock: Clock) -> Watched:
    """Get ready to watch a band.

    Args:
        word: As `embridge session record --band` takes it.
        settings: Adapter.
        clock: The host's clock.

    Raises:
        EmbridgeError: The word names no band.
    """
    source, _, base = source_of(word, adapter=settings.adapter)
    if isinstance(source, VirtualSource):
        band: Source = VirtualBand(source, clock)
    else:
        from pathlib import Path

        plan = SessionPlan(name="watch", participant="nobody", source=source)
        band = open_take(plan, Path(base), clock, adapter=settings.adapter).band
    return Watched(word, band, Meter(band, clock), SignalRing(band.spec))
