"""What a conducted session says to people, in lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.preflight import Level, Line
from embridge_edge.collect.protocol import Kind, Protocol, Trial
from embridge_edge.collect.steps import Decided, Declined, Entered, Noted, State, Step
from embridge_shared.enrolment import ADVICE
from embridge_shared.gestures import vocabulary

SIGNS: Final = {Level.GREEN: "●", Level.AMBER: "▲", Level.RED: "✕", Level.OPEN: "○"}
WORDS: Final = {
    State.SETUP: "SETUP",
    State.PREFLIGHT: "PREFLIGHT",
    State.READY: "READY",
    State.COUNTDOWN: "GET READY",
    State.HOLD: "HOLD",
    State.REST: "RELAX",
    State.PAUSED: "PAUSED",
    State.LOST: "LOST",
    State.REVIEW: "REVIEW",
    State.DONE: "DONE",
    State.SYNCED: "SENT",
}
"""One word a state, to be read from across the room."""
_STRETCHES: Final = {
    Kind.REST: ("rest", "Let the arm lie and the hand hang loose; move nothing."),
    Kind.FREE: ("free movement", "Do anything with the hand but the gestures: scratch, type, reach, wave."),
}


def word_of(state: State, trial: Trial | None) -> str:
    """The word for where a session stands; a stretch is not held."""
    if state is State.HOLD and trial is not None and trial.kind is not Kind.GESTURE:
        return "STILL" if trial.kind is Kind.REST else "MOVE"
    return WORDS[state]


def title_of(trial: Trial) -> str:
    """What is asked for, for people."""
    if trial.kind is not Kind.GESTURE:
        return _STRETCHES[trial.kind][0]
    known = vocabulary()
    return known[trial.gesture].title if trial.gesture in known else trial.gesture.replace("_", " ")


def hint_of(trial: Trial, protocol: Protocol) -> str:
    """How it is made, in a sentence; empty where nobody says."""
    if trial.gesture in protocol.instructions:
        return protocol.instructions[trial.gesture]
    if trial.kind is not Kind.GESTURE:
        return _STRETCHES[trial.kind][1]
    known = vocabulary()
    return known[trial.gesture].hint if trial.gesture in known else ""


def line_of(line: Line) -> str:
    """A line of the preflight."""
    action = f"  → {line.action}" if line.action and line.level is not Level.GREEN else ""
    return f"{SIGNS[line.level]} {line.key:<10} {line.what}{action}  ({line.need})"


def lines(steps: Sequence[Step], at: Conductor, protocol: Protocol) -> Iterator[str]:
    """What happened, for people.

    Args:
        steps: What happened.
        at: The conductor after them.
        protocol: What is asked for.
    """
    for step in steps:
        match step:
            case Entered(State.COUNTDOWN) if at.trial is not None:
                t = at.trial
                yield f"{at.left} left   up next: {title_of(t)}  {t.repetition}   {hint_of(t, protocol)}"
            case Entered(state, _, why):
                word = word_of(state, at.trial)
                asked = f" {title_of(at.trial)}" if state is State.HOLD and at.trial is not None else ""
                yield f"{word}{asked}{': ' + why if why else ''}"
            case Decided(attempt):
                trial = at.trials[attempt.index]
                what = f"{title_of(trial)} {trial.repetition}"
                found = attempt.finding
                if attempt.rejected:
                    refusal = found.refusal if found is not None else None
                    yield f"✕ {what}: {attempt.rejected}{'. ' + ADVICE[refusal] if refusal is not None else ''}"
                else:
                    level = "" if found is None or found.level_db is None else f"  {found.level_db:.0f} dB over rest"
                    yield f"✓ {what}{level}"
            case Noted(text):
                yield f"· {text}"
            case Declined(words):
                yield f"not now: {words}"


Say = Callable[[str], None]
"""Shows a line to people."""
