"""First stage: a masked auto-encoder for each modality, on the train split only."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embridge_cloud.learn import world
from embridge_cloud.learn.config import LearnConfig, MaeConfig, OptimiserConfig, SignalConfig
from embridge_cloud.learn.encoders import Encoder, MaskedAutoencoder, set_dropout
from embridge_cloud.learn.feed import Batch, PassSampler, rows_of, shuffled
from embridge_cloud.learn.loop import Figures, History, Learning, Run, Stage, train_stage
from embridge_cloud.learn.slices import some_rows
from embridge_shared.errors import DataError, Reason

logger = logging.getLogger(__name__)

SAMPLED = 4096  # windows of a store that tell its statistics


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
    low, high = np.quantile(_sample(some_rows(emg, SAMPLED).reshape(-1)), [0.1587, 0.8413])
    scale = max(float(high - low) / 2, 1e-6)
    channels = emg.shape[2]
    return np.zeros(channels, np.float32), np.full(channels, scale, np.float32)


def pose_statistics(pose: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (20,) and deviation (20,) of each joint in training pose (N, Tp, 20), rad."""
    flat = some_rows(pose, SAMPLED).reshape(-1, pose.shape[2]).astype(np.float64)
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
    encoder = Encoder(signal, config.pose_encoder if signal is config.pose else config.encoder)
    encoder.offset.copy_(torch.from_numpy(statistics[0]))
    encoder.scale.copy_(torch.from_numpy(statistics[1]))
    return encoder


@dataclass(frozen=True, slots=True)
class MaePlan:
    """What one masked pre-training is told: its stage's name, its settings and those of the optimiser."""

    stage: str
    mae: MaeConfig
    optimiser: OptimiserConfig


def train_mae(
    encoder: Encoder, windows: NDArray[np.float32], plan: MaePlan, *, run: Run, rng: np.random.Generator
) -> list[float]:
    """Pre-train `encoder` in place and leave it in evaluation mode.

    Args:
        encoder: With statistics set.
        windows: float32 (N, T, C).
        plan: Settings.
        run: Where, and who hears of it.
        rng: Order of the batches.

    Returns:
        The masked error of each step.

    Raises:
        DataError: There are fewer than 2 windows.
    """
    n, mae = len(windows), plan.mae
    if n < 2:
        raise DataError(f"{n} windows cannot pre-train an encoder", reason=Reason.TOO_LITTLE_DATA)
    size = min(mae.batch, n)
    total = mae.steps or mae.epochs * max(1, n // size)
    model = MaskedAutoencoder(encoder, mae).to(run.device)
    set_dropout(model, mae.dropout)

    def loss(batch: Batch, learning: Learning) -> tuple[Tensor, Figures]:
        value, masked = model(*batch)
        return world.mean(value), {plan.stage: world.mean(masked)}

    stage = Stage(
        name=plan.stage,
        module=model,
        groups=[(list(model.parameters()), mae.lr)],
        loss=loss,
        fetch=rows_of(windows),
        sampler=PassSampler(shuffled(n, size), rng),
        total=total,
        optimiser=plan.optimiser,
    )
    errors = train_stage(stage, run)[plan.stage]
    set_dropout(model, 0.0)
    logger.info("%s: masked error %.3f after %d steps", plan.stage, np.mean(errors[-10:]), total)
    return errors
