"""A recorded session that decodes while somebody watches: says what they see, keeps what they say of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from embridge_edge.agent import Agent
from embridge_edge.band_plan import AnyBand, BandsSource
from embridge_edge.decode.decision import Decided
from embridge_edge.digest import Digest
from embridge_edge.enrol.desk import bundle_here
from embridge_edge.enrol.store import WearerStore
from embridge_edge.live_labels import Labelled, Labels
from embridge_edge.live_rival import Rival, fitted_rival
from embridge_edge.live_score import next_target
from embridge_edge.live_seat import Seat, View, Which
from embridge_edge.plan import ReplaySource, SessionPlan, SyntheticSource, check_participant
from embridge_edge.recorder import Recorder
from embridge_edge.source import Packet
from embridge_edge.takes import Take, open_take
from embridge_edge.takes import Tap as Through
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, ModelError, OperatorError, Reason
from embridge_shared.gesture_spec import check_label
from embridge_shared.gestures import REST_LABEL
from embridge_shared.session import Marker, Purpose, WearingChanged
from embridge_shared.settings import EdgeSettings
from embridge_shared.signal import Modality, StreamSpec

logger = logging.getLogger(__name__)

_NO_RELEASE: Final = "Roll one out to it: `embridge rollout start RELEASE`; it arrives while this edge is connected."

Tap = Callable[[int, Packet], None]


class _Ending(Through):
    """A band that can be told to end, though it plays something that has an end of its own."""

    _ended = False

    async def packets(self) -> AsyncIterator[Packet]:
        """The band's packets until it is told."""
        async for packet in self._source.packets():
            yield packet
            if self._ended:
                return

    def stop(self) -> None:
        """End after what has come so far."""
        self._ended = True
        super().stop()


