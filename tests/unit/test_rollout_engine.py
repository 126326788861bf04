"""The engine of rollouts: waves, conditions, errors, silence, health, roll back, and what operators do."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from embridge_cloud.rollouts.engine import LISTEN_S, OPEN, outstanding, step
from embridge_cloud.rollouts.tally import errors, tally
from embridge_cloud.rollouts.verbs import VERBS, act
from embridge_cloud.rollouts.views import Ask, EdgeView, Note, Recall, Return
from embridge_cloud.rollouts.waves import assign, late_wave, position
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.fleet import Rollout, RolloutPolicy, RolloutState, UpdatePhase, Wave
from support.fleets import NEW, OLD, T0, S, gone, health, policy, replace, rollout_of, says

COMMITTED, PROBATION = UpdatePhase.COMMITTED, UpdatePhase.PROBATION


def go(rollout: Rollout, at_s: float, *views: EdgeView, listening_s: float = -1000.0):
    """A step at `at_s` after the begin."""
    now, listening = T0 + round(at_s * S), T0 + round(listening_s * S)
    reports = {v.edge: dataclasses.replace(v, heard_ns=now) for v in views}
    return step(rollout, now, reports, listening_ns=listening)


def asked(actions) -> set[str]:
    return {a.edge for a in actions if isinstance(a, Ask)}


def returned(actions) -> set[str]:
    return {a.edge for a in actions if isinstance(a, Return)}


def taken_back(rollout: Rollout) -> bool:
    """Recalled; over at once where nobody had taken it."""
    return rollout.state in (RolloutState.ROLLING_BACK, RolloutState.ABORTED)


def notes(actions) -> list[str]:
    return [a.action for a in actions if isinstance(a, Note)]


def members(rollout: Rollout, wave: int) -> list[str]:
    return sorted(p.edge for p in rollout.edges if p.wave == wave)


def of(rollout: Rollout, edge: str):
    return next(p for p in rollout.edges if p.edge == edge)


def begun(count: int = 8, **changes) -> tuple[Rollout, list[str]]:
    """A rollout whose first wave was asked, and that wave's edges."""
    rollout, actions = go(rollout_of(count, policy(**changes)), 0)
    assert asked(actions) == set(members(rollout, 0))
    return rollout, members(rollout, 0)


# waves


def test_waves_grow_by_their_shares_and_a_larger_one_holds_the_smaller():
    names = [f"edge-{n}" for n in range(1000)]
    waves = (Wave(name="a", share=0.05), Wave(name="b", share=0.25), Wave(name="c", share=1.0))
    found = assign(names, waves)
    assert [sum(1 for w in found.values() if w <= n) for n in range(3)] == [50, 250, 1000]
    other = assign(names, (Wave(name="a", share=0.2), Wave(name="c", share=1.0)))
    assert {e for e, w in found.items() if w == 0} <= {e for e, w in other.items() if w == 0}
    assert found == assign(reversed(names), waves)
    assert max(position(e) for e in names) < 1.0


def test_a_wave_of_a_small_fleet_is_an_edge_at_least():
    assert assign(["a"], policy(0.05, 0.25, 1.0).waves) == {"a": 0}
    assert sorted(assign(["a", "b"], policy(0.05, 0.5, 1.0).waves).values()) == [0, 2]


def test_an_edge_that_appears_never_joins_a_wave_that_has_begun_but_the_last():
    waves = policy(0.5, 0.9, 1.0).waves
    for name in (f"new-{n}" for n in range(50)):
        assert late_wave(name, waves, 0) >= 1
        assert late_wave(name, waves, 2) == 2


# the way through


def test_a_rollout_goes_wave_by_wave_to_its_end():
    rollout, canary = begun(8)
    assert len(canary) == 2
    rollout, actions = go(rollout, 1, *[says(e, PROBATION) for e in canary])
    assert (rollout.state, actions) == (RolloutState.RUNNING, ())
    rollout, actions = go(rollout, 2, *[says(e, COMMITTED) for e in canary])
    assert (rollout.state, notes(actions)) == (RolloutState.SOAKING, ["rollout.soak"])
    rollout, actions = go(rollout, 11)
    assert rollout.state is RolloutState.SOAKING
    rollout, actions = go(rollout, 12)
    assert (rollout.wave, rollout.state) == (1, RolloutState.RUNNING)
    assert asked(actions) == set(members(rollout, 1))
    rollout, actions = go(rollout, 20, *[says(e, COMMITTED) for e in members(rollout, 1)])
    rollout, actions = go(rollout, 30)
    assert (rollout.state, rollout.ended_ns, notes(actions)) == (RolloutState.DONE, T0 + 30 * S, ["rollout.finish"])
    assert [(w.edges, w.committed) for w in tally(rollout)] == [(2, 2), (6, 6)]


