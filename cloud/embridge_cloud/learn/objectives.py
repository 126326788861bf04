"""The alignment losses and the figures that tell whether they work.

Shapes: B pairs, M queries, d width; q (B, M, d) and v (B, d) have unit length, logits are (B, B), EMG by pose.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from embridge_cloud.learn import world
from embridge_shared.errors import ModelError, Reason


def similarity(q: Tensor, v: Tensor, select: Literal["pos", "max"]) -> Tensor:
    """Cosine of every EMG window with every pose, (B, B').

    Args:
        q: (B, M, d).
        v: (B', d); with "pos", row i is the true pose of window i.
        select: "pos" speaks for a window with the query nearest to its true pose, which is for training only;
            "max" takes the nearest query for each pair.
    """
    if select == "max":
        return torch.einsum("imd,jd->imj", q, v).amax(dim=1)
    return selected(q, v) @ v.T


def selected(q: Tensor, v: Tensor) -> Tensor:
    """The query of each window nearest to its true pose, (B, d); no gradient through the choice."""
    nearest = torch.einsum("imd,id->im", q, v).argmax(dim=1)
    return q.gather(1, nearest[:, None, None].expand(-1, 1, q.shape[2])).squeeze(1)


def info_nce(logits: Tensor, *, symmetric: bool = False) -> Tensor:
    """Cross-entropy of each window with its own pose; `symmetric` adds the other direction and halves."""
    own = torch.arange(logits.shape[0], device=logits.device)
    loss = functional.cross_entropy(logits, own)
    return (loss + functional.cross_entropy(logits.T, own)) / 2 if symmetric else loss


def affinity(v: Tensor, centroids: Tensor, keep: int, kind: Literal["cosine", "raw"] = "cosine") -> Tensor:
    """Sparse non-negative affinity of poses to communities, (B, N_c).

    Args:
        v: (B, d).
        centroids: (N_c, d), unit length.
        keep: Nearest centroids kept in a row.
        kind: "cosine" scales rows to unit length.

    Raises:
        ModelError: A pose is near to no centroid, so the centroids belong to another space.
    """
    scores = v @ centroids.T
    top = scores.topk(min(keep, centroids.shape[0]), dim=1)
    rows = torch.zeros_like(scores).scatter(1, top.indices, top.values).clamp(min=0)
    if not bool((rows.amax(dim=1) > 0).all()):
        raise ModelError(
            "a pose has no positive cosine with any centroid",
            reason=Reason.INCOMPATIBLE,
            hint="Recompute the centroids with this pose encoder and centring.",
        )
    return functional.normalize(rows, dim=1) if kind == "cosine" else rows


def soft_targets(rows: Tensor, tau: float) -> Tensor:
    """Y (B, B): softmax of affinity products over the other poses; rows sum to 1, the diagonal is 0."""
    products = rows @ rows.T
    products = products.masked_fill(torch.eye(len(rows), dtype=torch.bool, device=rows.device), -math.inf)
    return functional.softmax(products / tau, dim=1)


def responsibility_rows(v: Tensor, means: Tensor, spread: Tensor) -> Tensor:
    """Square roots of the responsibilities of a Gaussian mixture, (B, N_c), unit length; their products are Hellinger
    affinities.

    Args:
        v: (B, d).
        means: (N_c, d).
        spread: Variance and log weight of each component, (N_c, 2).
    """
    variance, log_weight = spread[:, 0], spread[:, 1]
    distance = torch.cdist(v, means).square()
    log_density = log_weight - distance / (2 * variance) - v.shape[1] / 2 * variance.log()
    return functional.softmax(log_density, dim=1).sqrt()


def even_targets(count: int, device: torch.device) -> Tensor:
    """Y (count, count) of label smoothing: the same for every other pose, rows sum to 1, the diagonal is 0."""
    other = 1 - torch.eye(count, device=device)
    return other / max(count - 1, 1)


def cascle(logits: Tensor, targets: Tensor, softmax: Literal["full", "offdiag"] = "full") -> Tensor:
    """Cross-entropy with the soft targets.

    "full" is structured label smoothing and pulls against InfoNCE when weighted high; "offdiag" leaves the own pose
    out of the softmax, which removes the conflict.
    """
    if softmax == "full":
        return -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    log_q = functional.log_softmax(logits.masked_fill(own, -math.inf), dim=1).masked_fill(own, 0.0)
    return -(targets * log_q).sum(dim=1).mean()


def span_mask(batch: int, tokens: int, ratio: float, span: int) -> Tensor:
    """Hide `ratio` of the tokens in runs of at least `span`, (batch, tokens) bool.

    Pose is smooth: single hidden tokens could be interpolated without any query.
    """
    hidden = min(tokens, max(1, round(ratio * tokens)))
    runs = max(1, hidden // span)
    lengths = torch.full((runs,), hidden // runs)
    lengths[: hidden % runs] += 1
    items = torch.cat([lengths, torch.ones(tokens - hidden, dtype=lengths.dtype)])
    is_run = torch.arange(len(items)) < runs
    order = world.rand(batch, len(items)).argsort(dim=1)
    return torch.repeat_interleave(is_run[order].flatten(), items[order].flatten()).view(batch, tokens)


def masked_error(predicted: Tensor, target: Tensor, masked: Tensor) -> Tensor:
    """Mean squared error over the hidden patches."""
    error = (predicted - target).square().mean(dim=2)
    return error[masked].mean()


def query_diversity(q: Tensor) -> Tensor:
    """Mean squared cosine between different queries of a window: 1 where all are equal or opposite."""
    m = q.shape[1]
    if m == 1:
        return q.new_zeros(())
    gram = torch.einsum("imd,ind->imn", q, q).square()
    return (gram.sum(dim=(1, 2)) - gram.diagonal(dim1=1, dim2=2).sum(dim=1)).mean() / (m * (m - 1))


def query_cosine(q: Tensor) -> float:
    """Mean cosine between different queries of a window."""
    m = q.shape[1]
    if m == 1:
        return 1.0
    total = q.sum(dim=1).square().sum(dim=1) - m
    return float((total / (m * (m - 1))).mean())


def query_usage(q: Tensor, v: Tensor) -> float:
    """Entropy of which query speaks for its window, nats; 0 where one does for all."""
    nearest = torch.einsum("imd,id->im", q, v).argmax(dim=1)
    share = torch.bincount(nearest, minlength=q.shape[1]).float() / len(nearest)
    return float(-(share * share.clamp(min=1e-12).log()).sum())


def target_entropy(targets: Tensor) -> float:
    """Mean entropy of the soft targets, nats; ln(B - 1) where they are uniform."""
    return float(-(targets * targets.clamp(min=1e-12).log()).sum(dim=1).mean())


def neighbour_mass(targets: Tensor, label: Tensor) -> float:
    """Mean target mass on pairs of one gesture; windows without a label are left out."""
    known = label >= 0
    same = (label[:, None] == label[None, :]) & known[:, None] & known[None, :]
    if not bool(known.any()):
        return math.nan
    return float((targets * same).sum(dim=1)[known].mean())


def mean_cosine(v: Tensor) -> float:
    """Mean cosine between different unit vectors, (n, d): near 1 where the space has no contrast."""
    n = len(v)
    return float((v.sum(dim=0).square().sum() - n) / (n * (n - 1))) if n > 1 else 1.0
