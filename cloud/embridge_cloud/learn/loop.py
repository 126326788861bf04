"""The training loop of every stage.

A stage is a module, a loss on a batch and a sampler. The loop does the rest: optimiser and schedule, batches made
ready in another thread, several processes, mixed precision, history, validation with the best weights, and checkpoints
from which a killed run goes on with the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge_cloud.learn import world
from embridge_cloud.learn.config import OptimiserConfig
from embridge_cloud.learn.encoders import Block
from embridge_cloud.learn.feed import Batch, Drawn, Fetch, Sampler, State, prefetched
from embridge_cloud.learn.optim import Progress, ProgressCallback, Stepper, autocast, ignore_progress
from embridge_cloud.learn.resume import Checkpoints, Point, random_state, set_random_state

logger = logging.getLogger(__name__)

History = dict[str, list[float]]
Figures = Mapping[str, float | Tensor]
Groups = list[tuple[list[nn.Parameter], float]]
AHEAD = 2


@dataclass(frozen=True, slots=True)
class Learning:
    """What a loss function is told beside its batch.

    Attributes:
        rows: Rows of the whole batch in the data, of which the tensors are this process's share.
        memory: Values the stage carries from step to step; they are kept in checkpoints.
    """

    rows: NDArray[np.int64]
    memory: dict[str, float]


LossFunction = Callable[[Batch, Learning], tuple[Tensor, Figures]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One thing to train.

    Attributes:
        name: Of its curve in the history; "align", say. A figure of that name stands for the loss there.
        module: Everything that trains or is kept: weights and buffers go into checkpoints.
        groups: (parameters, learning rate) pairs.
        loss: Loss and named figures of one batch, whose tensors are on the device; called with autocast in force.
        fetch: Tensors of some rows, on the CPU; called in another thread.
        sampler: Which rows come next.
        total: Steps.
        optimiser: Decay, warm-up, clipping, precision.
        settle: Called after each update; what it returns joins the figures.
        validate: Score of the current weights, higher is better; None to leave out.
        validate_every: Steps between validations; 0 validates at the end only.
        keep: Weights kept: the last, or those with the best score.
        scored_as: Name of the scores in the history; their steps are "val_step".
    """

    name: str
    module: nn.Module
    groups: Groups
    loss: LossFunction
    fetch: Fetch
    sampler: Sampler
    total: int
    optimiser: OptimiserConfig
    settle: Callable[[Learning], Figures] | None = None
    validate: Callable[[], float] | None = None
    validate_every: int = 0
    keep: Literal["last", "best"] = "last"
    scored_as: str = "val_zs"


