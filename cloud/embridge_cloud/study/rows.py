"""From outcomes to rows: means over runs, their spread, and intervals over participants.

People are what a result is generalised to, so intervals resample participants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from embridge_cloud.study.cells import Cell, Key, Values, by_name, cells_of, mean_of
from embridge_cloud.study.outcome import Job, Outcome
from embridge_cloud.study.protocol import REFERENCES, Protocol

BOOTSTRAP = 2000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One method under one protocol, over all its runs.

    Attributes:
        method: Name.
        regime: What training had of the wearers under test.
        pose_regime: What the pose side knew of unseen gestures.
        protocol: What was asked.
        balanced_accuracy: Mean over runs of the mean over their participants; of a harmonic mean, over folds.
        chance: Of guessing.
        ci95: Interval of that mean, from a bootstrap over participants.
        sd: Over runs.
        f1: Mean macro-F1, averaged likewise.
        per_fold: Mean of each fold.
        per_participant: Mean of each participant over folds.
        f1_per_participant: Macro-F1 of each, over folds.
        seeds: Seeds the runs used.
        unseen_sets: Unseen gestures of each fold.
        runs: Number of runs.
        share: Share of the train participants.
        draws: Draws a run, for controls drawn several times.
        reference: It reads labels that a zero-shot method must not have.
        wall_s: Mean wall time of a fit with its evaluation, s.
    """

    method: str
    regime: str
    pose_regime: str
    protocol: str
    balanced_accuracy: float
    chance: float
    ci95: tuple[float, float]
    sd: float
    f1: float
    per_fold: dict[str, float]
    per_participant: dict[str, float]
    f1_per_participant: dict[str, float]
    seeds: tuple[int, ...]
    unseen_sets: tuple[tuple[str, ...], ...]
    runs: int
    share: float
    draws: int
    reference: bool
    wall_s: float


def make_rows(outcomes: Iterable[Outcome], *, seed: int = 0, bootstrap: int = BOOTSTRAP) -> list[Row]:
    """Rows of a study, in the order in which methods and protocols first occur.

    Args:
        outcomes: Finished jobs; failed ones have no figures and leave no row.
        seed: Of the bootstrap.
        bootstrap: Resamplings of the participants.
    """
    order = {str(p): i for i, p in enumerate(Protocol)}
    cells = cells_of(outcomes)
    first = {key: i for i, key in enumerate(cells)}
    ranked = sorted(cells, key=lambda k: (min(i for q, i in first.items() if q[:4] == k[:4]), order.get(k[4], 99)))
    return [_row(key, cells[key], seed, bootstrap) for key in ranked]


def _row(key: Key, cell: Cell, seed: int, bootstrap: int) -> Row:
    method, regime, pose_regime, share, protocol = key
    runs = cell.runs()
    people, folds, tables = cell.tables()
    f1 = cell.tables("f1_per_participant")[2]
    draws = len({o.job.draw for o in cell.outcomes})
    per_fold = by_name(folds, tables, axis=0)
    return Row(
        method=method,
        regime=regime,
        pose_regime=pose_regime,
        protocol=protocol,
        # a harmonic mean of few participants lies below that of many, so its parts are averaged over a fold first
        balanced_accuracy=mean_of(runs.values() if len(tables) == 1 else per_fold.values()),
        chance=cell.chance(),
        ci95=interval(tables, np.random.default_rng(seed), bootstrap=bootstrap),
        sd=float(np.std(list(runs.values()), ddof=1)) if len(runs) > 1 else 0.0,
        f1=mean_of(cell.runs("f1_per_participant").values()),
        per_fold=per_fold,
        per_participant=by_name(people, tables, axis=1),
        f1_per_participant=by_name(people, f1, axis=1),
        seeds=tuple(sorted({o.run.seed for o in cell.outcomes})),
        unseen_sets=tuple(dict.fromkeys(o.run.fold.unseen for o in cell.outcomes)),
        runs=len(runs),
        share=share,
        draws=draws,
        reference=protocol in REFERENCES,
        wall_s=mean_of(o.wall_s for o in cell.outcomes),
    )


def interval(tables: Sequence[Values], rng: np.random.Generator, *, bootstrap: int = BOOTSTRAP) -> tuple[float, float]:
    """95 % interval of the mean over participants, by resampling them.

    Args:
        tables: (participants, folds), NaN where a participant was not tested; two tables for a harmonic mean.
        rng: Draws.
        bootstrap: Number of draws.
    """
    n = len(tables[0])
    weights = rng.multinomial(n, np.full(n, 1 / n), size=bootstrap).astype(np.float64)
    if len(tables) == 1:
        figures = weights @ np.nanmean(tables[0], axis=1) / n
    else:
        parts = [_weighted(weights, t) for t in tables]
        total = parts[0] + parts[1]
        joined = np.where(total > 0, 2 * parts[0] * parts[1] / np.where(total > 0, total, 1), 0)
        joined[np.isnan(parts[0])] = np.nan
        figures = np.nanmean(joined, axis=1)
    low, high = np.quantile(figures, [0.025, 0.975])
    return float(low), float(high)


def _weighted(weights: Values, table: Values) -> Values:
    """Weighted mean of each fold over the participants it tested (draws, folds); NaN where none was drawn."""
    mass = weights @ ~np.isnan(table)
    total = weights @ np.nan_to_num(table)
    return np.asarray(np.where(mass > 0, total / np.where(mass > 0, mass, 1), np.nan), np.float64)


def failures(outcomes: Iterable[Outcome]) -> list[tuple[Job, str, str]]:
    """Jobs that failed: job, run and reason."""
    return [(o.job, o.run.name, o.error) for o in outcomes if o.error]
