"""What guided capture tells: enough for a command, a screen or a log to show it, and nothing of how."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from embridge_shared.enrolment import Refusal


class Phase(StrEnum):
    """What the wearer is asked for."""

    RELAX = "relax"
    PERFORM = "perform"
    HOLD = "hold"
    RELEASE = "release"
    DONE = "done"


class _Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Attributes:
    at: Index in the stream of the newest sample it rests on.
    """

    at: int


class Prompted(_Told, frozen=True, kw_only=True, tag="phase"):
    """Something else is asked for.

    Attributes:
        phase: What.
        gesture: Label.
        number: Which repetition of it this is, from 1.
        of: Repetitions that are wanted.
        lasts_s: How long at most; 0 where it has no end of its own, s.
    """

    phase: Phase
    gesture: str
    number: int
    of: int
    lasts_s: float


class Level(_Told, frozen=True, kw_only=True, tag="level"):
    """How much the muscles do.

    Attributes:
        level: Mean scaled level; about 1 in a strong contraction.
        phase: What is asked for.
        remaining_s: Of it, s.
    """

    level: float
    phase: Phase
    remaining_s: float


class Judged(_Told, frozen=True, kw_only=True, tag="repetition"):
    """A repetition was taken or refused.

    Attributes:
        gesture: What was asked for.
        number: Which repetition of it.
        refusal: Why not; None where it was taken.
        detail: In words, with the value that decided.
        advice: What to do; empty where it was taken.
        level: Mean scaled level over the movement.
        lasted_s: Length of the movement, s.
        looks_like: Another gesture it resembles, or empty.
        probability: How likely it is that one, where it was asked.
        agreement: Share of its windows decided as the gesture asked for; None where nobody could tell.
        onset: Index in the stream where the movement begins; -1 where there was none.
        end: Index where the hand is back at rest; -1 where there was none.
    """

    gesture: str
    number: int
    refusal: Refusal | None
    detail: str = ""
    advice: str = ""
    level: float = 0.0
    lasted_s: float = 0.0
    looks_like: str = ""
    probability: float = 0.0
    agreement: float | None = None
    onset: int = -1
    end: int = -1


class Weighed(_Told, frozen=True, kw_only=True, tag="model"):
    """The wearer's model was made anew.

    Attributes:
        gesture: The one that was performed.
        repetitions: Repetitions it now rests on.
        own: How much they decide beside pose and other people, 0 to 1.
        confusions: Gestures of the wearer that may be taken for each other: performed, taken for, how likely.
    """

    gesture: str
    repetitions: int
    own: float
    confusions: tuple[tuple[str, str, float], ...] = ()


class Answered(_Told, frozen=True, kw_only=True, tag="tested"):
    """A gesture of the test round was decided.

    Attributes:
        asked: What was asked for.
        decided: What was decided.
        probability: Of it.
        number: Which prompt of the round, from 1.
        of: Prompts in the round.
    """

    asked: str
    decided: str
    probability: float
    number: int
    of: int


class Stopped(_Told, frozen=True, kw_only=True, tag="stopped"):
    """Capture is over.

    Attributes:
        complete: Everything asked for was done.
        detail: Why not.
        advice: What to do.
    """

    complete: bool
    detail: str = ""
    advice: str = ""


EnrolEvent = Prompted | Level | Judged | Weighed | Answered | Stopped
