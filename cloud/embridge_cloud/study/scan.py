"""The cheap head over every set of unseen gestures: how much the choice of gestures moves a result.

Ridge regression needs sums over windows alone, so each wearer and gesture is summed once; every set and every group of
held-out participants is then a small linear system. The wearer's EMG scale is fitted anew for each set, without its
unseen gestures, from histograms; gloves are calibrated once for all sets. The nearest mean posture tells the gesture.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.base import PairedRecording
from embridge_cloud.learn.baseline import SEGMENTS
from embridge_cloud.learn.data import Windows
from embridge_cloud.study.protocol import UNSEEN, Fold
from embridge_cloud.study.results import Scanned
from embridge_shared.errors import DataError, Reason
from embridge_shared.preprocess import ScaleConfig

Values = NDArray[np.float64]
_BINS = 2048
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Levels:
    """How often each participant's channels lay at each level, by gesture.

    Attributes:
        edges: Levels (P, C, bins): upper ends.
        counts: float64 (P, G + 1, C, bins); the last row is everything outside gestures.
    """

    edges: Values
    counts: Values

    def scale(self, hidden: Sequence[int], config: ScaleConfig) -> tuple[Values, Values]:
        """Offset and gain of each participant and channel (P, C), without the samples of hidden gestures."""
        kept = self.counts.sum(axis=1) - self.counts[:, list(hidden)].sum(axis=1)
        share = np.cumsum(kept, axis=2) / kept.sum(axis=2, keepdims=True)
        rest, top = (self._at(share, q) for q in (config.rest_quantile, config.top_quantile))
        typical = np.median(top - rest, axis=1, keepdims=True)
        return rest, 1 / np.maximum(top - rest, np.maximum(config.span_floor * typical, 1e-12))

    def _at(self, share: Values, quantile: float) -> Values:
        place = (share < quantile).sum(axis=2, keepdims=True)
        return np.take_along_axis(self.edges, np.minimum(place, share.shape[2] - 1), axis=2)[:, :, 0]


def levels_of(recordings: Sequence[PairedRecording], participants: Sequence[str], gestures: Sequence[str]) -> Levels:
    """Histograms of the EMG envelopes of everybody.

    Raises:
        DataError: A participant has no recording.
    """
    edges, counts = [], []
    for participant in participants:
        mine = [r for r in recordings if r.participant == participant]
        if not mine:
            raise DataError(f"nothing of {participant} to scan", reason=Reason.TOO_LITTLE_DATA)
        emg = np.concatenate([r.emg for r in mine]).astype(np.float64)
        place = np.concatenate([_gesture_of_samples(r, gestures) for r in mine])
        top = np.maximum(emg.max(axis=0), 1e-12)
        bins = np.minimum((emg / top * _BINS).astype(np.int64), _BINS - 1)
        table = np.zeros((len(gestures) + 1, emg.shape[1], _BINS))
        for c in range(emg.shape[1]):
            table[:, c] = np.bincount(place * _BINS + bins[:, c], minlength=(len(gestures) + 1) * _BINS).reshape(
                -1, _BINS
            )
        counts.append(table)
        edges.append(top[:, None] * (np.arange(_BINS) + 0.5) / _BINS)
    return Levels(np.stack(edges), np.stack(counts))


def _gesture_of_samples(recording: PairedRecording, gestures: Sequence[str]) -> NDArray[np.int64]:
    """Index of the gesture of each sample; one past the last outside of all."""
    place = np.full(len(recording.emg), len(gestures), np.int64)
    for segment in recording.segments:
        if segment.gesture in gestures:
            place[segment.start : segment.stop] = gestures.index(segment.gesture)
    return place


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the windows of each participant and gesture (P, G, ...): all that ridge regression looks at."""

    n: Values
    x: Values
    y: Values
    xx: Values
    xy: Values
    yy: Values

    def of(self, gestures: Sequence[int]) -> _Sums:
        """Sums over some gestures (P, ...)."""
        picked = list(gestures)
        return _Sums(*(v[:, picked].sum(axis=1) for v in (self.n, self.x, self.y, self.xx, self.xy, self.yy)))

    def scaled(self, offset: Values, gain: Values) -> _Sums:
        """The sums of features that an offset is taken off and a gain applied to; both (P, F)."""
        n, x = self.n[:, None], self.x
        moved = x - n * offset
        cross = self.xx - x[:, :, None] * offset[:, None] - offset[:, :, None] * moved[:, None]
        xy = self.xy - offset[:, :, None] * self.y[:, None]
        return _Sums(
            self.n, gain * moved, self.y, cross * gain[:, :, None] * gain[:, None], xy * gain[:, :, None], self.yy
        )

    def over(self, people: NDArray[np.bool_]) -> _Sums:
        """Sums over some participants."""
        return _Sums(*(v[people].sum(axis=0) for v in (self.n, self.x, self.y, self.xx, self.xy, self.yy)))