class LiveSitting:
    """One session that decodes, recorded by an agent of this process and watched by somebody.

    Args:
        agent: Records and delivers; it runs meanwhile.
        settings: Of the edge.
        plan: Whose session, with which band; decoded in any case.
        clock: Wall and monotonic time.
        base: Folder that the plan's paths start from.
        taps: Shown every packet, with the ordinal of its source.

    Raises:
        ConfigError: The participant cannot be recorded, or the plan asks for what cannot be.
    """

    def __init__(
        self,
        agent: Agent,
        settings: EdgeSettings,
        plan: SessionPlan,
        clock: Clock,
        *,
        base: Path = Path(),
        taps: Sequence[Tap] = (),
    ) -> None:
        check_participant(plan.participant, "--participant")
        self.plan = msgspec.structs.replace(plan, decode=True)
        self._agent = agent
        self._settings = settings
        self._clock = clock
        self._taps = tuple(taps)
        take = open_take(self.plan, base, clock, adapter=settings.adapter)
        bands = tuple(_Ending(source) for source in take.sources if source.spec.modality is Modality.EMG)
        # What a recording or a simulated wearer says of itself, and its pose, is no word of who watches.
        self._take = Take(take.name, bands, ())
        self._recorder: Recorder | None = None
        self._seats = {Which.A: Seat(Which.A, self._radio_s)}
        self._rival: Rival | None = None
        self._rival_task: asyncio.Task[None] | None = None
        self._packet = 1
        self._labels = Labels(self._seats)
        self._one = asyncio.Lock()
        self._over = False
        self.begun = asyncio.Event()
        """Set once something can be said of it."""
        self.last_ns = 0
        """When the last packet came, on the host's monotonic clock, ns; 0 before the first."""
        self.began_ns = 0
        """When the first packet came, ns; 0 before."""

    @property
    def spec(self) -> StreamSpec:
        """The band's stream."""
        return self._take.band.spec

    @property
    def recorder(self) -> Recorder | None:
        """What records it; None before it does."""
        return self._recorder

    @property
    def wearing(self) -> WearingChanged | None:
        """How the band sits; None where nobody watches."""
        return None if self._recorder is None else self._recorder.wearing()

    async def run(self) -> Digest:
        """Record and decode until the source ends or `stop`.

        Raises:
            OperatorError: NOT_FOUND: this edge has no release, or nobody calibrated the wearer for it; DISK_FULL.
            ModelError: INCOMPATIBLE: the release is for another band, or does not say how to decide.
            DeviceError: The band cannot be reached.
        """
        await asyncio.to_thread(self._check)
        self._agent.decisions.add(self._seats[Which.A])
        try:
            return await self._agent.record(self.plan, self, take=self._take)
        finally:
            self._agent.decisions.remove(self._seats[Which.A])
            await self._part()

    def stop(self) -> None:
        """End in good order after what has come so far."""
        self._take.stop()

    def view(self, which: Which = Which.A) -> View | None:
        """What a release does; None before it decodes, and of B before it is asked for."""
        if which is Which.B:
            seat = self._seats.get(which)
            return None if seat is None or self._rival is None else seat.view(self._rival.live, self._rival.dropped)
        live = None if self._recorder is None else self._recorder.decoding
        return None if live is None else self._seats[which].view(live)

    # what is said of it

    @property
    def now_ns(self) -> int:
        """Unix time of the signal, ns: where it is replayed faster, the wall clock stays behind."""
        return self._seats[Which.A].now_ns or self._clock.wall_ns()

    async def label(self, gesture: str, t_ns: int | None = None) -> Labelled:
        """Keep what the last movement was: a marker in any case, and a repetition where there was a movement.

        A second label of the same movement takes the place of the first, whose repetition stays as rejected.

        Args:
            gesture: What it was; "rest" where nothing was done.
            t_ns: The movement that was on then, or had just ended; `now_ns` by default.

        Raises:
            ConfigError: `gesture` cannot be a label.
            OperatorError: Nothing is recorded, or the spool is full.
        """
        if gesture != REST_LABEL:
            check_label(gesture)
        now_ns = self.now_ns if t_ns is None else t_ns
        async with self._one:
            recorder = self._running()
            events, labelled = self._labels.say(gesture, now_ns)
            await recorder.tell(events)
        return labelled

    async def retune(self, by: int) -> float:
        """Take the next rate of false activations the release has thresholds for, until the session ends.

        Args:
            by: 1 for more of them, -1 for fewer.

        Returns:
            False activations an hour.

        Raises:
            OperatorError: NOT_FOUND: the release has thresholds for one rate only.
        """
        recorder = self._running()
        live = recorder.decoding
        decision = None if live is None else live.decision
        targets = () if decision is None else tuple(p.target_per_hour for p in decision.points)
        if live is None or decision is None or len(targets) < 2:
            raise OperatorError(
                "this release has thresholds for one rate of false activations.",
                reason=Reason.NOT_FOUND,
                hint="A release trained with this version has several.",
            )
        target = next_target(targets, decision.target_per_hour, by)
        live.retune(decision.at(target))
        await recorder.tell([Marker(text=f"thresholds for {target:g} false an hour", t_ns=self._clock.wall_ns())])
        return target

    async def compare(self) -> None:
        """Let the release that ran before decode beside the one that runs, from now on.

        Raises:
            OperatorError: NOT_FOUND: there is none.
            ModelError: It is damaged, or does not fit the band.
        """
        recorder = self._running()
        if self._rival is not None:
            return
        seat = Seat(Which.B, self._radio_s)
        live = await asyncio.to_thread(fitted_rival, self.plan, self.spec, self._settings, self._clock, seat)
        if self._rival is not None or self._recorder is not recorder:
            return
        self._rival = Rival(live, recorder.session, recorder.time_ns)
        self._seats[Which.B] = seat
        self._rival_task = asyncio.create_task(self._rival.run(), name="live-rival")
        self._rival_task.add_done_callback(self._rival_ended)
        words = f"compared with {live.release}"
        await recorder.tell([Marker(text=words, t_ns=self._clock.wall_ns())])

    # company of the recording

    def joins(self, recorder: Recorder) -> None:
        """The recording begins."""
        self._recorder = recorder
        self.begun.set()

    async def seen(self, ordinal: int, packet: Packet) -> None:
        """A packet was recorded."""
        for tap in self._taps:
            tap(ordinal, packet)
        if self._recorder is None or ordinal != self._recorder.lead:
            return
        self._packet = len(packet.samples)
        self.last_ns = packet.host_ns
        self.began_ns = self.began_ns or packet.host_ns
        if self._rival is not None:
            self._rival.packet(packet)

    async def leaves(self, reason: str) -> None:
        """It ends; a label that is being written is in it."""
        async with self._one:
            self._over = True
        await self._part()

    async def _part(self) -> None:
        task, self._rival_task = self._rival_task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _rival_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, EmbridgeError):
            logger.error("the release before does not decode any more: %s", error)
        elif error is not None:
            logger.error("the release before does not decode any more", exc_info=error)

    def _radio_s(self, decided: Decided) -> float:
        """From the first sample of the packet that completed a window to its arrival, s."""
        if self._recorder is None:
            return 0.0
        session = self._recorder.session
        arrived_ns = session.started_ns + decided.arrived_ns - session.host_ns
        return max(0.0, (arrived_ns - decided.t_ns) * 1e-9) + (self._packet - 1) / self.spec.rate_hz

    def _running(self) -> Recorder:
        if self._recorder is None:
            raise OperatorError("nothing is decoded yet.", reason=Reason.NOT_FOUND, hint="Begin, and wait for samples.")
        if self._over:
            raise OperatorError("the session has ended.", reason=Reason.NOT_FOUND, hint="Begin another.")
        return self._recorder

    def _check(self) -> None:
        """Refuse at once what would be refused after a long wait, or never."""
        try:
            manifest = bundle_here(self._settings.state_dir).manifest
        except OperatorError as error:
            raise OperatorError(
                "this edge has no release yet, so nothing can be decoded.", reason=error.reason, hint=_NO_RELEASE
            ) from None
        store = WearerStore(
            self._settings.state_dir, self.plan.participant, edge=self._settings.name, clock=self._clock
        )
        if manifest.decision is None and not store.held().repetitions:
            raise ModelError(
                f"{manifest.release} gives scores and does not say how they become gestures.",
                reason=Reason.INCOMPATIBLE,
                hint="Train a release with this version, or enrol gestures of this wearer's own.",
            )


def sitting_of(
    agent: Agent,
    settings: EdgeSettings,
    participant: str,
    source: AnyBand | BandsSource | SyntheticSource | ReplaySource,
    clock: Clock,
    *,
    base: Path = Path(),
    taps: Sequence[Tap] = (),
) -> LiveSitting:
    """A sitting of a wearer with a band; raises as `LiveSitting`.

    What is labelled by somebody who watches is no training: its bounds are the decoder's own.
    """
    plan = SessionPlan(
        name=f"live-{participant}-{clock.wall_ns() // 1_000_000}",
        participant=participant,
        source=source,
        purpose=Purpose.EVALUATION,
        protocol="live/1",
    )
    return LiveSitting(agent, settings, plan, clock, base=base, taps=taps)
