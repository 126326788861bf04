"""When a realignment begins by itself: every condition alone, times that were missed, quiet hours, and odd clocks."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_cloud.jobs.schedule import Memory, Schedule, Waiting, decide, merged, schedule_of
from embridge_shared.errors import ConfigError, OperatorError
from embridge_shared.settings import RealignSettings

change = msgspec.structs.replace
PLAN = Schedule(enabled=True, sessions=4, settle_s=600, min_interval_s=3600, timezone="UTC")
NONE = Waiting()


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


NOON = at("2026-11-23T12:00:00")
MINUTE = 60 * 10**9
HOUR = 60 * MINUTE


def new(sessions: int = 4, participants: int = 1, minutes: float = 8.0, ago_ns: int = HOUR) -> Waiting:
    return Waiting(sessions=sessions, participants=participants, minutes=minutes, latest_ns=NOON - ago_ns)


def asked(plan: Schedule, waiting: Waiting, memory: Memory = Memory(), now: int = NOON, last: int = 0, busy=False):  # noqa: B008
    return decide(plan, waiting, memory, now, last_ns=last, busy=busy)


def test_enough_new_sessions_begin_one() -> None:
    found = asked(PLAN, new())
    assert found.begin
    assert found.memory.begun_ns == NOON
    assert "4 new sessions" in found.why
    few = asked(PLAN, new(3))
    assert not few.begin
    assert "not enough yet" in few.why


@pytest.mark.parametrize(
    ("plan", "waiting"),
    [
        (change(PLAN, sessions=0, participants=2), new(1, participants=2)),
        (change(PLAN, sessions=0, minutes=30.0), new(1, minutes=30.0)),
    ],
)
def test_people_and_minutes_count_by_themselves(plan, waiting) -> None:
    assert asked(plan, waiting).begin
    assert not asked(change(plan, participants=0, minutes=0.0), waiting).begin


def test_what_switches_it_off() -> None:
    assert asked(change(PLAN, enabled=False), new()).why == "the schedule is off"
    assert asked(PLAN, NONE).why == "nothing new was sealed"
    assert "runs or waits already" in asked(PLAN, new(), busy=True).why


def test_what_is_recorded_together_is_learnt_together() -> None:
    assert not asked(PLAN, new(ago_ns=9 * MINUTE)).begin
    assert asked(PLAN, new(ago_ns=10 * MINUTE)).begin


def test_two_keep_their_distance_whoever_began_the_first() -> None:
    found = asked(PLAN, new(), last=NOON - 59 * MINUTE)
    assert not found.begin
    assert "1 min since the last one are still to pass" in found.why
    assert asked(PLAN, new(), last=NOON - 60 * MINUTE).begin


@pytest.mark.parametrize(
    ("span", "quiet"), [("11:00-13:00", True), ("12:00-12:01", True), ("11:00-12:00", False), ("22:00-12:30", True)]
)
def test_nothing_begins_in_quiet_hours(span: str, quiet: bool) -> None:
    found = asked(change(PLAN, quiet=(span,)), new())
    assert found.begin is not quiet
    if quiet:
        assert f"quiet until {span[6:]}" in found.why


def test_quiet_hours_are_those_of_its_time_zone() -> None:
    plan = change(PLAN, quiet=("12:30-13:30",), timezone="Europe/Zurich")
    assert not asked(plan, new()).begin  # 13:00 there


# the timetable

NIGHTLY = change(PLAN, sessions=0, timetable="0 2 * * *", misfire_s=6 * 3600.0)


def test_a_time_of_the_timetable_begins_one_where_anything_is_new() -> None:
    first = asked(NIGHTLY, new(1), now=at("2026-11-23T01:59:30"))
    assert not first.begin
    assert first.next_ns == at("2026-11-23T02:00:00")
    assert asked(NIGHTLY, NONE, first.memory, now=at("2026-11-23T02:00:10")).memory.due_ns == 0
    second = asked(NIGHTLY, new(1), first.memory, now=at("2026-11-23T02:00:00"))
    assert second.begin
    assert "02:00 of the timetable" in second.why
    third = asked(NIGHTLY, new(1), second.memory, now=at("2026-11-23T02:00:30"))
    assert not third.begin


def test_a_process_that_slept_through_it_makes_up_for_it_once() -> None:
    before = asked(NIGHTLY, new(1), now=at("2026-11-20T20:00:00")).memory
    found = asked(NIGHTLY, new(1), before, now=at("2026-11-23T03:00:00"))
    assert found.begin  # three nights were missed
    assert not asked(NIGHTLY, new(1), found.memory, now=at("2026-11-23T03:00:30")).begin


def test_what_was_missed_by_too_much_is_let_go() -> None:
    before = asked(NIGHTLY, new(1), now=at("2026-11-22T20:00:00")).memory
    assert not asked(NIGHTLY, new(1), before, now=at("2026-11-23T09:00:00")).begin


def test_a_time_within_quiet_hours_is_kept_for_their_end() -> None:
    plan = change(NIGHTLY, quiet=("01:00-05:00",))
    memory = asked(plan, new(1), now=at("2026-11-23T01:30:00")).memory
    held = asked(plan, new(1), memory, now=at("2026-11-23T02:00:00"))
    assert not held.begin
    assert held.memory.due_ns == at("2026-11-23T02:00:00")
    assert asked(plan, new(1), held.memory, now=at("2026-11-23T05:00:00")).begin


def test_a_clock_that_is_set_back_does_not_stop_it() -> None:
    ahead = Memory(looked_ns=at("2027-06-01T00:00:00"))
    memory = asked(NIGHTLY, new(1), ahead, now=at("2026-11-23T01:59:00")).memory
    assert memory.looked_ns == at("2026-11-23T01:59:00")
    assert asked(NIGHTLY, new(1), memory, now=at("2026-11-23T02:00:00")).begin


def test_switching_it_on_does_not_make_up_for_the_time_it_was_off() -> None:
    off = asked(change(NIGHTLY, enabled=False), new(1), now=at("2026-11-23T02:30:00")).memory
    assert not asked(NIGHTLY, new(1), off, now=at("2026-11-23T02:31:00")).begin


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 6), st.booleans()), max_size=40),
    st.integers(0, 3),
    st.sampled_from(["", "*/20 * * * *", "0 2 * * *"]),
)
def test_it_never_begins_while_busy_twice_too_soon_or_for_nothing(looks, sessions, timetable) -> None:
    plan = change(PLAN, sessions=sessions, timetable=timetable, settle_s=0)
    memory, now, last = Memory(), NOON, 0
    for minutes, waiting, busy in looks:
        now += minutes * MINUTE
        found = asked(plan, new(waiting), memory, now=now, last=last, busy=busy)
        memory = found.memory
        if found.begin:
            assert not busy
            assert waiting
            assert not last or now - last >= HOUR
            last = now


# what it may say


@pytest.mark.parametrize(
    "given_",
    [
        {"timetable": "every night"}, {"quiet": ["8-18"]}, {"timezone": "Mars/Olympus"}, {"sessions": -1},
        {"sessions": "many"}, {"nights": 3}, {"quiet": ["24:00-25:00"]},
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(given_) -> None:
    with pytest.raises(OperatorError):
        merged(PLAN, given_)


def test_the_settings_are_a_schedule() -> None:
    assert schedule_of(RealignSettings()) == Schedule()
    assert schedule_of(RealignSettings(settle_s="2h", quiet=("08:00-18:00",))).settle_s == 7200.0
    with pytest.raises(ConfigError, match="no timetable"):
        schedule_of(RealignSettings(timetable="* *"))
