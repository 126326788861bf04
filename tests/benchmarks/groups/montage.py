"""One decoder for two bands: a wearer's model fitted with one decodes the other, worn at once on the same forearm."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.framework import Row, compared, row
from embridge_shared.preprocess import FrontEndConfig, Montage, Ring, WearerScale, fit_wearer_scale, run
from embridge_shared.wearer.donning import activity, find_turn
from support.sessions import emg_spec

GROUP = "montage"
DATA = Path(os.environ.get("EMBRIDGE_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
BANDS = {"3DC": ("three_dc_Participant{}.parquet", 1000.0), "Myo": ("three_dc_myo_Participant{}.parquet", 200.0)}
PEOPLE = range(1, 6)
FRONT_END = FrontEndConfig(mode="envelope", rate_hz=100.0, highpass_hz=20.0, lowpass_hz=None)
LENGTH, HOP, SETTLE, ROUND = 50, 25, 50, 0.1

Wide = NDArray[np.float64]


def rows() -> list[Row]:
    if not (DATA / "three_dc").is_dir():
        return []
    found = []
    for fitted, other in (("Myo", "3DC"), ("3DC", "Myo")):
        own, seen, bare = (np.array(v) for v in zip(*(judged(p, fitted, other) for p in PEOPLE), strict=True))
        name = f"montage.{fitted.lower()}_decodes_{other.lower()}"
        found.append(compared(GROUP, name, "accuracy", seen.tolist(), peer=f"{fitted} itself", theirs=own.tolist()))
        found.append(row(GROUP, f"{name}_as_numbered", "accuracy", bare.tolist()))
    return found


def judged(person: int, fitted: str, other: str) -> tuple[float, float, float]:
    """Accuracy of a model of one band on that band, on the other as it sits, and on it as its channels are numbered."""
    train, test = recorded(person, fitted)
    there = Ring.even(train[0].shape[2])
    model = fit(*train)
    their_train, their_test = recorded(person, other)
    band = sits(their_train[0], train[0], there)
    plain = Montage(Ring.even(their_test[0].shape[2]), there)
    return (
        accuracy(model, *test),
        accuracy(model, Montage(band, there).apply(their_test[0]), their_test[1]),
        accuracy(model, plain.apply(their_test[0]), their_test[1]),
    )


def sits(theirs: NDArray[np.float32], ours: NDArray[np.float32], there: Ring) -> Ring:
    """How the other band sits, found from unlabelled activity of both: its turn, and which way it counts."""
    c, n = theirs.shape[2], ours.shape[2]
    then = activity(np.maximum(levels(ours), 0)[:, None])
    best, ring = np.inf, Ring.even(c)
    for way in (1, -1):
        angles = tuple(way * 360 * i / c for i in range(c))
        seen = np.maximum(levels(Montage(Ring(angles_deg=angles), there).apply(theirs)), 0)
        turn = find_turn(activity(seen[:, None]), then, within=n / 2)
        if turn.distance < best:
            best, ring = turn.distance, Ring(angles_deg=tuple(a + turn.degrees for a in angles))
    return ring


@cache
def recorded(person: int, band: str) -> tuple[tuple[NDArray[np.float32], NDArray[np.int64]], ...]:
    """Windows of scaled envelopes (N, T, C) and their gestures, of the sessions to learn from and to test on."""
    name, rate_hz = BANDS[band]
    frame = pl.read_parquet(DATA / "three_dc" / name.format(person))
    columns = [c for c in frame.columns if c.startswith("emg_")]
    spec = emg_spec(len(columns), rate_hz)
    names = sorted(frame["gesture"].unique())
    out: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
    scale: WearerScale | None = None
    for session in ("train", "test"):
        trials = frame.filter(pl.col("session") == session).partition_by(["gesture", "rep"], maintain_order=True)
        features = [run(FRONT_END, spec, t.select(columns).to_numpy())[SETTLE:] for t in trials]
        scale = scale or fit_wearer_scale(np.concatenate(features))
        view = [
            (scale.apply(f[at : at + LENGTH]), names.index(t["gesture"][0]))
            for f, t in zip(features, trials, strict=True)
            for at in range(0, len(f) - LENGTH + 1, HOP)
        ]
        out.append((np.stack([v for v, _ in view]), np.array([g for _, g in view])))
    return tuple(out)


def levels(windows: NDArray[np.float32]) -> Wide:
    """Mean of each channel, float64 (N, C)."""
    return windows.mean(axis=1, dtype=np.float64)


def rooted(windows: NDArray[np.float32]) -> Wide:
    """What the model is fitted on: roots of the levels."""
    return np.sqrt(np.maximum(levels(windows), 0))


def fit(windows: NDArray[np.float32], label: NDArray[np.int64]) -> tuple[Wide, Wide]:
    """Linear discriminants: weights (C, G) and offsets (G,)."""
    x = rooted(windows)
    means = np.stack([x[label == g].mean(axis=0) for g in range(label.max() + 1)])
    rest = x - means[label]
    within = rest.T @ rest / len(x)
    within = (1 - ROUND) * within + ROUND * np.eye(len(within)) * np.trace(within) / len(within)
    weights = np.linalg.solve(within, means.T)
    return weights, -0.5 * (means.T * weights).sum(axis=0)


def accuracy(model: tuple[Wide, Wide], windows: NDArray[np.float32], label: NDArray[np.int64]) -> float:
    """Balanced over gestures."""
    said = (rooted(windows) @ model[0] + model[1]).argmax(axis=1)
    return float(np.mean([np.mean(said[label == g] == g) for g in np.unique(label)]))
