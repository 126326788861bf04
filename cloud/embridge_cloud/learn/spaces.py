"""Where poses, and what a network says of them, are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.model import in_batches
from embridge_cloud.learn.pretrain import pose_statistics
from embridge_shared.errors import DataError, Reason

Array = NDArray[np.float32]
LEAST_DEVIATION = 1e-3


class PoseSpace(Protocol):
    """Where poses and what a network says of them are compared."""

    def vectors(self, pose: Array | None) -> Array:
        """Poses (N, Tp, J) to unit vectors (N, d)."""
        ...

    def statistics(self) -> dict[str, Array]:
        """What was computed on the train split."""
        ...


@dataclass(frozen=True, slots=True)
class PostureSpace:
    """The window's mean posture, standardised over the train split.

    Attributes:
        mean: Of each joint's mean posture, (J,), rad.
        sd: Its deviation, (J,), rad.
    """

    mean: Array
    sd: Array

    @classmethod
    def of(cls, pose: Array) -> PostureSpace:
        """The space of training poses (N, Tp, J)."""
        means = pose.mean(axis=1, dtype=np.float64)
        within = pose_statistics(pose)[1] / 10
        sd = np.maximum(np.maximum(means.std(axis=0), within), LEAST_DEVIATION)
        return cls(means.mean(axis=0).astype(np.float32), sd.astype(np.float32))

    def standardised(self, pose: Array | None) -> Array:
        """Poses (N, Tp, J) to standardised mean postures (N, J)."""
        if pose is None:
            raise DataError("there is no pose to embed", reason=Reason.WRONG_SHAPE)
        return np.asarray((pose.mean(axis=1) - self.mean) / self.sd, np.float32)

    def vectors(self, pose: Array | None) -> Array:
        """Poses (N, Tp, J) to unit vectors (N, J)."""
        return unit(self.standardised(pose))

    def statistics(self) -> dict[str, Array]:
        """What was computed on the train split."""
        return {"posture.mean": self.mean, "posture.sd": self.sd}


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """The summary of a frozen pose encoder, centred on the train split.

    Attributes:
        encoder: In evaluation mode, on the CPU.
        center: (d,).
    """

    encoder: Encoder
    center: Array

    @classmethod
    def of(cls, encoder: Encoder, pose: Array) -> EmbeddingSpace:
        """The space of a pre-trained encoder and training poses (N, Tp, J)."""
        encoder = encoder.cpu().eval().requires_grad_(False)
        return cls(encoder, _summaries(encoder, pose).mean(axis=0))

    def vectors(self, pose: Array | None) -> Array:
        """Poses (N, Tp, J) to unit vectors (N, d)."""
        if pose is None:
            raise DataError("there is no pose to embed", reason=Reason.WRONG_SHAPE)
        return unit(_summaries(self.encoder, pose) - self.center)

    def statistics(self) -> dict[str, Array]:
        """What was computed on the train split."""
        encoder = self.encoder
        return {"pose.offset": encoder.offset.numpy(), "pose.scale": encoder.scale.numpy(), "center": self.center}


def unit(x: NDArray[np.floating]) -> Array:
    """Rows scaled to unit length."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12), np.float32)


@torch.no_grad()
def _summaries(encoder: Encoder, windows: Array) -> Array:
    """Summaries of windows (N, T, C), (N, d)."""
    return np.concatenate([encoder(torch.from_numpy(part))[:, 0].numpy() for part in in_batches(windows)])
