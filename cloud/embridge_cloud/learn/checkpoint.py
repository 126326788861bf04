"""Trained models on disk: tensors as safetensors, everything else as JSON beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.loop import History
from embridge_cloud.learn.model import Bridge
from embridge_cloud.learn.pretrain import Pretrained
from embridge_cloud.learn.trained import Lineage, Sanity, Trained
from embridge_shared.archive import write_atomically
from embridge_shared.errors import ModelError, OperatorError, Reason

TENSORS = "model.safetensors"
SIDECAR = "model.json"
FORMAT = 1

S = TypeVar("S", "_FirstStage", "_Sidecar")


class _FirstStage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    sha256: str
    config: LearnConfig
    emg_gestures: tuple[str, ...]
    pose_gestures: tuple[str, ...]
    data: tuple[str, ...]
    seed: int
    history: History


class _Sidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    sha256: str
    config: LearnConfig
    lineage: Lineage
    sanity: Sanity
    history: History


def save_checkpoint(trained: Trained, folder: Path) -> None:
    """Write a model into `folder`, which is made; equal models give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in trained.model.state_dict().items()}
    tensors = save(state)
    sidecar = _Sidecar(
        format=FORMAT,
        sha256=hashlib.sha256(tensors).hexdigest(),
        config=trained.config,
        lineage=trained.lineage,
        sanity=trained.sanity,
        history=trained.history,
    )
    write_atomically(folder / TENSORS, tensors)
    text = msgspec.json.format(msgspec.json.encode(sidecar, order="deterministic"), indent=1)
    write_atomically(folder / SIDECAR, text)


def load_checkpoint(folder: Path) -> Trained:
    """Read a model back.

    Raises:
        ModelError: A file is missing, damaged, of another format, or the tensors are not those it was saved with.
    """
    sidecar, tensors = _read(folder, _Sidecar)
    return Trained(
        model=_restore(sidecar.config, tensors),
        config=sidecar.config,
        history=sidecar.history,
        lineage=sidecar.lineage,
        sanity=sidecar.sanity,
    )


def save_pretrained(pretrained: Pretrained, config: LearnConfig, folder: Path) -> None:
    """Write the encoders of a first stage into `folder`, which is made; equal ones give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    encoders = (("emg", pretrained.emg), ("pose", pretrained.pose))
    tensors = save({f"{side}.{k}": v.contiguous() for side, e in encoders for k, v in e.state_dict().items()})
    sidecar = _FirstStage(
        format=FORMAT,
        sha256=hashlib.sha256(tensors).hexdigest(),
        config=config,
        emg_gestures=tuple(sorted(pretrained.emg_gestures)),
        pose_gestures=tuple(sorted(pretrained.pose_gestures)),
        data=pretrained.data,
        seed=pretrained.seed,
        history=pretrained.history,
    )
    write_atomically(folder / TENSORS, tensors)
    write_atomically(folder / SIDECAR, msgspec.json.format(msgspec.json.encode(sidecar, order="deterministic")))


def load_pretrained(folder: Path, config: LearnConfig) -> Pretrained:
    """Read encoders back for a run of `config`.

    Raises:
        ModelError: A file is missing, damaged, or not of a first stage.
        OperatorError: The encoders are of another shape than `config` says.
    """
    sidecar, tensors = _read(folder, _FirstStage)
    for name in ("emg", "pose", "encoder"):
        if getattr(sidecar.config, name) != getattr(config, name):
            raise OperatorError(
                f"the encoders in {folder} were pre-trained with another [learn.{name}]",
                reason=Reason.INCOMPATIBLE,
                hint="Use the configuration of the first stage, or run it again.",
            )
    with torch.random.fork_rng(devices=[]):
        emg, pose = Encoder(config.emg, config.encoder), Encoder(config.pose, config.pose_encoder)
    try:
        state = load(tensors)
        for side, encoder in (("emg.", emg), ("pose.", pose)):
            own = {k.removeprefix(side): v for k, v in state.items() if k.startswith(side)}
            encoder.load_state_dict(own, strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"tensors do not fit the configuration: {error}", reason=Reason.INCOMPATIBLE) from None
    return Pretrained(
        emg=emg.eval(),
        pose=pose.eval(),
        history=sidecar.history,
        emg_gestures=frozenset(sidecar.emg_gestures),
        pose_gestures=frozenset(sidecar.pose_gestures),
        data=sidecar.data,
        seed=sidecar.seed,
    )


def _read(folder: Path, kind: type[S]) -> tuple[S, bytes]:
    """Sidecar and tensors, which belong together."""
    try:
        sidecar = msgspec.json.decode((folder / SIDECAR).read_bytes(), type=kind)
        tensors = (folder / TENSORS).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"no model in {folder}: {error.filename} is missing", reason=Reason.NOT_FOUND) from None
    except msgspec.DecodeError as error:
        raise ModelError(f"{folder / SIDECAR}: {error}", reason=Reason.MALFORMED) from None
    if sidecar.format != FORMAT:
        raise ModelError(
            f"model format {sidecar.format}, this version reads {FORMAT}", reason=Reason.UNSUPPORTED_VERSION
        )
    if hashlib.sha256(tensors).hexdigest() != sidecar.sha256:
        raise ModelError(
            f"{folder / TENSORS} is not what was saved",
            reason=Reason.HASH_MISMATCH,
            hint="Fetch the model again.",
        )
    return sidecar, tensors


def _restore(config: LearnConfig, tensors: bytes) -> Bridge:
    """The model in evaluation mode; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        model = Bridge(Encoder(config.emg, config.encoder), Encoder(config.pose, config.pose_encoder), config)
    try:
        state = load(tensors)
        for name in ("centroids", "spread"):
            if name in state:
                setattr(model, name, state[name])
        model.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(f"tensors do not fit the configuration: {error}", reason=Reason.INCOMPATIBLE) from None
    return model.eval()
