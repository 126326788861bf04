"""The closed-form head: EMG to posture and posture to EMG, both by ridge regression, compared in both spaces at once.

Decoding asks which posture the EMG means; encoding asks which EMG a posture would give, and measures the distance in
the metric of what varies within a gesture. Muscles pull one way only, so a posture counts as flexion and extension
from rest, each on its own. Nothing is random and a fit takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import leakage
from embridge_cloud.learn.closed_graph import BendGraph, ClosedGraph
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.trained import Lineage
from embridge_shared.errors import DataError, LeakageError, Reason
from embridge_shared.wearer.levels import (
    Array,
    Moments,
    View,
    Wide,
    describe,
    levels,
    moments,
    power,
    shrunk,
    unit,
    view_of,
)
from embridge_shared.wearer.prior import bends as bends_of
from embridge_shared.wearer.prior import joint_scale


@dataclass(frozen=True, slots=True)
class ClosedSettings:
    """Choices of the closed-form head, made on unseen sets no table shows.

    Attributes:
        decode_l2: Penalty of EMG to posture, a share of the features' variance.
        encode_l2: Penalty of posture to EMG, a share of the postures' variance.
        round: Share by which the covariance within gestures is drawn to a sphere.
        encode: Weight of the encoding side among both, 0..1.
        own: Share of a calibrated wearer's own windows in everything fitted.
    """

    decode_l2: float = 0.1
    encode_l2: float = 0.3
    round: float = 0.3
    encode: float = 2 / 3
    own: float = 0.5


@dataclass(frozen=True, slots=True)
class ClosedHead:
    """A fitted head; an `Embedder` with one query a window.

    Attributes:
        config: Shapes and evaluation settings.
        lineage: What it was fitted on.
        people_mean: Mean root level of the training people, (C,).
        people_covariance: Its covariance, (C, C).
        view_mean: Of the wearer it speaks for, (C,).
        view_matrix: Likewise, (C, C).
        feature: Mean and deviation of the features, (2, F).
        joint: Origin and scale of each joint, (2, J).
        bend: Mean of the bends, flexion and extension of each joint, (2 J,).
        decode: Features to bends, (F, 2 J).
        metric: Features to where what varies within a gesture is round, (F, F).
        encode: Bends to the same, (2 J, F).
        within: As `metric`, of what varies within a gesture of one wearer, (F, F).
        weight: Of the encoding side, (1,).
    """

    config: LearnConfig
    lineage: Lineage
    people_mean: Array
    people_covariance: Array
    view_mean: Array
    view_matrix: Array
    feature: Array
    joint: Array
    bend: Array
    decode: Array
    metric: Array
    encode: Array
    within: Array
    weight: Array

    def embed_emg(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to one unit query each, (N, 1, 2 J + F)."""
        x = self._describe(emg)
        return self._joined(x @ self.decode, x @ self.metric)[:, None, :]

    def embed_pose(self, pose: Array | None) -> Array:
        """Poses, float32 (N, Tp, J), to unit vectors (N, 2 J + F)."""
        bends = bends_of(_means(pose), self.joint) - self.bend
        return self._joined(bends, bends @ self.encode)

    def features(self, emg: Array | None) -> Array:
        """Frozen features (N, F), round where gestures of one wearer vary: made for probes and enrolment."""
        return np.asarray(self._describe(emg) @ self.within, np.float32)

    def for_wearer(self, emg: Array | None) -> ClosedHead:
        """The head moved to a wearer by unlabelled EMG of seen gestures, float32 (N, T, C).

        Raises:
            DataError: These are fewer than 8 windows.
        """
        people = Moments(self.people_mean.astype(np.float64), self.people_covariance.astype(np.float64))
        view = view_of(moments(levels(emg)), people)
        return replace(self, view_mean=view.mean.astype(np.float32), view_matrix=view.matrix.astype(np.float32))

    def statistics(self) -> dict[str, Array]:
        """Everything computed on the train split; a wearer's unlabelled view is none of it."""
        return {name: getattr(self, name) for name in _FITTED}

    def module(self) -> ClosedGraph:
        """What the edge runs: float32 (B, T, C) to unit queries (B, 1, 2 J + F)."""
        return ClosedGraph(
            View(self.view_mean.astype(np.float64), self.view_matrix.astype(np.float64)),
            self.feature,
            (self.decode, self.metric),
            float(self.weight[0]),
        )

    def pose_module(self) -> BendGraph:
        """What places gestures by their pose: float32 (B, Tp, J) to unit vectors (B, 2 J + F)."""
        return BendGraph(self.joint, self.bend, self.encode, float(self.weight[0]))

    def _describe(self, emg: Array | None) -> Wide:
        level = levels(emg)
        if level.shape[2] != len(self.view_mean):
            raise DataError(
                f"a head for {len(self.view_mean)} channels meets {level.shape[2]}", reason=Reason.WRONG_SHAPE
            )
        x = describe(level, View(self.view_mean.astype(np.float64), self.view_matrix.astype(np.float64)))
        return np.asarray((x - self.feature[0]) / self.feature[1])

    def _joined(self, decoded: Wide, encoded: Wide) -> Array:
        share = float(self.weight[0])
        parts = [np.sqrt(1 - share) * unit(decoded), np.sqrt(share) * unit(encoded)]
        return np.concatenate(parts, axis=1).astype(np.float32)


