"""How well a new wearer's gestures are decoded from none, one or a few repetitions of their own, and by what.

Three makers of decisions see the same windows: `blend`, the wearer's model as it ships; `own`, the same with nothing
known of where a gesture lies but the repetitions; `lda`, a shrinkage discriminant fed by the repetitions alone. Decided
are late repetitions, the first ones enrol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import leakage
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.evaluate import shrinkage_lda
from embridge_cloud.learn.wearer_prior import PriorSettings, fit_wearer_prior
from embridge_cloud.study.evaluation import classes_of
from embridge_cloud.study.outcome import Figure, figure
from embridge_cloud.study.protocol import LATE_REPETITIONS
from embridge_cloud.study.splits import Split
from embridge_shared.wearer import Kernel, KnownGesture, Repetition, WearerModel, WearerPrior

Labels = NDArray[np.int64]
Points = NDArray[np.float64]

SHOTS = (0, 1, 2, 3, 5)
_FLAT = 1e4
"""Variance of where a gesture lies that says nothing beside repetitions, whose own is about 1."""


class Question(StrEnum):
    """What is enrolled, and among what is decided."""

    UNSEEN = "4-way"
    """Unseen gestures are enrolled and compete with each other."""
    ALL = "12-way"
    """All gestures are enrolled and compete."""
    CALIBRATED = "seen"
    """Seen gestures are performed and compete with each other."""
    CARRIED = "unseen-after-seen"
    """Seen gestures are performed, unseen ones compete: nobody ever recorded their EMG."""


class Maker(StrEnum):
    """Who decides."""

    BLEND = "blend"
    OWN = "own"
    LDA = "lda"


@dataclass(frozen=True, slots=True)
class _Asked:
    enrol: Labels
    among: Labels


@dataclass(frozen=True, slots=True)
class _Wearer:
    """One held-out person's windows: points, classes, repetitions."""

    points: Points
    truth: Labels
    repetition: Labels

    def rows(self, gestures: Labels, repetitions: Sequence[int]) -> Labels:
        return np.flatnonzero(np.isin(self.truth, gestures) & np.isin(self.repetition, repetitions))


def enrolment_figures(
    split: Split, *, length: int, hop: int, settings: PriorSettings | None = None
) -> tuple[Figure, ...]:
    """Every question put to every maker after every number of repetitions.

    Args:
        split: Of one run; its wearers are new.
        length: Features in a window.
        hop: Features between two windows.
        settings: Of the prior.

    Returns:
        Figures named "maker/question/shots".

    Raises:
        LeakageError: The split lets the prior see what it must not.
        DataError: It holds too little.
    """
    names = (*split.seen, *split.unseen)
    prior = fit_wearer_prior(split.train, split.gallery, names, unseen=split.unseen, settings=settings)
    leakage.check_participants(split.train.present("participants"), split.tested.present("participants"))
    wearers = {person: _wearer(prior, split.tested.of_participants([person]), names) for person in split.run.held_out}
    figures = []
    for question, asked in _questions(len(split.seen), len(names)).items():
        for shots in SHOTS:
            makers = _makers(prior, shots, length, hop)
            for maker in _able(question, shots):
                found = _decided(split, wearers, makers[maker], asked, shots)
                if found is not None:
                    truth, predicted, people = found
                    figures.append(
                        figure(
                            f"{maker}/{question}/{shots}",
                            truth,
                            predicted,
                            people,
                            names=split.run.held_out,
                            gestures=tuple(names[g] for g in asked.among),
                            chance=1 / len(asked.among),
                        )
                    )
    return tuple(figures)


def alone(prior: WearerPrior) -> WearerPrior:
    """A prior that says nothing of where a gesture lies: each is known by the wearer's own repetitions."""
    flat = replace(prior, people=np.full(prior.size, _FLAT), unseen=np.full(prior.size, _FLAT))
    return replace(flat, kernel=Kernel(shared=0.0, alike=0.0, own=1.0, length=prior.kernel.length))


_Decide = Callable[[_Wearer, _Asked, Labels], NDArray[np.float64]]


def _questions(seen: int, every: int) -> dict[Question, _Asked]:
    known, new, both = np.arange(seen), np.arange(seen, every), np.arange(every)
    return {
        Question.UNSEEN: _Asked(new, new),
        Question.ALL: _Asked(both, both),
        Question.CALIBRATED: _Asked(known, known),
        Question.CARRIED: _Asked(known, new),
    }


def _able(question: Question, shots: int) -> tuple[Maker, ...]:
    """Who has an answer: repetitions alone say nothing of a gesture that was not performed."""
    return tuple(Maker) if shots and question is not Question.CARRIED else (Maker.BLEND,)


def _wearer(prior: WearerPrior, tested: Windows, names: tuple[str, ...]) -> _Wearer:
    points = prior.describe(np.asarray(tested.emg))
    return _Wearer(points, classes_of(tested, names), tested.repetition)


def _makers(prior: WearerPrior, shots: int, length: int, hop: int) -> dict[Maker, _Decide]:
    """Those who decide after so many repetitions."""

    def model(base: WearerPrior) -> _Decide:
        def decide(wearer: _Wearer, asked: _Asked, rows: Labels) -> NDArray[np.float64]:
            own = list(_repetitions(base, wearer, asked.enrol, shots, length, hop))
            gestures = [KnownGesture(g, p) for g, p in zip(base.gestures, base.postures, strict=True)]
            return WearerModel(base, gestures, own).log_likelihood(wearer.points[rows])[:, asked.among]

        return decide

    def lda(wearer: _Wearer, asked: _Asked, rows: Labels) -> NDArray[np.float64]:
        first = wearer.rows(asked.enrol, range(1, shots + 1))
        place = np.searchsorted(asked.among, wearer.truth[first])
        return shrinkage_lda(
            (wearer.points[first].astype(np.float32), place),
            wearer.points[rows].astype(np.float32),
            classes=len(asked.among),
        )

    return {Maker.BLEND: model(prior), Maker.OWN: model(alone(prior)), Maker.LDA: lda}


def _repetitions(
    prior: WearerPrior, wearer: _Wearer, gestures: Labels, shots: int, length: int, hop: int
) -> Iterator[Repetition]:
    for g in gestures:
        for number in range(1, shots + 1):
            rows = wearer.rows(np.array([g]), [number])
            if len(rows):
                yield Repetition.of(prior.gestures[g], wearer.points[rows], length=length, hop=hop)


def _decided(
    split: Split, wearers: dict[str, _Wearer], decide: _Decide, asked: _Asked, shots: int
) -> tuple[Labels, Labels, Labels] | None:
    """Truth, decision and person of every late window; None where nobody enrolled everything."""
    truth, predicted, people = [], [], []
    tested = split.tested
    for number, (person, wearer) in enumerate(wearers.items()):
        first = wearer.rows(asked.enrol, range(1, shots + 1))
        rows = wearer.rows(asked.among, LATE_REPETITIONS)
        complete = len(np.unique(wearer.truth[first])) == len(asked.enrol) or shots == 0
        if not len(rows) or not complete:
            continue
        mine = tested.of_participants([person])
        leakage.check_repetitions(mine.select(first), mine.select(rows))
        truth.append(np.searchsorted(asked.among, wearer.truth[rows]))
        predicted.append(decide(wearer, asked, rows).argmax(axis=1))
        people.append(np.full(len(rows), number))
    if not truth:
        return None
    return np.concatenate(truth), np.concatenate(predicted).astype(np.int64), np.concatenate(people)
