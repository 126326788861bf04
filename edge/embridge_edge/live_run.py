"""Decoding without recording: a band in, decisions out, with neither broker nor cloud.

Nothing of the signal is kept. Who has no calibration for the release and the band makes gestures for a moment first; it
is kept for them when they have a name.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from embridge_edge.capture import Chunker
from embridge_edge.decode.calibration import calibrate, save_calibration
from embridge_edge.decode.decision import Sinks, decision_for
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.enrol.serving import Serving, serving
from embridge_edge.live import LiveDecoding
from embridge_edge.outputs.messages import Notice
from embridge_edge.outputs.notices import Watcher
from embridge_edge.plan import SessionPlan
from embridge_edge.quality import QualityWatch
from embridge_edge.source import Packet
from embridge_edge.takes import Take, open_take
from embridge_shared.clock import Clock
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.preprocess import worn_ring
from embridge_shared.session import Participant, Session, WearingChanged
from embridge_shared.settings import EdgeSettings
from embridge_shared.signal import StreamSpec

logger = logging.getLogger(__name__)

_NOBODY = "nobody"
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Who is told of what, besides the decisions' sinks.

    Attributes:
        notice: Of what the wearer should know.
        stage: Of what goes on now, in words.
    """

    notice: Callable[[Notice], None]
    stage: Callable[[str], None]