def test_one_edge_needs_one_wave():
    rollout, _ = go(rollout_of(1, policy(0.05, 0.25, 1.0)), 0)
    rollout, _ = go(rollout, 1, says("e0", COMMITTED))
    rollout, _ = go(rollout, 11)
    assert rollout.state is RolloutState.DONE


def test_without_a_soak_everything_follows_in_one_step():
    rollout, actions = go(rollout_of(4, policy(1.0, soak_s=0.0)), 0)
    assert len(asked(actions)) == 4
    rollout, _ = go(rollout, 1, *[says(f"e{n}", COMMITTED) for n in range(4)])
    assert rollout.state is RolloutState.DONE


def test_an_edge_that_runs_it_already_counts_at_once():
    rollout = rollout_of(1, policy(1.0, soak_s=0.0))
    rollout = replace(rollout, edges=(replace(rollout.edges[0], from_release=NEW),))
    rollout, actions = go(rollout, 0)
    assert asked(actions) == {"e0"}
    assert rollout.state is RolloutState.DONE


def test_a_wave_that_needs_it_waits_for_approval():
    how = policy(0.25, 1.0, soak_s=0.0)
    how = replace(how, waves=(how.waves[0], replace(how.waves[1], approve=True)))
    rollout, _ = go(rollout_of(8, how), 0)
    rollout, actions = go(rollout, 1, *[says(e, COMMITTED) for e in members(rollout, 0)])
    assert (rollout.state, rollout.wave, notes(actions)[-1]) == (RolloutState.WAITING, 1, "rollout.wait")
    rollout, actions = go(rollout, 1000)
    assert not actions
    rollout, actions = act(rollout, "approve", T0 + 1001 * S)
    assert rollout.state is RolloutState.RUNNING
    _, actions = go(rollout, 1001)
    assert asked(actions) == set(members(rollout, 1))


def test_a_soak_goes_on_only_while_edges_can_be_heard():
    rollout, canary = begun(8, soak_s=100.0)
    rollout, _ = go(rollout, 1, *[says(e, COMMITTED) for e in canary])
    rollout, _ = go(rollout, 150, listening_s=149)
    assert rollout.state is RolloutState.SOAKING, "the broker was away: who knows what went wrong meanwhile"
    rollout, _ = go(rollout, 150 + LISTEN_S, listening_s=149)
    assert rollout.wave == 1


def test_an_error_during_the_soak_stops_it():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, *[says(e, COMMITTED) for e in canary])
    rollout, _ = go(rollout, 5, says(canary[0], UpdatePhase.ROLLED_BACK, why="crashed twice"))
    assert rollout.state is RolloutState.ROLLING_BACK
    assert "crashed twice" in rollout.reason


# errors


@pytest.mark.parametrize("phase", [UpdatePhase.REFUSED, UpdatePhase.ROLLED_BACK])
def test_one_edge_that_refuses_it_takes_the_canary_back(phase):
    rollout, canary = begun(8)
    rollout, actions = go(rollout, 1, says(canary[0], phase, why="self-test failed"))
    assert taken_back(rollout)
    assert [type(a) for a in actions if not isinstance(a, Note)] == [Recall, Return, Return]
    assert returned(actions) == set(canary)
    assert notes(actions)[:2] == ["rollout.error", "rollout.roll_back"]


def test_errors_below_the_limit_do_not_stop_it():
    rollout, canary = begun(100, max_errors=0.1, success=0.9)
    rollout, _ = go(rollout, 1, says(canary[0], UpdatePhase.REFUSED, why="x"), says(canary[1], UpdatePhase.REFUSED))
    assert (rollout.state, tally(rollout)[0].errors) == (RolloutState.RUNNING, 2)
    rollout, _ = go(rollout, 2, *[says(e, COMMITTED) for e in canary[2:]])
    assert rollout.state is RolloutState.SOAKING


@pytest.mark.parametrize(("floor", "stopped"), [(0, True), (1, False)])
def test_the_floor_lets_errors_pass(floor, stopped):
    rollout, canary = begun(8, error_floor=floor)
    rollout, _ = go(rollout, 1, says(canary[0], UpdatePhase.REFUSED, why="x"))
    assert taken_back(rollout) is stopped


