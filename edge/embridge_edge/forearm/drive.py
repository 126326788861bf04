"""From posture to muscle activity.

A muscle works against what pulls the joints back to rest: passive tissue, stiffening towards the end of the range,
and its antagonists. Drive is the muscle's share of that effort and of the movement under way, and of the press of a
fingertip against the thumb; it is rectified smoothly, then spreads to neighbouring compartments, antagonists and the
muscles that steady the wrist.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embridge_edge.forearm.anatomy import MUSCLES, Role
from embridge_edge.forearm.wearer import Wearer
from embridge_shared.hand import LANDMARKS, landmarks
from embridge_shared.preprocess import iir

_SHARPNESS = 18.0
_THRESHOLD = 0.12
_DAMPING_S = 0.05
# Force is never steady: slow changes of effort, and the fluctuation within a contraction.
_EFFORT_SD, _EFFORT_S = 0.10, 6.0
_FLUCTUATION_SD, _FLUCTUATION_S = 0.10, 0.12
_TIRES_S, _RECOVERS_S = 60.0, 400.0

_THUMB_TIP, *_FINGER_TIPS = (i for i, name in enumerate(LANDMARKS) if name.endswith("_tip"))
_TOUCH_M, _TOUCH_WIDTH_M = 0.030, 0.006


def _pressing() -> NDArray[np.float64]:
    """Which muscles press each finger against the thumb, (muscles, 4)."""
    flexes = np.array([muscle.role is Role.FLEXOR for muscle in MUSCLES])
    digit = np.array([muscle.digit for muscle in MUSCLES])
    own = digit[:, None] == np.arange(2, 6)[None, :]
    return np.where(own | (digit == 1)[:, None], flexes[:, None].astype(float), 0.0)


_PRESSING = _pressing()


def _touch(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """How firmly the thumb's tip meets each finger's, (n, 4), from 0 to 1."""
    points = landmarks(angles)
    gap_m = np.linalg.norm(points[:, _FINGER_TIPS] - points[:, [_THUMB_TIP]], axis=-1)
    touch: NDArray[np.float64] = 0.5 - 0.5 * np.tanh((gap_m - _TOUCH_M) / _TOUCH_WIDTH_M)
    return touch


class Drive:
    """Activity of every muscle over time; keeps its state from block to block.

    Args:
        wearer: Whose muscles.
        step_s: Time from one posture to the next, s.
        rng: Source of the fluctuations.
    """

    def __init__(self, wearer: Wearer, step_s: float, rng: np.random.Generator) -> None:
        m = len(wearer.gain)
        self._wearer = wearer
        self._step_s = step_s
        self._rng = rng
        self._effort: NDArray[np.float64] | None = None
        decay = np.exp(-step_s / np.array([_EFFORT_S] + [_FLUCTUATION_S] * m))
        self._decay = decay
        self._spread = np.array([_EFFORT_SD] + [_FLUCTUATION_SD] * m) * np.sqrt(1 - decay**2)
        self._level = np.zeros(1 + m)
        self._fatigue = np.zeros(m)

    def _fluctuations(self, n: int) -> NDArray[np.float64]:
        """Log gains of effort and of each muscle, (n, 1 + M): first-order noise."""
        steps = self._rng.standard_normal((n, len(self._level))) * self._spread
        out: NDArray[np.float64] = np.empty_like(steps)
        fast = slice(1, None)
        for part, decay in ((slice(0, 1), self._decay[0]), (fast, self._decay[1])):
            out[:, part], self._level[part] = _leaky(decay, steps[:, part], self._level[part])
        return out

    def _tire(self, activity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fatigue of each muscle after each step, (n, M), from 0 to about 1."""
        decay = np.exp(-self._step_s / _RECOVERS_S)
        inflow = activity * (self._step_s * self._wearer.fatigability / _TIRES_S)
        level, _ = _leaky(decay, inflow, decay * self._fatigue)
        self._fatigue = level[-1]
        bounded: NDArray[np.float64] = level / (1.0 + level)
        return bounded

    def __call__(self, angles: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Activity and fatigue while the hand passes through the postures.

        Args:
            angles: (n, 20), rad, `step_s` apart.

        Returns:
            Activity (n, M), 0 at complete rest and about 1 in strong contraction; fatigue (n, M), 0 to 1.
        """
        wearer = self._wearer
        effort = wearer.effort(angles)
        before = effort[:1] if self._effort is None else self._effort
        speed = np.diff(effort, axis=0, prepend=before) / self._step_s
        self._effort = effort[-1:]
        # einsum sums in the same order for any block length, which BLAS does not promise.
        drive = np.einsum("nj,mj->nm", effort + _DAMPING_S * speed, wearer.actions)
        drive += wearer.grip * np.einsum("nf,mf->nm", _touch(angles), _PRESSING)
        active = np.logaddexp(0.0, _SHARPNESS * (drive - _THRESHOLD)) / _SHARPNESS
        spread = np.einsum("nm,km->nk", active, wearer.mixing)
        noise = self._fluctuations(len(angles))
        activity = (wearer.tonic + spread) * np.exp(noise[:, :1] + noise[:, 1:])
        return activity, self._tire(activity)


def _leaky(
    decay: float, x: NDArray[np.float64], state: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """y[t] = x[t] + decay * y[t - 1], and the state after it."""
    left = np.zeros((1, 2, x.shape[1]))
    left[0, 0] = state
    y, left = iir.sosfilt(np.array([[1.0, 0.0, 0.0, 1.0, -decay, 0.0]]), x, left)
    return y, left[0, 0]
