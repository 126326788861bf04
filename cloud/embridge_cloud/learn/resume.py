"""Where a stage stands, on disk: everything it takes to go on as though nothing had happened."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from embridge_cloud.learn.feed import State
from embridge_shared.archive import write_atomically
from embridge_shared.errors import ModelError, OperatorError, Reason

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Point:
    """A stage between two steps.

    Attributes:
        step: Steps done.
        tensors: Weights, moments, random states, curves.
        state: Everything else, as JSON can hold it.
    """

    step: int
    tensors: dict[str, Tensor]
    state: State


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """A folder with the latest point of each stage of a run.

    Attributes:
        folder: Made when the first point is written.
        every: Steps between two points; the end of a stage is always one.
        run: Names data, configuration and seed; a point of another run is refused.
    """

    folder: Path
    every: int
    run: str

    def write(self, stage: str, point: Point) -> None:
        """Replace the point of `stage`; a kill at any moment leaves the old one or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = save({k: v.detach().cpu().contiguous() for k, v in point.tensors.items()})
        name = f"{stage}-{point.step}.safetensors"
        write_atomically(self.folder / name, tensors)
        head = {
            "format": FORMAT,
            "run": self.run,
            "step": point.step,
            "tensors": name,
            "sha256": hashlib.sha256(tensors).hexdigest(),
            "state": point.state,
        }
        write_atomically(self.folder / f"{stage}.json", json.dumps(head, indent=1).encode())
        for old in self.folder.glob(f"{stage}-*.safetensors"):
            if old.name != name:
                old.unlink()

    def read(self, stage: str) -> Point | None:
        """The latest point of `stage`, None where it has not begun.

        Raises:
            ModelError: It is damaged or of another format.
            OperatorError: It belongs to another run.
        """
        path = self.folder / f"{stage}.json"
        if not path.exists():
            return None
        try:
            head: dict[str, Any] = json.loads(path.read_bytes())
            if head["format"] != FORMAT:
                raise ModelError(
                    f"{path}: format {head['format']}, this version reads {FORMAT}", reason=Reason.UNSUPPORTED_VERSION
                )
            if head["run"] != self.run:
                raise OperatorError(
                    f"{self.folder} holds a run on other data, of another configuration or seed",
                    hint="Give what it was started with, or another folder.",
                )
            tensors = (self.folder / head["tensors"]).read_bytes()
            if hashlib.sha256(tensors).hexdigest() != head["sha256"]:
                raise ModelError(f"{self.folder / head['tensors']} is damaged", reason=Reason.HASH_MISMATCH)
            return Point(head["step"], load(tensors), head["state"])
        except (ValueError, KeyError, TypeError, FileNotFoundError, SafetensorError) as error:
            raise ModelError(
                f"{path} cannot be read: {error}", reason=Reason.MALFORMED, hint="Start the run in another folder."
            ) from None


def random_state(device: torch.device) -> dict[str, Tensor]:
    """torch's random state, of the CPU and of `device`."""
    found = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["rng.cuda"] = torch.cuda.get_rng_state(device)
    return found


def set_random_state(tensors: dict[str, Tensor], device: torch.device) -> None:
    """Take up a random state that was kept."""
    torch.set_rng_state(tensors["rng.cpu"])
    if device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"], device)
