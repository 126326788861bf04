"""A wearer's model: each gesture a Gaussian whose mean is known as well as pose, other people and repetitions tell.

How a wearer deviates from people in general is a Gaussian process over gestures (Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, ch. 2), one for each axis of the prior's space: postures that are alike deviate
alike, so repetitions of some gestures also move those the wearer never made. What repetitions scatter joins what
training participants' scattered, as far as there are windows for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.wearer.prior import WearerPrior, Wide, bends


@dataclass(frozen=True, slots=True, eq=False)
class KnownGesture:
    """A gesture that can be decoded.

    Attributes:
        label: Its name.
        posture: Joint angles, (J,), rad, as the prior's; what it is recognised by before anybody performs it. None
            where nobody said what the hand does: it may lie anywhere until it is performed.
    """

    label: str
    posture: NDArray[np.floating] | None


@dataclass(frozen=True, slots=True, eq=False)
class Repetition:
    """One performance of a gesture by the wearer.

    Attributes:
        label: Of the gesture.
        points: Its windows in the prior's space, float64 (N, F), N at least 1.
        windows: How many windows without overlap they are worth.
    """

    label: str
    points: Wide
    windows: float

    @classmethod
    def of(cls, label: str, points: Wide, *, length: int, hop: int) -> Repetition:
        """From windows of `length` features, `hop` apart, one after the other."""
        return cls(label, points, 1 + (len(points) - 1) * min(1.0, hop / length))


class WearerModel:
    """Scores windows of one wearer.

    Args:
        prior: What training participants say.
        gestures: What can be decoded, in the order of the scores.
        repetitions: The wearer's own, of some of them or none.

    Raises:
        DataError: A gesture is there twice, or a repetition is of none of them or has no window of the prior's size.
    """

    def __init__(
        self, prior: WearerPrior, gestures: Sequence[KnownGesture], repetitions: Sequence[Repetition] = ()
    ) -> None:
        self.prior = prior
        self.gestures = tuple(gestures)
        self.labels = tuple(g.label for g in gestures)
        if not gestures or len(set(self.labels)) < len(self.labels):
            raise DataError("a wearer's gestures are none, or one is there twice")
        for r in repetitions:
            shaped = r.points.ndim == 2 and r.points.shape[1] == prior.size and len(r.points) > 0
            if r.label not in self.labels or not shaped:
                raise DataError(
                    f"a repetition of {r.label!r} with windows {r.points.shape} does not fit", reason=Reason.WRONG_SHAPE
                )
        self._known = self._expected(gestures)
        self.mean, self.variance, self.weight = self._learnt(gestures, repetitions)
        spread = self._within(repetitions)
        roots = [np.linalg.cholesky(spread + np.diag(v)) for v in self.variance]
        self._whiten = np.stack([np.linalg.inv(r) for r in roots])
        self._volume = np.array([np.log(np.diag(r)).sum() for r in roots])
        self._centre = np.einsum("gij,gj->gi", self._whiten, self.mean)

    def distances(self, points: Wide) -> Wide:
        """Squared Mahalanobis distance of points (N, F) to each gesture: (N, G), F on average for what belongs."""
        moved = np.einsum("gij,nj->ngi", self._whiten, points) - self._centre
        return np.asarray(np.square(moved).sum(axis=-1))

    def log_likelihood(self, points: Wide) -> Wide:
        """Log-density of points (N, F) under each gesture, up to one constant: (N, G)."""
        return np.asarray(-0.5 * self.distances(points) - self._volume)

    def mistaken(self, rng: np.random.Generator, *, draws: int = 400) -> Wide:
        """How often each gesture would be taken for each other one, were there only the two: (G, G).

        Of windows drawn from what the model expects of a gesture, the share that the other one explains better; 0 on
        the diagonal, 0.5 for two that cannot be told apart.

        Args:
            rng: Draws them.
            draws: Windows of each gesture.
        """
        g, f = self.mean.shape
        z = rng.standard_normal((draws, f))
        out = np.zeros((g, g))
        for i in range(g):
            score = self.log_likelihood(self.mean[i] + np.linalg.solve(self._whiten[i], z.T).T)
            own = score[:, [i]]
            out[i] = (score > own).mean(axis=0) + 0.5 * (score == own).mean(axis=0)
        np.fill_diagonal(out, 0.0)
        return out

    def _expected(self, gestures: Sequence[KnownGesture]) -> NDArray[np.bool_]:
        """Which gestures training participants performed, (G,)."""
        return np.array([g.label in self.prior.performed for g in gestures])

    def _before(self, gestures: Sequence[KnownGesture]) -> tuple[Wide, Wide]:
        """Mean (G, F) and covariance over gestures (F, G, G) before anything is performed."""
        prior = self.prior
        posed = np.array([g.posture is not None for g in gestures])
        postures = np.stack([prior.joint[0] if g.posture is None else np.asarray(g.posture) for g in gestures])
        mean = prior.predict(postures)
        for i in np.flatnonzero(self._known):
            mean[i] = prior.means[prior.performed.index(self.labels[i])]
        alike = prior.kernel(bends(postures, prior.joint))
        missed = np.diag(~self._known).astype(np.float64)
        cov = prior.people[:, None, None] * alike + prior.unseen[:, None, None] * missed
        lost = np.flatnonzero(~posed & ~self._known)
        if len(lost):
            # anywhere among the gestures there are, and tied to them by what a person has in all of them only
            mean[lost] = prior.means.mean(axis=0)
            own = cov[:, lost, lost] + prior.means.var(axis=0)[:, None]
            cov[:, lost, :] = cov[:, :, lost] = (prior.people * prior.kernel.shared)[:, None, None]
            cov[:, lost, lost] = own
        return mean, cov

    def _learnt(self, gestures: Sequence[KnownGesture], repetitions: Sequence[Repetition]) -> tuple[Wide, Wide, Wide]:
        """Mean and its variance, (G, F), and how much of each gesture's mean its own repetitions decide, (G,)."""
        prior = self.prior
        mean, cov = self._before(gestures)
        own = {label: [r.points.mean(axis=0) for r in repetitions if r.label == label] for label in self.labels}
        at = [i for i, label in enumerate(self.labels) if own[label]]
        if not at:
            return mean, np.diagonal(cov, axis1=1, axis2=2).T.copy(), np.zeros(len(gestures))
        count = np.array([len(own[self.labels[i]]) for i in at])
        told = np.stack([np.mean(own[self.labels[i]], axis=0) for i in at]) - mean[at]
        noise = (prior.repeats[:, None] / count)[:, :, None] * np.eye(len(at))
        across = cov[:, at, :]
        gain = np.linalg.solve(cov[:, at][:, :, at] + noise + 1e-9 * np.eye(len(at)), across)
        mean = mean + np.einsum("fog,of->gf", gain, told)
        left = np.diagonal(cov, axis1=1, axis2=2) - np.einsum("fog,fog->fg", gain, across)
        weight = np.zeros(len(gestures))
        weight[at] = [gain[:, place, i].mean() for place, i in enumerate(at)]
        return mean, np.maximum(left.T, 0.0), weight

    def _within(self, repetitions: Sequence[Repetition]) -> Wide:
        """Covariance of windows of one gesture, (F, F)."""
        prior = self.prior
        total, count = prior.within_windows * np.diag(prior.within), prior.within_windows
        for r in repetitions:
            rest = r.points - self.mean[self.labels.index(r.label)]
            total = total + r.windows * (rest.T @ rest) / len(rest)
            count += r.windows
        return np.asarray(total / count)
