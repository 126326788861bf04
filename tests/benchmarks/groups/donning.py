"""Putting a band on again: accuracy on later days, as worn and turned by hand, before and after unlabelled calibration.

`longterm_suguru`: two wearers, ten days, 22 motions, eight electrodes. A shrinkage discriminant of one day decides on
every later one; the calibration sees sixteen trials of the later day and none of their labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.framework import Row
from benchmarks.groups.newcomers import BANDS, LENGTH, PEOPLE
from benchmarks.groups.newcomers import FRONT_END as THREE_DC
from benchmarks.trials import Trial, folder, read_trials
from embridge_cloud.learn.evaluate import shrinkage_lda
from embridge_shared.preprocess import FrontEndConfig
from embridge_shared.wearer.donning import FITS_NATS, WORTH_NATS, activity, find_turn, turn
from embridge_shared.wearer.levels import levels

GROUP = "donning"
RATE_HZ = 200.0
SETTLE_S = 0.18
TRIALS = 16
TURNS = (0, 1, -1, 2, -2)
RING = tuple(range(8))
FRONT_END = FrontEndConfig(mode="envelope", rate_hz=100.0, lowpass_hz=None, notch_hz=())


@dataclass(frozen=True)
class Day:
    """One donning: scaled features of each trial (N, T, C) and its motion (N,)."""

    trials: NDArray[np.float32]
    motion: NDArray[np.int64]


def rows() -> list[Row]:
    """Rows: mean over pairs of days; the spread is over wearers."""
    paths = sorted(folder("longterm_suguru").glob("*.parquet"))
    found = {path.stem: list(compare(read(path), np.random.default_rng(0))) for path in paths}
    return [*told(found), *belongs()]


def read(path: Path) -> list[Day]:
    """Days of one wearer, in order, through the product's front end."""
    trials = read_trials(path, FRONT_END, rate_hz=RATE_HZ, settle_s=SETTLE_S)
    motions = sorted({t.gesture for t in trials})
    days: dict[int, list[Trial]] = {}
    for trial in trials:
        days.setdefault(int(trial.session), []).append(trial)
    return [
        Day(np.stack([t.features for t in own]), np.array([motions.index(t.gesture) for t in own]))
        for _, own in sorted(days.items())
    ]


def compare(days: list[Day], rng: np.random.Generator) -> Iterator[tuple[int, float, float, float]]:
    """Of every pair of days and every turn: electrodes turned, accuracy before, after, and error of the turn found."""
    for first, then in enumerate(days[:-1]):
        reference = activity(levels(then.trials))
        for later in days[first + 1 :]:
            few = rng.choice(len(later.trials), TRIALS, replace=False)
            worn = find_turn(activity(levels(later.trials)), reference).electrodes
            for turned in TURNS:
                trials = np.roll(later.trials, turned, axis=2)
                found = find_turn(activity(levels(trials[few])), reference)
                back = found.electrodes if found.gain > WORTH_NATS else 0.0
                before, after = (accuracy(then, t, later.motion) for t in (trials, turn(trials, back, RING)))
                yield turned, before, after, abs(back + turned - worn)


def accuracy(then: Day, trials: NDArray[np.float32], motion: NDArray[np.int64]) -> float:
    """Share of trials whose motion one day's discriminant finds."""
    scores = shrinkage_lda((points(then.trials), then.motion), points(trials), classes=int(then.motion.max()) + 1)
    return float((scores.argmax(axis=1) == motion).mean())


def points(trials: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root levels in four parts of each trial, (N, 4 C)."""
    level = np.sqrt(levels(trials))
    return level.reshape(len(level), 4, 2, -1).mean(axis=2).reshape(len(level), -1).astype(np.float32)


def belongs() -> Iterator[Row]:
    """How far arms lie at their best turn: the same wearer on another donning, the band the wrong way round, others."""
    longterm = folder("longterm_suguru")
    days = [read(path) for path in sorted(longterm.glob("*.parquet"))]
    yield from apart("longterm_suguru", [[day.trials for day in mine] for mine in days], np.random.default_rng(0))
    for band, (pattern, rate_hz) in BANDS.items():
        people = [
            read_trials(folder("three_dc") / pattern.format(n), THREE_DC, rate_hz=rate_hz, settle_s=0.5)
            for n in range(1, PEOPLE + 1)
        ]
        donnings = [[pieces(mine, session) for session in ("train", "test")] for mine in people]
        yield from apart(f"three_dc, {band}", donnings, np.random.default_rng(0))


def pieces(trials: list[Trial], session: str) -> NDArray[np.float32]:
    """Windows of a session but of the hand at rest."""
    found = [t.features for t in trials if t.session == session and t.gesture != "neutral"]
    return np.stack([f[a : a + LENGTH] for f in found for a in range(0, len(f) - LENGTH + 1, LENGTH)])


def apart(name: str, donnings: list[list[NDArray[np.float32]]], rng: np.random.Generator) -> Iterator[Row]:
    """Rows of a set: share of donnings that fit, by whose they are; the spread is of nats an electrode."""
    found: dict[str, list[float]] = {}
    for i, mine in enumerate(donnings):
        for a, first in enumerate(mine):
            then = activity(levels(first))
            mirrored = activity(levels(first[:, :, ::-1]))
            for j, theirs in enumerate(donnings):
                for later in theirs[a + 1 :] if i == j else theirs:
                    few = activity(levels(later[rng.choice(len(later), TRIALS, replace=False)]))
                    cases = {"the same wearer": then, "the wrong way round": mirrored} if i == j else {"others": then}
                    for case, reference in cases.items():
                        far = find_turn(few, reference).distance / len(reference.mean)
                        found.setdefault(case, []).append(far)
    for case, far in found.items():
        fits = fmean(f <= FITS_NATS for f in far)
        spread = (float(np.quantile(far, 0.1)), float(np.quantile(far, 0.9)))
        yield Row(group=GROUP, name=f"{name}, fits: {case}", value=fits, unit="of donnings", spread=spread,
                  repeats=len(far))  # fmt: skip


def told(found: dict[str, list[tuple[int, float, float, float]]]) -> Iterator[Row]:
    """Rows by turn."""
    for turned in sorted({abs(t) for t in TURNS}):
        mine = {who: [r for r in results if abs(r[0]) == turned] for who, results in found.items()}
        title = f"turned by {turned}" if turned else "as worn"
        columns = (("before calibration", 1, "accuracy"), ("after calibration", 2, "accuracy"),
                   ("error of the turn found", 3, "electrodes"))  # fmt: skip
        for name, column, unit in columns:
            each = [fmean(r[column] for r in results) for results in mine.values()]
            n = sum(len(results) for results in mine.values())
            yield Row(
                group=GROUP,
                name=f"{title}, {name}",
                value=fmean(each),
                unit=unit,
                spread=(min(each), max(each)),
                repeats=n,
            )
        worse = [r[2] < r[1] - 0.02 for results in mine.values() for r in results]
        yield Row(
            group=GROUP,
            name=f"{title}, made worse by over .02",
            value=fmean(worse),
            unit="of pairs",
            spread=(float(min(worse)), float(max(worse))),
            repeats=len(worse),
        )
