"""Whole recordings decided at once: the same beginnings a `Decider` would tell hop by hop, some twenty times faster.

What does not depend on thresholds is worked out once a recording, so that many thresholds can be tried on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from embridge_shared.decision import DecisionConfig

REST = -1
"""Truth of a hop whose whole window is rest."""
BETWEEN = -2
"""Truth of a hop whose window ends in rest and still holds movement; nothing is held against what is said there."""

_RESTS = -1
_UNKNOWN = -2


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One stretch of a recording, decided hop by hop.

    Attributes:
        person: Whose.
        truth: Gesture performed at each window's end, index into the labels, `REST` or `BETWEEN`, int64 (N,).
        whole: Whether the gesture fills the window (N,).
        log_likelihood: Of every gesture, float64 (N, G).
        activity: Mean scaled level at each window's end (N,).
        distance: From the nearest gesture, in units of what belongs (N,); None where scores have no distance.
        hop_s: Time between two hops, s.
    """

    person: str
    truth: NDArray[np.int64]
    whole: NDArray[np.bool_]
    log_likelihood: NDArray[np.float64]
    activity: NDArray[np.float64]
    distance: NDArray[np.float64] | None
    hop_s: float

    @property
    def rest_s(self) -> float:
        """How long nothing was performed, s."""
        return float((self.truth == REST).sum()) * self.hop_s


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """A trace under rest levels and a temperature, before thresholds are chosen.

    Attributes:
        resting: Whether the hand rests (N,).
        novel: Whether the window is further away than what is known (N,).
        best: Likeliest gesture, int64 (N,).
        sure: Its probability (N,).
    """

    resting: NDArray[np.bool_]
    novel: NDArray[np.bool_]
    best: NDArray[np.int64]
    sure: NDArray[np.float64]

    @classmethod
    def of(cls, trace: Trace, config: DecisionConfig, shares: NDArray[np.float64] | None = None) -> Course:
        """Work a trace out.

        Args:
            trace: The recording.
            config: Its thresholds are not looked at.
            shares: `config.probabilities` of the trace, where they are known (N, G).
        """
        resting = _resting(trace.activity, config)
        shares = config.probabilities(trace.log_likelihood) if shares is None else shares
        steady = _steady(shares, resting, config, trace.hop_s)
        novel = np.zeros(len(resting), bool)
        if config.novelty is not None and trace.distance is not None:
            novel = trace.distance > config.novelty
        best = steady.argmax(axis=1)
        return cls(resting, novel, best, steady[np.arange(len(best)), best])

    def onsets(self, least: NDArray[np.float64], config: DecisionConfig, hop_s: float) -> list[tuple[int, int]]:
        """Hop and gesture of every beginning.

        Args:
            least: Probability at which each gesture is believed (G,).
            config: Its times.
            hop_s: Time between two hops, s.
        """
        leads = np.where(self.novel | (self.sure < least[self.best]), _UNKNOWN, self.best)
        leads = np.where(self.resting, _RESTS, leads)
        first = np.concatenate([[0], np.flatnonzero(np.diff(leads)) + 1])
        length = np.diff(np.append(first, len(leads)))
        begin, switch, end = (
            _hops(s, hop_s) for s in (config.onset_s, max(config.onset_s, config.release_s), config.release_s)
        )
        said, found = _RESTS, []
        for at, n, lead in zip(first.tolist(), length.tolist(), leads[first].tolist(), strict=True):
            on = said >= 0
            wait = (switch if on else begin) if lead >= 0 else (end if on else 1)
            if lead == said or n < wait:
                continue
            said = lead
            if lead >= 0:
                found.append((at + wait - 1, lead))
        return found


def thresholds(config: DecisionConfig, labels: Sequence[str]) -> NDArray[np.float64]:
    """Probability at which each gesture is believed (G,)."""
    return np.array([config.least(label) for label in labels])


def onsets(trace: Trace, labels: Sequence[str], config: DecisionConfig) -> list[tuple[int, int]]:
    """Hop and gesture of every beginning, as a `Decider` would tell them."""
    return Course.of(trace, config).onsets(thresholds(config, labels), config, trace.hop_s)


def _hops(seconds: float, hop_s: float) -> int:
    return max(1, math.ceil((seconds - 1e-9) / hop_s))


def _resting(activity: NDArray[np.float64], config: DecisionConfig) -> NDArray[np.bool_]:
    """Between the two levels the hand does as it did."""
    moves = activity >= config.rest_above
    clear = np.where(moves | (activity < config.rest_below), np.arange(len(activity)), -1)
    last = np.maximum.accumulate(clear)
    return np.where(last < 0, True, ~moves[np.maximum(last, 0)])


def _steady(
    shares: NDArray[np.float64], resting: NDArray[np.bool_], config: DecisionConfig, hop_s: float
) -> NDArray[np.float64]:
    """Probabilities averaged while the hand moves; at rest each window stands for itself."""
    fade = math.exp(-hop_s / config.steady_s) if config.steady_s > 0 else 0.0
    out = shares.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[True], resting, [True]]).astype(np.int8)))
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        before = out[begin - 1] if begin else shares[0]
        out[begin:end] = lfilter([1 - fade], [1, -fade], shares[begin:end], axis=0, zi=fade * before[None])[0]
    return out