def test_a_failure_counts_after_its_retries_and_not_if_it_mends():
    rollout, canary = begun(8, retries=3)
    for attempt in (1, 2):
        rollout, _ = go(rollout, attempt, says(canary[0], UpdatePhase.FAILED, attempts=attempt, why="no network"))
    assert (rollout.state, of(rollout, canary[0]).retries) == (RolloutState.RUNNING, 2)
    mended, _ = go(rollout, 3, *[says(e, COMMITTED) for e in canary])
    assert mended.state is RolloutState.SOAKING
    rollout, _ = go(rollout, 3, says(canary[0], UpdatePhase.FAILED, attempts=3, why="no network"))
    assert taken_back(rollout)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"latency_p99_ms": 251.0}, "latency"),
        ({"rate": 0.7}, "70%"),
        ({"confidence": 0.5, "shadow_confidence": 0.8}, "confidence fell"),
        ({"broken": 1, "windows": 1}, "finite"),
    ],
)
def test_bad_health_counts_as_an_error(changes, word):
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, says(canary[0], PROBATION, health=health(**changes)))
    assert rollout.state is RolloutState.ROLLING_BACK
    assert word in rollout.reason


@pytest.mark.parametrize(
    "changes",
    [{"latency_p99_ms": 900.0, "windows": 10}, {"latency_p99_ms": 900.0, "release": OLD}, {}, {"confidence": None}],
)
def test_health_that_says_little_or_nothing_bad_is_none(changes):
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, says(canary[0], PROBATION, health=health(**changes)))
    assert rollout.state is RolloutState.RUNNING


def test_on_error_pause_waits_for_somebody_who_may_go_on_in_spite_of_it():
    rollout, canary = begun(8, on_error="pause")
    rollout, actions = go(rollout, 1, says(canary[0], UpdatePhase.REFUSED, why="x"))
    assert (rollout.state, notes(actions)) == (RolloutState.PAUSED, ["rollout.error", "rollout.pause"])
    rollout, actions = go(rollout, 500, *[says(e, COMMITTED) for e in canary[1:]])
    assert (rollout.state, actions) == (RolloutState.PAUSED, ())
    rollout, _ = act(rollout, "resume", T0 + 501 * S)
    rollout, _ = go(rollout, 501)
    assert rollout.state is RolloutState.SOAKING
    rollout, actions = go(rollout, 511)
    assert asked(actions) == set(members(rollout, 1))
    rollout, _ = go(rollout, 512, says(members(rollout, 1)[0], UpdatePhase.REFUSED, why="y"))
    assert rollout.state is RolloutState.PAUSED, "a new error counts"


# who is silent, and who is away


def test_silence_of_an_edge_that_is_connected_counts_after_a_while():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 99)
    assert rollout.state is RolloutState.RUNNING
    rollout, _ = go(rollout, 101)
    assert (taken_back(rollout), of(rollout, canary[0]).error) == (True, "has not answered after 100 s")


def test_the_same_word_again_and_again_is_silence():
    rollout, canary = begun(8)
    for at in range(0, 140, 20):
        rollout, _ = go(rollout, at, *[says(e, UpdatePhase.DOWNLOADING) for e in canary])
    assert rollout.state is RolloutState.ROLLING_BACK
    assert "still downloading" in rollout.reason


def test_what_could_not_be_heard_is_no_silence():
    rollout, _ = begun(8)
    rollout, _ = go(rollout, 5000, listening_s=4950)
    assert rollout.state is RolloutState.RUNNING


def test_a_recording_is_waited_for_without_end():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, *[says(e, UpdatePhase.WAITING) for e in canary])
    rollout, _ = go(rollout, 100_000)
    assert (rollout.state, tally(rollout)[0].waits) == (RolloutState.RUNNING, 2)


def test_shadow_and_probation_have_their_own_time():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, *[says(e, PROBATION) for e in canary])
    rollout, _ = go(rollout, 155)
    assert rollout.state is RolloutState.RUNNING
    rollout, _ = go(rollout, 162)
    assert rollout.state is RolloutState.ROLLING_BACK


