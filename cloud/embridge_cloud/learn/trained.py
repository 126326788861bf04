"""A trained model, where it comes from and whether it can be believed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import leakage
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.learn.loop import History
from embridge_cloud.learn.model import Bridge, InferenceGraph, PoseGraph, embed_emg, embed_poses, embed_summary
from embridge_cloud.learn.streaming import StreamGraph


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model comes from.

    Attributes:
        seed: Of the run.
        config: SHA-256 of the configuration.
        data: SHA-256 of each set that trained it.
        statistics: SHA-256 of scales, centring vector and communities.
        participants: Whose EMG trained it.
        sessions: Which sessions' EMG did.
        emg_gestures: Gestures whose EMG it saw.
        pose_gestures: Gestures whose pose it saw.
        shuffled: Pairs were broken on purpose; the model is a control and nothing else.
    """

    seed: int
    config: str
    data: tuple[str, ...]
    statistics: str
    participants: tuple[str, ...]
    sessions: tuple[str, ...]
    emg_gestures: tuple[str, ...]
    pose_gestures: tuple[str, ...]
    shuffled: bool = False


class Sanity(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that tell whether a run can be believed.

    Attributes:
        pose_cosine: Mean cosine of pose embeddings before centring.
        centered: They were centred.
        query_usage: Entropy of which query speaks for its window, nats, at the end.
        query_cosine: Mean cosine between the queries of a window, at the end.
        target_entropy: Mean entropy of the soft targets, nats, at the end.
        neighbour_mass: Target mass on pairs of one gesture, at the end.
        rebuild_reliance: Masked-pose error with another window's queries over that with the own ones.
    """

    pose_cosine: float
    centered: bool
    query_usage: float
    query_cosine: float
    target_entropy: float
    neighbour_mass: float
    rebuild_reliance: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model and everything that is known about it.

    Attributes:
        model: In evaluation mode, on the CPU.
        config: The run.
        history: Loss curves and sanity figures, one value a step.
        lineage: Where it comes from.
        sanity: Figures at the end.
    """

    model: Bridge
    config: LearnConfig
    history: History
    lineage: Lineage
    sanity: Sanity

    def embed_emg(self, emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """EMG, float32 (N, T, C), to unit queries (N, M, d)."""
        return embed_emg(self.model, emg)

    def embed_summary(self, emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """EMG, float32 (N, T, C), to the EMG encoder's summary (N, d)."""
        return embed_summary(self.model, emg)

    def features(self, emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """EMG, float32 (N, T, C), to frozen features for a probe: the mean of the queries, or the summary, (N, d)."""
        if self.config.qformer.reader == "summary":
            return self.embed_summary(emg)
        return np.asarray(self.embed_emg(emg).mean(axis=1), np.float32)

    def embed_pose(self, pose: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Joint angles, float32 (N, Tp, 20), rad, to unit vectors (N, d)."""
        return embed_poses(self.model, pose)

    def statistics(self) -> dict[str, NDArray[np.float32]]:
        """Everything computed on the train split that is no weight."""
        return statistics_of(self.model)

    def module(self) -> InferenceGraph:
        """What the edge runs: float32 (B, T, C) to unit queries (B, M, d)."""
        return InferenceGraph(self.model)

    def stream_module(self) -> StreamGraph | None:
        """The same a patch at a time; None where the encoder sees whole windows."""
        return StreamGraph(self.model) if self.model.emg.span else None

    def pose_module(self) -> PoseGraph:
        """What places gestures by their pose: joint angles (B, Tp, 20), rad, to unit vectors (B, d)."""
        return PoseGraph(self.model)

    @property
    def pose_mean(self) -> NDArray[np.float32]:
        """Mean of each joint in the train split, (20,), rad."""
        return self.model.pose.offset.numpy()

    @property
    def pose_sd(self) -> NDArray[np.float32]:
        """Deviation of each joint in the train split, (20,), rad."""
        return self.model.pose.scale.numpy()

    @property
    def center(self) -> NDArray[np.float32]:
        """Centring vector of pose embeddings, (d,); zeros where they are not centred."""
        return self.model.center.numpy()


def statistics_of(model: Bridge) -> dict[str, NDArray[np.float32]]:
    """Everything computed on the train split that is no weight."""
    named = {
        "emg.offset": model.emg.offset,
        "emg.scale": model.emg.scale,
        "pose.offset": model.pose.offset,
        "pose.scale": model.pose.scale,
        "center": model.center,
        "centroids": model.centroids,
    }
    if model.path is not None:
        named |= {"path.mean": model.path.mean, "path.sd": model.path.sd}
    return {name: value.detach().cpu().numpy() for name, value in named.items()}


def regime(trained: Trained, unseen: Iterable[str]) -> PoseRegime:
    """What the pose side of a model knew of the gestures called unseen."""
    return leakage.pose_regime(trained.lineage.pose_gestures, unseen)
