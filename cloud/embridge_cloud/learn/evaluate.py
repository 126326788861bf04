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
    return np.asarray(np.argmax(ballots(similarity, labels, classes=classes, k=k), axis=1), np.int64)


def ballots(similarity: Vectors, labels: Labels, *, classes: int, k: int = 10) -> NDArray[np.float64]:
    """What the k nearest gallery poses say for each class, (N, classes): votes, and within a vote their similarity.

    Args:
        similarity: (N, G).
        labels: (G,), below `classes`; balance the gallery first.
        classes: Number of classes.
        k: Neighbours.
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
    return np.asarray(votes + sums / (4 * k), np.float64)


def pool_trials(scores: NDArray[np.float64], trial: Labels) -> tuple[NDArray[np.float64], Labels]:
    """Mean score of the windows of each trial: one decision a trial.

    Args:
        scores: (N, classes).
        trial: Which trial a window belongs to (N,).

    Returns:
        Scores (trials, classes), and the first window of each trial (trials,).
    """
    _, first, place = np.unique(trial, return_index=True, return_inverse=True)
    total = np.zeros((len(first), scores.shape[1]))
    np.add.at(total, place, scores)
    return total / np.bincount(place)[:, None], np.asarray(first, np.int64)


def against_negatives(
    scores: NDArray[np.float64], reference: NDArray[np.float64], truth: Labels
) -> NDArray[np.float64]:
    """Scores of each class in deviations from what windows of other classes score for it.

    It evens out how readily a class answers, and needs no window of a class to do so: classes without EMG are measured
    on the windows of those that have some.

    Args:
        scores: (N, classes).
        reference: Scores of training windows (K, classes).
        truth: Class of these windows (K,).
    """
    negative = truth[:, None] != np.arange(scores.shape[1])
    mean = reference.mean(axis=0, where=negative)
    return np.asarray((scores - mean) / np.maximum(reference.std(axis=0, where=negative), 1e-6), np.float64)


def seen_penalty(reference: NDArray[np.float64], seen: int, *, share: float = 0.5) -> float:
    """What to take off the scores of seen classes so that this share of seen windows would go to unseen ones.

    Without it an unseen class hardly ever wins, because training pushed the seen ones forward.

    Args:
        reference: Scores of training windows (K, classes), seen classes first.
        seen: Number of seen classes.
        share: Of the training windows that is given up.
    """
    lead = reference[:, :seen].max(axis=1) - reference[:, seen:].max(axis=1)
    return float(np.quantile(lead, share))


def harmonic(a: float, b: float) -> float:
    """Harmonic mean of two shares; 0 where both are."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


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


def shrinkage_lda(train: tuple[Vectors, Labels], test: Vectors, *, classes: int) -> NDArray[np.float64]:
    """Linear discriminant with a common covariance, shrunk towards a sphere as Ledoit and Wolf choose.

    It is what a wearer's first repetitions can feed: fewer windows than features do not break it.

    Args:
        train: Features (N, d) and labels (N,), every class present.
        test: Features (K, d).
        classes: Number of classes.

    Returns:
        Log-posterior up to a constant, (K, classes).

    Raises:
        DataError: A class has no window.
    """
    features, labels = np.asarray(train[0], np.float64), train[1]
    counts = np.bincount(labels, minlength=classes)
    if len(counts) != classes or not counts.all():
        raise DataError("every class needs a window to enrol", reason=Reason.TOO_LITTLE_DATA)
    mean, sd = features.mean(axis=0), features.std(axis=0) + 1e-6
    x, z = (features - mean) / sd, (np.asarray(test, np.float64) - mean) / sd
    centres = np.stack([x[labels == c].mean(axis=0) for c in range(classes)])
    rest = x - centres[labels]
    n, d = rest.shape
    cov = rest.T @ rest / n
    sphere = np.trace(cov) / d
    spread = float(np.square(cov).sum() - d * sphere**2)
    lengths = np.square(rest).sum(axis=1)
    noise = float(lengths @ lengths / n - np.square(cov).sum()) / n
    share = min(1.0, max(0.0, noise / spread)) if spread > 0 else 1.0
    shrunk = (1 - share) * cov + (share * sphere + 1e-6) * np.eye(d)
    weights = np.linalg.solve(shrunk, centres.T)
    return np.asarray(z @ weights - 0.5 * np.einsum("cd,dc->c", centres, weights), np.float64)


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