def test_edges_that_are_away_are_no_errors_and_hold_nobody_up_for_ever():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, gone(canary[0]), says(canary[1], COMMITTED))
    assert (rollout.state, tally(rollout)[0].offline) == (RolloutState.RUNNING, 1)
    rollout, _ = go(rollout, 101)
    assert rollout.state is RolloutState.SOAKING
    rollout, _ = go(rollout, 111)
    assert rollout.wave == 1
    rollout, _ = go(rollout, 112, says(canary[0], COMMITTED))
    assert tally(rollout)[0].committed == 2, "the retained message reached it later"


def test_a_canary_with_nobody_there_proves_nothing():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, *[gone(e) for e in canary])
    rollout, _ = go(rollout, 10_000)
    assert (rollout.state, rollout.wave) == (RolloutState.RUNNING, 0)


def test_a_last_wave_with_nobody_there_ends_and_reaches_them_later():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, *[says(e, COMMITTED) for e in canary])
    rollout, _ = go(rollout, 11, *[gone(e) for e in members(rollout, 1)])
    rollout, _ = go(rollout, 112)
    rollout, _ = go(rollout, 122)
    assert rollout.state is RolloutState.DONE
    late = members(rollout, 1)[0]
    rollout, actions = go(rollout, 500, says(late, COMMITTED))
    assert (of(rollout, late).phase, actions) == (COMMITTED, ())


def test_a_last_will_says_no_more_than_that_it_is_gone():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, *[says(e, COMMITTED) for e in canary])
    old = EdgeView(edge=canary[0], online=False, release=OLD, digest="sha-m-1")
    rollout, _ = go(rollout, 2, old)
    assert (of(rollout, canary[0]).phase, of(rollout, canary[0]).error) == (COMMITTED, "")


# who takes part


def test_an_edge_that_appears_joins_a_later_wave():
    rollout, _ = begun(8)
    new = EdgeView(edge="late", online=True, release=OLD)
    rollout, actions = go(rollout, 1, new)
    assert (of(rollout, "late").wave, actions) == (1, ())
    closed, _ = go(replace(begun(8)[0], closed=True), 1, new)
    assert len(closed.edges) == 8


def test_an_edge_that_appears_when_all_is_done_is_asked_too():
    rollout, _ = go(rollout_of(1, policy(1.0, soak_s=0.0)), 0)
    rollout, _ = go(rollout, 1, says("e0", COMMITTED))
    rollout, actions = go(rollout, 2, EdgeView(edge="late", online=True))
    assert (rollout.state, asked(actions)) == (RolloutState.DONE, {"late"})


def test_a_pinned_edge_is_not_asked_counts_nowhere_and_comes_back_when_unpinned():
    rollout, canary = begun(8)
    rest = members(rollout, 1)
    pinned = EdgeView(edge=rest[0], online=True, release=OLD, barred="pinned to m-1")
    also = EdgeView(edge=canary[0], online=True, release=OLD, barred="pinned to m-1")
    rollout, _ = go(rollout, 1, pinned, also, says(canary[1], COMMITTED))
    assert rollout.state is RolloutState.SOAKING
    rollout, actions = go(rollout, 11)
    assert asked(actions) == set(rest[1:])
    rollout, actions = go(rollout, 12, EdgeView(edge=rest[0], online=True, release=OLD))
    assert asked(actions) == {rest[0]}


# roll back


def test_a_roll_back_ends_when_all_that_are_connected_returned():
    rollout, canary = begun(16)
    rollout, _ = go(rollout, 1, *[says(e, PROBATION) for e in canary])
    rollout, actions = go(rollout, 2, says(canary[0], UpdatePhase.ROLLED_BACK, why="crash"), gone(canary[1]))
    assert returned(actions) == set(canary)
    assert sum(map(outstanding, rollout.edges)) == 3
    back = [EdgeView(edge=e, online=True, release=OLD, digest="sha-m-1") for e in canary]
    rollout, _ = go(rollout, 3, back[2])
    assert rollout.state is RolloutState.ROLLING_BACK
    rollout, actions = go(rollout, 4, back[3])
    assert (rollout.state, rollout.ended_ns) == (RolloutState.ABORTED, T0 + 4 * S)
    assert actions[-1].detail["edges"] == canary[1], "the one that is away is remembered"
    rollout, _ = go(rollout, 1000, back[1])
    assert not any(map(outstanding, rollout.edges))