@dataclass(frozen=True, slots=True)
class _Data:
    """Windows as the scan reads them: segment means (N, F), mean postures (N, J), and who made what."""

    x: Values
    y: Values
    label: NDArray[np.int64]
    participant: NDArray[np.int64]
    people: int
    gestures: int

    @classmethod
    def of(cls, windows: Windows) -> _Data:
        if windows.emg is None or windows.pose is None:
            raise DataError("a scan needs EMG and pose", reason=Reason.WRONG_SHAPE)
        kept = windows.select(windows.label >= 0)
        emg, pose = np.asarray(kept.emg, np.float64), np.asarray(kept.pose, np.float64)
        n, t, c = emg.shape
        x = emg[:, : t - t % SEGMENTS].reshape(n, SEGMENTS, -1, c).mean(axis=2).reshape(n, -1)
        people, gestures = len(windows.participants), len(windows.gestures)
        return cls(x, pose.mean(axis=1), kept.label, kept.participant, people, gestures)

    def sums(self) -> _Sums:
        """Over the windows of each participant and gesture."""
        shape = (self.people, self.gestures)
        f, j = self.x.shape[1], self.y.shape[1]
        made = _Sums(
            *(np.zeros((*shape, *rest)) for rest in ((), (f,), (j,), (f, f), (f, j), (j,))),
        )
        for p, g in np.ndindex(shape):
            rows = (self.participant == p) & (self.label == g)
            x, y = self.x[rows], self.y[rows]
            made.n[p, g], made.x[p, g], made.y[p, g] = len(x), x.sum(axis=0), y.sum(axis=0)
            made.xx[p, g], made.xy[p, g], made.yy[p, g] = x.T @ x, x.T @ y, np.square(y).sum(axis=0)
        return made


@dataclass(frozen=True, slots=True)
class _Ridge:
    """A fitted regression: posture = (x - mean) / sd @ weights, in deviations of the training postures."""

    mean: Values
    sd: Values
    weights: Values
    posture: Values
    spread: Values

    @classmethod
    def fit(cls, sums: _Sums, l2: float) -> _Ridge:
        n = float(sums.n)
        mean, posture = sums.x / n, sums.y / n
        sd = np.sqrt(np.maximum(np.diag(sums.xx) / n - mean**2, 1e-12))
        spread = np.sqrt(np.maximum(sums.yy / n - posture**2, 1e-12))
        gram = (sums.xx / n - np.outer(mean, mean)) / np.outer(sd, sd)
        cross = (sums.xy / n - np.outer(mean, posture)) / np.outer(sd, spread)
        return cls(mean, sd, np.linalg.solve(gram + l2 * np.eye(len(gram)), cross), posture, spread)


