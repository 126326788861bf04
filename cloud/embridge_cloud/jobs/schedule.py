"""When a realignment begins by itself: a decision out of what waits, what was, and what time it is."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
from apscheduler.triggers.cron import CronTrigger
from tzlocal import get_localzone

from embridge_shared.durations import spoken
from embridge_shared.errors import ConfigError, OperatorError
from embridge_shared.settings import RealignSettings

_SPAN: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_COUNTED: Final = 1000


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the champion is continued.

    Attributes:
        enabled: At all.
        line: Line of releases that is continued.
        sessions: Begin when so many new sealed sessions may be learnt from; 0 does not count them.
        participants: Or new participants.
        minutes: Or minutes of new EMG with hand pose.
        settle_s: Wait until no session was sealed for so long.
        timetable: Also at these times, cron; where anything is new.
        timezone: Of timetable and quiet hours; the machine's where empty.
        quiet: Hours in which nothing begins, as in "08:00-18:00".
        min_interval_s: Least time between the begins of two.
        misfire_s: A time that was missed by more is let go.
        rollout: Roll out what the gates accept.
    """

    enabled: bool = False
    line: str = "embridge"
    sessions: int = 8
    participants: int = 0
    minutes: float = 0.0
    settle_s: float = 600.0
    timetable: str = ""
    timezone: str = ""
    quiet: tuple[str, ...] = ()
    min_interval_s: float = 21_600.0
    misfire_s: float = 43_200.0
    rollout: bool = False

    def __post_init__(self) -> None:
        numbers = (self.sessions, self.participants, self.minutes, self.settle_s, self.min_interval_s, self.misfire_s)
        if min(numbers) < 0:
            raise ConfigError("a number of the schedule is below 0", hint="0 switches a condition off.")
        zone_of(self)
        for span in self.quiet:
            _span(span)
        if self.timetable:
            _cron(self)


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Data nobody has learnt from yet.

    Attributes:
        sessions: New sealed sessions that may be learnt from.
        participants: Of them, people nobody has learnt from.
        minutes: Of EMG with hand pose.
        latest_ns: Unix time the last of them was sealed, ns; 0 without any.
    """

    sessions: int = 0
    participants: int = 0
    minutes: float = 0.0
    latest_ns: int = 0


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler remembers; kept on disk.

    Attributes:
        looked_ns: Unix time up to which the timetable was looked at, ns; 0 before the first look.
        due_ns: Unix time of the timetable's last time that is still to be acted on, ns; 0 for none.
        begun_ns: Unix time a realignment began last by the schedule, ns.
        failed: Why it could not begin when it last tried; empty if it could.
    """

    looked_ns: int = 0
    due_ns: int = 0
    begun_ns: int = 0
    failed: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a realignment begins now.

    Attributes:
        begin: It does.
        why: Why, or what is waited for.
        memory: What to remember.
        next_ns: Unix time of the timetable's next time, ns; 0 without one.
    """

    begin: bool
    why: str
    memory: Memory
    next_ns: int = 0


def schedule_of(settings: RealignSettings) -> Schedule:
    """The schedule that the settings describe.

    Raises:
        ConfigError: It is none.
    """
    return Schedule(**{name: getattr(settings, name) for name in Schedule.__struct_fields__})


def merged(schedule: Schedule, given: dict[str, Any]) -> Schedule:
    """A schedule with some fields changed.

    Raises:
        OperatorError: A field is not known, or cannot have that value.
    """
    body: dict[str, Any] = msgspec.to_builtins(schedule)
    try:
        return msgspec.convert(body | given, Schedule)
    except (msgspec.ValidationError, ConfigError) as error:
        raise OperatorError(
            f"no valid schedule: {error}", hint="`embridge job schedule set --help` says what it takes."
        ) from None


def decide(schedule: Schedule, waiting: Waiting, memory: Memory, now_ns: int, *, last_ns: int, busy: bool) -> Decision:
    """Whether a realignment begins now.

    Args:
        schedule: When it should.
        waiting: What is new.
        memory: What was decided before.
        now_ns: Unix time, ns.
        last_ns: Unix time the last job of the line began, by whomever, ns; 0 before any.
        busy: One runs or waits already.
    """
    memory, next_ns = _looked(schedule, memory, now_ns)

    def answer(why: str, *, begin: bool = False) -> Decision:
        kept = msgspec.structs.replace(memory, begun_ns=now_ns, due_ns=0) if begin else memory
        return Decision(begin=begin, why=why, memory=kept, next_ns=next_ns)

    if not schedule.enabled:
        return answer("the schedule is off")
    if not waiting.sessions:
        memory = msgspec.structs.replace(memory, due_ns=0)
        return answer("nothing new was sealed")
    reason = _reason(schedule, waiting, memory, now_ns)
    if not reason:
        return answer(f"{_spoken(waiting)}: not enough yet")
    if busy:
        return answer(f"{reason}; a job runs or waits already")
    if (left_s := schedule.min_interval_s - (now_ns - last_ns) * 1e-9) > 0 and last_ns:
        return answer(f"{reason}; {spoken(left_s)} since the last one are still to pass")
    if _quiet(schedule, now_ns):
        return answer(f"{reason}; it is quiet until {_quiet(schedule, now_ns)}")
    return answer(reason, begin=True)


def _looked(schedule: Schedule, memory: Memory, now_ns: int) -> tuple[Memory, int]:
    """Find the timetable's times since the last look: the latest one that was not missed by too much counts."""
    replace = msgspec.structs.replace
    if not schedule.timetable or not schedule.enabled:
        return replace(memory, looked_ns=now_ns, due_ns=0), 0
    zone = zone_of(schedule)
    oldest_ns = now_ns - round(schedule.misfire_s * 1e9)
    due_ns = memory.due_ns if memory.due_ns >= oldest_ns else 0
    trigger, now = _cron(schedule), _at(now_ns, zone)
    # a clock that was set back must not stop the timetable until it is back where it was
    looked_ns = now_ns if not memory.looked_ns or memory.looked_ns > now_ns else max(memory.looked_ns, oldest_ns)
    fire = trigger.get_next_fire_time(None, _at(looked_ns, zone) + timedelta(microseconds=1))
    for _ in range(_COUNTED):
        if fire is None or fire > now:
            break
        due_ns = _ns(fire)
        fire = trigger.get_next_fire_time(fire, fire + timedelta(microseconds=1))
    following = trigger.get_next_fire_time(None, now + timedelta(microseconds=1))
    return replace(memory, looked_ns=now_ns, due_ns=due_ns), 0 if following is None else _ns(following)