def test_a_download_that_was_withdrawn_is_no_update_any_more():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, says(canary[0], UpdatePhase.DOWNLOADING))
    rollout, _ = act(rollout, "abort", T0 + 2 * S, reason="no")
    rollout, _ = go(rollout, 3)
    assert rollout.state is RolloutState.ROLLING_BACK
    rollout, _ = go(rollout, 4, EdgeView(edge=canary[0], online=True, release=OLD, digest="sha-m-1"))
    assert (rollout.state, of(rollout, canary[0]).phase) == (RolloutState.ABORTED, UpdatePhase.IDLE)


def test_a_roll_back_does_not_wait_for_ever():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, *[says(e, COMMITTED) for e in canary])
    rollout, _ = act(rollout, "abort", T0 + 2 * S, reason="no")
    rollout, actions = go(rollout, 103)
    assert (rollout.state, actions[-1].detail["not_yet_back"]) == (RolloutState.ABORTED, 2)


# operators


def test_a_pause_asks_nobody_and_a_resume_soaks_anew():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, *[says(e, COMMITTED) for e in canary])
    rollout, actions = act(rollout, "pause", T0 + 5 * S, reason="a visit")
    assert (rollout.reason, actions) == ("a visit", ())
    rollout, actions = go(rollout, 1000)
    assert not actions
    rollout, _ = act(rollout, "resume", T0 + 1000 * S)
    rollout, actions = go(rollout, 1001)
    assert (rollout.state, asked(actions)) == (RolloutState.SOAKING, set())
    rollout, actions = go(rollout, 1012)
    assert rollout.wave == 1


def test_a_pause_is_no_approval():
    how = policy(1.0)
    how = replace(how, waves=(replace(how.waves[0], approve=True),))
    rollout = replace(rollout_of(2, how), state=RolloutState.WAITING)
    rollout, _ = act(rollout, "pause", T0, reason="x")
    rollout, _ = act(rollout, "resume", T0)
    assert rollout.state is RolloutState.WAITING


def test_too_many_errors_take_a_paused_rollout_back():
    rollout, canary = begun(8)
    rollout, _ = act(rollout, "pause", T0 + S, reason="x")
    rollout, _ = go(rollout, 2, says(canary[0], UpdatePhase.ROLLED_BACK, why="crash"))
    assert taken_back(rollout)


def test_advance_skips_the_rest_of_a_wave_and_its_approval():
    how = policy(0.25, 1.0)
    how = replace(how, waves=(how.waves[0], replace(how.waves[1], approve=True)))
    rollout, _ = go(rollout_of(8, how), 0)
    rollout, _ = act(rollout, "advance", T0 + S)
    rollout, actions = go(rollout, 1)
    assert asked(actions) == set(members(rollout, 1))
    rollout, actions = act(rollout, "advance", T0 + 2 * S)
    assert rollout.state is RolloutState.DONE


def test_an_abort_takes_all_back_or_leaves_what_runs():
    rollout, canary = begun(8)
    rollout, _ = go(rollout, 1, says(canary[0], COMMITTED), says(canary[1], UpdatePhase.DOWNLOADING))
    back, actions = act(rollout, "abort", T0 + 2 * S, reason="worse")
    assert (back.state, returned(actions)) == (RolloutState.ROLLING_BACK, set(canary))
    kept, actions = act(rollout, "abort", T0 + 2 * S, reason="worse", keep=True)
    assert (kept.state, returned(actions)) == (RolloutState.ABORTED, {canary[1]})
    assert not any(isinstance(a, Recall) for a in actions)


@pytest.mark.parametrize("verb", sorted(VERBS))
@pytest.mark.parametrize("state", list(RolloutState))
def test_a_verb_is_refused_where_it_makes_no_sense(verb, state):
    rollout = replace(begun(8)[0], state=state)
    if state in VERBS[verb][0]:
        act(rollout, verb, T0, reason="because")
        return
    with pytest.raises(OperatorError) as caught:
        act(rollout, verb, T0, reason="because")
    assert caught.value.reason is Reason.LOCKED
    assert caught.value.hint


def test_a_pause_and_an_abort_need_a_reason():
    rollout, _ = begun(8)
    for verb in ("pause", "abort"):
        with pytest.raises(OperatorError, match="no reason"):
            act(rollout, verb, T0, reason="  ")
    with pytest.raises(OperatorError, match="nothing to do"):
        act(rollout, "explode", T0, reason="x")


# everything that can happen

NAMES = [f"e{n}" for n in range(12)]
PHASES = list(UpdatePhase)


