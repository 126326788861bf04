"""Networks trained without contrast: a classifier of the seen gestures and a regression of the pose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from embridge_cloud.learn.augment import augment
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows, batches
from embridge_cloud.learn.encoders import Encoder, init_weights, set_dropout
from embridge_cloud.learn.feed import Batch, PassSampler, rows_of
from embridge_cloud.learn.linear import LinearPath
from embridge_cloud.learn.loop import Figures, History, Learning, LossFunction, Run, Stage, train_stage
from embridge_cloud.learn.model import NEAR, in_batches
from embridge_cloud.learn.spaces import PoseSpace, unit
from embridge_cloud.learn.trained import Lineage
from embridge_shared.errors import DataError, Reason

Array = NDArray[np.float32]


class SummaryNet(nn.Module):
    """An EMG encoder with a linear head on its summary and the mean of its tokens, and a linear path if there is one.

    Args:
        encoder: Trained further, in place.
        outputs: Values the head gives.
        config: The run.
        classes: The outputs are scores of classes.
    """

    def __init__(self, encoder: Encoder, outputs: int, config: LearnConfig, *, classes: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(config.supervised.dropout)
        self.head = nn.Linear(2 * encoder.norm.normalized_shape[0], outputs)
        self.head.apply(init_weights)
        rich = (config.supervised if classes else config.linear).features == "rich"
        self.path = LinearPath(config.emg, outputs, rich=rich) if config.linear.l2 > 0 else None
        self.gain = nn.Parameter(torch.ones(1)) if self.path is not None else None
        if self.path is not None:
            with torch.no_grad():
                self.head.weight.mul_(NEAR)

    def features(self, emg: Tensor) -> Tensor:
        """(B, T, C) to the summary beside the mean of the tokens, (B, 2 d)."""
        return self._summary(self.encoder.patches(emg))

    def forward(self, emg: Tensor, clean: Tensor | None = None) -> Tensor:
        """(B, T, C) to (B, outputs).

        Args:
            emg: What the network reads; augmented while it trains.
            clean: What the linear path reads, which was fitted to windows as they are; None is `emg`.
        """
        patches = self.encoder.patches(emg)
        out: Tensor = self.head(self.dropout(self._summary(patches))).float()
        if self.path is None or self.gain is None:
            return out
        base = patches if clean is None else self.encoder.patches(clean)
        return torch.add(out, self.gain * self.path(base)[:, 0])

    @torch.no_grad()
    def fit_path(self, windows: Windows, target: NDArray[Any], config: LearnConfig) -> None:
        """Fit the linear path, where there is one, to targets (N, outputs), or to the class of each window, (N,)."""
        if self.path is None or windows.emg is None:
            return
        device = self.head.weight.device
        parts = [
            self.path.features(self.encoder.patches(torch.from_numpy(part).to(device))).cpu().numpy()
            for part in in_batches(windows.emg)
        ]
        features = np.concatenate(parts)
        if target.ndim == 2:
            self.path.fit(features, target, windows.participant, config.linear.l2)
            return
        added = self.path.fit_classes(features, target, config.supervised.shrink)
        self.head.bias.copy_(torch.from_numpy(added))

    def _summary(self, patches: Tensor) -> Tensor:
        tokens = self.encoder.run(self.encoder.embed(patches))
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


@dataclass(frozen=True, slots=True)
class Outspoken:
    """A trained `SummaryNet` that speaks for a window with one vector in a pose space.

    Attributes:
        net: In evaluation mode, on the CPU.
        config: The run.
        space: Of the poses.
        lineage: What it was trained on.
        history: Loss a step.
        words: What each output means in the pose space, (outputs, d): the gestures' mean vectors of a classifier, which
            speaks with the mixture of what it believes in. None where the outputs are the vector itself.
        gestures: Of the outputs of a classifier.
    """

    net: SummaryNet
    config: LearnConfig
    space: PoseSpace
    lineage: Lineage
    history: History
    words: Array | None = None
    gestures: tuple[str, ...] = ()

    def outputs(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to what the head says, (N, outputs)."""
        return _run(self.net, emg, self.config)

    def features(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to frozen features for a probe, (N, 2 d)."""
        return _run(self.net.features, emg, self.config)

    def classify(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to the log-probability of each gesture in `gestures`, (N, K).

        Raises:
            DataError: The network regresses and knows no gestures.
        """
        if self.words is None:
            raise DataError("a regression scores no gestures", hint="Compare it with a gallery of poses.")
        return functional.log_softmax(torch.from_numpy(self.outputs(emg)), dim=1).numpy()

    def embed_emg(self, emg: Array | None) -> Array:
        """EMG, float32 (N, T, C), to one unit query each, (N, 1, d)."""
        said = self.outputs(emg) if self.words is None else np.exp(self.classify(emg)) @ self.words
        return unit(said)[:, None, :]

    def embed_pose(self, pose: Array | None) -> Array:
        """Poses, float32 (N, Tp, J), to unit vectors (N, d)."""
        return self.space.vectors(pose)

    def statistics(self) -> dict[str, Array]:
        """Everything computed on the train split."""
        encoder = self.net.encoder
        named = {"emg.offset": encoder.offset.numpy(), "emg.scale": encoder.scale.numpy()}
        words = {} if self.words is None else {"words": self.words}
        return named | words | self.space.statistics()


def classifier_loss(net: SummaryNet, config: LearnConfig) -> LossFunction:
    """Cross-entropy over the seen gestures, with label smoothing, on augmented EMG."""
    smoothing = config.supervised.smoothing

    def loss(batch: Batch, learning: Learning) -> tuple[Tensor, Figures]:
        emg, label = batch
        said = net(augment(emg, config.augment, config.emg.patch), emg)
        return functional.cross_entropy(said, label, label_smoothing=smoothing), {}

    return loss


def regression_loss(net: SummaryNet, config: LearnConfig) -> LossFunction:
    """Squared error of the pose, and its cosine error, on augmented EMG."""
    weight = config.regression.cosine

    def loss(batch: Batch, learning: Learning) -> tuple[Tensor, Figures]:
        emg, target = batch
        said = net(augment(emg, config.augment, config.emg.patch), emg)
        squared = functional.mse_loss(said, target)
        turned = 1 - functional.cosine_similarity(said, target, dim=1).mean()
        return squared + weight * turned, {"cosine": 1 - turned.detach()}

    return loss


def train_net(
    net: SummaryNet,
    windows: Windows,
    target: NDArray[np.float32] | NDArray[np.int64],
    run: Run,
    *,
    config: LearnConfig,
    loss: LossFunction,
    name: str,
    rng: np.random.Generator,
    steps: int = 0,
) -> History:
    """Train a network on windows and a target each, at the steps, batches and rates of the alignment.

    Args:
        net: Trained in place and left in evaluation mode.
        windows: With EMG.
        target: (N, outputs), or the label of each window, (N,).
        run: Where and how.
        config: Steps, batch and learning rates.
        loss: Of a batch (emg, target).
        name: Of the stage.
        rng: Order of the batches.
        steps: Of the stage; 0 takes those of the alignment.

    Raises:
        DataError: There is no EMG, or not two windows.
    """
    if windows.emg is None or len(windows) < 2:
        raise DataError("a network needs at least 2 windows with EMG", reason=Reason.TOO_LITTLE_DATA)
    align = config.align
    size = min(align.batch, len(windows))
    stage = Stage(
        name=name,
        module=net,
        groups=[
            (list(net.encoder.parameters()), align.lr_emg),
            ([*net.head.parameters(), *([] if net.gain is None else [net.gain])], align.lr_rest),
        ],
        loss=loss,
        fetch=rows_of(windows.emg, target),
        sampler=PassSampler(lambda r: batches(windows, size, r, min_gap_s=align.min_gap_s), rng),
        total=steps or align.steps or align.epochs * max(1, len(windows) // size),
        optimiser=config.optimiser,
    )
    set_dropout(net.encoder, config.supervised.dropout)
    history = train_stage(stage, run)
    set_dropout(net.encoder, 0.0)
    net.cpu().eval()
    return history


@torch.no_grad()
def frozen_features(encoder: Encoder, emg: Array | None, config: LearnConfig) -> Array:
    """EMG windows (N, T, C) to an encoder's summary beside the mean of its tokens, (N, 2 d)."""

    def both(x: Tensor) -> Tensor:
        tokens = encoder(x)
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)

    return _run(both, emg, config)


@torch.no_grad()
def _run(of: Callable[[Tensor], Tensor], emg: Array | None, config: LearnConfig) -> Array:
    """A function of EMG tensors over many windows."""
    signal = config.emg
    wrong = emg is None or emg.ndim != 3 or emg.shape[1] != signal.window
    if wrong or emg is None or (signal.electrodes is None and emg.shape[2] != signal.channels):
        raise DataError(
            f"EMG windows must be (N, {signal.window}, {signal.channels}), not {None if emg is None else emg.shape}",
            reason=Reason.WRONG_SHAPE,
            hint="Cut windows with the configuration the model was trained with.",
        )
    parts = [of(torch.from_numpy(np.ascontiguousarray(part))).numpy() for part in in_batches(emg)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
