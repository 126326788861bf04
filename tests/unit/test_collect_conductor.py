"""The conductor: every key at every moment leaves a session in which each repetition counts at most once."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.protocol import Kind, Trial
from embridge_edge.collect.steps import RUNNING, Decided, Declined, Entered, Finding, Held, Noted, Outcome, State, Step
from embridge_shared.enrolment import Refusal

GOOD = Finding(onset_s=1.0, end_s=2.0, level_db=20.0)
BAD = Finding(refusal=Refusal.TOO_WEAK, detail="3 dB")


def asked(n: int = 3, *, blocks: int = 1) -> list[Trial]:
    return [Trial(Kind.GESTURE, f"g{i}", 1, block, 1.0, 2.0, 1.5) for block in range(1, blocks + 1) for i in range(n)]


def ready(n: int = 3, **more: object) -> Conductor:
    made = Conductor(asked(n, blocks=more.pop("blocks", 1)), **more)
    made.prepared()
    made.passed()
    return made


def of(kind: type, steps: list[Step]) -> list:
    return [s for s in steps if isinstance(s, kind)]


def perform(at: Conductor, now: float, finding: Finding = GOOD) -> tuple[float, list[Step]]:
    """One repetition from its countdown to the judge's word; the time after it."""
    assert at.state is State.COUNTDOWN
    steps = at.tick(now + 1.0)
    assert at.state is State.HOLD
    steps += at.tick(now + 3.0)
    assert at.state is State.REST
    steps += at.judged(at.pending.number, finding, now + 4.0)
    return now + 4.5, steps


def test_a_session_from_setup_to_synced() -> None:
    at = Conductor(asked(2))
    assert at.state is State.SETUP
    assert of(Declined, at.passed())
    at.prepared()
    at.back()
    at.prepared()
    at.passed()
    assert at.state is State.READY
    assert of(Declined, at.accept(0.0))
    at.start(10.0)
    now, first = perform(at, 10.0)
    assert of(Held, first)[0].attempt.start_s == 11.0
    assert of(Held, first)[0].attempt.end_s == 13.0
    assert not of(Decided, first)
    at.tick(now)
    assert at.remaining_s(now + 0.25) == 0.75
    now, second = perform(at, now)
    # decided when the next one begins to be held
    assert of(Decided, second)[0].attempt.rejected == ""
    at.tick(now)
    assert at.state is State.REVIEW
    assert of(Decided, at.accept(now))
    assert at.state is State.DONE
    at.synced()
    assert at.state is State.SYNCED
    assert at.outcomes == {0: Outcome.ACCEPTED, 1: Outcome.ACCEPTED}


def test_time_may_come_in_large_steps() -> None:
    at = ready(1)
    at.start(0.0)
    steps = at.tick(60.0)
    assert [s.state for s in of(Entered, steps)] == [State.HOLD, State.REST]
    assert [s.at_s for s in of(Entered, steps)] == [1.0, 3.0]
    at.judged(1, GOOD, 60.0)
    assert at.state is State.REVIEW


def test_a_bad_repetition_comes_again_and_stays_as_rejected() -> None:
    at = ready()
    at.start(0.0)
    now, _ = perform(at, 0.0, BAD)
    assert at.offers_redo
    at.tick(now)
    assert at.trial is at.trials[0]
    now, again = perform(at, now)
    assert [d.attempt.rejected for d in of(Decided, again)] == ["too_weak: 3 dB"]
    at.tick(now)
    assert at.trial is at.trials[1]


def test_the_operator_may_take_what_was_found_bad() -> None:
    at = ready()
    at.start(0.0)
    now, _ = perform(at, 0.0, BAD)
    steps = at.accept(now - 0.3)
    assert of(Noted, steps)[0].text == "accepted by the operator although too_weak: 3 dB"
    assert at.state is State.COUNTDOWN
    assert at.trial is at.trials[1]
    _, later = perform(at, now - 0.3)
    assert [(d.attempt.rejected, d.attempt.overruled) for d in of(Decided, later)] == [("", "too_weak: 3 dB")]


def test_redo_takes_back_what_was_good_until_the_next_is_held() -> None:
    at = ready()
    at.start(0.0)
    now, _ = perform(at, 0.0)
    at.tick(now)
    assert at.state is State.COUNTDOWN
    steps = at.redo(now + 0.2)
    assert [d.attempt.rejected for d in of(Decided, steps)] == ["operator: redo"]
    assert at.trial is at.trials[0]
    now, _ = perform(at, now + 0.2)
    at.tick(now)
    at.tick(now + 1.1)
    assert of(Entered, at.redo(now + 1.5))[0].state is State.COUNTDOWN
    assert at.trial is at.trials[1]
    assert 0 in at.outcomes


def test_redo_while_it_is_held_breaks_it_off() -> None:
    at = ready()
    at.start(0.0)
    at.tick(1.0)
    (decided,) = of(Decided, at.redo(1.7))
    assert (decided.attempt.start_s, decided.attempt.end_s, decided.attempt.rejected) == (1.0, 1.7, "operator: redo")
    assert at.state is State.COUNTDOWN
    assert at.left == 3