class Machine(RuleBasedStateMachine):
    """Edges say anything in any order, time passes, operators act; what must hold holds after every step."""

    @initialize(
        shares=st.sampled_from([(1.0,), (0.1, 1.0), (0.1, 0.5, 1.0)]),
        on_error=st.sampled_from(["roll_back", "pause"]),
        floor=st.integers(0, 3),
        most=st.sampled_from([0.0, 0.2, 1.0]),
        approve=st.booleans(),
    )
    def begin(self, shares, on_error, floor, most, approve) -> None:
        how = policy(*shares, on_error=on_error, error_floor=floor, max_errors=most)
        how = replace(how, waves=tuple(replace(w, approve=approve and n > 0) for n, w in enumerate(how.waves)))
        self.now = T0
        self.asked: set[str] = set()
        self.recalled = False
        self.rollout = rollout_of(8, how)
        self.advance({})

    def take(self, rollout: Rollout, actions) -> None:
        fresh = asked(actions)
        before = self.rollout
        assert not fresh & {p.edge for p in before.edges if p.asked_ns and not p.left}, "asked once"
        if fresh:
            assert rollout.state not in (RolloutState.PAUSED, RolloutState.WAITING) or before.wave != rollout.wave
        self.recalled |= any(isinstance(a, Recall) for a in actions)
        self.asked |= fresh
        self.rollout = rollout

    def advance(self, views: dict[str, EdgeView]) -> None:
        rollout, actions = step(self.rollout, self.now, views, listening_ns=T0 - S)
        self.take(rollout, actions)
        again, more = step(self.rollout, self.now, {}, listening_ns=T0 - S)
        assert again is self.rollout or again == self.rollout
        assert not more, "a step goes as far as it can"
        kept = msgspec.json.decode(msgspec.json.encode(self.rollout), type=Rollout)
        assert kept == self.rollout

    @rule(
        edge=st.sampled_from(NAMES),
        phase=st.sampled_from(PHASES),
        attempts=st.integers(0, 4),
        sick=st.booleans(),
        barred=st.sampled_from(["", "", "", "pinned to m-1"]),
    )
    def speak(self, edge, phase, attempts, sick, barred) -> None:
        view = says(edge, phase, at=self.now, attempts=attempts, health=health(rate=0.1) if sick else None, why="w")
        self.advance({edge: dataclasses.replace(view, barred=barred)})

    @rule(edge=st.sampled_from(NAMES))
    def leave(self, edge) -> None:
        self.advance({edge: gone(edge, self.now)})

    @rule()
    def commit_all(self) -> None:
        self.advance({e: says(e, COMMITTED, at=self.now) for e in self.asked})

    @rule(seconds=st.sampled_from([1, 11, 60, 200]))
    def wait(self, seconds) -> None:
        self.now += seconds * S
        self.advance({})

    @rule(verb=st.sampled_from(sorted(VERBS)), keep=st.booleans())
    def operate(self, verb, keep) -> None:
        if self.rollout.state in VERBS[verb][0]:
            self.take(*act(self.rollout, verb, self.now, reason="because", keep=keep))
            self.advance({})

    @invariant()
    def nobody_is_asked_before_their_wave(self) -> None:
        for p in self.rollout.edges:
            assert not p.asked_ns or p.wave <= self.rollout.wave

    @invariant()
    def too_many_errors_never_go_on(self) -> None:
        r = self.rollout
        if r.state in (RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.WAITING):
            assert not errors(r.edges).stop(r.policy)
        if r.policy.on_error == "roll_back" and r.state is RolloutState.PAUSED:
            assert not errors(r.edges).stop(r.policy)

    @invariant()
    def an_end_is_an_end(self) -> None:
        r = self.rollout
        assert bool(r.ended_ns) == (r.state not in OPEN)
        if r.state is RolloutState.DONE:
            assert all(p.asked_ns or p.left for p in r.edges)
        if r.state is RolloutState.ROLLING_BACK:
            assert self.recalled
        if r.state is RolloutState.ROLLING_BACK and self.now - r.since_ns <= r.policy.patience_s * S:
            assert any(outstanding(p) and p.online_ns for p in r.edges)

    @invariant()
    def every_edge_is_there_once(self) -> None:
        names = [p.edge for p in self.rollout.edges]
        assert len(names) == len(set(names))


TestAnything = Machine.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_the_default_policy_can_be_read_back():
    how = RolloutPolicy()
    assert msgspec.json.decode(msgspec.json.encode(how), type=RolloutPolicy) == how
