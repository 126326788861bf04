"""Where a guided sitting stands, folded from what the enrolment engine tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from embridge_edge.enrol.events import Answered, EnrolEvent, Judged, Level, Phase, Prompted, Stopped, Weighed

WORDS: Final = {
    Phase.RELAX: "RELAX",
    Phase.PERFORM: "MAKE IT",
    Phase.HOLD: "HOLD",
    Phase.RELEASE: "RELAX",
    Phase.DONE: "DONE",
}
KEPT_LINES: Final = 40
_NEAR: Final = 0.05
"""Probability of another gesture from which on it is worth a word."""


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the log of a sitting.

    Attributes:
        good: Whether the repetition was taken, or decided right; None where the line judges nothing.
        text: In words.
    """

    good: bool | None
    text: str

    @property
    def mark(self) -> str:
        """The sign it begins with."""
        return {True: "✓", False: "✕", None: "·"}[self.good]


@dataclass(frozen=True, slots=True)
class Standing:
    """A sitting as a screen shows it.

    Attributes:
        phase: What is asked for; None before the first prompt.
        gesture: Label that is asked for.
        number: Which repetition of it, from 1.
        of: Repetitions of it that are wanted.
        lasts_s: How long the phase may last; 0 where it has no end of its own, s.
        remaining_s: What is left of it, s.
        level: How much the muscles do; about 1 in a strong contraction.
        taken: Repetitions taken, or prompts decided right.
        wanted: Prompts of the whole sitting.
        refused: Repetitions that were not taken, or decided wrong.
        log: What was said, the oldest first.
        nearest: The gesture the last repetition came nearest to, and how likely it is that one.
        stopped: Why it is over; None while it goes on.
    """

    phase: Phase | None = None
    gesture: str = ""
    number: int = 0
    of: int = 0
    lasts_s: float = 0.0
    remaining_s: float = 0.0
    level: float = 0.0
    taken: int = 0
    wanted: int = 0
    refused: int = 0
    log: tuple[Said, ...] = ()
    nearest: tuple[str, float] | None = None
    stopped: Stopped | None = None

    @property
    def word(self) -> str:
        """What the wearer is to do, in one word or two."""
        if self.stopped is not None:
            return "DONE" if self.stopped.complete else "STOPPED"
        return "GET READY" if self.phase is None else WORDS[self.phase]

    @property
    def dots(self) -> str:
        """A dot a prompt: full for what was taken."""
        return " ".join(["◉"] * self.taken + ["○"] * max(0, self.wanted - self.taken))

    def after(self, events: Sequence[EnrolEvent]) -> Standing:
        """The sitting once these happened."""
        standing = self
        for event in events:
            standing = _after(standing, event)
        return standing

    def saying(self, good: bool | None, text: str) -> Standing:
        """The same with a line more in the log."""
        return replace(self, log=(*self.log, Said(good, text))[-KEPT_LINES:])


def _after(s: Standing, e: EnrolEvent) -> Standing:
    if isinstance(e, Level):
        return replace(s, level=e.level, phase=e.phase, remaining_s=e.remaining_s)
    if isinstance(e, Prompted):
        return replace(
            s, phase=e.phase, gesture=e.gesture, number=e.number, of=e.of, lasts_s=e.lasts_s, remaining_s=e.lasts_s
        )
    if isinstance(e, Judged):
        return _judged(s, e)
    if isinstance(e, Answered):
        right = e.asked == e.decided
        s = replace(s, taken=s.taken + right, refused=s.refused + (not right))
        said = f"{e.asked}: right" if right else f"{e.asked}: taken for {e.decided}"
        return s.saying(right, f"{said} ({e.probability:.2f})")
    if isinstance(e, Weighed):
        s = s.saying(None, f"{e.gesture}: {e.repetitions} repetitions, they decide {100 * e.own:.0f} %")
        for performed, taken_for, p in e.confusions:
            s = s.saying(False, f"{performed} may be taken for {taken_for} ({p:.2f})")
        return s
    return replace(s, stopped=e, remaining_s=0.0)


def _judged(s: Standing, e: Judged) -> Standing:
    nearest = (e.looks_like, e.probability) if e.looks_like else s.nearest
    if e.refusal is None:
        near = f", nearest {e.looks_like} {e.probability:.2f}" if e.probability >= _NEAR else ""
        s = replace(s, taken=s.taken + 1, nearest=nearest)
        return s.saying(True, f"good: level {e.level:.2f}, {e.lasted_s:.1f} s{near}")
    why = e.refusal.value.replace("_", " ")
    s = replace(s, refused=s.refused + 1, nearest=nearest)
    return s.saying(False, f"{why}: {e.detail}. {e.advice}".rstrip())
