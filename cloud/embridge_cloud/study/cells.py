"""Figures of a study put in order: by method, regime and protocol; within them by run, fold and participant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.study.outcome import Figure, Outcome
from embridge_cloud.study.protocol import Protocol

Key = tuple[str, str, str, float, str]
"""Method, regime, pose regime, share of the train participants, protocol."""

Values = NDArray[np.float64]

_PARTS = (Protocol.GZS_SEEN, Protocol.GZS_UNSEEN)


class Cell:
    """Figures of one method under one protocol: by run, by fold and participant.

    Attributes:
        outcomes: Whose figures they are.
        figures: Of each outcome: one, or the two parts of a harmonic mean.
    """

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.figures: list[tuple[Figure, ...]] = []

    def add(self, outcome: Outcome, figures: tuple[Figure, ...]) -> None:
        """Take an outcome in."""
        self.outcomes.append(outcome)
        self.figures.append(figures)

    def runs(self, which: str = "per_participant") -> dict[str, float]:
        """Figure of each run, the mean over its participants, draws averaged."""
        found: dict[str, list[list[float]]] = {}
        for outcome, figures in zip(self.outcomes, self.figures, strict=True):
            parts = [mean_of(getattr(f, which).values()) for f in figures]
            found.setdefault(outcome.run.name, []).append(parts)
        return {name: joined([mean_of(p) for p in zip(*draws, strict=True)]) for name, draws in found.items()}

    def chance(self) -> float:
        """Of guessing."""
        return joined([f.chance for f in self.figures[0]])

    def tables(self, which: str = "per_participant") -> tuple[list[str], list[str], list[Values]]:
        """Participants, folds, and for every part a table (participants, folds), NaN where there is nothing."""
        people = sorted({p for figures in self.figures for p in figures[0].per_participant})
        folds = list(dict.fromkeys(o.run.fold.name for o in self.outcomes))
        tables = []
        for part in range(len(self.figures[0])):
            cells: dict[tuple[str, str], list[float]] = {}
            for outcome, figures in zip(self.outcomes, self.figures, strict=True):
                for p, value in getattr(figures[part], which).items():
                    cells.setdefault((p, outcome.run.fold.name), []).append(value)
            tables.append(np.array([[mean_of(cells.get((p, f), [math.nan])) for f in folds] for p in people]))
        return people, folds, tables


def mean_of(values: Iterable[float]) -> float:
    """Plain mean."""
    return float(np.mean(list(values)))


def joined(parts: Sequence[float]) -> float:
    """One part as it is, two as their harmonic mean."""
    if len(parts) == 1:
        return parts[0]
    a, b = parts
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def cells_of(outcomes: Iterable[Outcome]) -> dict[Key, Cell]:
    """Figures by method, regimes, share and protocol; the harmonic mean is made of its two parts."""
    cells: dict[Key, Cell] = {}
    for outcome in outcomes:
        job, by_name = outcome.job, {f.protocol: f for f in outcome.figures}
        parts: dict[str, tuple[Figure, ...]] = {name: (f,) for name, f in by_name.items()}
        if all(p in by_name for p in _PARTS):
            parts[Protocol.GZS_HARMONIC] = tuple(by_name[p] for p in _PARTS)
        for name, figures in parts.items():
            key = (job.method, job.regime, job.pose_regime, job.share, str(name))
            cells.setdefault(key, Cell()).add(outcome, figures)
    return cells


def by_name(names: Sequence[str], tables: Sequence[Values], *, axis: int) -> dict[str, float]:
    """Mean of each name over the other axis, parts joined."""
    return {n: joined([float(np.nanmean(t.take(i, 1 - axis))) for t in tables]) for i, n in enumerate(names)}
