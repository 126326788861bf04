"""What a conducted session goes through: its states, what became of what was asked for, and the facts to be written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from embridge_shared.enrolment import Refusal


class State(StrEnum):
    """Where a session stands."""

    SETUP = "setup"
    PREFLIGHT = "preflight"
    READY = "ready"
    """It is recorded; the operator starts the prompts."""
    COUNTDOWN = "countdown"
    HOLD = "hold"
    REST = "rest"
    PAUSED = "paused"
    LOST = "lost"
    """No samples come; the protocol waits."""
    REVIEW = "review"
    """Everything was asked for; nothing is prompted any more."""
    DONE = "done"
    SYNCED = "synced"
    """The cloud holds all of it."""


RUNNING: Final = frozenset({State.COUNTDOWN, State.HOLD, State.REST})
"""States in which time drives the session."""
RECORDING: Final = RUNNING | {State.READY, State.PAUSED, State.LOST, State.REVIEW}
"""States in which samples are recorded."""


class Outcome(StrEnum):
    """What became of a trial."""

    ACCEPTED = "accepted"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of a repetition.

    Attributes:
        refusal: Why it is bad; None where it is good.
        detail: In words, with the value that decided.
        onset_s: When the movement began, s of the signal; None where there was none.
        end_s: When the hand was back at rest, s.
        level_db: How far it rose above rest.
        rms_uv: Mean of the stronger channels, µV; None where the band has no scale.
        gaps: Samples that did not arrive.
    """

    refusal: Refusal | None = None
    detail: str = ""
    onset_s: float | None = None
    end_s: float | None = None
    level_db: float | None = None
    rms_uv: float | None = None
    gaps: int = 0

    @property
    def words(self) -> str:
        """Why it is bad; empty where it is good."""
        return "" if self.refusal is None else f"{self.refusal}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A trial that was performed, or begun.

    Attributes:
        number: Counted from 1 in the session.
        index: Of its trial.
        start_s: When it was to be held, s of the signal.
        end_s: When it was to be let go.
        finding: What was seen; None before it is judged.
        rejected: Why it does not count; empty where it does.
        overruled: What was found wrong, where the operator took it all the same.
    """

    number: int
    index: int
    start_s: float
    end_s: float
    finding: Finding | None = None
    rejected: str = ""
    overruled: str = ""


@dataclass(frozen=True, slots=True)
class Entered:
    """Another state.

    Attributes:
        state: Which.
        at_s: When, s of the signal.
        why: In a few words; empty where it follows from the protocol.
    """

    state: State
    at_s: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """The participant was asked for something until now; judge what they did."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Decided:
    """An attempt counts, or stays as rejected."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Noted:
    """Something worth a marker."""

    text: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Declined:
    """What was asked cannot be done now, and why."""

    words: str


Step = Entered | Held | Decided | Noted | Declined
