"""What is known of a release while it decodes and somebody watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from embridge_edge.decode.decision import Decided
from embridge_edge.live import LiveDecoding
from embridge_edge.live_score import Latency, Movements, Outcome, Score, Times
from embridge_shared.decision import DecisionConfig
from embridge_shared.session import GestureChange

_LINES: Final = 40


class Which(StrEnum):
    """One of two releases."""

    A = "a"  # the one that runs, and whose decisions are recorded
    B = "b"  # the one before


@dataclass(frozen=True, slots=True)
class Told:
    """A gesture that began or ended, or a label.

    Attributes:
        t_ns: Unix time, ns.
        text: In words.
        good: Whether it was right; None where nobody said.
    """

    t_ns: int
    text: str
    good: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A release as a screen shows it.

    Attributes:
        which: Which of two.
        release: Its name.
        labels: Gestures in the order of the probabilities.
        decision: How it decides.
        decided: The last decision; None before the first.
        lines: What it told, the newest last.
        latency: How soon; None before the first window.
        score: What labels said.
        dropped: Packets there was no time for.
    """

    which: Which
    release: str
    labels: tuple[str, ...]
    decision: DecisionConfig
    decided: Decided | None
    lines: tuple[Told, ...]
    latency: Latency | None
    score: Score
    dropped: int = 0


class Seat:
    """What is known of one release in a session; a sink of its decisions.

    Args:
        which: Which of two.
        radio_s: How long the samples of a decision took to the host, s.
    """

    def __init__(self, which: Which, radio_s: Callable[[Decided], float]) -> None:
        self.which = which
        self.movements = Movements()
        self.score = Score()
        self._last: Decided | None = None
        self._lines: deque[Told] = deque(maxlen=_LINES)
        self._times = Times()
        self._radio_s = radio_s

    def decided(self, decided: Decided) -> None:
        """Take a decision."""
        self.movements.push(decided)
        self._last = decided
        self._times.add(self._radio_s(decided), decided.latency_s)
        self._tell(decided)

    def ended(self, decided: Decided) -> None:
        """Take what ended without a window."""
        self.movements.push(decided)
        self._last = decided
        self._tell(decided)

    @property
    def now_ns(self) -> int | None:
        """Unix time of the newest sample that was decided on, ns; None before any."""
        return None if self._last is None else self._last.t_ns

    def labelled(self, gesture: str, outcome: Outcome, t_ns: int, before: Outcome | None) -> None:
        """Take a label, which may take the place of one before."""
        if before is not None:
            self.score = self.score.counted(before, -1)
        self.score = self.score.counted(outcome)
        good = outcome in (Outcome.RIGHT, Outcome.NOTHING)
        self._lines.append(Told(t_ns, f"label {gesture}: {outcome.value}", good))

    def view(self, live: LiveDecoding, dropped: int = 0) -> View | None:
        """As a screen shows it; None where it only gives scores."""
        if live.decision is None:
            return None
        self._times.hop_s = live.hop_s
        return View(
            which=self.which,
            release=live.release,
            labels=live.labels,
            decision=live.decision,
            decided=self._last,
            lines=tuple(self._lines),
            latency=self._times.now(),
            score=self.score,
            dropped=dropped,
        )

    def _tell(self, decided: Decided) -> None:
        for event in decided.decision.events:
            if event.kind is GestureChange.ONSET:
                self._lines.append(Told(decided.t_ns, f"{event.label} {event.probability:.2f}"))
            elif event.kind is GestureChange.RELEASE:
                self._lines.append(Told(decided.t_ns, f"{event.label} ended after {event.lasted_s:.1f} s"))
