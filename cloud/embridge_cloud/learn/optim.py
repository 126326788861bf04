"""What every training stage shares: device, seeds, optimiser, schedule and progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embridge_cloud.learn import world
from embridge_cloud.learn.config import OptimiserConfig
from embridge_shared.errors import ConfigError, ModelError, Reason


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: "emg_mae", "pose_mae" or "align".
        step: Steps done.
        total: Steps of the stage.
        loss: Latest loss.
    """

    stage: str
    step: int
    total: int
    loss: float


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Take no notice."""


def resolve_device(wanted: str) -> torch.device:
    """The device a run uses; processes that `torchrun` started take an accelerator each.

    Raises:
        ConfigError: An accelerator was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda', but there is no accelerator", hint="Use device = 'auto'.")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", world.local_rank())
    torch.cuda.set_device(device)
    return device


@contextmanager
def reproducible(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """Seed torch and bound its threads; the caller's random state and thread count come back afterwards."""
    before = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        if threads:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def autocast(config: OptimiserConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 on an accelerator, and on a CPU where that is asked for."""
    enabled = config.bf16_cpu if device.type == "cpu" else config.bf16
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


class Stepper:
    """AdamW with weight decay on matrices only, linear warm-up, cosine decay and clipping.

    Args:
        groups: (parameters, learning rate) pairs.
        config: Decay, warm-up and clipping.
        total: Steps of the stage.
    """

    def __init__(self, groups: Iterable[tuple[list[nn.Parameter], float]], config: OptimiserConfig, total: int) -> None:
        split: list[dict[str, Any]] = []
        for parameters, lr in groups:
            matrices = [p for p in parameters if p.ndim >= 2]
            others = [p for p in parameters if p.ndim < 2]
            split.append({"params": matrices, "lr": lr, "weight_decay": config.weight_decay})
            split.append({"params": others, "lr": lr, "weight_decay": 0.0})
        self._parameters = [p for group in split for p in group["params"]]
        self._clip = config.clip_norm
        self._optimiser = torch.optim.AdamW([g for g in split if g["params"]], betas=(0.9, 0.95))
        self._bases: list[float] = [g["lr"] for g in self._optimiser.param_groups]
        self._warm = max(1, round(config.warmup * total))
        self._total = total
        self._plan(0)

    def _plan(self, step: int) -> None:
        """Set the learning rates of the update after `step` others."""
        self._done = step
        if step < self._warm:
            factor = (step + 1) / self._warm
        else:
            factor = 0.5 * (1 + math.cos(math.pi * (step - self._warm) / max(1, self._total - self._warm)))
        for group, base in zip(self._optimiser.param_groups, self._bases, strict=True):
            group["lr"] = base * factor

    def state(self) -> dict[str, Tensor]:
        """Moments by the number of their parameter."""
        moments = self._optimiser.state_dict()["state"]
        return {f"{i}.{name}": value for i, kept in moments.items() for name, value in kept.items()}

    def restore(self, state: Mapping[str, Tensor], step: int) -> None:
        """Take up moments and schedule after `step` updates."""
        whole = self._optimiser.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = value
        self._optimiser.load_state_dict({"state": moments, "param_groups": whole["param_groups"]})
        self._plan(step)

    def step(self, loss: Tensor) -> float:
        """One update, from the gradients of every process; returns the loss.

        Raises:
            ModelError: The loss is not finite.
        """
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"training diverged: loss {value}",
                reason=Reason.INVALID,
                hint="Lower the learning rate and look at the scale of the EMG.",
            )
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        world.average_gradients(self._parameters)
        nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimiser.step()
        self._plan(self._done + 1)
        return value
