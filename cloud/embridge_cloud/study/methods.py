"""Every method of a study behind one call: fit on a split, answer as far as it can."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.baseline import fit_ridge
from embridge_cloud.learn.closed import ClosedHead, fit_closed
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows, broken_pairs
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.learn.methods import METHODS, SWITCHES, MethodSpec, fit_method
from embridge_cloud.learn.optim import ProgressCallback, ignore_progress
from embridge_cloud.learn.pipeline import pretrain_encoders
from embridge_cloud.learn.pretrain import Pretrained
from embridge_cloud.learn.supervised import Outspoken
from embridge_cloud.learn.wearer import with_calibration
from embridge_cloud.learn.zeroshot import Embedder
from embridge_cloud.study.evaluation import Fitted
from embridge_cloud.study.outcome import Job
from embridge_cloud.study.protocol import Regime
from embridge_cloud.study.splits import Split
from embridge_shared.errors import ConfigError, DataError, Reason

DRAW_SEED = 1000
OWN_SHARE = 0.5
"""Share of a calibrated wearer's windows among those that a closed form is fitted on, each copy with another pose."""


@dataclass
class Shared:
    """What the methods of one unit share, so that nothing is trained twice.

    Attributes:
        config: Of every deep method.
        progress: Told after every step.
        charged: Wall and CPU seconds of encoders used and trained before; the caller sets it back.
        encoders: Pre-trained ones without and with poses of unseen gestures, and the seconds they took.
    """

    config: LearnConfig
    progress: ProgressCallback = ignore_progress
    charged: tuple[float, float] = (0.0, 0.0)
    encoders: dict[bool, tuple[Pretrained, tuple[float, float]]] = field(default_factory=dict)

    def pretrained(self, split: Split) -> Pretrained:
        """Encoders of the first stage, of every train participant; a pose-enrolled run shows unseen poses too.

        A share of the participants thins the pairs alone, as the paper's data efficiency does, so the encoders of a
        whole unit serve there too.
        """
        enrolled = split.pose_regime is PoseRegime.POSE_ENROLLED
        if enrolled not in self.encoders:
            began, cpu = time.monotonic(), time.process_time()
            everybody = replace(split.probe, pose=split.gallery.pose).of_gestures(split.seen)
            made = pretrain_encoders(
                everybody,
                self.config,
                seed=split.run.seed,
                poses=split.unseen_poses if enrolled else None,
                progress=self.progress,
            )
            self.encoders[enrolled] = (made, (time.monotonic() - began, time.process_time() - cpu))
        else:
            made, (wall_s, cpu_s) = self.encoders[enrolled]
            self.charged = (self.charged[0] + wall_s, self.charged[1] + cpu_s)
        return made if split.share == 1 else replace(made, data=(split.train.digest(), *made.data))


Fit = Callable[[Split, Shared, Job], Fitted]


@dataclass(frozen=True, slots=True)
class StudyMethod:
    """One method.

    Attributes:
        name: In rows and on the command line.
        fit: Trains on a split.
        about: What it is, in a few words.
        deep: It takes seconds to minutes; closed forms take less.
        per_wearer: Where wearers calibrate, each has a fit of their own; else one fit serves all who calibrated.
        ships: It may become the head of a release.
    """

    name: str
    fit: Fit
    about: str
    deep: bool = True
    per_wearer: bool = False
    ships: bool = False


