"""What the report draws of a job beside its figures: maps of embeddings, curves and communities."""

from __future__ import annotations

import numpy as np

from embridge_cloud.learn.model import Bridge, embed_poses
from embridge_cloud.learn.spaces import EmbeddingSpace
from embridge_cloud.learn.supervised import frozen_features
from embridge_cloud.learn.trained import Trained
from embridge_cloud.study.artefacts import (
    Artefacts,
    Communities,
    EmbeddingMap,
    communities_of,
    curves_of,
    map_of,
)
from embridge_cloud.study.evaluation import Fitted, classes_of
from embridge_cloud.study.methods import Shared
from embridge_cloud.study.outcome import Outcome
from embridge_cloud.study.splits import Split


def artefacts_of(outcome: Outcome, fitted: Fitted, split: Split, shared: Shared) -> Artefacts:
    """Everything a report draws of one finished job.

    Args:
        outcome: Of the job.
        fitted: The method.
        split: Of the run.
        shared: Of the unit; its encoders make the map before the alignment.
    """
    job, run = outcome.job, outcome.run
    return Artefacts(
        unit=f"{run.name}.{job.name}",
        method=job.method,
        regime=job.regime,
        pose_regime=job.pose_regime,
        unseen_set=run.fold.name,
        unseen=run.fold.unseen,
        held_out=run.held_out,
        seed=run.seed,
        maps=_maps(fitted, split, shared),
        curves=curves_of(fitted.history),
        communities=_communities(fitted, split),
    )


def _maps(fitted: Fitted, split: Split, shared: Shared) -> tuple[EmbeddingMap, ...]:
    """The tested windows among the gallery's poses, before the alignment and after it."""
    if not isinstance(fitted.embedder, Trained):
        return ()
    names = (*split.seen, *split.unseen)
    labels = classes_of(split.tested, names), classes_of(split.gallery, names)
    encoders = shared.pretrained(split)
    emg, pose = encoders.copies()
    space = EmbeddingSpace.of(pose, np.asarray(split.train.pose))
    summary = frozen_features(emg.eval(), split.tested.emg, shared.config)[:, : shared.config.encoder.width]
    before = summary - summary.mean(axis=0)
    before /= np.maximum(np.linalg.norm(before, axis=1, keepdims=True), 1e-12)
    after = fitted.embedder.embed_emg(split.tested.emg)
    poses = fitted.embedder.embed_pose(split.gallery.pose)
    rng = np.random.default_rng([split.run.seed, 5])
    return (
        map_of("before", (before, labels[0]), (space.vectors(split.gallery.pose), labels[1]), names, rng=rng),
        map_of("after", (after, labels[0]), (poses, labels[1]), names, rng=rng),
    )


def _communities(fitted: Fitted, split: Split) -> Communities | None:
    """Training poses by gesture and nearest centroid; None where the method has none."""
    model = getattr(fitted.embedder, "model", None)
    if not isinstance(model, Bridge) or model.config.loss.alpha == 0 or len(model.centroids) < 2:
        return None
    nearest = (embed_poses(model, split.train.pose) @ model.centroids.detach().numpy().T).argmax(axis=1)
    kind = "gmm" if model.config.loss.cascle.model == "gmm" else "k-means"
    return communities_of(kind, nearest.astype(np.int64), classes_of(split.train, split.seen), split.seen)
