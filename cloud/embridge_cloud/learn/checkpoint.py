"""Trained models on disk: tensors as safetensors, everything else as JSON beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.model import Bridge
from embridge_cloud.learn.loop import History
from embridge_cloud.learn.trained import Lineage, Sanity, Trained
from embridge_shared.errors import ModelError, Reason

TENSORS = "model.safetensors"
SIDECAR = "model.json"
FORMAT = 1


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
    (folder / TENSORS).write_bytes(tensors)
    text = msgspec.json.format(msgspec.json.encode(sidecar, order="deterministic"), indent=1)
    (folder / SIDECAR).write_bytes(text)


def load_checkpoint(folder: Path) -> Trained:
    """Read a model back.

    Raises:
        ModelError: A file is missing, damaged, of another format, or the tensors are not those it was saved with.
    """
    try:
        sidecar = msgspec.json.decode((folder / SIDECAR).read_bytes(), type=_Sidecar)
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
    return Trained(
        model=_restore(sidecar.config, tensors),
        config=sidecar.config,
        history=sidecar.history,
        lineage=sidecar.lineage,
        sanity=sidecar.sanity,
    )


def _restore(config: LearnConfig, tensors: bytes) -> Bridge:
    """The model in evaluation mode; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        model = Bridge(Encoder(config.emg, config.encoder), Encoder(config.pose, config.encoder), config)
    try:
        state = load(tensors)
        for name in ("centroids", "spread"):
            if name in state:
                setattr(model, name, state[name])
        model.load_state_dict(state, strict=True)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(f"tensors do not fit the configuration: {error}", reason=Reason.INCOMPATIBLE) from None
    return model.eval()
