"""Enrolled once, worn for a month: decay over days, with calibration of the donning, and with re-enrolment on advice.

`longterm_suguru`: two wearers, ten days, 22 motions, four trials of each a day. The prior is learnt on the five people
of `three_dc` who wore a Myo and made eleven other gestures, so nothing of these wearers or motions is known before. All
conditions of a later day decide its trials 2 to 4; calibration sees sixteen random trials of that day, unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.framework import Row
from benchmarks.groups import newcomers
from benchmarks.trials import Trial, folder, read_trials
from embridge_cloud.learn.evaluate import shrinkage_lda
from embridge_edge.decode.drift import SPEAK_AT, WATCH_AT, Level, judged, log_distance, usual_distance
from embridge_shared.preprocess import FrontEndConfig, WearerScale, fit_wearer_scale
from embridge_shared.wearer import KnownGesture, Repetition, WearerModel, WearerPrior
from embridge_shared.wearer.donning import WORTH_NATS, Activity, Turn, activity, find_turn, refit
from embridge_shared.wearer.levels import levels
from embridge_shared.wearer.worn import Sits, WornScale

GROUP = "decay"
WEARERS = ("sub1", "sub2")
SHOTS = (1, 2, 3, 4)
UNLABELLED = 16
DRAWS = 3
MOTIONS = 22
RING = tuple(range(8))
FRONT_END = FrontEndConfig(mode="envelope", rate_hz=100.0, lowpass_hz=None, notch_hz=())
THRESHOLDS = (0.1, WATCH_AT, SPEAK_AT, 0.5, 0.7)
CONDITIONS = ("as worn", "turn undone", "turn undone, strength refitted", "and one trial of each when advised")

Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Day:
    """One donning: unscaled features of each trial (N, T, C), its motion (N,) and its number from 1 (N,)."""

    trials: NDArray[np.float32]
    motion: NDArray[np.int64]
    number: NDArray[np.int64]

    def first(self, shots: int) -> NDArray[np.bool_]:
        """Trials up to a number."""
        return self.number <= shots


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A wearer as enrolled on a day."""

    prior: WearerPrior
    scale: WearerScale
    activity: Activity
    own: tuple[Repetition, ...]

    def model(self) -> WearerModel:
        """What decodes."""
        return WearerModel(self.prior, [KnownGesture(f"M{g}", None) for g in range(MOTIONS)], self.own)

    def points(self, trials: NDArray[np.float32], scale: WearerScale | WornScale) -> Wide:
        """Trials in the prior's space."""
        return self.prior.describe(scale.apply(trials))


def rows() -> list[Row]:
    """Rows: mean over days and wearers; the spread is over wearers, of the rules of drift over nothing."""
    prior = other_people()
    wearers = {who: days_of(read_trials(folder("longterm_suguru") / f"{who}.parquet", FRONT_END, rate_hz=200.0,
                                        settle_s=0.19)) for who in WEARERS}  # fmt: skip
    out: list[Row] = []
    for shots in SHOTS:
        out += told_decay(shots, [decay(prior, days, shots) for days in wearers.values()])
    out += told_rules([case for days in wearers.values() for case in cases(prior, days)])
    return out


def other_people() -> WearerPrior:
    """What five people with a Myo say of a wearer."""
    pattern, rate_hz = newcomers.BANDS["Myo"]
    people = [
        newcomers.cut(read_trials(folder("three_dc") / pattern.format(n), FRONT_END, rate_hz=rate_hz, settle_s=0.5))
        for n in range(1, newcomers.PEOPLE + 1)
    ]
    return newcomers.learnt(people, sorted(set(people[0].gesture)))


def days_of(trials: list[Trial]) -> list[Day]:
    """Days in order."""
    days: dict[int, list[Trial]] = {}
    for trial in trials:
        days.setdefault(int(trial.session), []).append(trial)
    return [
        Day(
            np.stack([t.features for t in found]),
            np.array([int(t.gesture[1:]) - 1 for t in found]),
            np.array([t.repetition for t in found]),
        )
        for _, found in sorted(days.items())
    ]


