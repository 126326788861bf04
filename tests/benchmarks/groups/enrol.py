"""Enrolment and calibration of new wearers on NinaPro DB1: pose and other people, repetitions alone, and both."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from benchmarks.framework import Row
from embridge_cloud.runs.spec import default_spec
from embridge_cloud.study.enrolment import SHOTS, Maker, Question, enrolment_figures
from embridge_cloud.study.protocol import Fold, db1_fold, groups_of, plan
from embridge_cloud.study.source import DatasetSource
from embridge_cloud.study.splits import make_split

GROUP = "enrol"
FOLDS = ("A", "B", "C")

Figures = dict[str, dict[tuple[str, str], float]]
"""Question, maker and shots to the accuracy of each wearer in each fold."""


def rows() -> list[Row]:
    """Rows on the folds that are reported; the spread is over runs."""
    data = Path(os.environ.get("EMBRIDGE_TEST_DATA", "../shared/data")) / "ninapro_db1"
    return list(told(measure(data, [db1_fold(name) for name in FOLDS])))


def measure(data: Path, folds: Sequence[Fold]) -> Figures:
    """Everybody held out once in every fold."""
    spec = default_spec("envelope")
    source = DatasetSource(f"ninapro:{data}", spec.cut)
    found: Figures = {}
    for fold in folds:
        windows = source.windows(fold.unseen)
        for run in plan([fold], groups_of(source.participants()), seeds=1):
            split = make_split(windows, run, spec.cut.window_s)
            for figure in enrolment_figures(split, length=spec.cut.length, hop=spec.cut.stride):
                each = found.setdefault(figure.protocol, {})
                each |= {(fold.name, person): value for person, value in figure.per_participant.items()}
    return found


def told(found: Figures) -> Iterator[Row]:
    """Rows: mean over wearers and folds, its spread over folds, and what the blend gains on repetitions alone."""
    for question in Question:
        for shots in SHOTS:
            for maker in Maker:
                each = found.get(f"{maker}/{question}/{shots}")
                if each is None:
                    continue
                folds = [fmean(v for (f, _), v in each.items() if f == fold) for fold in FOLDS]
                name = f"{question}, {shots} repetitions, {maker}"
                spread = (min(folds), max(folds))
                yield Row(
                    group=GROUP, name=name, value=fmean(folds), unit="accuracy", spread=spread, repeats=len(folds)
                )
            for peer in (Maker.OWN, Maker.LDA):
                blend, other = (found.get(f"{m}/{question}/{shots}") for m in (Maker.BLEND, peer))
                if blend is not None and other is not None:
                    yield _gain(f"{question}, {shots} repetitions, blend over {peer}", blend, other)


def _gain(name: str, ours: dict[tuple[str, str], float], theirs: dict[tuple[str, str], float]) -> Row:
    """Mean difference with ± 2 standard errors over wearers."""
    people = sorted({person for _, person in ours})
    each = [fmean(ours[k] - theirs[k] for k in ours if k[1] == person) for person in people]
    error = 2 * stdev(each) / math.sqrt(len(each))
    mean = fmean(each)
    return Row(
        group=GROUP, name=name, value=mean, unit="± 2 s.e.", spread=(mean - error, mean + error), repeats=len(each)
    )
