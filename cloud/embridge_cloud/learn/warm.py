"""A warm start: the EMG side goes on from a trained model, its pose side stays as it is, to the bit."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.model import Bridge
from embridge_cloud.learn.pretrain import Pretrained
from embridge_cloud.learn.trained import Trained
from embridge_shared.errors import LeakageError, ModelError, Reason

_SPACE: Final = ("center", "centroids", "spread")
_SHAPES: Final = ("emg", "pose", "encoder", "pose_encoder", "center")


@dataclass(frozen=True, slots=True)
class Start:
    """Where a training begins.

    Attributes:
        model: What it goes on from.
        distil: Weight of staying near that model's embeddings; 0 for none.
    """

    model: Trained
    distil: float = 0.0

    def pretrained(self, windows: Windows, *, seed: int) -> Pretrained:
        """Its encoders in the place of a first stage on `windows`."""
        lineage = self.model.lineage
        return Pretrained(
            emg=copy.deepcopy(self.model.model.emg),
            pose=copy.deepcopy(self.model.model.pose),
            history={},
            emg_gestures=frozenset(lineage.emg_gestures),
            pose_gestures=frozenset(lineage.pose_gestures),
            data=(windows.digest(), *lineage.data[:1]),
            seed=seed,
        )

    def begin(self, model: Bridge) -> float:
        """Put weights, centring vector and communities into `model`; the mean cosine of poses that was found then.

        Raises:
            ModelError: INCOMPATIBLE: it is of another shape.
        """
        state = self.model.model.state_dict()
        model.centroids = state["centroids"].clone().to(model.center.device)
        if "spread" in state:
            model.spread = state["spread"].clone().to(model.center.device)
        try:
            model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ModelError(f"the training cannot go on from it: {error}", reason=Reason.INCOMPATIBLE) from None
        return self.model.sanity.pose_cosine

    def pull(self, model: Bridge, emg: Tensor) -> Tensor:
        """How far the queries of windows (B, T, C) have moved from what they were: 1 - cosine, a mean."""
        teacher = self.model.model.to(emg.device).eval()
        with torch.no_grad():
            told = teacher.queries(emg)
        return 1.0 - functional.cosine_similarity(model.queries(emg), told, dim=-1).mean()


def anchor_of(model: Bridge) -> str:
    """sha256 over everything that places a pose: its encoder with the scale of joints, centring, communities."""
    h = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name.startswith("pose.") or name in _SPACE:
            array = value.detach().cpu().contiguous().numpy()
            h.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
            h.update(array.tobytes())
    return h.hexdigest()


def check_anchor(model: Bridge, wanted: str) -> None:
    """The pose side is the one that was to stay.

    Raises:
        ModelError: INCOMPATIBLE: it is another one.
    """
    found = anchor_of(model)
    if found != wanted:
        raise ModelError(
            f"the candidate speaks in pose space {found[:12]}, its line in {wanted[:12]}",
            reason=Reason.INCOMPATIBLE,
            hint="A pose space changes with a new generation only: start the job with --major.",
        )


def check_start(start: Start, config: LearnConfig, strangers: Collection[str]) -> None:
    """A model may be gone on from.

    Args:
        start: The model.
        config: Of the run to come.
        strangers: People that the run may not have learnt from.

    Raises:
        LeakageError: It has learnt from one of them, or from broken pairs.
        ModelError: INCOMPATIBLE: its configuration is of another shape.
    """
    lineage = start.model.lineage
    known = sorted(set(lineage.participants) & set(strangers))
    if known:
        raise LeakageError(f"the model to go on from has learnt from {', '.join(known)}, who are to be strangers")
    if lineage.shuffled:
        raise LeakageError("a control cannot be gone on from")
    for name in _SHAPES:
        if getattr(start.model.config, name) != getattr(config, name):
            raise ModelError(
                f"the model to go on from has another [learn.{name}]",
                reason=Reason.INCOMPATIBLE,
                hint="Keep the configuration, or start the job with --major.",
            )