def _embedding(embedder: Embedder) -> Fitted:
    """What an embedder can answer; its frozen features are its own, or the mean of its queries."""
    own = getattr(embedder, "features", None)

    def queries(emg: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(embedder.embed_emg(emg).mean(axis=1), np.float32)

    return Fitted(
        embedder=embedder,
        features=own if callable(own) else queries,
        history=dict(getattr(embedder, "history", {})),
    )


def _deep(spec: MethodSpec) -> Fit:
    """A deep method, trained from the unit's encoders where its first stage is theirs."""

    def fit(split: Split, shared: Shared, job: Job) -> Fitted:
        made = fit_method(
            spec.name,
            split.train,
            seed=split.run.seed + DRAW_SEED * job.draw,
            config=shared.config,
            pretrained=shared.pretrained(split) if spec.needs_pretrained else None,
            calibration=split.calibration,
            unseen=split.unseen,
            poses=split.unseen_poses if spec.pose_enrolled else None,
            progress=shared.progress,
        )
        return _answering(spec, made, split, job)

    return fit


def _answering(spec: MethodSpec, made: Embedder, split: Split, job: Job) -> Fitted:
    """What a deep method can answer."""
    fitted = replace(_embedding(made), broken=job.draw if spec.control else None)
    if spec.leaky:
        return replace(fitted, on_pose=True)
    if not spec.zero_shot:
        return replace(fitted, embedder=None)
    if getattr(made, "gestures", ()):
        said = cast(Outspoken, made)
        order = [said.gestures.index(g) for g in split.seen]
        return replace(fitted, classify=lambda emg: np.asarray(said.classify(emg)[:, order], np.float64))
    for_wearer = getattr(made, "for_wearer", None)
    if callable(for_wearer):
        return replace(fitted, adapt=lambda emg: _embedding(for_wearer(emg)))
    return fitted


def joined_train(split: Split, seed: int) -> Windows:
    """Pairs to train on: the train part, and a calibrated wearer's windows with poses borrowed from others."""
    if split.calibration is None:
        return split.train
    return with_calibration(split.train, split.calibration, OWN_SHARE, np.random.default_rng([seed, 8]))


def _fit_regression(split: Split, shared: Shared, job: Job) -> Fitted:
    return _embedding(fit_ridge(joined_train(split, split.run.seed), shared.config))


def _fit_shuffled_regression(split: Split, shared: Shared, job: Job) -> Fitted:
    pairs = _broken(joined_train(split, split.run.seed), split, job)
    return replace(_embedding(fit_ridge(pairs, shared.config)), broken=job.draw)


def _fit_closed(split: Split, shared: Shared, job: Job) -> Fitted:
    return _embedding(_closed(split, split.train, shared))


def _fit_closed_wearer(split: Split, shared: Shared, job: Job) -> Fitted:
    head = _closed(split, split.train, shared)
    return replace(_embedding(head), adapt=lambda emg: _embedding(head.for_wearer(emg)))


def _fit_shuffled_closed(split: Split, shared: Shared, job: Job) -> Fitted:
    return replace(_embedding(_closed(split, _broken(split.train, split, job), shared)), broken=job.draw)


def _closed(split: Split, train: Windows, shared: Shared) -> ClosedHead:
    """The closed-form head; of a calibrated wearer it is given labelled EMG too."""
    return fit_closed(train, shared.config, calibration=split.calibration, unseen=split.unseen)


def _broken(pairs: Windows, split: Split, job: Job) -> Windows:
    """Pairs in which every gesture's EMG meets the poses of all gestures alike."""
    if pairs.pose is None:
        raise DataError("there are no pairs to break", reason=Reason.WRONG_SHAPE)
    order = broken_pairs(pairs.label, np.random.default_rng([split.run.seed, split.run.rotation, 9, job.draw]))
    return replace(pairs, pose=pairs.pose[order])


def _fit_posture_ceiling(split: Split, shared: Shared, job: Job) -> Fitted:
    """The wearer's own glove in place of EMG."""
    ridge = fit_ridge(split.train, shared.config)
    return Fitted(embedder=ridge, features=ridge.embed_pose, on_pose=True)


_OWN: tuple[StudyMethod, ...] = (
    StudyMethod("regression", _fit_regression, "ridge to the mean posture", deep=False, per_wearer=True, ships=True),
    StudyMethod(
        "closed",
        _fit_closed,
        "both ways by ridge regression, compared in both",
        deep=False,
        per_wearer=True,
        ships=True,
    ),
    StudyMethod(
        "closed:wearer",
        _fit_closed_wearer,
        "closed, moved to the wearer by unlabelled EMG of seen gestures",
        deep=False,
        per_wearer=True,
    ),
    StudyMethod("shuffled-closed", _fit_shuffled_closed, "closed on broken pairs", deep=False),
    StudyMethod("shuffled-regression", _fit_shuffled_regression, "regression on broken pairs", deep=False),
    StudyMethod("posture-ceiling", _fit_posture_ceiling, "the tested windows' own mean posture", deep=False),
)

CLOSED: tuple[str, ...] = ("closed", "closed:wearer")
"""Closed-form heads beside the regression, the one that ships first."""

_SHIPS = frozenset({"embridge", "cpep", "regression-net"})


@cache
def methods() -> Mapping[str, StudyMethod]:
    """Every method by name: deep ones, closed forms, controls and ceilings."""
    specs = (*METHODS.values(), *SWITCHES.values())
    deep = (StudyMethod(s.name, _deep(s), s.description, ships=s.name in _SHIPS) for s in specs)
    return MappingProxyType({m.name: m for m in (*deep, *_OWN)})


def method(name: str) -> StudyMethod:
    """The method called `name`.

    Raises:
        ConfigError: There is none of that name.
    """
    known = methods()
    if name not in known:
        raise ConfigError(f"no method {name!r}", hint=f"Choose among {', '.join(known)}.")
    return known[name]


def calibrates_alone(chosen: StudyMethod, split: Split) -> bool:
    """Whether each wearer of a split gets a fit of their own."""
    return chosen.per_wearer and split.regime is Regime.CALIBRATED
