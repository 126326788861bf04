"""What methods that are no aligned model answer with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn import supervised as nets
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.spaces import PoseSpace
from embridge_cloud.learn.trained import Lineage
from embridge_cloud.learn.wearer import Moments, adapt, moments
from embridge_cloud.learn.zeroshot import Embedder
from embridge_shared.errors import DataError, LeakageError, Reason

Array = NDArray[np.float32]


class Speaker(Embedder, Protocol):
    """An embedder that also gives frozen features."""

    def features(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to features for a linear probe, (N, f)."""
        ...


@dataclass(frozen=True, slots=True)
class Frozen:
    """The EMG encoder of the first stage: features for a probe, and nothing that a pose could be compared with.

    Attributes:
        encoder: In evaluation mode, on the CPU.
        config: The run.
        lineage: What it was trained on.
    """

    encoder: Encoder
    config: LearnConfig
    lineage: Lineage

    def features(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to the summary beside the mean of the tokens, (N, 2 d)."""
        return nets.frozen_features(self.encoder, emg, self.config)

    def embed_emg(self, emg: Array | None) -> Array:
        """There is nothing to compare.

        Raises:
            DataError: Always.
        """
        raise DataError("an encoder of the first stage speaks no pose", hint="Probe its features.")

    def embed_pose(self, pose: Array | None) -> Array:
        """As `embed_emg`.

        Raises:
            DataError: Always.
        """
        raise DataError("an encoder of the first stage speaks no pose", hint="Probe its features.")

    def statistics(self) -> dict[str, Array]:
        """Everything computed on the train split."""
        return {"emg.offset": self.encoder.offset.numpy(), "emg.scale": self.encoder.scale.numpy()}


@dataclass(frozen=True, slots=True)
class PoseCeiling:
    """Queries that are poses: what decoding could reach if EMG told all that pose tells. Leaky by design.

    Attributes:
        space: Of the poses.
        config: The run.
        lineage: What the pose encoder was trained on.
    """

    space: PoseSpace
    config: LearnConfig
    lineage: Lineage

    def embed_emg(self, emg: Array | None) -> Array:
        """The tested wearer's own poses (N, Tp, J), see `pose_as_emg`, to one unit query each, (N, 1, d)."""
        return self.space.vectors(emg)[:, None, :]

    def embed_pose(self, pose: Array | None) -> Array:
        """Poses (N, Tp, J) to unit vectors (N, d)."""
        return self.space.vectors(pose)

    def features(self, emg: Array | None) -> Array:
        """Of the tested wearer's own poses, (N, d)."""
        return self.space.vectors(emg)

    def statistics(self) -> dict[str, Array]:
        """Everything computed on the train split."""
        return self.space.statistics()


def pose_as_emg(windows: Windows) -> Windows:
    """Pose in the place of EMG.

    Raises:
        LeakageError: The windows carry EMG: a ceiling must not be taken for a method.
        DataError: There is no pose.
    """
    if windows.emg is not None:
        raise LeakageError("a pose ceiling takes pose alone", hint="Use Windows.without_emg().")
    return replace(windows, emg=paired_pose(windows), pose=None)


@dataclass(frozen=True, slots=True)
class Adaptable:
    """A method that can be moved to a wearer from unlabelled windows of the seen gestures.

    Attributes:
        base: The method, as it is without.
        reference: Where the training people's queries lie.
    """

    base: Speaker
    reference: Moments

    @property
    def config(self) -> LearnConfig:
        """Of the method."""
        return self.base.config

    @property
    def lineage(self) -> Lineage:
        """Of the method."""
        return self.base.lineage

    def for_wearer(self, emg: Array | None) -> Embedder:
        """The method moved to the wearer of unlabelled windows (N, T, C) of the seen gestures."""
        return adapt(self.base, self.reference, moments(self.base, emg), self.config.wearer)

    def embed_emg(self, emg: Array | None) -> Array:
        """As of the method."""
        return self.base.embed_emg(emg)

    def embed_pose(self, pose: Array | None) -> Array:
        """As of the method."""
        return self.base.embed_pose(pose)

    def features(self, emg: Array | None) -> Array:
        """As of the method."""
        return self.base.features(emg)

    def statistics(self) -> dict[str, Array]:
        """As of the method."""
        return self.base.statistics()


def paired_pose(windows: Windows) -> Array:
    """The pose of windows that must have it."""
    if windows.pose is None:
        raise DataError("there is no pose to learn from", reason=Reason.WRONG_SHAPE)
    return windows.pose
