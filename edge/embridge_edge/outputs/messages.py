"""What outputs say, as JSON: docs/outputs.md lists every field.

Times are Unix seconds as a float: a nanosecond count does not fit into the numbers of a browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from embridge_edge.decode.decision import Decided
from embridge_shared.decision import GestureEvent
from embridge_shared.session import GestureChange

VERSION: Final = 1
_DIGITS: Final = 4


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A message; `type` tells which."""


class Hello(_Message, frozen=True, kw_only=True, tag="hello"):
    """Said first, and again when the session, the release or its vocabulary changes.

    Attributes:
        version: Of these messages.
        edge: Name of the edge.
        session: What is being decoded; empty while nothing is.
        release: Release that decodes; empty while nothing is.
        vocabulary: Gestures in the order of `probabilities`.
        updates_hz: Decisions a second this client is sent at most.
    """

    edge: str
    session: str = ""
    release: str = ""
    vocabulary: tuple[str, ...] = ()
    updates_hz: float = 0.0
    version: int = VERSION


class DecisionUpdate(_Message, frozen=True, kw_only=True, tag="decision"):
    """What is decided now.

    Attributes:
        t_s: Unix time of the newest sample it rests on, s.
        number: Index of the window.
        label: A gesture, "rest" or "unknown".
        probability: Of the label if it is a gesture, else of the likeliest gesture.
        best: The likeliest gesture, whatever is decided.
        probabilities: Of every gesture, in the order of the vocabulary.
    """

    t_s: float
    number: int
    label: str
    probability: float
    best: str
    probabilities: tuple[float, ...]


class GestureMessage(_Message, frozen=True, kw_only=True, tag="gesture"):
    """A gesture began, has been held, or ended.

    Attributes:
        change: "onset", "hold" or "release".
        gesture: Which.
        probability: Of it then.
        lasted_s: Since its onset, s.
        t_s: Unix time of the newest sample that decided, s.
        number: Index of the window that decided.
    """

    change: GestureChange
    gesture: str
    probability: float
    lasted_s: float
    t_s: float
    number: int


class Notice(_Message, frozen=True, kw_only=True, tag="notice"):
    """Something the wearer should know.

    Attributes:
        about: "link", "quality" or "drift".
        level: "info" where it is over or harmless, else "warning".
        text: What.
        hint: What to do next, or empty.
    """

    about: Literal["link", "quality", "drift"]
    level: Literal["info", "warning"]
    text: str
    hint: str = ""


Message: TypeAlias = Hello | DecisionUpdate | GestureMessage | Notice

_ENCODER = msgspec.json.Encoder()


def encode(message: Message) -> str:
    """A message as one line of JSON."""
    return _ENCODER.encode(message).decode()


def hello_of(decided: Decided | None, edge: str, updates_hz: float) -> Hello:
    """How a client is greeted.

    Args:
        decided: The last decision, if there was one.
        edge: Name of the edge.
        updates_hz: Decisions a second the client is sent at most.
    """
    if decided is None:
        return Hello(edge=edge, updates_hz=updates_hz)
    return Hello(
        edge=edge,
        session=str(decided.session),
        release=decided.release,
        vocabulary=decided.labels,
        updates_hz=updates_hz,
    )


def update_of(decided: Decided) -> DecisionUpdate:
    """What is decided at a hop."""
    d = decided.decision
    return DecisionUpdate(
        t_s=seconds(decided.t_ns),
        number=decided.number,
        label=d.label,
        probability=round(d.probability, _DIGITS),
        best=d.best,
        probabilities=tuple(round(float(p), _DIGITS) for p in d.probabilities),
    )


def gestures_of(decided: Decided) -> Sequence[GestureMessage]:
    """What changed at a hop, in order."""
    return [gesture_of(event, decided) for event in decided.decision.events]


def gesture_of(event: GestureEvent, decided: Decided) -> GestureMessage:
    """One change."""
    return GestureMessage(
        change=event.kind,
        gesture=event.label,
        probability=round(event.probability, _DIGITS),
        lasted_s=round(event.lasted_s, _DIGITS),
        t_s=seconds(decided.t_ns),
        number=decided.number,
    )


def seconds(t_ns: int) -> float:
    """Unix time in seconds, to the microsecond."""
    return round(t_ns * 1e-9, 6)
