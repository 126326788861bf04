"""New wearers of two armbands: enrolment from none to four repetitions, the same day and in a later session.

`three_dc`: five people, eleven gestures, no pose; each held out in turn, the prior learnt on what the other four
performed. Repetitions of the session `train` enrol; decided are its fourth and the whole of the session `test`. The
wearer's scale comes from the first repetition of the session `train`, unlabelled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from benchmarks.framework import Row
from benchmarks.trials import Trial, folder, read_trials
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.evaluate import shrinkage_lda
from embridge_cloud.learn.wearer_prior import fit_wearer_prior
from embridge_cloud.study.enrolment import alone
from embridge_shared.preprocess import FrontEndConfig, fit_wearer_scale
from embridge_shared.wearer import KnownGesture, Repetition, WearerModel, WearerPrior

GROUP = "newcomers"
PEOPLE = 5
SHOTS = (0, 1, 2, 3, 4)
LENGTH, HOP = 160, 60
LAST = 3
MAKERS = ("blend", "own", "lda")
FRONT_END = FrontEndConfig(mode="envelope", rate_hz=100.0, notch_hz=(60.0,))
BANDS = {"Myo": ("three_dc_myo_Participant{}.parquet", 200.0), "3DC": ("three_dc_Participant{}.parquet", 1000.0)}

Wide = NDArray[np.float64]
Found = dict[tuple[str, int, str], list[float]]
"""Maker, shots and what is decided, to the accuracy of each wearer."""


@dataclass(frozen=True, slots=True)
class Person:
    """Scaled windows of one person, (N, T, C), and what each is of."""

    windows: NDArray[np.float32]
    gesture: NDArray[np.str_]
    session: NDArray[np.str_]
    repetition: NDArray[np.int64]


def rows() -> list[Row]:
    """Rows: mean over wearers; the spread is over wearers."""
    out: list[Row] = []
    for band, (pattern, rate_hz) in BANDS.items():
        people = [
            cut(read_trials(folder("three_dc") / pattern.format(n), FRONT_END, rate_hz=rate_hz, settle_s=0.5))
            for n in range(1, PEOPLE + 1)
        ]
        out += told(band, compare(people))
    return out


def cut(trials: Sequence[Trial]) -> Person:
    """Windows of a person through their own scale."""
    first = [t.features for t in trials if t.session == "train" and t.repetition == 0]
    scale = fit_wearer_scale(np.concatenate(first))
    windows, about = [], []
    for t in trials:
        for start in range(0, len(t.features) - LENGTH + 1, HOP):
            windows.append(scale.apply(t.features[start : start + LENGTH]))
            about.append((t.gesture, t.session, t.repetition))
    gesture, session, repetition = zip(*about, strict=True)
    return Person(np.stack(windows), np.array(gesture), np.array(session), np.array(repetition))


def learnt(people: Sequence[Person], gestures: Sequence[str]) -> WearerPrior:
    """What these people say of a wearer; there are no poses."""
    number = np.concatenate([np.full(len(p.windows), i) for i, p in enumerate(people)])
    gesture = np.concatenate([p.gesture for p in people])
    # a repetition counts from 1 through both sessions
    repetition = np.concatenate([p.repetition + 1 + 4 * (p.session == "test") for p in people])
    names = tuple(f"p{i}" for i in range(len(people)))
    train = Windows(
        emg=np.concatenate([p.windows for p in people]),
        pose=None,
        label=np.searchsorted(gestures, gesture),
        participant=number,
        session=number,
        repetition=repetition,
        start_s=np.arange(len(number), dtype=np.float64),
        gestures=tuple(gestures),
        participants=names,
        sessions=names,
    )
    return fit_wearer_prior(train, None, gestures)


def compare(people: Sequence[Person]) -> Found:
    """Everybody new once."""
    gestures = sorted(set(people[0].gesture))
    found: Found = {}
    for i, person in enumerate(people):
        prior = learnt([p for j, p in enumerate(people) if j != i], gestures)
        points = prior.describe(person.windows)
        truth = np.searchsorted(gestures, person.gesture)
        today = person.session == "train"
        for shots in SHOTS:
            asked = {"later session": ~today}
            if shots <= LAST:
                asked["same session"] = today & (person.repetition == LAST)
            first = today & (person.repetition < shots)
            for maker in MAKERS if shots else MAKERS[:1]:
                scores = decided(maker, prior, (points, truth, person.repetition), first)
                right = scores.argmax(axis=1) == truth
                for name, rows in asked.items():
                    each = [right[rows & (truth == g)].mean() for g in np.unique(truth[rows])]
                    found.setdefault((maker, shots, name), []).append(float(np.mean(each)))
    return found


def decided(
    maker: str, prior: WearerPrior, seen: tuple[Wide, NDArray[np.int64], NDArray[np.int64]], first: NDArray[np.bool_]
) -> Wide:
    """Scores of every window by one maker that was shown the windows of `first`."""
    points, truth, repetition = seen
    if maker == "lda":
        return shrinkage_lda(
            (points[first].astype(np.float32), truth[first]), points.astype(np.float32), classes=int(truth.max()) + 1
        )
    base = prior if maker == "blend" else alone(prior)
    own = [
        Repetition.of(prior.gestures[g], points[rows], length=LENGTH, hop=HOP)
        for g in np.unique(truth)
        for r in np.unique(repetition[first])
        if (rows := first & (truth == g) & (repetition == r)).any()
    ]
    return WearerModel(base, [KnownGesture(g, None) for g in base.gestures], own).log_likelihood(points)


def told(band: str, found: Found) -> Iterator[Row]:
    """Rows of a band, and what the blend gains on its peers with ± 2 standard errors over wearers."""
    for (maker, shots, name), each in found.items():
        title = f"{band}, {name}, {shots} repetitions, {maker}"
        spread = (min(each), max(each))
        yield Row(group=GROUP, name=title, value=fmean(each), unit="accuracy", spread=spread, repeats=len(each))
    for (maker, shots, name), theirs in found.items():
        if maker == "blend":
            continue
        gains = [a - b for a, b in zip(found["blend", shots, name], theirs, strict=True)]
        mean, error = fmean(gains), 2 * stdev(gains) / math.sqrt(len(gains))
        yield Row(
            group=GROUP,
            name=f"{band}, {name}, {shots} repetitions, blend over {maker}",
            value=mean,
            unit="± 2 s.e.",
            spread=(mean - error, mean + error),
            repeats=len(gains),
        )
