"""The edge in this process: one station, and what the rooms that wear a band make of it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from embridge_edge.collect.setup import source_of
from embridge_edge.collect.station import Station, Vitals
from embridge_edge.collect.virtual import VirtualSource
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import EmbridgeError
from embridge_shared.settings import Settings

if TYPE_CHECKING:
    from embridge_edge.courier import Courier
    from embridge_edge.enrol.bench import Bench
    from embridge_tui.living import Living


class EdgePart:
    """A station and its band.

    Args:
        settings: Of the edge, and the band that Enrol and Live begin with.
        clock: Wall and monotonic time.
        virtual_speed: Seconds of a virtual band's wearer a second.

    Attributes:
        station: Records and delivers.
        fault: Why it does not; None while it does.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None, *, virtual_speed: float = 1.0) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.station = Station(settings, self.clock)
        self.band = settings.tui.band
        self.fault: EmbridgeError | None = None
        self._virtual_speed = virtual_speed

    async def run(self) -> None:
        """Deliver for as long as the interface is open; what ends it is kept in `fault`."""
        try:
            await self.station.run()
        except EmbridgeError as error:
            self.fault = error

    def use(self, band: str) -> None:
        """Let Enrol and Live take another band from now on."""
        self.band = band
        self.__dict__.pop("_make_living", None)

    def vitals(self) -> Vitals | None:
        """What the status line tells; None where the station does not run."""
        return None if self.fault is not None else self.station.vitals()

    @property
    def busy(self) -> str:
        """What would be interrupted by leaving; empty if nothing."""
        leader = self.station.leader
        return "" if leader is None else f"session {leader.setup.name} is being recorded"

    @property
    def courier(self) -> Courier:
        """The station's spool."""
        return self.station.agent.courier

    def bench(self, participant: str) -> Bench:
        """A wearer at this edge, for Enrol; it blocks.

        Raises:
            EmbridgeError: The participant's code or the band cannot be; this edge has no release.
        """
        from embridge_edge.enrol.bench import Acted, Bench
        from embridge_edge.enrol.desk import bundle_here, release_of

        edge = self.settings.edge
        source, _, _ = source_of(self.band, adapter=edge.adapter)
        worn = Acted(source.wearer, speed=self._virtual_speed) if isinstance(source, VirtualSource) else source
        return Bench(edge, participant, release_of(bundle_here(edge.state_dir)), worn, self.clock)

    def living(self, participant: str) -> Living:
        """A sitting that decodes, for Live; it blocks.

        Raises:
            EmbridgeError: The band cannot be.
        """
        return self._make_living(participant)

    @functools.cached_property
    def _make_living(self) -> Callable[[str], Living]:
        from embridge_edge.plan import SyntheticSource
        from embridge_tui.living import maker

        edge = self.settings.edge
        source, _, base = source_of(self.band, adapter=edge.adapter)
        if isinstance(source, VirtualSource):
            gestures = ("fist", "open", "point", "peace")
            live = SyntheticSource(
                wearer=source.wearer, performance=source.performance, gestures=gestures, repetitions=20, shuffled=True
            )
            return maker(self.station.agent, edge, live, self.clock, Path(base))
        return maker(self.station.agent, edge, source, self.clock, Path(base))

    async def stop(self, task: asyncio.Task[None]) -> None:
        """End the station in good order."""
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
