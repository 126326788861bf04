"""Intervals over people: what would have come of it had others been held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm, t

from embridge_shared.errors import DataError, Reason

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where it may lie, each end at the stated one-sided confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class People:
    """Draws of people with replacement, the same for every figure of a gate.

    Attributes:
        drawn: Places of people, one row a draw, int64 (B, P).
        tail: Share of the draws that is cut off at either end.
    """

    drawn: NDArray[np.int64]
    tail: float

    @classmethod
    def of(cls, count: int, *, confidence: float, resamples: int, seed: int) -> People:
        """Draw.

        The percentiles of a bootstrap over few people are too narrow: its spread is that of a sample divided by n
        where n - 1 is due, and it has no longer tails. The tail is cut as much smaller as Student's quantile and that
        factor ask (the expanded percentile interval).

        Raises:
            DataError: TOO_LITTLE_DATA: fewer than two people.
        """
        if count < 2:
            raise DataError(f"{count} people give no interval", reason=Reason.TOO_LITTLE_DATA)
        wide = np.sqrt(count / (count - 1)) * t.ppf(confidence, count - 1)
        rng = np.random.default_rng([seed, count])
        return cls(rng.integers(count, size=(resamples, count)), float(norm.sf(wide)))

    def mean(self, values: Floats) -> Interval:
        """The mean of one value a person (P,)."""
        return self._ends(float(values.mean()), values[self.drawn].mean(axis=1))

    def of_any(self, figure: Callable[[NDArray[np.int64]], float], draws: int) -> Interval:
        """Any figure of some people, named by their places.

        Args:
            figure: Takes places, with repetition.
            draws: How many of the draws are worked out.
        """
        everybody = np.arange(self.drawn.shape[1])
        return self._ends(figure(everybody), np.array([figure(row) for row in self.drawn[:draws]]))

    def _ends(self, value: float, draws: Floats) -> Interval:
        low, high = np.quantile(draws, [self.tail, 1 - self.tail])
        return Interval(value, float(low), float(high))


def worst_of(
    candidate: list[Floats], champion: list[Floats], *, confidence: float, resamples: int, seed: int
) -> Interval:
    """How the lowest balanced accuracy of any person differs between two, over draws of their repetitions.

    A minimum over people cannot be resampled over people: who is served worst is among them or not. So their
    repetitions are drawn anew, gesture by gesture.

    Args:
        candidate: A table a person, one row a repetition: gesture, windows that were right, windows (R, 3).
        champion: The same repetitions in the same order.
        confidence: One-sided.
        resamples: Draws.
        seed: Of the draws.
    """
    rng = np.random.default_rng([seed, len(candidate), 1])
    drawn: list[tuple[Floats, Floats]] = []
    for own, other in zip(candidate, champion, strict=True):
        picks = _picks(own, resamples, rng)
        drawn.append((_recalls(own, picks), _recalls(other, picks)))
    difference = np.min([d for d, _ in drawn], axis=0) - np.min([d for _, d in drawn], axis=0)
    low, high = np.quantile(difference[1:], [1 - confidence, confidence])
    return Interval(float(difference[0]), float(low), float(high))


def _picks(table: Floats, resamples: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of each gesture: as they are, then drawn anew, (resamples + 1, n) each."""
    found = []
    for gesture in np.unique(table[:, 0]):
        rows = np.flatnonzero(table[:, 0] == gesture)
        found.append(np.vstack([rows, rng.choice(rows, (resamples, len(rows)))]))
    return found


def _recalls(table: Floats, picks: list[NDArray[np.int64]]) -> Floats:
    """Balanced accuracy under each pick."""
    each = [table[rows, 1].sum(axis=1) / np.maximum(table[rows, 2].sum(axis=1), 1) for rows in picks]
    return np.asarray(np.mean(each, axis=0), np.float64)


def most_false(champion: int, hours: float, *, confidence: float) -> float:
    """The highest rate that is not yet, at that confidence, more than another's over the same hours.

    Args:
        champion: Events of the other.
        hours: Of both.
        confidence: One-sided, of the conditional test of two Poisson counts.
    """
    count = champion
    while binom.sf(count, count + 1 + champion, 0.5) >= 1 - confidence:
        count += 1
    return count / hours
