"""Zero-shot decoding, linear probes and the figures reports are made of.

Nothing here takes a pose of the window under test: scores compare queries with a gallery, by the nearest query.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from embridge_shared.errors import DataError, Reason

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]


def gallery_similarity(queries: Vectors, gallery: Vectors) -> Vectors:
    """Nearest-query cosine of each window with each gallery pose, (N, G).

    Args:
        queries: float32 (N, M, d), unit length.
        gallery: float32 (G, d), unit length.
    """
    n, m, d = queries.shape
    return np.asarray((queries.reshape(n * m, d) @ gallery.T).reshape(n, m, -1).max(axis=1), np.float32)


def mean_query(queries: Vectors) -> Vectors:
    """Mean of the queries scaled to unit length, (N, 1, d): one query that stands for all."""
    mean = queries.mean(axis=1, keepdims=True)
    return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=2, keepdims=True), 1e-12), np.float32)


def knn(similarity: Vectors, labels: Labels, *, classes: int, k: int = 10) -> Labels:
    """Majority of the k nearest gallery poses; among equals the larger sum of similarities wins.

    Args:
        similarity: (N, G).
        labels: (G,), below `classes`; balance the gallery first.
        classes: Number of classes.
        k: Neighbours.

    Returns:
        int64 (N,).
    """
    _check_gallery(similarity, labels, classes)
    k = min(k, similarity.shape[1])
    nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    rows = np.arange(len(similarity))[:, None]
    votes = np.zeros((len(similarity), classes))
    sums = np.zeros_like(votes)
    np.add.at(votes, (rows, labels[nearest]), 1.0)
    np.add.at(sums, (rows, labels[nearest]), similarity[rows, nearest])
    # similarities lie in [-1, 1], so a sum of k over 4 k never outweighs a vote
    return np.asarray(np.argmax(votes + sums / (4 * k), axis=1), np.int64)


def _check_gallery(similarity: Vectors, labels: Labels, classes: int) -> None:
    """A label for each column, inside the classes."""
    if similarity.ndim != 2 or similarity.shape[1] != len(labels) or len(labels) == 0:
        raise DataError(
            f"similarities {similarity.shape} need one label a column, not {labels.shape}",
            reason=Reason.WRONG_SHAPE,
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"gallery labels leave 0..{classes - 1}")


def confusion(truth: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Counts, (classes, classes), truth by prediction."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def balanced_accuracy(truth: Labels, predicted: Labels) -> float:
    """Mean recall of the classes that occur."""
    if len(truth) == 0:
        raise DataError("no window to score", reason=Reason.TOO_LITTLE_DATA)
    return float(np.mean([np.mean(predicted[truth == c] == c) for c in np.unique(truth)]))


def macro_f1(truth: Labels, predicted: Labels) -> float:
    """Mean F1 of the classes that occur."""
    scores = []
    for c in np.unique(truth):
        hit = np.sum((truth == c) & (predicted == c))
        scores.append(2 * hit / (np.sum(truth == c) + np.sum(predicted == c)))
    return float(np.mean(scores))


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How well one set was decoded.

    Attributes:
        balanced_accuracy: Over all windows.
        low: Lower end of the 95 % interval, from a bootstrap over participants.
        high: Upper end.
        chance: Of guessing among the classes in the gallery.
        windows: Number of windows.
        per_participant: Balanced accuracy of each.
        f1_per_participant: Macro-F1 of each.
        gestures: Class names, in the order of `confusion`.
        confusion: Counts, truth by prediction.
    """

    balanced_accuracy: float
    low: float
    high: float
    chance: float
    windows: int
    per_participant: dict[str, float]
    f1_per_participant: dict[str, float]
    gestures: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """Windows under test, without any pose.

    Attributes:
        truth: int64 (N,).
        participant: int64 (N,), index into `participants`.
        participants: Names.
        gestures: Class names.
    """

    truth: Labels
    participant: Labels
    participants: tuple[str, ...]
    gestures: tuple[str, ...]


def score(tested: Truth, predicted: Labels, rng: np.random.Generator, *, bootstrap: int = 1000) -> Score:
    """Balanced accuracy with its interval over participants, per-participant figures and confusion.

    Args:
        tested: Truth and people.
        predicted: int64 (N,).
        rng: Draws the bootstrap.
        bootstrap: Resamplings of the participants; windows of one person are no independent draws.
    """
    people = np.unique(tested.participant)
    rows = {int(p): np.flatnonzero(tested.participant == p) for p in people}
    each = {p: balanced_accuracy(tested.truth[r], predicted[r]) for p, r in rows.items()}
    classes = len(tested.gestures)
    tables = np.stack([confusion(tested.truth[r], predicted[r], classes) for r in rows.values()])
    drawn = rng.integers(len(people), size=(bootstrap, len(people)))
    totals = tables[drawn].sum(axis=1)
    support = totals.sum(axis=2)
    recall = np.diagonal(totals, axis1=1, axis2=2) / np.maximum(support, 1)
    means = recall.sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Score(
        balanced_accuracy=balanced_accuracy(tested.truth, predicted),
        low=float(low),
        high=float(high),
        chance=1.0 / classes,
        windows=len(tested.truth),
        per_participant={tested.participants[p]: a for p, a in each.items()},
        f1_per_participant={tested.participants[p]: macro_f1(tested.truth[r], predicted[r]) for p, r in rows.items()},
        gestures=tested.gestures,
        confusion=tuple(tuple(int(v) for v in row) for row in tables.sum(axis=0)),
    )


def linear_probe(train: tuple[Vectors, Labels], test: Vectors, *, classes: int, l2: float = 1e-2) -> Labels:
    """Multinomial logistic regression on frozen features.

    Args:
        train: Features (N, d) and labels (N,).
        test: Features (K, d).
        classes: Number of classes.
        l2: Weight penalty.

    Returns:
        int64 (K,).
    """
    features, labels = train
    mean, sd = features.mean(axis=0), features.std(axis=0) + 1e-6
    x = torch.from_numpy((features - mean) / sd).double()
    y = torch.from_numpy(labels)
    share = torch.bincount(y, minlength=classes).clamp(min=1).double()
    weight = torch.zeros(x.shape[1] + 1, classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = functional.cross_entropy(x @ weight[:-1] + weight[-1], y, weight=1 / share)
        loss = loss + l2 * weight[:-1].square().sum()
        torch.autograd.backward(loss)
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        z = torch.from_numpy((test - mean) / sd).double()
        return np.asarray((z @ weight[:-1] + weight[-1]).argmax(dim=1).numpy(), np.int64)
