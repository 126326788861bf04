"""Labels of what somebody did while it was decoded, as events of the session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from embridge_edge.live_score import Movement, Outcome, judge
from embridge_edge.live_seat import Seat, Which
from embridge_shared.gestures import REST_LABEL
from embridge_shared.session import Event, Marker, Repetition, RepetitionStatus

_ANEW: Final = "labelled anew"


@dataclass(frozen=True, slots=True)
class Labelled:
    """What somebody said a movement was.

    Attributes:
        gesture: The label.
        said: What was decoded; empty if nothing.
        outcome: What that means.
        kept: A repetition lies in the session, not a marker alone.
    """

    gesture: str
    said: str
    outcome: Outcome
    kept: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """The last label that was about a movement."""

    movement: Movement
    repetition: Repetition | None
    outcomes: dict[Which, Outcome]


class Labels:
    """Turns labels into events, and into a score of each release.

    Args:
        seats: What is known of each release; the first one's movements are what is labelled.
    """

    def __init__(self, seats: Mapping[Which, Seat]) -> None:
        self._seats = seats
        self._counts: Counter[str] = Counter()
        self._last: _Kept | None = None

    def say(self, gesture: str, t_ns: int) -> tuple[list[Event], Labelled]:
        """Label what was on at a moment, or had just ended.

        Args:
            gesture: What it was; "rest" where nothing was done.
            t_ns: Unix time, ns.

        Returns:
            What to write into the session, and what the label means.
        """
        movement = self._seats[Which.A].movements.at(t_ns)
        before = self._last
        if before is not None and (movement is None or before.movement.start_ns != movement.start_ns):
            before = None
        said = movement.said[-1] if movement is not None and movement.said else None
        words = f"{said[0]} {said[1]:.2f}" if said is not None else "nothing"
        events: list[Event] = [Marker(text=f"label {gesture}: decoded {words}", t_ns=t_ns)]
        if before is not None and before.repetition is not None:
            events.append(msgspec.structs.replace(before.repetition, status=RepetitionStatus.REJECTED, reason=_ANEW))
        repetition = self._repetition(gesture, movement, t_ns)
        events += [] if repetition is None else [repetition]
        outcomes = self._count(gesture, before, t_ns)
        if movement is not None:
            self._last = _Kept(movement, repetition, outcomes)
        return events, Labelled(gesture, said[0] if said is not None else "", outcomes[Which.A], repetition is not None)

    def _repetition(self, gesture: str, movement: Movement | None, t_ns: int) -> Repetition | None:
        if movement is None or gesture == REST_LABEL:
            return None
        self._counts[gesture] += 1
        end_ns = t_ns if movement.end_ns is None else movement.end_ns
        return Repetition(gesture=gesture, repetition=self._counts[gesture], start_ns=movement.start_ns, end_ns=end_ns)

    def _count(self, gesture: str, before: _Kept | None, t_ns: int) -> dict[Which, Outcome]:
        outcomes = {which: judge(gesture, seat.movements.at(t_ns)) for which, seat in self._seats.items()}
        for which, outcome in outcomes.items():
            known = None if before is None else before.outcomes.get(which)
            self._seats[which].labelled(gesture, outcome, t_ns, known)
        return outcomes
