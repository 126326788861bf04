"""Heads: what a release may speak with, whichever way it was fitted. Fitted, kept on disk and read back by name."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from embridge_cloud.learn import leakage
from embridge_cloud.learn.baseline import RidgeBaseline, fit_ridge
from embridge_cloud.learn.checkpoint import load_checkpoint, save_checkpoint
from embridge_cloud.learn.closed import ClosedHead, fit_closed
from embridge_cloud.learn.config import DEEP, HeadName, LearnConfig
from embridge_cloud.learn.data import Windows, broken_pairs
from embridge_cloud.learn.loop import Run
from embridge_cloud.learn.methods import fit_method
from embridge_cloud.learn.optim import ProgressCallback, ignore_progress
from embridge_cloud.learn.pretrain import Pretrained
from embridge_cloud.learn.trained import Lineage, Trained
from embridge_cloud.learn.warm import Start
from embridge_shared.archive import write_atomically
from embridge_shared.errors import ConfigError, DataError, ModelError, Reason

TENSORS = "head.safetensors"
SIDECAR = "head.json"
_CLOSED: dict[str, type[ClosedHead] | type[RidgeBaseline]] = {"closed": ClosedHead, "regression": RidgeBaseline}
_SHUFFLE = 9


Head = Trained | ClosedHead | RidgeBaseline


class _Sidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: HeadName
    sha256: str
    config: LearnConfig
    lineage: Lineage


def fit_head(
    name: HeadName,
    train: Windows,
    config: LearnConfig,
    *,
    seed: int,
    unseen: tuple[str, ...] = (),
    pretrained: Pretrained | None = None,
    shuffle: bool = False,
    progress: ProgressCallback = ignore_progress,
    run: Run | None = None,
    start: Start | None = None,
) -> Head:
    """Fit a head by name.

    Args:
        name: Which.
        train: Labelled pairs of the training participants.
        config: The run.
        seed: Of everything random.
        unseen: Gestures whose EMG must not be there.
        pretrained: Encoders of the first stage on the same windows, for a deep head.
        shuffle: Control: break the pairs, gesture by gesture alike.
        progress: Told after every step of a deep head.
        run: Where a deep head is trained, with which checkpoints; it replaces `progress`.
        start: The model whose EMG side a deep head trains further.

    Raises:
        ConfigError: There is no head of that name.
        LeakageError: EMG of unseen gestures is there.
        DataError: There is too little.
    """
    if name not in get_args(HeadName):
        raise ConfigError(f"no head {name!r}", hint=f"Choose among {', '.join(get_args(HeadName))}.")
    leakage.check_unseen(train, unseen)
    if name in DEEP:
        method = "shuffled-pairs" if shuffle else name
        found = fit_method(
            method,
            train,
            seed=seed,
            config=config,
            pretrained=pretrained,
            unseen=unseen,
            progress=progress,
            run=run,
            start=start,
        )
        if not isinstance(found, Trained):
            raise ModelError(f"{method} leaves no model that could ship", reason=Reason.INCOMPATIBLE)
        return found
    pairs = _broken(train, seed) if shuffle else train
    return fit_closed(pairs, config, unseen=unseen) if name == "closed" else fit_ridge(pairs, config)


def _broken(train: Windows, seed: int) -> Windows:
    """Pairs that tell nothing."""
    if train.pose is None:
        raise DataError("there are no pairs to break", reason=Reason.WRONG_SHAPE)
    order = broken_pairs(train.label, np.random.default_rng([seed, _SHUFFLE]))
    return replace(train, pose=train.pose[order])


def save_head(head: Head, folder: Path) -> None:
    """Write a head into `folder`, which is made; equal heads give equal bytes."""
    if isinstance(head, Trained):
        save_checkpoint(head, folder)
        return
    kind: HeadName = "closed" if isinstance(head, ClosedHead) else "regression"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = save({name: np.ascontiguousarray(value) for name, value in _arrays(head).items()})
    sidecar = _Sidecar(
        kind=kind,
        sha256=hashlib.sha256(tensors).hexdigest(),
        config=head.config,
        lineage=head.lineage,
    )
    write_atomically(folder / TENSORS, tensors)
    write_atomically(folder / SIDECAR, msgspec.json.format(msgspec.json.encode(sidecar, order="deterministic")))


def load_head(folder: Path) -> Head:
    """Read a head back.

    Raises:
        ModelError: A file is missing or damaged, or the tensors are not those it was saved with.
    """
    if not (folder / SIDECAR).exists():
        return load_checkpoint(folder)
    try:
        sidecar = msgspec.json.decode((folder / SIDECAR).read_bytes(), type=_Sidecar)
        tensors = (folder / TENSORS).read_bytes()
        if hashlib.sha256(tensors).hexdigest() != sidecar.sha256:
            raise ModelError(
                f"{folder / TENSORS} is not what was saved", reason=Reason.HASH_MISMATCH, hint="Fetch the model again."
            )
        made: Head = _CLOSED[sidecar.kind](config=sidecar.config, lineage=sidecar.lineage, **load(tensors))
        return made
    except FileNotFoundError as error:
        raise ModelError(f"no model in {folder}: {error.filename} is missing", reason=Reason.NOT_FOUND) from None
    except (msgspec.DecodeError, SafetensorError, TypeError, KeyError) as error:
        raise ModelError(f"{folder}: {error}", reason=Reason.MALFORMED) from None


def _arrays(head: ClosedHead | RidgeBaseline) -> dict[str, NDArray[np.float32]]:
    """Every array of a closed form, by field."""
    return {f.name: v for f in fields(head) if isinstance(v := getattr(head, f.name), np.ndarray)}