Record = Callable[[str, int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class Run:
    """Where stages run and who hears of it.

    Attributes:
        device: Where.
        progress: Told after every step.
        checkpoints: Where points are kept and taken up; None keeps none.
        record: Given stage, step and figures after every step.
        ahead: Batches made ready while one is learnt from; 0 makes them in turn.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: ProgressCallback = ignore_progress
    checkpoints: Checkpoints | None = None
    record: Record | None = None
    ahead: int = AHEAD


def train_stage(stage: Stage, run: Run) -> History:
    """Train a stage to its end, from where its checkpoint stands.

    Args:
        stage: Its module is trained in place, on the device, and left in evaluation mode.
        run: Where and how.

    Returns:
        One value a step of the stage's name and of every figure; scores, one a validation.

    Raises:
        ModelError: Training diverged, or a checkpoint is damaged.
        OperatorError: The checkpoint belongs to another run.
        DataError: There is no batch in the data.
    """
    return _Loop(stage, run).train()


class _Loop:
    """Optimiser, history and best weights of one stage."""

    def __init__(self, stage: Stage, run: Run) -> None:
        self._stage, self._run = stage, run
        stage.module.to(run.device)
        world.same_everywhere(stage.module)
        self._stepper = Stepper(stage.groups, stage.optimiser, stage.total)
        self._history: History = {}
        self._memory: dict[str, float] = {}
        self._best: tuple[float, dict[str, Tensor]] | None = None
        self._step = 0

    def train(self) -> History:
        stage, run = self._stage, self._run
        self._take_up()
        if self._step < stage.total:
            compiled = compile_blocks(stage.module) if stage.optimiser.compile else []
            with prefetched(self._make, stage.total - self._step, run.ahead) as batches:
                for drawn in batches:
                    self._advance(drawn)
            for block in compiled:
                block._compiled_call_impl = None
        stage.module.eval()
        return self._history

    def _make(self) -> Drawn:
        """The next batch; in the feeding thread."""
        rows = self._stage.sampler.draw()
        share = world.share_of(len(rows))
        batch = self._stage.fetch(rows[share.start : share.stop])
        if self._run.device.type == "cuda":
            batch = tuple(t.pin_memory() for t in batch)
        return Drawn(rows, batch, self._stage.sampler.state())

    def _advance(self, drawn: Drawn) -> None:
        """One step, and what is due after it."""
        stage, run = self._stage, self._run
        self._step += 1
        shown = self._update(drawn)
        run.progress(Progress(stage.name, self._step, stage.total, shown))
        last = self._step == stage.total
        if stage.validate is not None and (last or _due(self._step, stage.validate_every)):
            self._validate(stage.validate)
        if last and self._best is not None:
            stage.module.load_state_dict(self._best[1])
        kept = run.checkpoints
        if kept is not None and (last or _due(self._step, kept.every)) and world.rank() == 0:
            kept.write(stage.name, self._point(drawn))

    def _update(self, drawn: Drawn) -> float:
        """Learn from one batch; the value its curve shows."""
        stage, device = self._stage, self._run.device
        stage.module.train()
        batch = tuple(t.to(device, non_blocking=True) for t in drawn.batch)
        learning = Learning(drawn.rows, self._memory)
        with world.shared_batch(len(drawn.rows)):
            with autocast(stage.optimiser, device):
                loss, figures = stage.loss(batch, learning)
            value = self._stepper.step(loss)
        named = {stage.name: value} | {k: float(v) for k, v in figures.items()}
        if stage.settle is not None:
            named |= {k: float(v) for k, v in stage.settle(learning).items()}
        self._note(named)
        return named[stage.name]

    def _note(self, named: Mapping[str, float]) -> None:
        """Append to the history."""
        for name, value in named.items():
            self._history.setdefault(name, []).append(value)
        if self._run.record is not None:
            self._run.record(self._stage.name, self._step, named)

    def _validate(self, score_of: Callable[[], float]) -> None:
        """Score the current weights, and keep them where they are the best."""
        score = world.from_first(score_of() if world.rank() == 0 else 0.0, self._run.device)
        self._note({"val_step": float(self._step), self._stage.scored_as: score})
        logger.info("%s step %d: validation %.3f", self._stage.name, self._step, score)
        if self._stage.keep == "best" and (self._best is None or score > self._best[0]):
            self._best = (score, {k: v.detach().clone() for k, v in self._stage.module.state_dict().items()})

    def _point(self, drawn: Drawn) -> Point:
        """Everything that is not the same again when the program starts anew."""
        tensors = {f"module.{k}": v for k, v in self._stage.module.state_dict().items()}
        tensors |= {f"optimiser.{k}": v for k, v in self._stepper.state().items()}
        tensors |= {f"history.{k}": torch.tensor(v, dtype=torch.float64) for k, v in self._history.items()}
        tensors |= random_state(self._run.device)
        state: State = {"sampler": drawn.state, "memory": self._memory, "best": None, "curves": list(self._history)}
        if self._best is not None:
            state["best"] = self._best[0]
            tensors |= {f"best.{k}": v for k, v in self._best[1].items()}
        return Point(self._step, tensors, state)

    def _take_up(self) -> None:
        """Go to where the checkpoint stands."""
        stage, kept = self._stage, self._run.checkpoints
        point = None if kept is None else kept.read(stage.name)
        if point is None:
            return
        stage.module.load_state_dict(_under("module.", point.tensors))
        self._stepper.restore(_under("optimiser.", point.tensors), point.step)
        self._history = {k: point.tensors[f"history.{k}"].tolist() for k in point.state["curves"]}
        self._memory = dict(point.state["memory"])
        if point.state["best"] is not None:
            device = self._run.device
            self._best = (point.state["best"], {k: v.to(device) for k, v in _under("best.", point.tensors).items()})
        stage.sampler.restore(point.state["sampler"])
        set_random_state(point.tensors, self._run.device)
        self._step = point.step
        logger.info("%s goes on after step %d of %d", stage.name, self._step, stage.total)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors below `prefix`."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def compile_blocks(module: nn.Module) -> list[nn.Module]:
    """Compile every transformer block of `module` in place; equal blocks share one compilation."""
    blocks = [child for child in module.modules() if isinstance(child, Block)]
    for block in blocks:
        block.compile()
    return list(blocks)
