"""What is learnt of a wearer without labels, and what is borrowed for one without a glove."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.config import LearnConfig, WearerConfig
from embridge_cloud.learn.data import Windows, concatenate
from embridge_cloud.learn.evaluate import mean_query
from embridge_cloud.learn.trained import Lineage
from embridge_cloud.learn.zeroshot import Embedder
from embridge_shared.errors import DataError, Reason
from embridge_shared.wearer.levels import power, shrunk

Array = NDArray[np.float32]
_MIN_WINDOWS = 8


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean (d,) and covariance (d, d) of the mean queries of some windows."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def moments(embedder: Embedder, emg: Array | None) -> Moments:
    """Where the queries of EMG windows (N, T, C) lie.

    Raises:
        DataError: There are fewer than 8 windows.
    """
    if emg is None or len(emg) < _MIN_WINDOWS:
        raise DataError(
            f"{0 if emg is None else len(emg)} windows tell nothing of a wearer; {_MIN_WINDOWS} are needed",
            reason=Reason.TOO_LITTLE_DATA,
        )
    queries = mean_query(embedder.embed_emg(emg))[:, 0].astype(np.float64)
    return Moments(queries.mean(axis=0), np.cov(queries, rowvar=False, bias=True))


@dataclass(frozen=True, slots=True)
class Adapted:
    """An embedder whose queries are moved to where those of the training people lie.

    Attributes:
        base: The embedder.
        matrix: (d, d), applied to queries around `source`.
        source: Mean query of the wearer, (d,).
        target: Mean query of the training people, (d,).
    """

    base: Embedder
    matrix: Array
    source: Array
    target: Array

    @property
    def config(self) -> LearnConfig:
        """Shapes and evaluation settings."""
        return self.base.config

    @property
    def lineage(self) -> Lineage:
        """What the embedder was trained on; what was seen of the wearer had no labels."""
        return self.base.lineage

    def embed_emg(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to unit queries (N, M, d)."""
        moved = (self.base.embed_emg(emg) - self.source) @ self.matrix.T + self.target
        return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=2, keepdims=True), 1e-12), np.float32)

    def embed_pose(self, pose: Array | None) -> Array:
        """Poses, as the embedder places them."""
        return self.base.embed_pose(pose)

    def features(self, emg: Array | None) -> Array:
        """The mean of the moved queries, (N, d)."""
        return np.asarray(self.embed_emg(emg).mean(axis=1), np.float32)

    def statistics(self) -> dict[str, Array]:
        """Everything computed on the train split."""
        return self.base.statistics()


def adapt(embedder: Embedder, train: Moments, wearer: Moments, config: WearerConfig) -> Embedder:
    """Move a wearer's queries onto those of the training people, without any label.

    Both sides must hold the same gestures in like shares, or what is moved is the difference between gestures: pass
    windows of the seen gestures on both.

    Args:
        embedder: A fitted method.
        train: Moments over training windows of the seen gestures.
        wearer: Moments over the wearer's, the same gestures.
        config: How.
    """
    if config.adapt == "none":
        return embedder
    d = len(train.mean)
    matrix = np.eye(d)
    if config.adapt == "coral":
        whiten = power(shrunk(wearer.covariance, config.shrink), -0.5)
        matrix = power(shrunk(train.covariance, config.shrink), 0.5) @ whiten
    return Adapted(
        base=embedder,
        matrix=matrix.astype(np.float32),
        source=wearer.mean.astype(np.float32),
        target=train.mean.astype(np.float32),
    )


def borrow_poses(calibration: Windows, train: Windows, rng: np.random.Generator) -> Windows:
    """Give calibration windows, which have labels and no glove, the poses of training windows of their gestures.

    Args:
        calibration: Labelled EMG.
        train: With pose; every gesture calibrated must occur.
        rng: Chooses whose pose is borrowed.

    Raises:
        DataError: A modality is missing, a window has no label, or a gesture has no pose.
    """
    if calibration.emg is None or train.pose is None:
        raise DataError("calibration needs EMG, and poses to borrow", reason=Reason.WRONG_SHAPE)
    missing = calibration.present("gestures") - train.present("gestures")
    if missing or np.any(calibration.label < 0):
        raise DataError(
            f"no pose to borrow for {sorted(missing) or 'windows without a label'}",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Calibrate with gestures whose poses were recorded.",
        )
    rows = np.empty(len(calibration), np.int64)
    for index in np.unique(calibration.label):
        name = calibration.gestures[index]
        there = np.flatnonzero(train.label == train.gestures.index(name))
        mine = np.flatnonzero(calibration.label == index)
        rows[mine] = rng.choice(there, len(mine), replace=len(mine) > len(there))
    return replace(calibration, pose=train.pose[rows])


def with_calibration(train: Windows, calibration: Windows, share: float, rng: np.random.Generator) -> Windows:
    """Training windows joined by the wearers', repeated until they are `share` of all; each copy borrows anew.

    Raises:
        DataError: As `borrow_poses`, or shapes differ.
    """
    if len(calibration) == 0:
        return train
    copies = max(1, round(share / (1 - share) * len(train) / len(calibration)))
    return concatenate([train, *(borrow_poses(calibration, train, rng) for _ in range(copies))])