def test_after_three_bad_ones_somebody_has_to_look() -> None:
    at = ready(retries=3)
    at.start(0.0)
    now = 0.0
    for _ in range(3):
        now, _ = perform(at, now, BAD)
        at.tick(now)
    assert at.state is State.PAUSED
    assert at.stuck
    assert "3 tries in a row" in at.why
    at.skip(now)
    at.start(now)
    assert at.trial is at.trials[1]
    assert not at.stuck


def test_a_lost_band_stops_the_clock_and_the_same_repetition_comes_again() -> None:
    at = ready()
    at.start(0.0)
    at.tick(1.0)
    steps = at.lost(1.8, "out of range")
    assert of(Decided, steps)[0].attempt.rejected.startswith("gap")
    assert at.state is State.LOST
    assert at.tick(100.0) == []
    steps = at.found(100.0)
    assert "goes on with g0 1" in of(Noted, steps)[0].text
    assert at.state is State.COUNTDOWN
    now, _ = perform(at, 100.0)
    assert at.outcomes == {0: Outcome.ACCEPTED}
    assert at.lost(now, "again") != []


def test_a_band_lost_in_a_pause_comes_back_to_the_pause() -> None:
    at = ready()
    at.lost(0.0, "off")
    at.found(5.0)
    assert at.state is State.PAUSED


def test_blocks_wait_for_somebody() -> None:
    at = ready(1, blocks=2)
    at.start(0.0)
    now, _ = perform(at, 0.0)
    at.tick(now)
    assert (at.state, at.why) == (State.PAUSED, "block 2 follows")
    at.start(now)
    assert at.state is State.COUNTDOWN
    now, _ = perform(at, now)
    at.tick(now)
    assert at.state is State.REVIEW


def test_what_was_left_out_can_be_asked_for_again_from_the_review() -> None:
    at = ready(3)
    at.start(0.0)
    now, _ = perform(at, 0.0)
    steps = at.end(now)
    assert "2 of 3 not done" in of(Noted, steps)[0].text
    assert at.state is State.REVIEW
    at.again(now)
    assert (at.state, at.left) == (State.PAUSED, 2)
    at.start(now)
    assert at.trial is at.trials[1]


class Any(RuleBasedStateMachine):
    """Any key at any moment."""

    @initialize(n=st.integers(1, 4), blocks=st.integers(1, 2), retries=st.integers(1, 3))
    def begin(self, n: int, blocks: int, retries: int) -> None:
        self.at = ready(n, blocks=blocks, retries=retries)
        self.retries = retries
        self.now = 0.0
        self.held: list[int] = []
        self.decided: dict[int, Decided] = {}

    def take(self, steps: list[Step]) -> None:
        for s in steps:
            if isinstance(s, Held):
                trial = self.at.trials[s.attempt.index]
                assert abs(s.attempt.end_s - s.attempt.start_s - trial.hold_s) < 1e-9
                self.held.append(s.attempt.number)
            elif isinstance(s, Decided):
                assert s.attempt.number not in self.decided, "decided twice"
                assert s.attempt.end_s >= s.attempt.start_s
                self.decided[s.attempt.number] = s

    @rule(seconds=st.floats(0.0, 3.0))
    def time(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.at.tick(self.now))

    @precondition(lambda self: self.at.pending is not None)
    @rule(finding=st.sampled_from([GOOD, BAD]))
    def judge(self, finding: Finding) -> None:
        self.take(self.at.judged(self.at.pending.number, finding, self.now))

    @rule(key=st.sampled_from(["start", "pause", "accept", "redo", "skip", "again", "mark"]))
    def press(self, key: str) -> None:
        before = self.at.state
        steps = getattr(self.at, key)(self.now)
        assert steps or key in ("accept", "redo", "skip")
        if any(isinstance(s, Declined) for s in steps):
            assert self.at.state is before
        self.take(steps)

    @rule()
    def lose(self) -> None:
        self.take(self.at.lost(self.now, "gone"))

    @rule(seconds=st.floats(0.0, 50.0))
    def find(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.at.found(self.now))

    @precondition(lambda self: self.at.state is not State.REVIEW)
    @rule()
    def end(self) -> None:
        self.take(self.at.end(self.now))

    @invariant()
    def trials_are_done_or_left(self) -> None:
        at = self.at
        left = {i for i in range(len(at.trials)) if i not in at.outcomes}
        assert at.left == len(left)
        if at.state in RUNNING - {State.REST}:
            assert at.trial is not None
        if at.state in (State.REVIEW, State.DONE):
            assert not left

    @invariant()
    def what_is_settled_is_decided(self) -> None:
        accepted = [d.attempt.index for d in self.decided.values() if not d.attempt.rejected]
        settled = [i for i, o in self.at.settled.items() if o is Outcome.ACCEPTED]
        assert sorted(accepted) == sorted(settled), "each repetition that counts was written once"
        again = Conductor(self.at.trials, outcomes=self.at.settled, attempts=self.at.attempts)
        assert again.left == len(self.at.trials) - len(self.at.settled)

    def teardown(self) -> None:
        if not hasattr(self, "at"):
            return
        self.take(self.at.end(self.now))
        if self.at.state is not State.DONE:
            self.take(self.at.end(self.now))
        assert self.at.state is State.DONE
        assert set(self.held) <= set(self.decided), "everything that was held is decided"
        self.what_is_settled_is_decided()


Any.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyKey = Any.TestCase
