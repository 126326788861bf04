"""The aligned model: a trainable EMG side that speaks the language of a frozen pose encoder."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from embridge_cloud.learn import objectives, world
from embridge_cloud.learn.config import LearnConfig, SignalConfig
from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.linear import LinearPath
from embridge_cloud.learn.qformer import QFormer, SummaryReader
from embridge_cloud.learn.slices import Slices
from embridge_shared.errors import DataError, ModelError, Reason

NEAR = 0.01


@dataclass(frozen=True, slots=True)
class Losses:
    """One batch: the loss, its parts, and what the sanity figures are made from."""

    total: Tensor
    nce: Tensor
    cascle: Tensor
    mprl: Tensor
    q: Tensor
    v: Tensor
    targets: Tensor


class Bridge(nn.Module):
    """EMG encoder, frozen pose encoder, Q-Former, temperature, centring vector and communities.

    Args:
        emg: Pre-trained EMG encoder; trained further.
        pose: Pre-trained pose encoder; frozen here.
        config: The run.
    """

    center: Tensor
    centroids: Tensor
    spread: Tensor
    qformer: QFormer | SummaryReader

    def __init__(self, emg: Encoder, pose: Encoder, config: LearnConfig) -> None:
        super().__init__()
        self.config = config
        self.emg = emg
        self.pose = pose.requires_grad_(False)
        reach = config.linear.reach
        if config.qformer.reader == "summary":
            self.qformer = SummaryReader(config.encoder.width, reach=reach)
        else:
            self.qformer = QFormer(pose, config.encoder, config.qformer, reach=reach)
        self.path = (
            LinearPath(config.emg, config.encoder.width, rich=config.linear.features == "rich")
            if config.linear.l2 > 0
            else None
        )
        if self.path is not None:
            # the queries start at the linear map and learn what it misses
            with torch.no_grad():
                self.qformer.projection.weight.mul_(NEAR)
        self.log_tau = nn.Parameter(torch.tensor(math.log(config.loss.tau_init)))
        self.register_buffer("center", torch.zeros(config.encoder.width))
        self.register_buffer("centroids", torch.zeros(0, config.encoder.width))
        mixture = config.loss.cascle.model == "gmm"
        self.register_buffer("spread", torch.zeros(0, 2), persistent=mixture)

    def train(self, mode: bool = True) -> Bridge:
        """Switch modes; the pose encoder stays in evaluation mode."""
        super().train(mode)
        self.pose.eval()
        return self

    @property
    def tau(self) -> Tensor:
        """Temperature."""
        return self.log_tau.exp()

    def clamp_tau(self) -> None:
        """Keep the temperature inside its bounds."""
        loss = self.config.loss
        with torch.no_grad():
            self.log_tau.clamp_(math.log(loss.tau_min), math.log(loss.tau_max))

    @torch.no_grad()
    def vectors(self, pose: Tensor) -> Tensor:
        """Poses (B, Tp, 20) to unit vectors v (B, d)."""
        return functional.normalize(self.pose(pose)[:, 0].float() - self.center, dim=1)

    def queries(self, emg: Tensor) -> Tensor:
        """Windows (B, T, C) to unit queries q (B, M, d)."""
        return self.read(emg)[1]

    def read(self, emg: Tensor, clean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Windows (B, T, C) to query states Q' and unit queries q, (B, M, d) each.

        Args:
            emg: (B, T, C).
            clean: What the linear path reads; None is `emg`.
        """
        patches = self.emg.patches(emg)
        states: Tensor = self.qformer(self.emg.run(self.emg.embed(patches)))
        base = None if self.path is None else self.path(patches if clean is None else self.emg.patches(clean))
        return states, self.qformer.project(states, base)

    def losses(self, emg: Tensor, pose: Tensor, *, diversify: bool = False, clean: Tensor | None = None) -> Losses:
        """InfoNCE + alpha CASCLe + lam MPRL of one batch.

        Args:
            emg: (B, T, C).
            pose: (B, Tp, 20), window by window at the same time.
            diversify: Add the penalty on equal queries.
            clean: The windows before augmentation, for a linear path that is to read those.
        """
        loss = self.config.loss
        states, own = self.read(emg, clean)
        # contrast and soft targets see the rows of every process; poses are constants
        q, v = world.gather(own), world.gather_constant(self.vectors(pose))
        logits = objectives.similarity(q, v, loss.select) / self.tau
        nce = objectives.info_nce(logits, symmetric=loss.symmetric)
        targets = self.soft_targets(v)
        soft = objectives.cascle(logits, targets, loss.cascle.softmax)
        rebuilt = world.mean(self.rebuild_error(states, pose)) if loss.lam > 0 else nce.new_zeros(())
        total = nce + loss.alpha * soft + loss.lam * rebuilt
        if diversify:
            total = total + loss.diversity * objectives.query_diversity(q)
        return Losses(total, nce, soft, rebuilt, q.detach(), v, targets)

    @torch.no_grad()
    def soft_targets(self, v: Tensor) -> Tensor:
        """What the soft loss aims at, (B, B), from pose vectors v (B, d)."""
        cascle = self.config.loss.cascle
        if cascle.targets == "smoothing":
            return objectives.even_targets(len(v), v.device)
        if cascle.targets == "instances":
            rows = v
        elif cascle.model == "gmm":
            rows = objectives.responsibility_rows(v, self.centroids, self.spread)
        else:
            rows = objectives.affinity(v, self.centroids, cascle.keep, cascle.affinity)
        return objectives.soft_targets(rows, cascle.tau)

    def rebuild_error(self, states: Tensor, pose: Tensor, masked: Tensor | None = None) -> Tensor:
        """Error on hidden pose patches, rebuilt from the query states (B, M, d) and the visible patches."""
        if isinstance(self.qformer, SummaryReader):
            raise ModelError("a summary rebuilds no pose", reason=Reason.INCOMPATIBLE, hint="Set loss.lam = 0.")
        mprl = self.config.loss.mprl
        with torch.no_grad():
            patches = self.pose.patches(pose)
            tokens = self.pose.embed(patches)
        if masked is None:
            masked = objectives.span_mask(len(pose), patches.shape[1], mprl.ratio, mprl.span_tokens)
        masked = masked.to(pose.device)
        predicted = self.qformer.rebuild(states, tokens, masked, self.pose.position[1:])
        return objectives.masked_error(predicted, patches, masked)