_VIEW = ("view_mean", "view_matrix")
_FITTED = tuple(f.name for f in fields(ClosedHead) if f.name not in ("config", "lineage", *_VIEW))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Standardised features and centred bends, with the gesture and the gesture-of-a-wearer of each row."""

    x: Wide
    bends: Wide
    gesture: NDArray[np.int64]
    donned: NDArray[np.int64]


def fit_closed(
    train: Windows,
    config: LearnConfig,
    *,
    settings: ClosedSettings | None = None,
    calibration: Windows | None = None,
    unseen: Sequence[str] = (),
) -> ClosedHead:
    """Fit the head.

    Args:
        train: Labelled pairs of the training people; windows without a label are left out.
        config: The run.
        settings: Choices; the defaults without.
        calibration: Labelled EMG of the one wearer the head is for; a glove is not looked at, the posture of each
            gesture is that of the training people.
        unseen: Gestures whose EMG must not be there.

    Raises:
        DataError: A modality is missing, or there is too little.
        LeakageError: EMG of unseen gestures is there, or the wearer is among the training people.
    """
    made = settings or ClosedSettings()
    train = train.select(train.label >= 0)
    _check(train, calibration, unseen)
    level = levels(train.emg)
    each = {int(p): moments(level[train.participant == p]) for p in np.unique(train.participant)}
    people = Moments(
        np.mean([m.mean for m in each.values()], axis=0), np.mean([m.covariance for m in each.values()], axis=0)
    )
    raw = np.empty((len(train), describe(level[:1], view_of(people, people)).shape[1]))
    for p, own in each.items():
        raw[train.participant == p] = describe(level[train.participant == p], view_of(own, people))
    feature = np.stack([raw.mean(axis=0), raw.std(axis=0)])
    feature[1] = np.maximum(feature[1], 1e-6 + 1e-3 * feature[1].max())
    postures = _means(train.pose)
    joint = joint_scale(postures)
    bends = bends_of(postures, joint)
    bend = bends.mean(axis=0)
    donned = np.unique(np.stack([train.participant, train.label]), axis=1, return_inverse=True)[1].reshape(-1)
    pairs = _Pairs((raw - feature[0]) / feature[1], bends - bend, train.label, donned)
    view, mine = view_of(people, people), None
    if calibration is not None:
        view = view_of(moments(levels(calibration.emg)), people)
        mine = _own_pairs(
            calibration, (describe(levels(calibration.emg), view) - feature[0]) / feature[1], train, pairs
        )
    parts = {
        "people_mean": people.mean,
        "people_covariance": people.covariance,
        "feature": feature,
        "joint": joint,
        "bend": bend,
        "weight": np.array([made.encode]),
        **_maps(pairs, mine, made),
    }
    fitted = {name: np.asarray(value, np.float32) for name, value in parts.items()}
    return ClosedHead(
        config=config,
        lineage=_lineage(train, calibration, config, fitted),
        view_mean=view.mean.astype(np.float32),
        view_matrix=view.matrix.astype(np.float32),
        **fitted,
    )


def _check(train: Windows, calibration: Windows | None, unseen: Sequence[str]) -> None:
    """Modalities, enough of them, and nothing held out."""
    if train.emg is None or train.pose is None or len(np.unique(train.label)) < 2:
        raise DataError(
            "the closed-form head needs EMG and pose of two gestures or more", reason=Reason.TOO_LITTLE_DATA
        )
    leakage.check_unseen(train, unseen)
    if calibration is None:
        return
    leakage.check_unseen(calibration, unseen, what="calibration")
    leakage.check_participants(train.present("participants"), calibration.present("participants"), what="calibration")
    if len(calibration.present("participants")) != 1:
        raise LeakageError("a calibration is of one wearer", hint="Fit a head for each wearer.")
    missing = calibration.present("gestures") - train.present("gestures")
    if missing or np.any(calibration.label < 0):
        raise DataError(
            f"no pose to borrow for {sorted(missing) or 'windows without a label'}",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Calibrate with gestures whose poses were recorded.",
        )


def _means(pose: Array | None) -> Wide:
    """Mean posture of each window, (N, J)."""
    if pose is None or pose.ndim != 3:
        raise DataError("there is no pose (N, time, joints) to embed", reason=Reason.WRONG_SHAPE)
    return np.asarray(pose.mean(axis=1, dtype=np.float64))


def _own_pairs(calibration: Windows, x: Wide, train: Windows, pairs: _Pairs) -> _Pairs:
    """A calibrated wearer's windows, with the mean bends of the training people's gesture."""
    place = [train.gestures.index(g) if g in train.gestures else -1 for g in calibration.gestures]
    gesture = np.array(place, np.int64)[calibration.label]
    bends = np.stack([pairs.bends[pairs.gesture == g].mean(axis=0) for g in gesture])
    return _Pairs(x, bends, gesture, gesture)


def _maps(pairs: _Pairs, mine: _Pairs | None, made: ClosedSettings) -> dict[str, Wide]:
    """Decoding, encoding and both metrics; a wearer's own windows count for `own` of all."""

    def mixed(theirs: Wide, own: Wide | None) -> Wide:
        return theirs if own is None else (1 - made.own) * theirs + made.own * own

    xx, xy, yy = (mixed(a, b) for a, b in zip(_moments(pairs), _moments(mine) if mine else (None,) * 3, strict=True))
    alike = _scatter(pairs.x, pairs.donned)
    own = None if mine is None else _scatter(mine.x, mine.gesture)
    within = power(shrunk(mixed(alike, own), made.round), -0.5)
    metric = within if mine else power(shrunk(_scatter(pairs.x, pairs.gesture), made.round), -0.5)
    decode = np.linalg.solve(xx + made.decode_l2 * np.trace(xx) / len(xx) * np.eye(len(xx)), xy)
    encode = np.linalg.solve(yy + made.encode_l2 * np.trace(yy) / len(yy) * np.eye(len(yy)), xy.T) @ metric
    return {"decode": decode, "encode": encode, "metric": metric, "within": within}


