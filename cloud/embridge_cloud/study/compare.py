"""Paired differences between methods: runs share their data, so methods are compared run by run."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
import numpy as np

from embridge_cloud.study.cells import Cell, Key, Values, by_name, cells_of
from embridge_cloud.study.outcome import Outcome


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One method minus another on the same runs.

    Attributes:
        a: The one.
        b: The other.
        regime: Of both.
        pose_regime: Of both.
        protocol: Of both.
        runs: Runs both have.
        mean: Of the differences.
        se: Standard error over runs; participants that recur make it the smaller one.
        se_participants: Standard error over participants, each the mean of its folds.
        wins: Runs in which `a` is ahead.
        sign_p: Two-sided sign test over runs, ties left out.
        separable: The mean exceeds twice either standard error, and the signs agree at 5 %.
        verdict: In words.
    """

    a: str
    b: str
    regime: str
    pose_regime: str
    protocol: str
    runs: int
    mean: float
    se: float
    se_participants: float
    wins: int
    sign_p: float
    separable: bool
    verdict: str


def paired_differences(
    outcomes: Iterable[Outcome], pairs: Iterable[tuple[str, str]], *, protocols: Iterable[str] | None = None
) -> list[Difference]:
    """Differences between methods, run by run, wherever both have runs in common.

    Args:
        outcomes: Finished jobs, all train participants; parts of them are left out.
        pairs: Methods, minuend first.
        protocols: By default all.
    """
    cells = {k: c for k, c in cells_of(outcomes).items() if k[3] == 1}
    wanted = {str(p) for p in protocols} if protocols is not None else None
    found = []
    for a, b in dict.fromkeys(pairs):
        for key, cell in cells.items():
            other = cells.get((b, *key[1:]))
            if key[0] == a and other is not None and (wanted is None or key[4] in wanted):
                made = _difference(key, cell, other, b)
                found += [made] if made is not None else []
    return found


def _difference(key: Key, one: Cell, other: Cell, b: str) -> Difference | None:
    """None where fewer than two runs are shared."""
    ours, theirs = one.runs(), other.runs()
    shared = sorted(ours.keys() & theirs.keys())
    if len(shared) < 2:
        return None
    d = np.array([ours[r] - theirs[r] for r in shared])
    se = float(d.std(ddof=1) / math.sqrt(len(d)))
    people = _participant_differences(one, other, set(shared))
    se_people = float(people.std(ddof=1) / math.sqrt(len(people))) if len(people) > 1 else se
    p = sign_test(int((d > 0).sum()), int((d < 0).sum()))
    mean = float(d.mean())
    separable = abs(mean) > 2 * max(se, se_people) and p < 0.05
    better = key[0] if mean > 0 else b
    return Difference(
        a=key[0],
        b=b,
        regime=key[1],
        pose_regime=key[2],
        protocol=key[4],
        runs=len(shared),
        mean=mean,
        se=se,
        se_participants=se_people,
        wins=int((d > 0).sum()),
        sign_p=p,
        separable=separable,
        verdict=f"{better} is better" if separable else "not separable",
    )


def _participant_differences(one: Cell, other: Cell, runs: set[str]) -> Values:
    """Difference of each participant, mean over the folds both were tested in."""
    values = []
    for cell in (one, other):
        kept = Cell()
        for outcome, figures in zip(cell.outcomes, cell.figures, strict=True):
            if outcome.run.name in runs:
                kept.add(outcome, figures)
        people, _, tables = kept.tables()
        values.append(by_name(people, tables, axis=1))
    return np.array([values[0][p] - values[1][p] for p in sorted(values[0].keys() & values[1].keys())])


def sign_test(ahead: int, behind: int) -> float:
    """Two-sided probability that signs fall as unevenly by chance."""
    n = ahead + behind
    tail = sum(math.comb(n, i) for i in range(min(ahead, behind) + 1)) / 2**n
    return float(min(1.0, 2 * tail))
