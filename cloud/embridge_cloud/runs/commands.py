"""The commands of a run: pre-train, align, evaluate."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from embridge_cloud.learn import world
from embridge_cloud.learn.checkpoint import TENSORS, load_checkpoint, load_pretrained, save_checkpoint, save_pretrained
from embridge_cloud.learn.loop import History, Run
from embridge_cloud.learn.optim import ProgressCallback, resolve_device
from embridge_cloud.learn.pipeline import pretrain_encoders, train
from embridge_cloud.learn.resume import Checkpoints
from embridge_cloud.learn.trained import Trained
from embridge_cloud.runs.folder import ENVIRONMENT, RESULT, RunFolder, environment, read_run
from embridge_cloud.runs.sets import Sets, prepare_sets
from embridge_cloud.runs.spec import RunSpec
from embridge_cloud.study.evaluation import Fitted, evaluate_fitted
from embridge_cloud.study.outcome import Job, Outcome
from embridge_cloud.study.rows import make_rows
from embridge_shared.errors import ModelError, Reason

_LAST = 10  # steps whose mean a result states


@dataclass(frozen=True, slots=True)
class Asked:
    """One training that was asked for.

    Attributes:
        spec: What it is told.
        out: Its folder.
        progress: Told after every step.
        resume: Go on with what the folder holds.
    """

    spec: RunSpec
    out: Path
    progress: ProgressCallback
    resume: bool = False


def pretrain(asked: Asked) -> dict[str, Any]:
    """Run the first stage; what came of it.

    Raises:
        EmbridgeError: Data, configuration or folder do not allow it, or training diverged.
    """

    def work(sets: Sets, run: Run) -> tuple[History, Callable[[], None]]:
        poses = sets.split.unseen_poses if asked.spec.split.pose_enrolled else None
        made = pretrain_encoders(sets.split.train, sets.learn, seed=asked.spec.seed, poses=poses, run=run)
        return made.history, lambda: save_pretrained(made, sets.learn, asked.out)

    return _run(asked, "pretrain", work)


def align(asked: Asked) -> dict[str, Any]:
    """Run the alignment, after a first stage where none is given; what came of it.

    Raises:
        EmbridgeError: Data, configuration or folder do not allow it, or training diverged.
    """

    def work(sets: Sets, run: Run) -> tuple[History, Callable[[], None]]:
        spec, split = asked.spec, sets.split
        first = load_pretrained(Path(spec.pretrained), sets.learn) if spec.pretrained else None
        made = train(
            split.train,
            sets.validation,
            sets.learn,
            seed=spec.seed,
            unseen=split.unseen,
            poses=split.unseen_poses if spec.split.pose_enrolled else None,
            pretrained=first,
            shuffle_pairs=spec.shuffle_pairs,
            run=run,
        )
        return made.history, lambda: save_checkpoint(made, asked.out)

    return _run(asked, "align", work)


def _run(asked: Asked, what: str, work: Callable[[Sets, Run], tuple[History, Callable[[], None]]]) -> dict[str, Any]:
    """Open the folder, train in it, and write what came of it."""
    began = time.monotonic()
    spec = asked.spec
    device = resolve_device(spec.learn.device)
    with world.joined(device):
        folder = RunFolder(asked.out, writes=world.rank() == 0)
        folder.check(spec, resume=asked.resume)
        sets = prepare_sets(spec)
        kept = Checkpoints(folder.checkpoints, spec.checkpoint_every, _identity(asked, sets, what))
        folder.begin(spec)
        threads = spec.learn.threads or torch.get_num_threads()
        folder.write(ENVIRONMENT, environment(_device_name(device), threads, world.size()))
        progress = asked.progress if world.rank() == 0 else _ignore
        history, save = work(sets, Run(device, progress, kept, folder.record))
        result = _result(asked, sets, history, what) | {"seconds": round(time.monotonic() - began, 3)}
        if world.rank() == 0:
            save()
            folder.write(RESULT, result | {"sha256": _digest_of(asked.out)})
    return result


def _ignore(progress: object) -> None:
    """Processes but the first keep quiet."""


def _identity(asked: Asked, sets: Sets, what: str) -> str:
    """Names everything that decides what the run learns."""
    parts = [what, sets.learn.digest(), str(asked.spec.seed), str(asked.spec.shuffle_pairs), sets.split.train.digest()]
    if sets.validation is not None:
        parts.append(sets.validation.digest())
    if asked.spec.split.pose_enrolled:
        parts.append(sets.split.unseen_poses.digest())
    if asked.spec.pretrained:
        parts.append(_digest_of(Path(asked.spec.pretrained)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest_of(folder: Path) -> str:
    """SHA-256 of the tensors in a folder, hex."""
    try:
        return hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    except FileNotFoundError:
        raise ModelError(
            f"no model in {folder}: {TENSORS} is missing",
            reason=Reason.NOT_FOUND,
            hint=f"Make or finish it with `embridge learn pretrain --out {folder}`; --resume goes on with one begun.",
        ) from None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _result(asked: Asked, sets: Sets, history: History, what: str) -> dict[str, Any]:
    """What a command answers."""
    split = sets.split
    return {
        "command": what,
        "folder": str(asked.out),
        "data": asked.spec.data,
        "seed": asked.spec.seed,
        "windows": len(split.train),
        "participants": sorted(split.train.present("participants")),
        "test_participants": list(split.run.held_out),
        "seen": list(split.seen),
        "unseen": list(split.unseen),
        "steps": {name: len(history[name]) for name in ("emg_mae", "pose_mae", "align") if name in history},
        "last": {name: float(np.mean(values[-_LAST:])) for name, values in history.items() if name != "val_step"},
    }


def evaluate(model: Path, change: Callable[[RunSpec], RunSpec], *, probes: bool = False) -> list[dict[str, Any]]:
    """Rows of a model on participants it never saw.

    Args:
        model: Folder of an alignment.
        change: Makes the run that is evaluated of the run that was trained: other data, other participants.
        probes: Also probes and few-shot rows, which read labels.

    Raises:
        EmbridgeError: There is no model, or the data would let the evaluation see what training saw.
    """
    began = time.monotonic()
    spec = change(read_run(model))
    trained = load_checkpoint(model)
    sets = prepare_sets(spec)
    found = evaluate_fitted(_fitted(trained, probes), sets.split)
    outcome = Outcome(
        job=Job(method=_method(trained), pose_regime=sets.split.pose_regime.value),
        run=sets.split.run,
        digest="",
        figures=found,
        wall_s=time.monotonic() - began,
    )
    rows = make_rows([outcome], seed=spec.seed)
    made: list[dict[str, Any]] = json.loads(msgspec.json.encode(rows))
    return made


def _method(trained: Trained) -> str:
    return "shuffled-pairs" if trained.lineage.shuffled else "embridge"


def _fitted(trained: Trained, probes: bool) -> Fitted:
    return Fitted(embedder=trained, features=trained.features if probes else None, history=trained.history)
