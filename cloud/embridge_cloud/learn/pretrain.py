"""First stage: a masked auto-encoder for each modality, on the train split only."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from embridge_cloud.learn.config import LearnConfig, MaeConfig, OptimiserConfig, SignalConfig
from embridge_cloud.learn.encoders import Encoder, MaskedAutoencoder, set_dropout
from embridge_cloud.learn.optim import Progress, ProgressCallback, Stepper, autocast
from embridge_shared.errors import DataError, Reason

logger = logging.getLogger(__name__)

History = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Both encoders after the first stage, with their loss curves.

    Attributes:
        emg: EMG encoder.
        pose: Pose encoder.
        history: "emg_mae" and "pose_mae", masked error a step.
        emg_gestures: Gestures whose EMG was seen; empty names do not occur.
        pose_gestures: Gestures whose pose was seen.
        data: Hashes of the sets it was trained on.
        seed: Of the run.
    """

    emg: Encoder
    pose: Encoder
    history: History
    emg_gestures: frozenset[str] = frozenset()
    pose_gestures: frozenset[str] = frozenset()
    data: tuple[str, ...] = ()
    seed: int = 0

    def copies(self) -> tuple[Encoder, Encoder]:
        """Encoders of their own, so that several alignments can start from the same ones."""
        return copy.deepcopy(self.emg), copy.deepcopy(self.pose)


def emg_statistics(emg: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Offset (C,) and scale (C,) of training EMG (N, T, C): no offset, one robust deviation for all channels.

    A scale a channel would erase what the ring of electrodes says; intensity stays.
    """
    low, high = np.quantile(_sample(emg.reshape(-1)), [0.1587, 0.8413])
    scale = max(float(high - low) / 2, 1e-6)
    channels = emg.shape[2]
    return np.zeros(channels, np.float32), np.full(channels, scale, np.float32)


def pose_statistics(pose: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (20,) and deviation (20,) of each joint in training pose (N, Tp, 20), rad."""
    flat = pose.reshape(-1, pose.shape[2]).astype(np.float64)
    return flat.mean(axis=0).astype(np.float32), np.maximum(flat.std(axis=0), 1e-3).astype(np.float32)


def _sample(values: NDArray[np.float32], limit: int = 1 << 20) -> NDArray[np.float32]:
    """Evenly spread values, so that a quantile stays cheap."""
    return values[:: max(1, len(values) // limit)]


def new_encoder(
    signal: SignalConfig,
    config: LearnConfig,
    statistics: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> Encoder:
    """An untrained encoder that knows its train split's statistics."""
    encoder = Encoder(signal, config.encoder)
    encoder.offset.copy_(torch.from_numpy(statistics[0]))
    encoder.scale.copy_(torch.from_numpy(statistics[1]))
    return encoder


@dataclass(frozen=True, slots=True)
class MaeRun:
    """One masked pre-training: what, how, where, and whom to tell."""

    stage: str
    mae: MaeConfig
    optimiser: OptimiserConfig
    device: torch.device
    progress: ProgressCallback
    history: list[float] = field(default_factory=list)


def train_mae(encoder: Encoder, windows: NDArray[np.float32], run: MaeRun, rng: np.random.Generator) -> None:
    """Pre-train `encoder` in place and leave it in evaluation mode.

    Args:
        encoder: With statistics set.
        windows: float32 (N, T, C).
        run: Settings; its history receives the masked error of each step.
        rng: Order of the batches.

    Raises:
        DataError: There are fewer than 2 windows.
    """
    n = len(windows)
    if n < 2:
        raise DataError(f"{n} windows cannot pre-train an encoder", reason=Reason.TOO_LITTLE_DATA)
    size = min(run.mae.batch, n)
    total = run.mae.steps or run.mae.epochs * max(1, n // size)
    model = MaskedAutoencoder(encoder, run.mae).to(run.device).train()
    set_dropout(model, run.mae.dropout)
    stepper = Stepper([(list(model.parameters()), run.mae.lr)], run.optimiser, total)
    order = rng.permutation(n)
    at = 0
    for step in range(1, total + 1):
        if at + size > n:
            order, at = rng.permutation(n), 0
        rows, at = order[at : at + size], at + size
        batch = torch.from_numpy(windows[rows]).to(run.device)
        with autocast(run.optimiser, run.device):
            loss, masked = model(batch)
        stepper.step(loss)
        run.history.append(float(masked))
        run.progress(Progress(run.stage, step, total, run.history[-1]))
    set_dropout(model, 0.0)
    encoder.eval()
    logger.info("%s: masked error %.3f after %d steps", run.stage, np.mean(run.history[-10:]), total)