def enrol(prior: WearerPrior, day: Day, shots: int) -> Enrolled:
    """From the first trials of every motion."""
    first = day.first(shots)
    scale = fit_wearer_scale(day.trials[first].reshape(-1, len(RING)))
    own = repetitions(prior, day, first, scale)
    return Enrolled(prior, scale, activity(levels(day.trials[first])), own)


def repetitions(
    prior: WearerPrior, day: Day, chosen: NDArray[np.bool_], scale: WearerScale | WornScale
) -> tuple[Repetition, ...]:
    """Each chosen trial as one window."""
    points, length = prior.describe(scale.apply(day.trials[chosen])), day.trials.shape[1]
    return tuple(
        Repetition.of(f"M{g}", p[None], length=length, hop=length)
        for g, p in zip(day.motion[chosen], points, strict=True)
    )


def donned(who: Enrolled, day: Day, few: NDArray[np.int64], *, strength: bool) -> tuple[WornScale, Turn]:
    """The scale of a day, from some of its trials without their labels."""
    today = activity(levels(day.trials[few]))
    found = find_turn(today, who.activity)
    electrodes = found.electrodes if found.gain > WORTH_NATS else 0.0
    gain = refit(today, who.activity, electrodes) if strength else (1.0,) * len(RING)
    return WornScale(who.scale, Sits(ring=RING, electrodes=electrodes, gain=gain), FRONT_END), found


def decided(model: WearerModel, points: Wide, motion: NDArray[np.int64]) -> float:
    """Share of trials decided right."""
    return float((model.log_likelihood(points).argmax(axis=1) == motion).mean())


def decay(prior: WearerPrior, days: list[Day], shots: int) -> dict[str, list[float]]:
    """Accuracy of each condition on every later day."""
    who, found = enrol(prior, days[0], shots), {}
    known = WearerModel(prior, who.model().gestures, who.own)
    usual = usual_distance(known, who.own) or 0.0
    lda = (who.points(days[0].trials[days[0].first(shots)], who.scale), days[0].motion[days[0].first(shots)])
    if shots < max(days[0].number):
        rest = days[0].number == max(days[0].number)
        points = who.points(days[0].trials[rest], who.scale)
        found["the same day"] = [decided(known, points, days[0].motion[rest])]
    for i, day in enumerate(days[1:]):
        few = np.random.default_rng(i).choice(len(day.trials), UNLABELLED, replace=False)
        late = ~day.first(1)
        turned, full = (donned(who, day, few, strength=s)[0] for s in (False, True))
        for name, scale in zip(CONDITIONS, (who.scale, turned, full), strict=False):
            points = who.points(day.trials[late], scale)
            found.setdefault(name, []).append(decided(known, points, day.motion[late]))
            if name != CONDITIONS[1]:
                scores = shrinkage_lda((lda[0].astype(np.float32), lda[1]), points.astype(np.float32), classes=MOTIONS)
                right = float((scores.argmax(axis=1) == day.motion[late]).mean())
                found.setdefault(f"{name}, lda on repetitions alone", []).append(right)
        farther = float(log_distance(known, who.points(day.trials[few], full)).mean()) - usual
        advised = judged(farther, None, donned=True)[0] is Level.RE_ENROL
        again = repetitions(prior, day, day.first(1), full) if advised else ()
        model = replace(who, own=(*who.own, *again)).model()
        found.setdefault(CONDITIONS[3], []).append(decided(model, who.points(day.trials[late], full), day.motion[late]))
        found.setdefault("days of re-enrolment", []).append(float(advised))
    return found


