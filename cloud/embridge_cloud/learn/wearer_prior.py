"""What training participants say of a wearer nobody has met: fitted once a release, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import leakage
from embridge_cloud.learn.data import Windows
from embridge_shared.errors import DataError, Reason
from embridge_shared.wearer.levels import Moments, describe, levels, moments, power, shrunk, view_of
from embridge_shared.wearer.prior import Kernel, WearerPrior, bends, joint_scale

Wide = NDArray[np.float64]
Labels = NDArray[np.int64]

_LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class PriorSettings:
    """Choices of the prior, made on folds no table shows.

    Attributes:
        encode_l2: Penalty of posture to EMG, a share of the postures' variance.
        round: Share by which the covariance within gestures is drawn to a sphere.
        even: Share by which the covariance between people is drawn to a sphere.
        shared: Part of a person's deviation that is the same in every gesture.
        alike: Part of it that is alike for postures that are alike; the rest is each gesture's own.
        within_windows: Windows without overlap that the training participants' scatter counts for beside a wearer's.
    """

    encode_l2: float = 0.3
    round: float = 0.2
    even: float = 0.1
    shared: float = 0.25
    alike: float = 0.4
    within_windows: float = 50.0


def fit_wearer_prior(
    train: Windows,
    gallery: Windows | None,
    gestures: Sequence[str],
    *,
    unseen: Sequence[str] = (),
    settings: PriorSettings | None = None,
) -> WearerPrior:
    """Fit the prior.

    Args:
        train: Labelled pairs of the training participants; windows without a label are left out.
        gallery: Poses by training participants, or from templates; None where nobody recorded poses: every gesture
            is then known by the EMG of those who performed it, and none is like another.
        gestures: What shall be decoded, in the order of the release.
        unseen: Gestures whose EMG must not be there.
        settings: Choices; the defaults without.

    Raises:
        DataError: A modality is missing, there are fewer than two gestures or three participants, or without poses
            one of `gestures` was not performed.
        LeakageError: EMG of unseen gestures is there.
    """
    made = settings or PriorSettings()
    train = train.select(train.label >= 0)
    leakage.check_unseen(train, unseen)
    posed = gallery is not None
    _check(train, gestures, posed=posed)
    labels = np.unique(train.label)
    level = levels(train.emg)
    moved = _common_moments(level, train.participant)
    view = view_of(moved, moved)
    raw = describe(level, view)
    feature = np.stack([raw.mean(axis=0), raw.std(axis=0)])
    feature[1] = np.maximum(feature[1], 1e-6 + 1e-3 * feature[1].max())
    points = (raw - feature[0]) / feature[1]
    postures = _postures(train) if posed else np.zeros((len(points), 0))
    joint = joint_scale(postures) if posed else np.zeros((2, 0))
    bent = bends(postures, joint)
    bend = bent.mean(axis=0)
    keys = np.stack([train.participant, train.label, train.repetition])
    axes = power(shrunk(_scatter(points, keys[:2])[0], made.round), -0.5)
    axes = axes @ _apart(points @ axes, keys, made.even)
    space = _Space(points @ axes, bent - bend, keys, tuple(int(g) for g in labels), made.encode_l2)
    return WearerPrior(
        gestures=tuple(gestures),
        performed=tuple(train.gestures[g] for g in labels),
        kernel=space.kernel(made.shared, made.alike),
        within_windows=made.within_windows,
        participants=len(np.unique(train.participant)),
        view_mean=view.mean,
        view_matrix=view.matrix,
        feature=feature,
        axes=axes,
        postures=_shown(gallery, gestures),
        means=space.typical,
        joint=joint,
        bend=bend,
        encode=space.encode(space.gestures),
        people=space.people,
        unseen=space.missed(),
        repeats=space.repeats,
        within=space.within,
    )


def _check(train: Windows, gestures: Sequence[str], *, posed: bool) -> None:
    """Enough people, gestures and modalities."""
    performed = train.present("gestures")
    few = len(performed) < 2 or len(train.present("participants")) < 3
    if few or train.emg is None or (posed and train.pose is None):
        raise DataError(
            "a prior of wearers needs EMG and pose of two gestures and three participants or more",
            reason=Reason.TOO_LITTLE_DATA,
        )
    if not posed and (lost := sorted(set(gestures) - performed)):
        raise DataError(f"neither pose nor EMG of {', '.join(lost)}", reason=Reason.TOO_LITTLE_DATA)


def _common_moments(level: Wide, participant: Labels) -> Moments:
    """Moments of the training participants, each counting alike."""
    each = [moments(level[participant == p]) for p in np.unique(participant)]
    return Moments(np.mean([m.mean for m in each], axis=0), np.mean([m.covariance for m in each], axis=0))


def _postures(train: Windows) -> Wide:
    return np.asarray(np.asarray(train.pose).mean(axis=1, dtype=np.float64))


def _shown(gallery: Windows | None, gestures: Sequence[str]) -> Wide:
    """Posture of each gesture, (G, J); without a gallery nothing is known of any, (G, 0)."""
    return np.zeros((len(gestures), 0)) if gallery is None else np.stack([_posture(gallery, g) for g in gestures])


def _posture(gallery: Windows, gesture: str) -> Wide:
    pose = gallery.of_gestures([gesture]).pose
    if pose is None or not len(pose):
        raise DataError(f"no pose of {gesture}", reason=Reason.TOO_LITTLE_DATA)
    return np.asarray(pose.mean(axis=(0, 1), dtype=np.float64))


def _scatter(x: Wide, keys: Labels) -> tuple[Wide, Wide, Labels]:
    """Covariance around the mean of each group, those means, and which key each has, (keys, groups)."""
    named, place = np.unique(keys, axis=1, return_inverse=True)
    place = place.reshape(-1)
    count = np.bincount(place)
    sums = np.zeros((len(count), x.shape[1]))
    np.add.at(sums, place, x)
    centres = sums / count[:, None]
    rest = x - centres[place]
    return np.asarray(rest.T @ rest / max(1, len(x) - len(count))), centres, named


def _apart(points: Wide, keys: Labels, even: float) -> Wide:
    """Axes along which people differ independently, (F, F)."""
    _, centres, named = _scatter(points, keys[:2])
    rest = centres - _typical(centres, named)[np.searchsorted(np.unique(named[1]), named[1])]
    vectors: Wide = np.linalg.eigh(shrunk(rest.T @ rest / len(rest), even))[1]
    return vectors


def _typical(centres: Wide, named: Labels) -> Wide:
    """Mean of each gesture over people, (K, F)."""
    return np.stack([centres[named[1] == g].mean(axis=0) for g in np.unique(named[1])])


class _Space:
    """Everything that is measured once the axes are chosen."""

    def __init__(self, points: Wide, bent: Wide, keys: Labels, gestures: tuple[int, ...], l2: float) -> None:
        self.gestures = gestures
        self._points, self._bent, self._label, self._l2 = points, bent, keys[1], l2
        scatter, self._centres, self._named = _scatter(points, keys[:2])
        self.within = np.maximum(np.diag(scatter), _LEAST)
        self.typical = _typical(self._centres, self._named)
        self._rest = self._centres - self.typical[np.searchsorted(gestures, self._named[1])]
        freedom = max(1, len(self._rest) - len(gestures)) / len(self._rest)
        self.people = np.maximum(np.square(self._rest).mean(axis=0) / freedom, _LEAST)
        _, repeated, named = _scatter(points, keys)
        self.repeats = np.maximum(np.diag(_scatter(repeated, named[:2])[0]), _LEAST)
        self._postures = np.stack([bent[self._label == g].mean(axis=0) for g in gestures])

    def encode(self, gestures: Sequence[int]) -> Wide:
        """Bends to points by ridge regression on some gestures, (B, F)."""
        if not self._bent.shape[1]:
            return np.zeros((0, self._points.shape[1]))
        rows = np.isin(self._label, gestures)
        bent, n = self._bent[rows], rows.sum()
        yy = bent.T @ bent / n
        penalty = self._l2 * np.trace(yy) / len(yy) * np.eye(len(yy))
        return np.asarray(np.linalg.solve(yy + penalty, bent.T @ self._points[rows] / n))

    def missed(self) -> Wide:
        """Mean square of what a gesture's posture fails to tell, each gesture left out in turn, (F,)."""
        off = [
            self.typical[i] - self._postures[i] @ self.encode([h for h in self.gestures if h != g])
            for i, g in enumerate(self.gestures)
        ]
        return np.asarray(np.mean(np.square(off), axis=0))

    def kernel(self, shared: float, alike: float) -> Kernel:
        """Shares as given; alikeness fades at the usual distance of two postures, and is none where there are none."""
        if not self._postures.shape[1]:
            return Kernel(shared=shared, alike=0.0, own=1 - shared, length=1.0)
        apart = np.square(self._postures[:, None] - self._postures[None]).sum(axis=-1)
        usual = float(np.sqrt(np.median(apart[np.triu_indices(len(apart), 1)])))
        return Kernel(shared=shared, alike=alike, own=1 - shared - alike, length=usual or 1.0)
