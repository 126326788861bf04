"""From a fitted method to what a report draws of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from embridge_cloud.learn.data import Windows, class_balanced
from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.model import in_batches
from embridge_cloud.learn.pretrain import Pretrained
from embridge_cloud.learn.zeroshot import Embedder
from embridge_cloud.study.artefacts import (
    Artefacts,
    Communities,
    EmbeddingMap,
    communities_of,
    curves_of,
    map_of,
)
from embridge_cloud.study.evaluation import Fitted
from embridge_cloud.study.outcome import Job
from embridge_cloud.study.splits import Split

POINTS = 480
_KINDS = {"kmeans": "k-means", "gmm": "Gaussian mixture"}
Vectors = NDArray[np.float32]


def capture(fitted: Fitted, split: Split, job: Job, *, pretrained: Pretrained | None = None) -> Artefacts:
    """Maps, curves and communities of one run.

    Args:
        fitted: The method; what it lacks is left out.
        split: What it was fitted on; the map shows EMG of the held-out participants and poses of the others.
        job: For its name.
        pretrained: Encoders it started from, for the map before the alignment; None leaves that map out.
    """
    rng = np.random.default_rng([split.run.seed, 11])
    names = (*split.seen, *split.unseen)
    emg, emg_label = _some(split.tested.of_gestures(names), names, rng)
    pose, pose_label = _some(split.gallery.of_gestures(names), names, rng)
    maps: list[EmbeddingMap] = []
    if pretrained is not None and emg.emg is not None and pose.pose is not None:
        before = (_summary(pretrained.emg, emg.emg), emg_label), (_summary(pretrained.pose, pose.pose), pose_label)
        if before[0][0].shape[1] == before[1][0].shape[1]:
            maps.append(map_of("before", *before, names, rng=rng))
    if fitted.embedder is not None and not fitted.on_pose:
        queries, vectors = fitted.embedder.embed_emg(emg.emg), fitted.embedder.embed_pose(pose.pose)
        maps.append(map_of("after", (queries, emg_label), (vectors, pose_label), names, rng=rng))
    return Artefacts(
        unit=f"{split.run.name}.{job.name}".replace(":", "-"),
        method=job.method,
        regime=str(split.regime),
        pose_regime=str(split.pose_regime),
        unseen_set=split.run.fold.name,
        unseen=split.unseen,
        held_out=split.run.held_out,
        seed=split.run.seed,
        maps=tuple(maps),
        curves=curves_of(fitted.history),
        communities=_communities(fitted.embedder, split.train) if fitted.embedder is not None else None,
    )


def _some(windows: Windows, names: tuple[str, ...], rng: np.random.Generator) -> tuple[Windows, NDArray[np.int64]]:
    """As many windows of each gesture, `POINTS` at most, and their classes."""
    rows = rng.permutation(class_balanced(windows.label, rng))[:POINTS]
    chosen = windows.select(np.sort(rows))
    return chosen, np.array([names.index(chosen.gestures[i]) for i in chosen.label], np.int64)


@torch.no_grad()
def _summary(encoder: Encoder, values: Vectors) -> Vectors:
    """Summary tokens of an encoder, unit length, (N, d)."""
    encoder.eval()
    device = encoder.offset.device
    found = torch.cat([encoder(torch.from_numpy(part).to(device))[:, 0] for part in in_batches(values)])
    return np.asarray(torch.nn.functional.normalize(found.float(), dim=1).cpu().numpy(), np.float32)


def _communities(embedder: Embedder, train: Windows) -> Communities | None:
    """Community of each training pose, the one with the nearest centre; None where the method has none."""
    centres = embedder.statistics().get("centroids")
    if centres is None or centres.ndim != 2 or len(centres) < 2 or train.pose is None:
        return None
    vectors = embedder.embed_pose(train.pose)
    if vectors.shape[1] != centres.shape[1]:
        return None
    distance = -2 * vectors @ centres.T + (centres**2).sum(axis=1)
    kind = _KINDS[embedder.config.loss.cascle.model]
    return communities_of(kind, np.asarray(distance.argmin(axis=1), np.int64), train.label, train.gestures)