@dataclass(frozen=True, slots=True)
class Case:
    """A day decoded by an enrolment: what the monitor measures, and what is lost.

    Attributes:
        same: It is the day of the enrolment.
        farther: As worn.
        turn: As worn.
        after: The same as `farther` with the donning calibrated.
        lost: Accuracy lost against the day of the enrolment, as worn.
        left: The same with the donning calibrated.
    """

    same: bool
    farther: float
    turn: Turn
    after: float
    lost: float
    left: float


def cases(prior: WearerPrior, days: list[Day]) -> Iterator[Case]:
    """Every day enrolled with three trials, watched on its fourth and on every later day."""
    rng = np.random.default_rng(0)
    for i, day in enumerate(days):
        who = enrol(prior, day, 3)
        model = who.model()
        usual = usual_distance(model, who.own) or 0.0
        fourth = ~day.first(3)
        best = decided(model, who.points(day.trials[fourth], who.scale), day.motion[fourth])
        for later in days[i:]:
            same = later is day
            pool = np.flatnonzero(fourth) if same else np.arange(len(later.trials))
            for _ in range(DRAWS):
                few = rng.choice(pool, UNLABELLED, replace=False)
                asked = np.setdiff1d(pool, few) if not same else pool
                full, found = donned(who, later, few, strength=True)
                far = [float(log_distance(model, who.points(later.trials[few], s)).mean()) - usual
                       for s in (who.scale, full)]  # fmt: skip
                got = [decided(model, who.points(later.trials[asked], s), later.motion[asked])
                       for s in (who.scale, full)]  # fmt: skip
                yield Case(same, far[0], found, far[1], best - got[0], best - got[1])


def told_decay(shots: int, wearers: list[dict[str, list[float]]]) -> Iterator[Row]:
    """Rows of one number of repetitions."""
    for name in wearers[0]:
        each = [fmean(found[name]) for found in wearers]
        unit = "of days" if name.startswith("days") else "accuracy"
        spread = (min(each), max(each))
        n = sum(len(found[name]) for found in wearers)
        yield Row(group=GROUP, name=f"{shots} trials, {name}", value=fmean(each), unit=unit, spread=spread, repeats=n)


def told_rules(found: list[Case]) -> Iterator[Row]:
    """When the monitor speaks, and when it should have."""
    rules = [(f"farther >= {at:g}", lambda c, at=at: c.farther >= at) for at in THRESHOLDS]
    rules += [(f"turn gains > {WORTH_NATS:g} nats", lambda c: c.turn.gain > WORTH_NATS)]
    rules += [("re-don", lambda c: judged(c.farther, c.turn, donned=False)[0] is Level.RE_DON)]
    for name, speaks in rules:
        yield from told_rule(f"as worn, {name}", [(c.same, speaks(c), c.lost) for c in found])
    for at in THRESHOLDS:
        yield from told_rule(f"donning calibrated, farther >= {at:g}", [(c.same, c.after >= at, c.left) for c in found])


def told_rule(name: str, each: list[tuple[bool, bool, float]]) -> Iterator[Row]:
    """How often a rule speaks on the day of the enrolment, what is lost when it does, and when it is silent."""
    same = [spoke for same, spoke, _ in each if same]
    spoken = [lost for same, spoke, lost in each if not same and spoke]
    silent = [lost for same, spoke, lost in each if not same and not spoke]
    missed = [not spoke for same, spoke, lost in each if not same and lost > 0.1]
    for what, values, unit in (
        ("speaks on the day of enrolment", same, "of cases"),
        ("lost when it speaks", spoken, "accuracy"),
        ("lost when it is silent", silent, "accuracy"),
        ("silent while over .1 is lost", missed, "of cases"),
    ):
        if values:
            numbers = [float(v) for v in values]
            spread = (min(numbers), max(numbers))
            yield Row(group=GROUP, name=f"{name}: {what}", value=fmean(numbers), unit=unit, spread=spread,
                      repeats=len(numbers))  # fmt: skip