def _moments(pairs: _Pairs) -> tuple[Wide, Wide, Wide]:
    """Second moments of features, of features with bends, of bends."""
    n = len(pairs.x)
    return pairs.x.T @ pairs.x / n, pairs.x.T @ pairs.bends / n, pairs.bends.T @ pairs.bends / n


def _scatter(x: Wide, group: NDArray[np.int64]) -> Wide:
    """Covariance around the mean of each group."""
    _, place = np.unique(group, return_inverse=True)
    counts = np.bincount(place)
    sums = np.zeros((len(counts), x.shape[1]))
    np.add.at(sums, place, x)
    rest = x - (sums / counts[:, None])[place]
    return np.asarray(rest.T @ rest / max(1, len(x) - len(counts)))


def _lineage(train: Windows, calibration: Windows | None, config: LearnConfig, fitted: dict[str, Array]) -> Lineage:
    """Everyone and everything that went into a fit."""
    sets = [train] if calibration is None else [train, calibration]
    gestures = tuple(sorted(train.present("gestures")))
    return Lineage(
        seed=0,
        config=config.digest(),
        data=tuple(s.digest() for s in sets),
        statistics=leakage.statistics_digest(fitted),
        participants=tuple(sorted({p for s in sets for p in s.present("participants")})),
        sessions=tuple(sorted({n for s in sets for n in s.present("sessions")})),
        emg_gestures=gestures,
        pose_gestures=gestures,
    )
