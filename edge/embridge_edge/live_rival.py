"""Another release that decodes what a session's own decodes, for who wants to compare them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from embridge_edge.decode.added import with_added
from embridge_edge.decode.decision import DecisionSink, Sinks
from embridge_edge.decode.runtime import Decoder
from embridge_edge.live import LiveDecoding
from embridge_edge.live_fit import fit
from embridge_edge.plan import SessionPlan
from embridge_edge.source import Packet
from embridge_edge.update.slots import FOLDER, Slots
from embridge_shared.clock import Clock
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.release import read_bundle
from embridge_shared.session import Session
from embridge_shared.settings import EdgeSettings
from embridge_shared.signal import StreamSpec

logger = logging.getLogger(__name__)

_QUEUED: Final = 64


def previous_release(settings: EdgeSettings) -> Decoder:
    """The release that ran before on this edge. Blocks for a while.

    Raises:
        OperatorError: NOT_FOUND: there is none.
        ModelError: It is damaged.
    """
    folder = settings.state_dir / FOLDER
    slots = Slots(folder) if folder.is_dir() else None
    slot = None if slots is None else slots.previous()
    if slots is None or slot is None:
        raise OperatorError(
            "this edge holds one release, and comparing takes two.",
            reason=Reason.NOT_FOUND,
            hint="Once another was rolled out to it, the one before is kept beside it.",
        )
    return Decoder(read_bundle(slots.path(slot.digest), digest=slot.digest), int8=settings.int8)


class Rival:
    """Decodes the packets of a session beside it, as far as there is time; what it says is not recorded.

    Args:
        live: Of the other release, fitted to the session.
        session: The session.
        time_ns: Unix time of a sample, ns.

    Attributes:
        dropped: Packets there was no time for.
    """

    def __init__(self, live: LiveDecoding, session: Session, time_ns: Callable[[int], int]) -> None:
        self._live = live
        self._time_ns = time_ns
        self._packets: deque[Packet] = deque()
        self._news = asyncio.Event()
        self.dropped = 0
        live.begin(session, len(session.streams), 0)

    @property
    def live(self) -> LiveDecoding:
        """Its decoding."""
        return self._live

    def packet(self, packet: Packet) -> None:
        """Take a packet; returns at once."""
        if len(self._packets) >= _QUEUED:
            self.dropped += 1
            return
        self._packets.append(packet)
        self._news.set()

    async def run(self) -> None:
        """Decode until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._packets:
                await self._live.push(self._packets.popleft(), self._time_ns)


def fitted_rival(
    plan: SessionPlan, spec: StreamSpec, settings: EdgeSettings, clock: Clock, sink: DecisionSink
) -> LiveDecoding:
    """The release before, fitted to a session; raises as `previous_release` and `fit`. Blocks for a while.

    Raises:
        ModelError: INCOMPATIBLE: it does not say how it decides.
    """
    decoder = with_added(previous_release(settings), settings.state_dir, plan.participant)
    stream, decision = fit(decoder, spec, plan, settings, clock)
    if decision is None:
        raise ModelError(
            f"{decoder.manifest.release} gives scores and does not say how they become gestures.",
            reason=Reason.INCOMPATIBLE,
            hint="It cannot be compared.",
        )
    sinks = Sinks()
    sinks.add(sink)
    return LiveDecoding(stream, decision, sinks=sinks)
