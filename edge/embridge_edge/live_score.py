"""How decoding fares while somebody watches: movements, what was said of them, what they were, how long it took."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import numpy as np

from embridge_edge.decode.decision import Decided
from embridge_shared.gestures import REST_LABEL
from embridge_shared.session import GestureChange

LATE_S: Final = 8.0
"""A label is about a movement that ended no longer ago."""
_KEPT: Final = 64
_KEPT_TIMES: Final = 1200


class Outcome(StrEnum):
    """What a label says of what was decoded."""

    RIGHT = "right"
    WRONG = "wrong"
    MISSED = "missed"
    FALSE = "false"
    NOTHING = "nothing"  # rest was labelled, and nothing was said


@dataclass(frozen=True, slots=True)
class Movement:
    """A stretch in which the hand did not rest.

    Attributes:
        start_ns: Unix time of its first window, ns.
        end_ns: Unix time of the first window at rest after it; None while it lasts.
        said: Gestures that began in it, in order, with their probability then.
    """

    start_ns: int
    end_ns: int | None = None
    said: tuple[tuple[str, float], ...] = ()


class Movements:
    """Finds movements in decisions."""

    def __init__(self) -> None:
        self._kept: deque[Movement] = deque(maxlen=_KEPT)

    def push(self, decided: Decided) -> None:
        """Take the next decision."""
        decision, t_ns = decided.decision, decided.t_ns
        open_one = bool(self._kept) and self._kept[-1].end_ns is None
        begun = tuple((e.label, e.probability) for e in decision.events if e.kind is GestureChange.ONSET)
        if decision.label == REST_LABEL and not begun:
            if open_one:
                self._kept[-1] = replace(self._kept[-1], end_ns=t_ns)
            return
        if not open_one:
            self._kept.append(Movement(t_ns))
        if begun:
            self._kept[-1] = replace(self._kept[-1], said=self._kept[-1].said + begun)

    def at(self, t_ns: int) -> Movement | None:
        """The movement that is on at a moment, or the last one that ended shortly before; None without one."""
        for movement in reversed(self._kept):
            if movement.start_ns <= t_ns:
                ended = t_ns if movement.end_ns is None else movement.end_ns
                return movement if t_ns - ended <= LATE_S * 1e9 else None
        return None


def judge(label: str, movement: Movement | None) -> Outcome:
    """What a label says of a movement; None where there was none."""
    said = () if movement is None else tuple(gesture for gesture, _ in movement.said)
    if label == REST_LABEL:
        return Outcome.FALSE if said else Outcome.NOTHING
    if not said:
        return Outcome.MISSED
    return Outcome.RIGHT if said[-1] == label else Outcome.WRONG


@dataclass(frozen=True, slots=True)
class Score:
    """What labels said so far.

    Attributes:
        right: Gestures decoded as what they were.
        wrong: As another.
        missed: Not at all.
        false: Decoded, and nothing was done.
    """

    right: int = 0
    wrong: int = 0
    missed: int = 0
    false: int = 0

    @property
    def labelled(self) -> int:
        """Gestures that were labelled."""
        return self.right + self.wrong + self.missed

    def counted(self, outcome: Outcome, by: int = 1) -> Score:
        """The same with one more; one fewer where `by` is -1."""
        if outcome is Outcome.NOTHING:
            return self
        return replace(self, **{outcome.value: getattr(self, outcome.value) + by})


@dataclass(frozen=True, slots=True)
class Latency:
    """From a sample to what it decides; medians but for `worst_ms`.

    Attributes:
        radio_ms: From the first sample of a packet to the packet at the host, ms. The clocks of band and host are
            fitted to each other by the fastest packets, so what all packets need alike is not in it.
        hop_ms: Longest wait for a window to complete, ms.
        infer_ms: From the packet to the scores, ms.
        total_ms: All of it, ms.
        worst_ms: 99 of 100 are faster, ms.
    """

    radio_ms: float
    hop_ms: float
    infer_ms: float
    total_ms: float
    worst_ms: float


@dataclass(slots=True)
class Times:
    """Gathers latencies.

    Attributes:
        hop_s: Time between two windows, s.
    """

    hop_s: float = 0.0
    _taken: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_KEPT_TIMES))

    def add(self, radio_s: float, infer_s: float) -> None:
        """Note a window."""
        self._taken.append((radio_s, infer_s))

    def now(self) -> Latency | None:
        """As it stands; None before the first window."""
        if not self._taken:
            return None
        radio, infer = 1e3 * np.array(self._taken).T
        hop_ms = 1e3 * self.hop_s
        total, worst = np.percentile(radio + infer, (50, 99)) + hop_ms
        return Latency(float(np.median(radio)), hop_ms, float(np.median(infer)), float(total), float(worst))


def next_target(targets: Sequence[float], now: float, by: int) -> float:
    """The next of some rates of false activations; stays at the ends."""
    ordered = sorted(targets)
    at = min(range(len(ordered)), key=lambda i: abs(ordered[i] - now))
    return ordered[min(max(at + by, 0), len(ordered) - 1)]