def _reason(schedule: Schedule, waiting: Waiting, memory: Memory, now_ns: int) -> str:
    """Why a realignment should begin; empty where it should not."""
    if memory.due_ns:
        at = _at(memory.due_ns, zone_of(schedule))
        return f"{at:%Y-%m-%d %H:%M} of the timetable, {_spoken(waiting)}"
    enough = (
        (schedule.sessions and waiting.sessions >= schedule.sessions)
        or (schedule.participants and waiting.participants >= schedule.participants)
        or (schedule.minutes and waiting.minutes >= schedule.minutes)
    )
    settled = now_ns - waiting.latest_ns >= schedule.settle_s * 1e9
    return _spoken(waiting) if enough and settled else ""


def _spoken(waiting: Waiting) -> str:
    people = f", {waiting.participants} new people" if waiting.participants else ""
    return f"{waiting.sessions} new sessions{people}, {waiting.minutes:.0f} minutes"


def _quiet(schedule: Schedule, now_ns: int) -> str:
    """Until when it is quiet; empty when it is not."""
    now = _at(now_ns, zone_of(schedule)).time()
    for text in schedule.quiet:
        begin, end = _span(text)
        if begin <= now < end or (end <= begin and (now >= begin or now < end)):
            return f"{end:%H:%M}"
    return ""


def _span(text: str) -> tuple[time, time]:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} are no quiet hours", hint='Write them like "08:00-18:00".')
    a, b, c, d = map(int, found.groups())
    return time(a, b), time(c, d)


def zone_of(schedule: Schedule) -> tzinfo:
    """The time zone of a schedule.

    Raises:
        ConfigError: There is none of that name.
    """
    if not schedule.timezone:
        return get_localzone()
    try:
        return ZoneInfo(schedule.timezone)
    except (KeyError, ValueError, OSError):
        raise ConfigError(f"no time zone {schedule.timezone!r}", hint='Name one like "Europe/Zurich".') from None


def _cron(schedule: Schedule) -> CronTrigger:
    try:
        return CronTrigger.from_crontab(schedule.timetable, timezone=zone_of(schedule))
    except ValueError as error:
        raise ConfigError(
            f"{schedule.timetable!r} is no timetable: {error}",
            hint='Write minute, hour, day, month and weekday, as in "0 2 * * mon-fri".',
        ) from None


def _at(when_ns: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(when_ns // 1_000_000_000, zone)


def _ns(when: datetime) -> int:
    return round(when.timestamp()) * 1_000_000_000
