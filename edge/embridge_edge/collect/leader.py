"""Leads one recording: feeds conductor and judge with what is recorded, and writes what they say into the session."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.judging import AFTER_S, RepetitionJudge
from embridge_edge.collect.protocol import Kind, trials
from embridge_edge.collect.setup import Journal, Setup
from embridge_edge.collect.steps import Attempt, Decided, Declined, Entered, Finding, Held, Noted, State, Step
from embridge_edge.collect.virtual import VirtualBand
from embridge_edge.recorder import Recorder
from embridge_edge.source import Packet
from embridge_edge.takes import Take
from embridge_shared.clock import Clock
from embridge_shared.session import CueShown, Event, Marker, Repetition, RepetitionStatus
from embridge_shared.signal import StreamSpec

logger = logging.getLogger(__name__)

_LIVE_EVERY_S: Final = 0.25
_AROUND_S: Final = 4.0

Tell = Callable[[Sequence[Step]], None]
Tap = Callable[[int, Packet], None]


class Leader:
    """Goes along with one session.

    Args:
        journal: What is recorded, and how far it got.
        take: Its sources; stopped when the session is done.
        clock: The host's clock.
        tell: Told of every step.
        taps: Shown every packet, with the ordinal of its source.
        reasons: Marked at its beginning: why it was begun although the preflight warned.
        block_pause: Pause before each block but the first.

    Attributes:
        conductor: Leads through the protocol.
        live: What is wrong with what is being held.
        rejected: Attempts that do not count.
        history: Attempts that are decided, the last ones.
    """

    def __init__(
        self,
        journal: Journal,
        take: Take,
        clock: Clock,
        *,
        tell: Tell,
        taps: Sequence[Tap] = (),
        reasons: Sequence[str] = (),
        block_pause: bool = True,
    ) -> None:
        self.setup: Setup = journal.setup
        self._take = take
        self._clock = clock
        self._tell = tell
        self._taps = taps
        protocol = journal.setup.protocol
        asked = trials(protocol, journal.setup.donning)
        self.conductor = Conductor(
            asked,
            retries=protocol.demands.retries,
            outcomes=journal.outcomes,
            attempts=journal.attempts,
            block_pause=block_pause,
        )
        self.conductor.prepared()
        self._reasons = tuple(reasons)
        self._resumed = journal.attempts > 0 or bool(journal.outcomes)
        self.rejected = journal.rejected
        self.history: list[Attempt] = []
        spec = take.band.spec
        self._rate_hz = spec.rate_hz
        longest = max((t.prepare_s + t.hold_s for t in asked), default=0.0)
        self._judge = RepetitionJudge(spec, protocol.demands, keep_s=longest + AFTER_S + _AROUND_S)
        self._waiting: Attempt | None = None
        self._cued: set[int] = set()
        self._recorder: Recorder | None = None
        self._one = asyncio.Lock()
        self._looked_s = 0.0
        self._ended = journal.ended
        self.live: tuple[str, ...] = ()
        self.now_s = 0.0
        """Time of the signal: the end of what was recorded."""
        self.last_ns = 0
        """When the last packet came, on the host's monotonic clock, ns; 0 before the first."""

    @property
    def spec(self) -> StreamSpec:
        """The band's stream."""
        return self._take.band.spec

    def retry(self) -> None:
        """Look for a band that is away now."""
        self._take.retry()

    @property
    def recorder(self) -> Recorder | None:
        """What records it; None before it does."""
        return self._recorder

    def journal(self) -> Journal:
        """What the session would go on from."""
        at = self.conductor
        settled = at.settled
        return Journal(
            setup=self.setup,
            outcomes=settled,
            attempts=at.attempts,
            rejected=self.rejected,
            ended=at.state in (State.REVIEW, State.DONE),
        )

    # The recording

    def joins(self, recorder: Recorder) -> None:
        """The recording begins."""
        self._recorder = recorder

    async def seen(self, ordinal: int, packet: Packet) -> None:
        """A packet was recorded."""
        for tap in self._taps:
            tap(ordinal, packet)
        recorder = self._recorder
        if recorder is None or ordinal != recorder.lead:
            return
        async with self._one:
            if self.last_ns == 0:
                await self._write(self._first_words(packet.first / self._rate_hz))
            self.last_ns = self._clock.monotonic_ns()
            self._judge.push(packet.first, packet.samples)
            self.now_s = (packet.first + len(packet.samples)) / self._rate_hz
            steps = [*self.conductor.found(self.now_s), *self.conductor.tick(self.now_s)]
            await self._write(steps)
            await self._weigh()
            self._look()

    def _first_words(self, at_s: float) -> list[Step]:
        words = ["recording goes on after an interruption"] if self._resumed else []
        return [*self.conductor.passed(at_s), *(Noted(text, at_s) for text in (*words, *self._reasons))]

    async def leaves(self, reason: str) -> None:
        """The sources have ended; what was not decided is."""
        async with self._one:
            if self.conductor.state is not State.DONE:
                await self._write(self.conductor.end(self.now_s))
                await self._write(self.conductor.end(self.now_s))

    async def act(self, action: Callable[[Conductor, float], list[Step]]) -> str:
        """Do what the operator asks, at the time of the signal.

        Args:
            action: What to ask of the conductor, given the time of the signal, s.

        Returns:
            Why it cannot be done now; empty where it was.
        """
        async with self._one:
            steps = action(self.conductor, self.now_s)
            await self._write(steps)
        return next((s.words for s in steps if isinstance(s, Declined)), "")

    async def silent(self, why: str) -> None:
        """No samples come."""
        async with self._one:
            await self._write(self.conductor.lost(self.now_s, why))

    async def _weigh(self) -> None:
        """Judge what was held, once enough of what follows has come."""
        held = self._waiting
        if held is None:
            return
        trial = self.conductor.trials[held.index]
        due_s = held.end_s + (min(AFTER_S, trial.rest_s) if trial.kind is Kind.GESTURE else 0.0)
        if self.now_s < due_s:
            return
        self._waiting = None
        try:
            finding = await asyncio.to_thread(self._judge.judge, trial, held)
        except Exception:
            # A recording must not stand still because nobody could judge it.
            logger.exception("a repetition could not be judged; it counts")
            finding = Finding()
        await self._write(self.conductor.judged(held.number, finding, self.now_s))

    def _look(self) -> None:
        """See what is wrong while it is held."""
        begun_s = self.conductor.begun_s()
        if begun_s is None:
            self.live = ()
        elif self.now_s - self._looked_s >= _LIVE_EVERY_S:
            self._looked_s = self.now_s
            self.live = self._judge.live(begun_s)

    # What is written

    async def _write(self, steps: Sequence[Step]) -> None:
        if not steps:
            return
        self._waiting = next((s.attempt for s in steps if isinstance(s, Held)), self._waiting)
        if any(isinstance(s, Entered) and s.state is State.COUNTDOWN for s in steps):
            self.live = ()
        recorder = self._recorder
        if recorder is not None:
            events = [event for step in steps for event in self._events(step, recorder)]
            changed = any(isinstance(s, Decided | Noted) or _ends(s) for s in steps)
            await recorder.tell(events, self.journal().pack() if changed else None)
        band = self._take.band
        if isinstance(band, VirtualBand):
            band.hear(steps, self.conductor.trial)
        self._tell(steps)
        if self.conductor.state is State.DONE:
            self._take.stop()

    def _events(self, step: Step, recorder: Recorder) -> list[Event]:
        """What the session keeps of a step."""
        match step:
            case Held(attempt):
                return [self._cue(attempt, recorder)]
            case Decided(attempt):
                return self._decided(attempt, recorder)
            case Noted(text, at_s):
                return [Marker(text=text, t_ns=self._time_ns(at_s, recorder))]
            case Entered(State.PAUSED, at_s, why):
                return [Marker(text=f"paused: {why}" if why else "paused", t_ns=self._time_ns(at_s, recorder))]
        return []

    def _decided(self, attempt: Attempt, recorder: Recorder) -> list[Event]:
        self.history.append(attempt)
        self.rejected += bool(attempt.rejected)
        trial = self.conductor.trials[attempt.index]
        out: list[Event] = []
        if attempt.finding is None and attempt.rejected and not self._was_held(attempt):
            out.append(self._cue(attempt, recorder))
        if trial.kind is not Kind.GESTURE:
            if attempt.rejected:
                words = f"the stretch of {trial.gesture} does not count: {attempt.rejected}"
                out.append(Marker(text=words, t_ns=self._time_ns(attempt.end_s, recorder)))
            return out
        found = attempt.finding or Finding()
        start_s = attempt.start_s if found.onset_s is None else found.onset_s
        end_s = attempt.end_s if found.end_s is None else found.end_s
        start_ns = self._time_ns(start_s, recorder)
        out.append(
            Repetition(
                gesture=trial.gesture,
                repetition=trial.repetition,
                start_ns=start_ns,
                end_ns=max(start_ns, self._time_ns(end_s, recorder)),
                status=RepetitionStatus.REJECTED if attempt.rejected else RepetitionStatus.ACCEPTED,
                reason=attempt.rejected,
            )
        )
        return out

    def _was_held(self, attempt: Attempt) -> bool:
        """Its cue is written already: it was held to its end."""
        return attempt.number in self._cued

    def _cue(self, attempt: Attempt, recorder: Recorder) -> CueShown:
        self._cued.add(attempt.number)
        trial = self.conductor.trials[attempt.index]
        start_ns = self._time_ns(attempt.start_s, recorder)
        return CueShown(
            gesture=trial.gesture,
            repetition=trial.repetition,
            start_ns=start_ns,
            end_ns=max(start_ns, self._time_ns(attempt.end_s, recorder)),
        )

    def _time_ns(self, at_s: float, recorder: Recorder) -> int:
        return recorder.time_ns(round(at_s * self._rate_hz))


def _ends(step: Step) -> bool:
    return isinstance(step, Entered) and step.state in (State.REVIEW, State.DONE)
