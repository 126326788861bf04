"""Leads a wearer through one repetition and finds the movement in it: relax, perform, hold, release.

It counts time in features, so a recording is led through exactly as a live band is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.enrol.events import Phase
from embridge_shared.decision import RECENT_S, activity_of
from embridge_shared.enrolment import Refusal
from embridge_shared.errors import ConfigError

STEP_S: Final = 0.05
_ATTEMPT: Final = 0.5
"""Share of the level of rest from which on something was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a repetition is led.

    Attributes:
        relax_s: Rest before each repetition, s.
        patience_s: How long a movement, or rest, is waited for, s.
        onset_s: How long the level must be over `rises` for a movement to begin, s.
        hold_s: How long to hold, s.
        release_s: How long the level must be under `falls` for it to be over, s.
        rises: Level over which the muscles work.
        falls: Level under which they rest.
    """

    relax_s: float = 2.0
    patience_s: float = 5.0
    onset_s: float = 0.1
    hold_s: float = 3.0
    release_s: float = 0.25
    rises: float = 0.12
    falls: float = 0.08

    def __post_init__(self) -> None:
        times = (self.relax_s, self.patience_s, self.onset_s, self.hold_s, self.release_s)
        if not all(t > 0 for t in times) or not 0 < self.falls <= self.rises:
            raise ConfigError(f"a repetition cannot be led like that: {self}")


@dataclass(frozen=True, slots=True)
class Movement:
    """A movement that was found.

    Attributes:
        onset: Feature it begins at.
        end: Feature at which the hand is back at rest.
    """

    onset: int
    end: int


@dataclass(frozen=True, slots=True)
class Missed:
    """No movement that could be used, and why.

    Attributes:
        refusal: Why.
        peak: Highest level meanwhile.
    """

    refusal: Refusal
    peak: float


class Guide:
    """Leads through one repetition.

    Args:
        pace: How.
        rate_hz: Features a second.
        begin: Feature it begins at.

    Attributes:
        phase: What the wearer is asked for.
        level: The last level seen.
    """

    def __init__(self, pace: Pace, rate_hz: float, begin: int) -> None:
        self.pace = pace
        self.phase = Phase.RELAX
        self.level = 0.0
        self._rate_hz = rate_hz
        self._since = self._began = begin
        self._over: int | None = None
        self._under: int | None = None
        self._onset = begin
        self._peak = 0.0

    def lasts_s(self) -> float:
        """How long the phase may last, s."""
        p = self.pace
        return {
            Phase.RELAX: p.relax_s,
            Phase.PERFORM: p.patience_s,
            Phase.HOLD: p.hold_s,
            Phase.RELEASE: p.patience_s,
        }[self.phase]

    def remaining_s(self, at: int) -> float:
        """What is left of the phase at feature `at`, s."""
        return max(0.0, self.lasts_s() - (at - self._since) / self._rate_hz)

    def step(self, at: int, recent: NDArray[np.float32]) -> Movement | Missed | None:
        """Look at the level up to feature `at`; the movement once it is over, or why there is none.

        Args:
            at: Absolute index after the newest feature.
            recent: Scaled features up to there, (T, C), the last `RECENT_S` or more.
        """
        self.level = activity_of(recent, self._rate_hz)
        self._over = None if self.level <= self.pace.rises else self._over if self._over is not None else at
        self._under = None if self.level >= self.pace.falls else self._under if self._under is not None else at
        if self.phase is Phase.RELAX:
            return self._relaxing(at)
        if self.phase is Phase.PERFORM:
            return self._awaited(at)
        return self._moving(at)

    def _relaxing(self, at: int) -> Missed | None:
        if self._under is None:
            self._since = at
        if self._s(at - self._began) > self.pace.relax_s + self.pace.patience_s and self._under is None:
            return Missed(Refusal.NOT_AT_REST, self.level)
        if self._under is not None and self._s(at - self._since) >= self.pace.relax_s:
            self._enter(Phase.PERFORM, at)
            self._peak = 0.0
        return None

    def _awaited(self, at: int) -> Missed | None:
        self._peak = max(self._peak, self.level)
        if self._over is not None and self._s(at - self._over) >= self.pace.onset_s:
            # the level looks back over a stretch of time, and the movement began within it
            self._onset = max(self._since, self._over - round(RECENT_S / 2 * self._rate_hz))
            self._enter(Phase.HOLD, at)
        elif self._s(at - self._since) > self.pace.patience_s:
            seen = self._peak >= _ATTEMPT * self.pace.falls
            return Missed(Refusal.TOO_WEAK if seen else Refusal.NO_ACTIVITY, self._peak)
        return None

    def _moving(self, at: int) -> Movement | Missed | None:
        if self._under is not None and self._s(at - self._under) >= self.pace.release_s:
            return Movement(self._onset, max(self._onset + 1, self._under - round(RECENT_S / 2 * self._rate_hz)))
        if self.phase is Phase.HOLD and self._s(at - self._onset) >= self.pace.hold_s:
            self._enter(Phase.RELEASE, at)
        elif self.phase is Phase.RELEASE and self._s(at - self._since) > self.pace.patience_s:
            return Missed(Refusal.TOO_LONG, self.level)
        return None

    def _enter(self, phase: Phase, at: int) -> None:
        self.phase, self._since = phase, at

    def _s(self, features: int) -> float:
        return features / self._rate_hz
