"""A glove's calibration: guided poses, the fit, and the file that a plan names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.hand import CYBERGLOVE_SENSORS, GloveCalibration, fit_glove_calibration

logger = logging.getLogger(__name__)

_LEAST_SPREAD = 10.0
_FLEXION = tuple(s for s in CYBERGLOVE_SENSORS if s.endswith(("_mcp", "_pip", "_dip", "_ip")))
_ABDUCTION = tuple(s for s in CYBERGLOVE_SENSORS if s.endswith("_abduction") and not s.startswith("wrist"))
_DROPPED = ("palm_arch", "wrist_flexion", "wrist_abduction")


@dataclass(frozen=True, slots=True)
class GuidedPose:
    """A pose the wearer is asked for.

    Attributes:
        name: Short.
        prompt: What to do.
    """

    name: str
    prompt: str


ROUTINE = (
    GuidedPose("rest", "Let the hand hang, relaxed."),
    GuidedPose("fist", "Make a fist, the thumb over the fingers."),
    GuidedPose("flat", "Hold the hand flat, fingers stretched and together."),
    GuidedPose("spread", "Hold the hand flat and spread all fingers, the thumb too."),
    GuidedPose("thumb", "Hold the hand flat and lay the thumb across the palm."),
)
"""Poses that take every sensor to its ends."""


class GloveFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file holds.

    Attributes:
        calibration: Offsets and gains.
        participant: Whose hand.
        created_ns: Unix time, ns.
        inverted: Sensors whose counts fall with flexion or spread.
        still: Sensors that hardly moved: their joints stay near rest.
    """

    calibration: GloveCalibration
    participant: str
    created_ns: int
    inverted: tuple[str, ...] = ()
    still: tuple[str, ...] = ()


def fit(poses: dict[str, NDArray[np.float64]], *, participant: str, created_ns: int) -> GloveFile:
    """Fit a calibration to guided poses.

    Args:
        poses: Counts held in each pose of `ROUTINE`, float64 (n, 22), by its name.
        participant: Whose hand.
        created_ns: Unix time, ns.

    Raises:
        DataError: A pose is missing or has too few samples, or none of the sensors moved.
    """
    missing = [p.name for p in ROUTINE if not len(poses.get(p.name, ()))]
    if missing:
        raise DataError(
            f"the glove sent nothing during: {', '.join(missing)}",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Check that it sends, then calibrate again.",
        )
    level = {name: np.median(counts, axis=0) for name, counts in poses.items()}
    # Every pose counts alike, however long it was held.
    n = min(len(counts) for counts in poses.values())
    order = [p.name for p in ROUTINE]
    counts = np.concatenate([poses[name][np.linspace(0, len(poses[name]) - 1, n).astype(int)] for name in order])
    resting = np.repeat([name == "rest" for name in order], n)
    spread = np.ptp(np.stack([level[name] for name in order]), axis=0)
    still = tuple(
        s for s, moved in zip(CYBERGLOVE_SENSORS, spread, strict=True) if moved < _LEAST_SPREAD and s not in _DROPPED
    )
    if len(still) == len(CYBERGLOVE_SENSORS) - len(_DROPPED):
        raise DataError("no sensor of the glove moved", reason=Reason.TOO_LITTLE_DATA, hint="Follow the prompts.")
    inverted = tuple(
        [s for s in _FLEXION if s not in still and _at(level, "fist", s) < _at(level, "flat", s)]
        + [s for s in _ABDUCTION if s not in still and _at(level, "spread", s) < _at(level, "flat", s)]
        + [s for s in ("thumb_roll",) if s not in still and _at(level, "thumb", s) < _at(level, "spread", s)]
    )
    calibration = fit_glove_calibration(counts, resting, inverted=inverted)
    return GloveFile(
        calibration=calibration, participant=participant, created_ns=created_ns, inverted=inverted, still=still
    )


def _at(level: dict[str, NDArray[np.float64]], pose: str, sensor: str) -> float:
    return float(level[pose][CYBERGLOVE_SENSORS.index(sensor)])


def save(path: Path, file: GloveFile) -> None:
    """Write a calibration; nothing is overwritten.

    Raises:
        DataError: There is such a file, or it cannot be written.
    """
    try:
        with path.open("xb") as out:
            out.write(msgspec.json.format(msgspec.json.encode(file), indent=1))
    except FileExistsError:
        raise DataError(f"{path} exists", hint="Nothing is overwritten: choose another name.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}", hint="Check the folder.") from error


def load_calibration(path: Path) -> GloveCalibration:
    """Read a calibration.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=GloveFile).calibration
    except OSError as error:
        raise DataError(
            f"the glove calibration {path} cannot be read: {error.strerror}",
            reason=Reason.NOT_FOUND,
            hint="`embridge pose calibrate` makes one.",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, DataError) as error:
        raise DataError(f"{path} is no glove calibration: {error}", reason=Reason.MALFORMED) from error
