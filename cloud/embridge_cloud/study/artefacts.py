"""What one run of a benchmark leaves for pictures: maps of embeddings, curves, communities.

Small files, bounded in size, beside the figures of the benchmark. Every part may be missing; a report then says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason

FOLDER = "artefacts"
MAX_POINTS = 480
MAX_STEPS = 300

Stage = Literal["before", "after"]
"""Of an embedding map: masked pre-training alone, or aligned."""


class EmbeddingMap(msgspec.Struct, frozen=True, kw_only=True):
    """EMG windows and poses in the plane of their two main axes.

    Attributes:
        stage: Before the alignment or after it.
        explained: Share of the variance on either axis.
        x: First coordinate of each point.
        y: Second coordinate.
        gesture: Index of its gesture.
        pose: It is a pose; else an EMG window.
        gestures: Names.
    """

    stage: Stage
    explained: tuple[float, float]
    x: tuple[float, ...]
    y: tuple[float, ...]
    gesture: tuple[int, ...]
    pose: tuple[bool, ...]
    gestures: tuple[str, ...]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One figure over the steps of a training.

    Attributes:
        name: As in the history of the training.
        steps: Ascending.
        values: One a step.
    """

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


class Communities(msgspec.Struct, frozen=True, kw_only=True):
    """How the poses of each gesture spread over the communities that make soft targets.

    Attributes:
        kind: How they were found: "k-means", "gmm".
        gestures: Names, in the order of the rows.
        counts: Training poses, gesture by community.
    """

    kind: str
    gestures: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Artefacts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one run that a report draws.

    Attributes:
        unit: Name of the run; also the file's.
        method: What was trained.
        regime: "new-wearer" or "calibrated-wearer".
        pose_regime: "strict" or "pose-enrolled".
        unseen_set: Name of the fold, "A".
        unseen: Its gestures.
        held_out: Participants tested.
        seed: Of the run.
        maps: Before, after, or both.
        curves: Of the training; none of a closed form.
        communities: None where the method has none.
    """

    unit: str
    method: str
    regime: str = "new-wearer"
    pose_regime: str = "strict"
    unseen_set: str = ""
    unseen: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    seed: int = 0
    maps: tuple[EmbeddingMap, ...] = ()
    curves: tuple[Curve, ...] = ()
    communities: Communities | None = None


def map_of(
    stage: Stage,
    emg: tuple[NDArray[np.float32], NDArray[np.int64]],
    pose: tuple[NDArray[np.float32], NDArray[np.int64]],
    gestures: Sequence[str],
    *,
    rng: np.random.Generator,
    limit: int = MAX_POINTS,
) -> EmbeddingMap:
    """EMG and poses in one plane: plain principal axes of both together, which look at no label.

    Args:
        stage: Before or after the alignment.
        emg: One vector a window (N, d), and its gesture (N,). Of queries (N, M, d) the mean is taken.
        pose: Vectors (P, d) and gestures (P,).
        gestures: Names.
        rng: Draws at most `limit` of either kind.
        limit: Points of a kind.

    Raises:
        DataError: The two kinds have different widths, or there are too few points.
    """
    vectors, labels = [], []
    for points, label in (emg, pose):
        flat = points.mean(axis=1) if points.ndim == 3 else points
        rows = np.sort(rng.permutation(len(flat))[:limit])
        vectors.append(np.asarray(flat[rows], np.float64))
        labels.append(label[rows])
    if vectors[0].shape[1:] != vectors[1].shape[1:] or sum(map(len, vectors)) < 3:
        raise DataError(f"EMG {vectors[0].shape} and poses {vectors[1].shape} make no map", reason=Reason.WRONG_SHAPE)
    plane, share = _main_plane(np.concatenate(vectors))
    return EmbeddingMap(
        stage=stage,
        explained=(round(float(share[0]), 4), round(float(share[1]), 4)),
        x=_rounded(plane[:, 0]),
        y=_rounded(plane[:, 1]),
        gesture=tuple(int(i) for part in labels for i in part),
        pose=(False,) * len(vectors[0]) + (True,) * len(vectors[1]),
        gestures=tuple(gestures),
    )


def _main_plane(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates on the two main axes (N, 2), and their shares of the variance (2,)."""
    centred = vectors - vectors.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    plane, share = np.zeros((len(vectors), 2)), np.zeros(2)
    plane[:, : min(2, len(axes))] = centred @ axes[:2].T
    share[: min(2, len(sizes))] = (sizes[:2] ** 2) / max(float((sizes**2).sum()), 1e-12)
    return plane, share


def curves_of(history: Mapping[str, Sequence[float]]) -> tuple[Curve, ...]:
    """Curves of a training history, thinned to at most `MAX_STEPS` points; values that are not finite are dropped.

    Args:
        history: One value a step, by name; "val_*" lie at the steps "val_step" names.
    """
    at = [int(s) for s in history.get("val_step", ())]
    found = []
    for name, values in history.items():
        if name == "val_step" or not len(values):
            continue
        steps = at if name.startswith("val_") and len(at) == len(values) else range(1, len(values) + 1)
        pairs = [(s, float(v)) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
        pairs = _thinned(pairs)
        if pairs:
            found.append(Curve(name=name, steps=tuple(s for s, _ in pairs), values=_rounded([v for _, v in pairs])))
    return tuple(found)


def communities_of(
    kind: str, membership: NDArray[np.int64], labels: NDArray[np.int64], gestures: Sequence[str]
) -> Communities:
    """Count the training poses of each gesture in each community.

    Args:
        kind: How the communities were found.
        membership: Community of each pose (N,).
        labels: Gesture of each pose (N,), -1 for none.
        gestures: Names.
    """
    size = int(membership.max(initial=0)) + 1
    counts = np.zeros((len(gestures), size), np.int64)
    known = labels >= 0
    np.add.at(counts, (labels[known], membership[known]), 1)
    return Communities(kind=kind, gestures=tuple(gestures), counts=_table(counts))


def write_artefacts(folder: Path, artefacts: Artefacts) -> Path:
    """Write `artefacts/UNIT.json` into the folder of a benchmark; an older one of the same name is replaced.

    Args:
        folder: Of the benchmark.
        artefacts: Of one run.

    Returns:
        The file.

    Raises:
        DataError: The name of the run is no file name.
    """
    if not re.fullmatch(r"[\w.+-]{1,120}", artefacts.unit):
        raise DataError(f"{artefacts.unit!r} names no file", hint="Use letters, digits, '.', '_', '+' and '-'.")
    path = folder / FOLDER / f"{artefacts.unit}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_bytes(msgspec.json.encode(artefacts))
    return scratch.replace(path)


def read_artefacts(folder: Path) -> list[Artefacts]:
    """Artefacts of every run that left some, by name; none where there is no such folder.

    Raises:
        DataError: A file is damaged.
    """
    found = []
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Artefacts))
        except msgspec.DecodeError as error:
            raise DataError(
                f"{path.name} holds no artefacts: {error}",
                reason=Reason.MALFORMED,
                hint="Remove it, or run the benchmark again.",
            ) from error
    return found


def _table(counts: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(v) for v in row) for row in counts)


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Five significant digits: more than a picture shows."""
    return tuple(float(f"{v:.5g}") for v in values)


def _thinned(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Evenly spaced pairs, the first and the last among them."""
    if len(pairs) <= MAX_STEPS:
        return pairs
    return [pairs[round(i)] for i in np.linspace(0, len(pairs) - 1, MAX_STEPS)]