class LiveRun:
    """Decodes one band of a plan.

    Args:
        plan: Where samples come from; its participant's calibration and gestures serve when `known`.
        decoder: The release.
        settings: State directory, adapter, false activations an hour.
        clock: Wall and monotonic time.
        base: Folder that the plan's paths start from.
        known: The plan names a participant.
        calibrate_s: Length of the calibration of who has none, s.
    """

    def __init__(
        self,
        plan: SessionPlan,
        decoder: Decoder,
        settings: EdgeSettings,
        *,
        clock: Clock,
        base: Path = Path(),
        known: bool = False,
        calibrate_s: float = 15.0,
    ) -> None:
        self._plan = plan
        self._decoder = decoder
        self._settings = settings
        self._clock = clock
        self._base = base
        self._known = known
        self._calibrate_s = calibrate_s
        self._watcher = Watcher()
        self._take: Take | None = None
        self._stopping = False
        self._decoding: LiveDecoding | None = None

    @property
    def latencies_s(self) -> list[float]:
        """How long each window took from its last samples to its scores, s."""
        return [] if self._decoding is None else self._decoding.latencies_s

    def stop(self) -> None:
        """End in good order after what has come so far."""
        self._stopping = True
        if self._take is not None:
            self._take.stop()

    async def run(self, sinks: Sinks, told: Told) -> None:
        """Decode to the source's end.

        Args:
            sinks: Told of every decision.
            told: Told of the rest.

        Raises:
            DeviceError: The band cannot be reached or is gone.
            ModelError: INCOMPATIBLE: the release is for another band, or does not say how to decide.
            DataError: TOO_LITTLE_DATA: the calibration is too short, or the band is not worn.
        """
        self._take = take = open_take(self._plan, self._base, self._clock, adapter=self._settings.adapter)
        told.stage("connecting")
        await take.reach()
        band = take.band
        looking = asyncio.create_task(self._look(take, told), name="live-look")
        watch = QualityWatch(band.spec, 0, first=0, clock=self._clock)
        try:
            session = self._session(band.spec)
            chunker = Chunker(session, 0, self._settings.chunk_s)
            await band.open(session.host_ns)
            live: LiveDecoding | None = await self._ready(band.spec, session, sinks)
            gathered: list[Packet] = []
            told.stage("decoding" if live is not None else "calibrating")
            async for packet in band.packets():
                if self._stopping:
                    break
                chunker.push(packet)
                watch.push(packet, chunker.time_ns)
                if watch.ready() and watch.state is not None:
                    _tell(told, self._watcher.quality([watch.state]))
                if live is not None:
                    await self._push(live, packet, chunker, told)
                    continue
                gathered.append(packet)
                if sum(len(p.samples) for p in gathered) >= self._calibrate_s * band.spec.rate_hz:
                    live = await self._calibrated(band.spec, session, gathered, sinks)
                    told.stage("decoding")
            if live is None and not self._stopping:
                raise OperatorError(
                    f"the source ended before the calibration of {self._calibrate_s:g} s was over",
                    reason=Reason.TOO_LITTLE_DATA,
                    hint="Make it shorter with --calibrate, or name a calibrated wearer with --participant.",
                )
        finally:
            if self._decoding is not None:
                # Whoever keeps a key down for a gesture hears that it is over, however this ends.
                self._decoding.finish()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            await watch.finish()
            await take.close()

    def _session(self, spec: StreamSpec) -> Session:
        return Session(
            id=uuid.uuid4(),
            edge=self._settings.name,
            participant=Participant(id=self._plan.participant if self._known else _NOBODY),
            streams=(spec,),
            started_ns=self._clock.wall_ns(),
            host_ns=self._clock.monotonic_ns(),
        )

    async def _ready(self, spec: StreamSpec, session: Session, sinks: Sinks) -> LiveDecoding | None:
        """What decodes for a wearer who was calibrated; None when they are to be now."""
        if not self._known:
            return None
        try:
            found = await asyncio.to_thread(self._serving, spec)
        except OperatorError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return None
        return self._live(spec, session, found, sinks)

    def _serving(self, spec: StreamSpec) -> Serving:
        return serving(
            self._settings.state_dir,
            self._plan.participant,
            self._decoder,
            spec,
            edge=self._settings.name,
            clock=self._clock,
        )

    async def _calibrated(
        self, spec: StreamSpec, session: Session, gathered: list[Packet], sinks: Sinks
    ) -> LiveDecoding:
        chunks: list[tuple[int, NDArray[Any]]] = [(p.first, p.samples) for p in gathered]
        calibration = await asyncio.to_thread(
            calibrate,
            session.participant.id,
            self._decoder.manifest.preprocess,
            spec,
            chunks,
            created_ns=self._clock.wall_ns(),
        )
        if self._known:
            save_calibration(self._settings.state_dir, calibration)
            return self._live(spec, session, await asyncio.to_thread(self._serving, spec), sinks)
        return self._live(spec, session, Serving(calibration.scale, None), sinks)

    def _live(self, spec: StreamSpec, session: Session, found: Serving, sinks: Sinks) -> LiveDecoding:
        asked = self._plan.false_per_hour
        asked = self._settings.false_per_hour if asked is None else asked
        manifest = self._decoder.manifest
        decision = decision_for(manifest, wearer=found.source is not None, target_per_hour=asked)
        if decision is None:
            raise ModelError(
                f"{manifest.release} gives scores and does not say how they become gestures",
                reason=Reason.INCOMPATIBLE,
                hint="Train a release with this version, or enrol gestures of your own: `embridge enrol`.",
            )
        decoder = StreamDecoder(
            self._decoder,
            spec,
            found.scale,
            source=found.source,
            hop_s=self._settings.hop_s if self._plan.hop_s is None else self._plan.hop_s,
            ring=worn_ring(spec.n_channels, session.placement.rotation_deg),
            wearing=found.wearing,
            clock=self._clock,
        )
        live = LiveDecoding(decoder, decision, sinks=sinks)
        live.begin(session, 1, 0)
        self._decoding = live
        return live

    async def _push(self, live: LiveDecoding, packet: Packet, chunker: Chunker, told: Told) -> None:
        outcome = await live.push(packet, chunker.time_ns)
        for event in outcome.events:
            if isinstance(event, WearingChanged):
                _tell(told, self._watcher.wearing(event))

    async def _look(self, take: Take, told: Told) -> None:
        """Tell when the link goes and comes."""
        while True:
            _tell(told, self._watcher.bands(take.states()))
            await self._clock.sleep(_LOOK_S)


def _tell(told: Told, notices: list[Notice]) -> None:
    for notice in notices:
        told.notice(notice)
