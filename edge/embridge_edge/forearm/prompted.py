"""A simulated wearer who is told what to do while it happens, and may do it badly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_edge.forearm.performance import minimum_jerk
from embridge_edge.forearm.wearer import Wearer
from embridge_shared.gestures import Gesture
from embridge_shared.hand import N_JOINTS, clamp

_LEAST_REACTION_S = 0.35
"""EMG is made a quarter of a second ahead: nobody reacts to what they have not heard yet."""
_FAR_RAD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a prompt is followed.

    Attributes:
        reach: How far the shape is carried; 1 is all the way, 0 does nothing.
        hold_s: Let go after so long, told or not; when told where None, s.
        late_s: Let go so much later than told, s.
        instead: Make this shape instead.
    """

    reach: float = 1.0
    hold_s: float | None = None
    late_s: float = 0.0
    instead: Gesture | None = None


WELL = Manner()


@dataclass(slots=True)
class _Move:
    onset_s: float
    held_s: float
    release_s: float
    end_s: float
    move: NDArray[np.float64]
    manner: Manner


class PromptedPerformance:
    """A hand that rests until it is prompted.

    Args:
        wearer: Who.
        rng: Source of every variation.
        duration_s: How long the session may last, s.
    """

    def __init__(self, wearer: Wearer, rng: np.random.Generator, *, duration_s: float = 1800.0) -> None:
        self._wearer = wearer
        self._rng = rng
        self._duration_s = duration_s
        self._moves: list[_Move] = []

    @property
    def wearer(self) -> Wearer:
        """Whose hand."""
        return self._wearer

    @property
    def duration_s(self) -> float:
        """How long the session may last, s."""
        return self._duration_s

    def perform(self, gesture: Gesture, t_s: float, manner: Manner = WELL) -> None:
        """Make a gesture, prompted at `t_s` from the session's start."""
        wearer, rng = self._wearer, self._rng
        shape = (manner.instead or gesture).pose
        onset = t_s + max(_LEAST_REACTION_S, wearer.reaction_s * rng.uniform(0.75, 1.4))
        held = onset + wearer.move_s * rng.uniform(0.8, 1.25)
        # The further a shape is from rest, the more room there is to make it one's own way.
        far = float(np.clip(np.sqrt(((shape - wearer.rest) ** 2).mean()) / _FAR_RAD, 0.25, 1.0))
        missed = wearer.shape * far + rng.normal(0.0, np.deg2rad(2.0), N_JOINTS)
        reach = manner.reach * wearer.amplitude * np.exp(rng.normal(0.0, 0.05))
        whole = clamp(wearer.rest + reach * (shape - wearer.rest) + manner.reach * missed) - wearer.rest
        self._moves.append(_Move(onset, held, math.inf, math.inf, whole, manner))
        if manner.hold_s is not None:
            self._let_go(held + manner.hold_s)

    def relax(self, t_s: float) -> None:
        """Let go, told at `t_s`; nothing where the hand rests or has let go."""
        if self._moves and self._moves[-1].release_s == math.inf:
            self._let_go(t_s + self._moves[-1].manner.late_s + _LEAST_REACTION_S)

    def angles(self, t_s: ArrayLike) -> NDArray[np.float64]:
        """Posture of the hand.

        Args:
            t_s: Moments since the session's start, (n,), s; none before what was asked for last time.

        Returns:
            (n, 20), rad, within the joint limits.
        """
        t = np.asarray(t_s, float)
        out = np.tile(self._wearer.rest, (len(t), 1))
        for m in self._moves[-2:]:
            into = minimum_jerk((t - m.onset_s) / (m.held_s - m.onset_s))
            back = np.zeros(len(t))
            if m.release_s < math.inf:
                back = minimum_jerk((t - m.release_s) / (m.end_s - m.release_s))
            out += (into - back)[:, None] * m.move
        tremor = self._wearer.tremor_rad * np.sin(2 * np.pi * 9.5 * t)
        return clamp(out + tremor[:, None])

    def _let_go(self, t_s: float) -> None:
        last = self._moves[-1]
        last.release_s = max(t_s, last.held_s)
        last.end_s = last.release_s + 0.9 * self._wearer.move_s * self._rng.uniform(0.8, 1.25)
