"""A sitting: guided capture over a live band, recorded as any session is, refused repetitions with their reason too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from embridge_edge.courier import Courier
from embridge_edge.enrol.capture import Capture, Origin
from embridge_edge.enrol.events import Answered, EnrolEvent, Judged, Phase, Prompted
from embridge_edge.enrol.publish import publish
from embridge_edge.enrol.store import WearerStore
from embridge_edge.lock import only_agent
from embridge_edge.plan import SessionPlan
from embridge_edge.recorder import Begun, Recorder, begin
from embridge_edge.source import Packet
from embridge_edge.spool import Spool
from embridge_edge.takes import Take, Tap
from embridge_shared.clock import Clock
from embridge_shared.errors import DeviceError, OperatorError, Reason
from embridge_shared.session import CueShown, Event, Repetition, RepetitionStatus
from embridge_shared.settings import EdgeSettings

Tell = Callable[[Sequence[EnrolEvent]], None]
Stop = asyncio.Event


class Capturing(Protocol):
    """Makes the capture once it is known where its samples go."""

    def __call__(self, origin: Origin) -> Capture:
        """Make it."""
        ...


class _Led(Tap):
    """The band, with the capture looking at every packet before it is recorded."""

    def lead(self, capture: Capture, recorder: Recorder, tell: Tell) -> None:
        """Show packets to `capture` from now on."""
        self._capture, self._recorder, self._tell = capture, recorder, tell
        self._log = _Log(capture, recorder)

    async def packets(self) -> AsyncIterator[Packet]:
        """The band's packets until the capture is done."""
        async for packet in self._source.packets():
            yield packet
            # once it is recorded, its time is known
            events = await asyncio.to_thread(self._capture.push, packet.first, packet.samples)
            hear = getattr(self._source, "hear", None)
            if hear is not None:
                hear(events)
            self._tell(events)
            await self._recorder.tell(self._log.of(events))
            if self._capture.done:
                self._source.stop()
                return


class _Log:
    """What the session keeps of a capture: prompts and repetitions."""

    def __init__(self, capture: Capture, recorder: Recorder) -> None:
        self._capture = capture
        self._time_ns = recorder.time_ns
        self._cue: tuple[str, int, int] | None = None
        self._counts: dict[str, int] = {}

    def of(self, events: Sequence[EnrolEvent]) -> list[Event]:
        """Events for the session."""
        out: list[Event] = []
        for e in events:
            if isinstance(e, Prompted) and e.phase is Phase.PERFORM:
                number = self._counts[e.gesture] = self._counts.get(e.gesture, 0) + 1
                self._cue = (e.gesture, number, self._time_ns(e.at))
            elif isinstance(e, Judged | Answered) and self._cue is not None:
                gesture, number, start_ns = self._cue
                self._cue = None
                end_ns = max(start_ns, self._time_ns(e.at))
                out.append(CueShown(gesture=gesture, repetition=number, start_ns=start_ns, end_ns=end_ns))
                if isinstance(e, Judged) and e.onset >= 0:
                    out.append(self._repetition(e, number))
        return out

    def _repetition(self, e: Judged, number: int) -> Repetition:
        refused = e.refusal is not None
        return Repetition(
            gesture=e.gesture,
            repetition=number,
            start_ns=self._time_ns(e.onset),
            end_ns=max(self._time_ns(e.onset), self._time_ns(e.end)),
            status=RepetitionStatus.REJECTED if refused else RepetitionStatus.ACCEPTED,
            reason=f"{e.refusal}: {e.detail}" if refused else "",
        )


async def sit(
    plan: SessionPlan,
    take: Take,
    make: Capturing,
    settings: EdgeSettings,
    *,
    clock: Clock,
    tell: Tell,
    stop: Stop | None = None,
    courier: Courier | None = None,
) -> Capture:
    """Lead a capture over a take, and record it.

    Args:
        plan: Whose session it is, and what for.
        take: The band alone.
        make: Makes the capture.
        settings: State directory, name of the edge, limits.
        clock: Wall and monotonic time.
        tell: Told of everything as it happens.
        stop: Ends it in good order when set.
        courier: Of the agent that runs in this process; without one the spool is taken over for the while.

    Returns:
        The capture, done or stopped; what it took is not committed yet.

    Raises:
        OperatorError: LOCKED: an agent runs in the state directory; DISK_FULL.
        DeviceError: The band cannot be reached, or was lost before anything was done.
    """
    async with spooling(settings, courier) as spooled:
        led = _Led(take.band)
        take = Take(take.name, (led,), ())
        await take.reach()
        try:
            begun = await begin(plan, take, edge=settings.name, courier=spooled, clock=clock, live=None)
        except BaseException:
            await take.close()
            raise
        recorder = _recorder(plan, begun, take, settings, courier=spooled, clock=clock)
        origin = Origin(session=begun.session.id, edge=settings.name, source=take.name, time_ns=recorder.time_ns)
        capture = make(origin)
        led.lead(capture, recorder, tell)
        reason = await _until(recorder, take, capture, stop, tell)
        if reason != "complete" and not capture.done:
            raise DeviceError(f"the band was lost: {reason}", reason=Reason.SILENT, hint="Come nearer and start again.")
        if not capture.done:
            tell([capture.stop("the recording ended")])
        return capture


async def deliver(
    store: WearerStore,
    settings: EdgeSettings,
    clock: Clock,
    *,
    consent_version: str = "unstated",
    courier: Courier | None = None,
) -> int:
    """Put the journal's new entries into the spool, from where the agent sends them; how many there were.

    Raises:
        OperatorError: LOCKED: an agent runs in the state directory.
    """
    async with spooling(settings, courier) as spooled:
        return await spooled.call(
            lambda: publish(spooled.spool, store, edge=settings.name, clock=clock, consent_version=consent_version)
        )


@asynccontextmanager
async def spooling(settings: EdgeSettings, courier: Courier | None = None) -> AsyncIterator[Courier]:
    """The spool of this edge: an agent's in this process, or one that is opened for the while.

    Raises:
        OperatorError: LOCKED: an agent runs in the state directory, in another process.
    """
    if courier is not None:
        yield courier
        return
    with only_agent(settings.state_dir):
        path = settings.state_dir / "spool.db"
        own = Courier(Spool(path, settings.spool_max_bytes, reserve_bytes=settings.reserve_bytes))
        try:
            yield own
        finally:
            await own.close()


def _recorder(
    plan: SessionPlan, begun: Begun, take: Take, settings: EdgeSettings, *, courier: Courier, clock: Clock
) -> Recorder:
    if begun.progress.keys() - {-1, -2}:
        raise OperatorError(
            f"session {plan.name!r} was begun before.", reason=Reason.INVALID, hint="Give the new one another name."
        )
    return Recorder(
        plan,
        begun,
        take,
        chunk_s=settings.chunk_s,
        courier=courier,
        clock=clock,
        live=None,
        spooled=lambda: None,
    )


async def _until(recorder: Recorder, take: Take, capture: Capture, stop: asyncio.Event | None, tell: Tell) -> str:
    """Record until the capture is done, or somebody asks to stop; why the session ended."""
    if stop is None:
        return (await recorder.run()).reason
    stopping = asyncio.create_task(stop.wait(), name="stop")

    def end(task: asyncio.Task[bool]) -> None:
        if not task.cancelled():
            tell([capture.stop("on request")])
            take.stop()

    stopping.add_done_callback(end)
    try:
        return (await recorder.run()).reason
    finally:
        stopping.cancel()
