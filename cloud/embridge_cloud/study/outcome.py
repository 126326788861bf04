"""What one method did in one run: figures by participant, kept as one file each so that a killed study goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.study.protocol import Run
from embridge_shared.errors import DataError, Reason

FOLDER = "runs"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One protocol's figures in one run.

    Attributes:
        protocol: Name.
        chance: Of guessing among the gestures that compete.
        windows: Decisions: windows, or trials.
        per_participant: Balanced accuracy of each held-out participant.
        f1_per_participant: Macro-F1 of each.
        gestures: Names, in the order of `confusion`.
        confusion: Counts, truth by prediction.
    """

    protocol: str
    chance: float
    windows: int
    per_participant: dict[str, float]
    f1_per_participant: dict[str, float]
    gestures: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One method to fit in one run.

    Attributes:
        method: Name.
        regime: What training has of the wearers under test.
        pose_regime: What the pose side knows of unseen gestures.
        share: Share of the train participants.
        draw: Number of the draw, for controls that are drawn several times.
    """

    method: str
    regime: str = "new-wearer"
    pose_regime: str = "strict"
    share: float = 1.0
    draw: int = 0

    @property
    def name(self) -> str:
        """A name fit for a file."""
        parts = [self.method, self.regime]
        parts += [self.pose_regime] if self.pose_regime != "strict" else []
        parts += [f"p{round(100 * self.share)}"] if self.share != 1 else []
        parts += [f"d{self.draw}"] if self.draw else []
        return ".".join(parts)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One finished job.

    Attributes:
        job: What was fitted.
        run: On what.
        digest: Of everything that decides the figures; an outcome of another digest is not reused.
        figures: One a protocol.
        wall_s: Fit and evaluation, encoders shared with other methods included, s.
        cpu_s: The same, CPU seconds.
        error: Why it failed, or empty.
    """

    job: Job
    run: Run
    digest: str
    figures: tuple[Figure, ...] = ()
    wall_s: float = 0.0
    cpu_s: float = 0.0
    error: str = ""


def figure(
    protocol: str,
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    people: NDArray[np.int64],
    *,
    names: tuple[str, ...],
    gestures: tuple[str, ...],
    chance: float,
) -> Figure:
    """Figures of one protocol.

    Args:
        protocol: Name.
        truth: Class of each decision (N,).
        predicted: Class decided (N,).
        people: Participant of each decision (N,), index into `names`.
        names: Participants.
        gestures: Class names.
        chance: Of guessing.

    Raises:
        DataError: There is nothing to score.
    """
    from embridge_cloud.learn.evaluate import balanced_accuracy, confusion, macro_f1

    if len(truth) == 0:
        raise DataError(f"{protocol}: nothing to score", reason=Reason.TOO_LITTLE_DATA)
    rows = {names[p]: np.flatnonzero(people == p) for p in np.unique(people)}
    table = confusion(truth, predicted, len(gestures))
    return Figure(
        protocol=protocol,
        chance=chance,
        windows=len(truth),
        per_participant={n: balanced_accuracy(truth[r], predicted[r]) for n, r in rows.items()},
        f1_per_participant={n: macro_f1(truth[r], predicted[r]) for n, r in rows.items()},
        gestures=gestures,
        confusion=tuple(tuple(int(v) for v in row) for row in table),
    )


def path_of(folder: Path, run: Run, job: Job) -> Path:
    """Where an outcome lies in the folder of a study."""
    return folder / FOLDER / run.name / f"{job.name}.json"


def write_outcome(folder: Path, outcome: Outcome) -> Path:
    """Write an outcome whole or not at all."""
    path = path_of(folder, outcome.run, outcome.job)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_bytes(msgspec.json.encode(outcome))
    return scratch.replace(path)


def read_outcome(path: Path) -> Outcome | None:
    """An outcome written before; None where there is none or it is damaged, so that it is made again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Outcome)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def read_outcomes(folder: Path) -> list[Outcome]:
    """Every outcome in the folder of a study, by run and job."""
    found = (read_outcome(p) for p in sorted((folder / FOLDER).glob("*/*.json")))
    return [o for o in found if o is not None]


def digest_of(*parts: object) -> str:
    """SHA-256 over anything msgspec can encode, hex."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
