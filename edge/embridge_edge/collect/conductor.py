"""The conductor: leads a session through a protocol, one repetition at a time.

    SETUP → PREFLIGHT → READY ⇄ (COUNTDOWN → HOLD → REST)* → REVIEW → DONE → SYNCED
    any of READY, COUNTDOWN, HOLD, REST → PAUSED or LOST → the same repetition again

It knows neither a band nor a clock: `tick` tells it the time of the signal, and what comes back are facts to be written
into the session. Signal that does not come stops its clock too. A repetition is decided when the next one is to be
held, so until then the operator can take it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from embridge_edge.collect.protocol import Kind, Trial
from embridge_edge.collect.steps import (
    RECORDING,
    RUNNING,
    Attempt,
    Decided,
    Declined,
    Entered,
    Finding,
    Held,
    Noted,
    Outcome,
    State,
    Step,
)  # fmt: skip
from embridge_shared.enrolment import Refusal


class Conductor:
    """Leads through trials.

    Args:
        trials: What is asked for, in order.
        retries: Bad tries in a row before somebody has to look.
        outcomes: What became of trials before an interruption, by index.
        attempts: Attempts before it.
        block_pause: Pause before each block but the first.

    Attributes:
        outcomes: What became of trials so far, by index.
        attempts: Attempts so far.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        *,
        retries: int = 3,
        outcomes: dict[int, Outcome] | None = None,
        attempts: int = 0,
        block_pause: bool = True,
    ) -> None:
        self.trials = tuple(trials)
        self.outcomes = dict(outcomes or {})
        self.attempts = attempts
        self._retries = retries
        self._block_pause = block_pause
        self._left = deque(i for i in range(len(self.trials)) if i not in self.outcomes)
        self._state = State.SETUP
        self._why = ""
        self._since_s = self._until_s = 0.0
        self._pending: Attempt | None = None
        self._bad = 0
        self._paused_before = False
        self._block = 0

    # What is known

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def why(self) -> str:
        """Why it stands there, where the protocol does not say."""
        return self._why

    @property
    def trial(self) -> Trial | None:
        """What is asked for now or next; None when nothing is left."""
        return self.trials[self._left[0]] if self._left else None

    @property
    def following(self) -> Trial | None:
        """What comes after that."""
        return self.trials[self._left[1]] if len(self._left) > 1 else None

    @property
    def left(self) -> int:
        """Trials that are not done."""
        return len(self._left)

    @property
    def pending(self) -> Attempt | None:
        """The last attempt, as long as it can be taken back."""
        return self._pending

    @property
    def settled(self) -> dict[int, Outcome]:
        """What became of trials and cannot be taken back any more: what a session goes on from after a crash."""
        open_index = -1 if self._pending is None else self._pending.index
        return {i: outcome for i, outcome in self.outcomes.items() if i != open_index}

    @property
    def offers_redo(self) -> bool:
        """The last attempt was found bad: it comes again unless the operator takes it."""
        p = self._pending
        return p is not None and bool(p.rejected) and p.finding is not None and p.finding.refusal is not None

    @property
    def stuck(self) -> bool:
        """So many tries in a row were bad that somebody has to look."""
        return self._bad >= self._retries

    @property
    def length_s(self) -> float:
        """Length of the part of the repetition that is on, s; 0 where time does not drive."""
        return self._until_s - self._since_s if self._state in RUNNING else 0.0

    def remaining_s(self, now_s: float) -> float:
        """Time until that part is over, s."""
        return max(0.0, self._until_s - now_s) if self._state in RUNNING else 0.0

    def begun_s(self) -> float | None:
        """When what is held now began to be held, s of the signal."""
        return self._since_s if self._state is State.HOLD else None

    # Before and after the prompts

    def prepared(self) -> list[Step]:
        """What is to be recorded is known: look at band, clocks, room and consent."""
        return self._go(State.PREFLIGHT, 0.0) if self._state is State.SETUP else _no("it is set up already")

    def back(self) -> list[Step]:
        """Set up something else."""
        return self._go(State.SETUP, 0.0) if self._state is State.PREFLIGHT else _no("recording has begun")

    def passed(self, now_s: float = 0.0) -> list[Step]:
        """Nothing speaks against it: it is recorded from now on."""
        if self._state is not State.PREFLIGHT:
            return _no("the preflight comes first")
        if not self._left:
            return self._go(State.REVIEW, now_s)
        return self._go(State.READY, now_s)

    def synced(self) -> list[Step]:
        """The cloud holds all of it."""
        return self._go(State.SYNCED, 0.0) if self._state is State.DONE else []

    # Time

    def tick(self, now_s: float) -> list[Step]:
        """Go on to where the session stands at `now_s` of the signal."""
        out: list[Step] = []
        while self._state in RUNNING and now_s >= self._until_s:
            if self._state is State.COUNTDOWN:
                out += [*self._commit(), *self._go(State.HOLD, self._until_s, self.trials[self._left[0]].hold_s)]
            elif self._state is State.HOLD:
                out += self._held()
            elif self._pending is not None and self._pending.finding is None:
                # The judge has the word; it needs signal that has come by now.
                break
            else:
                out += self._next(self._until_s)
        return out

    def judged(self, number: int, finding: Finding, now_s: float) -> list[Step]:
        """Take in what was seen of an attempt; words on one that is decided already change nothing."""
        p = self._pending
        if p is None or p.number != number or p.finding is not None:
            return []
        self._pending = p = replace(p, finding=finding)
        if p.rejected:
            return []
        if finding.refusal is None:
            self._bad = 0
            self._accept(replace(p, overruled=""))
        elif p.overruled:
            self._accept(replace(p, overruled=finding.words))
        else:
            self._bad += 1
            self._pending = replace(p, rejected=finding.words)
        return self.tick(now_s)

    # What the operator does

    def start(self, now_s: float) -> list[Step]:
        """Begin, or go on after a pause."""
        if self._state not in (State.READY, State.PAUSED):
            return _no("it is not waiting to be started")
        self._bad = 0
        return self._next(now_s, asked=True)

    def pause(self, now_s: float, why: str = "") -> list[Step]:
        """Stop prompting; what is being held comes again."""
        if self._state is State.LOST and not self._paused_before:
            self._paused_before = True
            return [Noted("paused while the band is away", now_s)]
        if self._state not in RUNNING:
            return _no("there is nothing to pause")
        out = self._break_off(now_s, f"interrupted: {why or 'paused'}") if self._state is State.HOLD else []
        return [*out, *self._go(State.PAUSED, now_s, why=why)]

    def accept(self, now_s: float) -> list[Step]:
        """Take the last attempt, whatever was found, and go on at once; in the review end the session."""
        if self._state is State.REVIEW and not self.offers_redo:
            return [*self._commit(), *self._go(State.DONE, now_s)]
        p = self._pending
        if p is None or self._state is State.LOST:
            return _no("there is no repetition to accept")
        out: list[Step] = []
        if p.finding is None and not p.rejected:
            self._pending = replace(p, overruled="not judged")
        elif p.rejected:
            if p.index not in self._left:
                return _no("it was done again already")
            was = p.rejected
            self._accept(replace(p, rejected="", overruled=was))
            self._bad = 0
            out.append(Noted(f"accepted by the operator although {was}", now_s))
        judged = self._pending is not None and self._pending.finding is not None
        if self._state is State.COUNTDOWN or (self._state is State.REST and judged):
            out += self._next(now_s)
        return out

    def redo(self, now_s: float, why: str = "redo") -> list[Step]:
        """Do it again: what is held now, or the last attempt as long as it is not decided."""
        reason = f"operator: {why}"
        if self._state is State.HOLD:
            return [*self._break_off(now_s, reason), *self._countdown(now_s)]
        p = self._pending
        if p is None or self._state is State.LOST:
            return _no("there is no repetition to do again")
        if not p.rejected or p.overruled:
            self._pending = replace(p, rejected=reason, overruled="")
            self._again(p.index)
        self._bad = 0
        out = self._commit()
        if self._state in RUNNING:
            return [*out, *self._countdown(now_s)]
        if self._state is State.REVIEW:
            return [*out, *self._go(State.PAUSED, now_s, why="to be done again")]
        return out

    def skip(self, now_s: float) -> list[Step]:
        """Leave out what is asked for now or next."""
        if self._state not in RUNNING | {State.READY, State.PAUSED} or not self._left:
            return _no("there is nothing to skip")
        out: list[Step] = []
        if self._state is State.HOLD:
            out += self._break_off(now_s, "operator: skip")
        if self._pending is not None and self._pending.finding is None and not self._pending.rejected:
            self._pending = replace(self._pending, rejected="operator: skip")
            self._again(self._pending.index)
        out += self._commit()
        index = self._left.popleft()
        self.outcomes[index] = Outcome.SKIPPED
        self._bad = 0
        out.append(Noted(f"skipped {_told(self.trials[index])}", now_s))
        if self._state in RUNNING or not self._left:
            out += self._next(now_s)
        return out

    def again(self, now_s: float) -> list[Step]:
        """From the review: ask once more for what was skipped."""
        missing = sorted(i for i, outcome in self.outcomes.items() if outcome is Outcome.SKIPPED)
        if self._state is not State.REVIEW or not missing:
            return _no("nothing was left out")
        for index in missing:
            del self.outcomes[index]
        self._left.extend(missing)
        return self._go(State.PAUSED, now_s, why="what was left out comes again")

    def mark(self, now_s: float, text: str = "marker") -> list[Step]:
        """Put a marker, or a note."""
        return [Noted(text, now_s)] if self._state in RECORDING else _no("nothing is recorded")

    def end(self, now_s: float) -> list[Step]:
        """Stop prompting for good; what was recorded stays. From the review: end the session."""
        if self._state is State.REVIEW:
            return [*self._commit(), *self._go(State.DONE, now_s)]
        if self._state not in RECORDING:
            return _no("nothing is recorded")
        out = self._break_off(now_s, "interrupted: ended") if self._state is State.HOLD else []
        self._drop_unjudged("interrupted: ended")
        out += self._commit()
        for index in self._left:
            self.outcomes[index] = Outcome.SKIPPED
        if self._left:
            out.append(Noted(f"ended by the operator with {len(self._left)} of {len(self.trials)} not done", now_s))
        self._left.clear()
        return [*out, *self._go(State.REVIEW, now_s)]

    # What the band does

    def lost(self, now_s: float, why: str) -> list[Step]:
        """No samples come: wait; what is being held comes again."""
        if self._state not in RECORDING - {State.LOST, State.REVIEW}:
            return []
        out = self._break_off(now_s, f"{Refusal.GAP}: the band was lost") if self._state is State.HOLD else []
        self._paused_before = self._state in (State.READY, State.PAUSED)
        return [*out, *self._go(State.LOST, now_s, why=why), Noted(f"band lost: {why}", now_s)]

    def found(self, now_s: float) -> list[Step]:
        """Samples come again: go on with the interrupted repetition."""
        if self._state is not State.LOST:
            return []
        self._drop_unjudged(f"{Refusal.GAP}: the band was lost")
        going = f", goes on with {_told(self.trials[self._left[0]])}" if self._left else ""
        out: list[Step] = [Noted(f"band back{going}", now_s)]
        if self._paused_before:
            return [*out, *self._go(State.PAUSED, now_s, why="the band is back")]
        return [*out, *self._next(now_s)]

    # Inside

    def _go(self, state: State, at_s: float, length_s: float = 0.0, *, why: str = "") -> list[Step]:
        self._state, self._why = state, why
        self._since_s, self._until_s = at_s, at_s + length_s
        return [Entered(state, at_s, why)]

    def _next(self, at_s: float, *, asked: bool = False) -> list[Step]:
        """To the next trial, or a pause before it, or the review."""
        if not self._left:
            return self._go(State.REVIEW, at_s)
        trial = self.trials[self._left[0]]
        if self.stuck:
            return self._go(State.PAUSED, at_s, why=f"{self._bad} tries in a row were bad: look at the band")
        follows = self._block_pause and self._block and trial.block > self._block and not asked
        if follows:
            self._block = trial.block
            return self._go(State.PAUSED, at_s, why=f"block {trial.block} follows")
        self._block = max(self._block, trial.block)
        return self._countdown(at_s)

    def _countdown(self, at_s: float) -> list[Step]:
        return self._go(State.COUNTDOWN, at_s, self.trials[self._left[0]].prepare_s)

    def _held(self) -> list[Step]:
        """What was to be held is over."""
        index, trial = self._left[0], self.trials[self._left[0]]
        self.attempts += 1
        self._pending = Attempt(self.attempts, index, self._since_s, self._until_s)
        at_s = self._until_s
        return [Held(self._pending), *self._go(State.REST, at_s, trial.rest_s)]

    def _accept(self, attempt: Attempt) -> None:
        self._pending = attempt
        self.outcomes[attempt.index] = Outcome.ACCEPTED
        if attempt.index in self._left:
            self._left.remove(attempt.index)

    def _again(self, index: int) -> None:
        """Ask for a trial now, whether it counted or not."""
        self.outcomes.pop(index, None)
        if index in self._left:
            self._left.remove(index)
        self._left.appendleft(index)

    def _break_off(self, now_s: float, reason: str) -> list[Step]:
        """End what is being held; it does not count."""
        self.attempts += 1
        attempt = Attempt(self.attempts, self._left[0], self._since_s, max(now_s, self._since_s), rejected=reason)
        return [Decided(attempt)]

    def _drop_unjudged(self, reason: str) -> None:
        p = self._pending
        if p is not None and p.finding is None and not p.rejected:
            self._pending = replace(p, rejected=reason)

    def _commit(self) -> list[Step]:
        """What was pending is decided."""
        p, self._pending = self._pending, None
        return [] if p is None else [Decided(p)]


def _no(words: str) -> list[Step]:
    return [Declined(words)]


def _told(trial: Trial) -> str:
    return f"{trial.gesture} {trial.repetition}" if trial.kind is Kind.GESTURE else f"the stretch of {trial.gesture}"
