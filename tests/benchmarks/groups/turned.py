"""A turned band on NinaPro DB1: decoding of new wearers before and after its turn is found without labels and undone.

Fold A, everybody held out once; the eight electrodes of DB1's ring are rolled by one and two places in repetitions 4 to
10, two others stay. How the band sat is known from repetitions 1 to 3, which also calibrate where three repetitions are
given; how it sits now from repetitions 4 and 5; decided are 6 to 10. No label is used to find the turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from statistics import fmean

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.framework import Row
from benchmarks.trials import folder
from embridge_cloud.datasets.features import fit_wearer, prepare
from embridge_cloud.learn.wearer_prior import fit_wearer_prior
from embridge_cloud.runs.spec import default_spec
from embridge_cloud.study.protocol import db1_fold, groups_of, plan
from embridge_cloud.study.source import DatasetSource
from embridge_cloud.study.splits import make_split
from embridge_shared.preprocess import FrontEndConfig, WearerScale
from embridge_shared.wearer import KnownGesture, Repetition, WearerModel, WearerPrior
from embridge_shared.wearer.donning import WORTH_NATS, activity, find_turn, refit
from embridge_shared.wearer.levels import levels
from embridge_shared.wearer.worn import Sits, WornScale

GROUP = "turned"
FOLD = "A"
RING = tuple(range(8))
TURNS = (0, 1, -1, 2, -2)
STEP = 60
FRONT_END = FrontEndConfig(mode="identity")

Results = dict[tuple[str, int, str], list[float]]
"""Question, electrodes turned and condition to the accuracy of each wearer and direction."""


@dataclass(frozen=True, slots=True)
class Wearer:
    """Unscaled windows of one person, (N, T, C), what each is of, and their scale."""

    windows: NDArray[np.float32]
    gesture: NDArray[np.str_]
    repetition: NDArray[np.int64]
    scale: WearerScale

    def rows(self, gestures: tuple[str, ...], repetitions: range) -> NDArray[np.bool_]:
        """Which windows."""
        return np.isin(self.gesture, gestures) & np.isin(self.repetition, repetitions)


def rows() -> list[Row]:
    """Rows: mean over wearers and directions; the spread is over wearers."""
    spec, fold = default_spec("envelope"), db1_fold(FOLD)
    name = f"ninapro:{folder('ninapro_db1')}"
    source = DatasetSource(name, spec.cut)
    # the same windows, before the wearer's scale
    plain = DatasetSource(name, msgspec.structs.replace(spec.cut, emg_scale=None)).windows(fold.unseen)
    scaled = source.windows(fold.unseen)
    scales = {
        r.participant: fit_wearer([prepare(r, spec.cut, frozenset(fold.unseen))], spec.cut) for r in source.recordings
    }
    found: Results = {}
    for run in plan([fold], groups_of(source.participants()), seeds=1):
        split = make_split(scaled, run, spec.cut.window_s)
        names = (*split.seen, *split.unseen)
        prior = fit_wearer_prior(split.train, split.gallery, names, unseen=split.unseen)
        for person in run.held_out:
            mine, scale = plain.of_participants([person]), scales[person]
            assert scale is not None
            gesture = np.array(mine.gestures)[mine.label]
            who = Wearer(np.asarray(mine.emg), gesture, mine.repetition, scale)
            for key, right in judged(prior, who, split.seen, split.unseen, spec.cut.length):
                found.setdefault(key, []).append(right)
    return list(told(found))


def judged(
    prior: WearerPrior, who: Wearer, seen: tuple[str, ...], unseen: tuple[str, ...], length: int
) -> Iterator[tuple[tuple[str, int, str], float]]:
    """Every question, turn and condition of one wearer."""
    gestures = [KnownGesture(g, p) for g, p in zip(prior.gestures, prior.postures, strict=True)]
    own = [
        Repetition.of(g, prior.describe(who.scale.apply(who.windows[rows])), length=length, hop=STEP)
        for g, r in product(seen, (1, 2, 3))
        if (rows := who.rows((g,), range(r, r + 1))).any()
    ]
    then = activity(levels(who.windows[who.rows(seen, range(1, 4))][:, :, list(RING)]))
    asked = (("seen, never met", seen, []), ("seen, 3 repetitions", seen, own), ("unseen, pose alone", unseen, []),
             ("unseen, 3 repetitions of the seen", unseen, own))  # fmt: skip
    models = {name: (among, WearerModel(prior, gestures, reps)) for name, among, reps in asked}
    for turned in TURNS:
        windows = who.windows.copy()
        windows[:, :, list(RING)] = np.roll(windows[:, :, list(RING)], turned, axis=2)
        today = activity(levels(windows[who.rows(seen, range(4, 6))][:, :, list(RING)]))
        turn = find_turn(today, then)
        back = turn.electrodes if turn.gain > WORTH_NATS else 0.0
        gain = np.ones(prior.channels)
        gain[list(RING)] = refit(today, then, back)
        sits = Sits(ring=RING, electrodes=back, gain=tuple(gain.tolist()))
        conditions = {"as it sits": who.scale, "calibrated": WornScale(who.scale, sits, FRONT_END)}
        yield ("error of the turn found, electrodes", abs(turned), ""), abs(back + turned)
        for name, (among, model) in models.items():
            late = who.rows(among, range(6, 11))
            for condition, scale in conditions.items():
                scores = model.log_likelihood(prior.describe(scale.apply(windows[late])))
                places = [model.labels.index(g) for g in among]
                decided = np.array(among)[scores[:, places].argmax(axis=1)]
                right = [(decided[who.gesture[late] == g] == g).mean() for g in among]
                yield (name, abs(turned), condition), float(np.mean(right))


def told(found: Results) -> Iterator[Row]:
    """Rows in the order measured."""
    for (name, turned, condition), each in sorted(found.items()):
        title = f"{name}, turned by {turned}" + (f", {condition}" if condition else "")
        unit = "accuracy" if condition else "electrodes"
        spread = (min(each), max(each))
        yield Row(group=GROUP, name=title, value=fmean(each), unit=unit, spread=spread, repeats=len(each))