class InferenceGraph(nn.Module):
    """What the edge runs: EMG encoder, Q-Former, projection and normalisation; no pose side."""

    # small, and every query starts from it
    exact = ("path.",)

    def __init__(self, model: Bridge) -> None:
        super().__init__()
        self.emg = model.emg
        self.qformer = model.qformer
        self.path = model.path

    def forward(self, windows: Tensor) -> Tensor:
        """(B, T, C) to (B, M, d)."""
        patches = self.emg.patches(windows)
        states = self.qformer(self.emg.run(self.emg.embed(patches)))
        queries: Tensor = self.qformer.project(states, None if self.path is None else self.path(patches))
        return queries


class PoseGraph(nn.Module):
    """What places a gesture by its pose on an edge: pose encoder, centring and normalisation."""

    def __init__(self, model: Bridge) -> None:
        super().__init__()
        self.pose = model.pose
        self.register_buffer("center", model.center)

    center: Tensor

    def forward(self, poses: Tensor) -> Tensor:
        """Joint angles (B, Tp, J), rad, to unit vectors (B, d)."""
        return functional.normalize(self.pose(poses)[:, 0] - self.center, dim=1)


def in_batches(values: NDArray[np.float32], size: int = 512) -> list[NDArray[np.float32]]:
    """Slices small enough to embed at once."""
    return [values[i : i + size] for i in range(0, len(values), size)]


@torch.no_grad()
def embed_poses(model: Bridge, pose: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Poses, float32 (N, Tp, 20), rad, to unit vectors (N, d).

    Raises:
        DataError: There is no pose, or windows of another shape.
    """
    given = _checked(pose, _shape(model.config.pose), "pose")
    model.eval()
    device = model.center.device
    parts = [model.vectors(torch.from_numpy(part).to(device)).cpu().numpy() for part in in_batches(given)]
    return np.concatenate(parts) if parts else np.zeros((0, model.center.shape[0]), np.float32)


@torch.no_grad()
def embed_emg(model: Bridge, emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """EMG, float32 (N, T, C), to unit queries (N, M, d).

    Raises:
        DataError: There is no EMG, or windows of another shape.
    """
    given = _checked(emg, _shape(model.config.emg), "EMG")
    model.eval()
    device = model.center.device
    parts = [model.queries(torch.from_numpy(part).to(device)).cpu().numpy() for part in in_batches(given)]
    if parts:
        return np.concatenate(parts)
    return np.zeros((0, model.config.qformer.spoken, model.center.shape[0]), np.float32)


@torch.no_grad()
def embed_summary(model: Bridge, emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """EMG, float32 (N, T, C), to the EMG encoder's summary (N, d), as it is before any query reads it.

    Raises:
        DataError: There is no EMG, or windows of another shape.
    """
    given = _checked(emg, _shape(model.config.emg), "EMG")
    model.eval()
    device = model.center.device
    parts = [model.emg(torch.from_numpy(part).to(device))[:, 0].cpu().numpy() for part in in_batches(given)]
    return np.concatenate(parts) if parts else np.zeros((0, model.center.shape[0]), np.float32)


def _shape(signal: SignalConfig) -> tuple[int, int | None]:
    """Samples and channels a window must have; any number of electrodes where each makes tokens of its own."""
    return signal.window, None if signal.electrodes is not None else signal.channels


def _checked(values: NDArray[np.float32] | None, shape: tuple[int, int | None], what: str) -> NDArray[np.float32]:
    """Windows of the shape the model was made for."""
    time, channels = shape
    if values is None or values.ndim != 3 or values.shape[1] != time or channels not in (None, values.shape[2]):
        raise DataError(
            f"{what} windows must be (N, {time}, {channels or 'any'}), not {None if values is None else values.shape}",
            reason=Reason.WRONG_SHAPE,
            hint="Cut windows with the configuration the model was trained with.",
        )
    return values if isinstance(values, Slices) else np.ascontiguousarray(values, np.float32)