def scan(
    windows: Windows,
    levels: Levels,
    groups: Sequence[Sequence[str]],
    folds: Sequence[Fold] = (),
    *,
    size: int = UNSEEN,
    l2: float = 0.1,
    config: ScaleConfig | None = None,
) -> Scanned:
    """Regression under every set of unseen gestures.

    Args:
        windows: EMG envelopes without any scale, and pose, of everybody.
        levels: For the scales; participants and gestures in the order of the windows.
        groups: Held-out participants.
        folds: Sets to name.
        size: Gestures of a set.
        l2: Weight penalty.
        config: Of the wearers' scales; by default the product's.

    Raises:
        DataError: Too few gestures, or no pose.
    """
    began, config = time.monotonic(), config or ScaleConfig()
    count = len(windows.gestures)
    if count < size + 2:
        raise DataError(f"{count} gestures have no sets of {size} to scan", reason=Reason.TOO_LITTLE_DATA)
    data = _Data.of(windows)
    sums = data.sums()
    held = [np.isin(windows.participants, list(g)) for g in groups]
    wanted = {frozenset(f.unseen): f.name for f in folds}
    unseen, seen = [], []
    named: dict[str, float] = {}
    for chosen in itertools.combinations(range(count), size):
        scale = levels.scale(chosen, config)
        figures = _one_set(data, sums, chosen, held, (np.tile(scale[0], SEGMENTS), np.tile(scale[1], SEGMENTS)), l2)
        unseen.append(figures[0])
        seen.append(figures[1])
        name = wanted.get(frozenset(windows.gestures[g] for g in chosen))
        if name is not None:
            named[name] = round(figures[0], 4)
    values = np.array(unseen)
    return Scanned(
        method="regression",
        values=tuple(round(v, 4) for v in unseen),
        chance=1 / size,
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)),
        quantiles={f"{q:g}": float(np.quantile(values, q)) for q in _QUANTILES},
        seen=float(np.mean(seen)),
        folds=named,
        wall_s=round(time.monotonic() - began, 2),
    )


def _one_set(
    data: _Data,
    sums: _Sums,
    chosen: Sequence[int],
    held: Sequence[NDArray[np.bool_]],
    scale: tuple[Values, Values],
    l2: float,
) -> tuple[float, float]:
    """Balanced accuracy on unseen and on seen gestures, mean over participants, each tested once."""
    others = [g for g in range(data.gestures) if g not in chosen]
    train = sums.of(others).scaled(*scale)
    x = (data.x - scale[0][data.participant]) * scale[1][data.participant]
    found: tuple[list[Values], list[Values]] = ([], [])
    for out in held:
        ridge = _Ridge.fit(train.over(~out), l2)
        rows = np.flatnonzero(out[data.participant])
        said = ((x[rows] - ridge.mean) / ridge.sd) @ ridge.weights
        totals = sums.y[~out].sum(axis=0) / np.maximum(sums.n[~out].sum(axis=0), 1)[:, None]
        words = (totals - ridge.posture) / ridge.spread
        words /= np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-12)
        scores = said @ words.T
        for side, kept in zip((list(chosen), others), found, strict=True):
            kept.append(_recall(data, rows, scores, side))
    return float(np.mean(np.concatenate(found[0]))), float(np.mean(np.concatenate(found[1])))


def _recall(data: _Data, rows: NDArray[np.int64], scores: Values, side: list[int]) -> Values:
    """Balanced accuracy of each participant among the gestures of one side."""
    asked = np.isin(data.label[rows], side)
    truth, people = data.label[rows][asked], data.participant[rows][asked]
    hit = np.array(side)[scores[asked][:, side].argmax(axis=1)] == truth
    shape = (data.people, data.gestures)
    place = people * data.gestures + truth
    total = np.bincount(place, minlength=data.people * data.gestures).reshape(shape)
    right = np.bincount(place, weights=hit, minlength=data.people * data.gestures).reshape(shape)
    present = (total > 0).sum(axis=1)
    recall = (right / np.maximum(total, 1)).sum(axis=1) / np.maximum(present, 1)
    return np.asarray(recall[present > 0], np.float64)
