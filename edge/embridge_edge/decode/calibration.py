"""Calibration: the wearer's scale from an unlabelled recording, kept per participant on the edge.

A calibration holds for one front end, one kind of scale and one band: a release that changes its window or its
encoder only keeps it, one that filters differently needs a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.activity import reference_activity
from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, EmbridgeError, OperatorError, Reason
from embridge_shared.preprocess import PreprocessConfig, WearerScale, config_hash, fit_scale, run_chunks
from embridge_shared.signal import StreamSpec
from embridge_shared.wearer.donning import Activity
from embridge_shared.wearer.worn import ring_of

FOLDER = "calibrations"
_HINT = "Calibrate again: rest for a few seconds, then make every known gesture once or more."


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a wearer.

    Attributes:
        participant: Pseudonym.
        key: What it holds for, see `calibration_key`.
        scale: The wearer's scale.
        duration_s: Length of the sound part of the recording, s.
        created_ns: Unix time, ns.
        ring: Channels that are a ring of electrodes, in order around the arm; empty where nobody knows.
        activity: Of the ring while the hand moved: how the band sat. None in calibrations made before it was kept, and
            where the band is no ring or too little happened.
    """

    participant: str
    key: str
    scale: WearerScale
    duration_s: float
    created_ns: int
    ring: tuple[int, ...] = ()
    activity: Activity | None = None


def calibration_key(preprocess: PreprocessConfig, spec: StreamSpec) -> str:
    """Hash of all a wearer's scale depends on: front end, kind of scale, band."""
    band = (spec.device, spec.channels, spec.rate_hz, spec.unit, spec.scale)
    parts = (config_hash(preprocess.front_end), config_hash(preprocess.scale), band)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def calibrate(
    participant: str,
    preprocess: PreprocessConfig,
    spec: StreamSpec,
    chunks: Iterable[tuple[int, NDArray[Any]]],
    *,
    created_ns: int,
    ring: tuple[int, ...] | None = None,
) -> Calibration:
    """Fit a wearer's scale.

    Args:
        participant: Pseudonym.
        preprocess: The release's.
        spec: The stream that was recorded.
        chunks: The unlabelled recording: (index of the first sample, raw samples (n, C)), in order.
        created_ns: Unix time, ns.
        ring: The ring's channels in order around the arm; by default what is known of the device.

    Raises:
        DataError: TOO_LITTLE_DATA: too short, or most channels do not move.
    """
    runs = run_chunks(preprocess.front_end, spec, chunks)
    sound = [run.values[~run.flawed] for run in runs]
    features = np.concatenate(sound) if sound else np.zeros((0, spec.n_channels), np.float32)
    scale = fit_scale(preprocess.scale, features)
    around = ring_of(spec) if ring is None else ring
    return Calibration(
        participant=participant,
        key=calibration_key(preprocess, spec),
        scale=scale,
        duration_s=len(features) / preprocess.front_end.rate_hz,
        created_ns=created_ns,
        ring=around,
        activity=reference_activity(runs, preprocess, scale, around),
    )


class CalibrationStore:
    """Calibrations on disk, one file a participant and key.

    Args:
        folder: Its folder; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, calibration: Calibration) -> Path:
        """Keep a calibration, atomically; it replaces the participant's last one for the same key."""
        path = self._path(calibration.participant, calibration.key)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(calibration)), mode=0o600)
        return path

    def load(self, participant: str, preprocess: PreprocessConfig, spec: StreamSpec) -> Calibration | None:
        """The participant's calibration for this release and band, or None.

        Raises:
            DataError: MALFORMED: the file is damaged or another's.
        """
        key = calibration_key(preprocess, spec)
        path = self._path(participant, key)
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Calibration, strict=True)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, EmbridgeError) as error:
            raise DataError(f"calibration {path.name}: {error}.", reason=Reason.MALFORMED, hint=_HINT) from error
        if (found.participant, found.key, len(found.scale.gain)) != (participant, key, spec.n_channels):
            raise DataError(f"calibration {path.name} is of another.", reason=Reason.MALFORMED, hint=_HINT)
        return found

    def forget(self, participant: str) -> int:
        """Remove all calibrations of a participant who withdrew; return how many there were."""
        prefix = f"{file_name(participant)}@"
        paths = [p for p in self._folder.glob("*.json") if p.name.startswith(prefix)]
        for path in paths:
            path.unlink()
        return len(paths)

    def _path(self, participant: str, key: str) -> Path:
        return self._folder / f"{file_name(participant)}@{key[:16]}.json"


def save_calibration(state_dir: Path, calibration: Calibration) -> Path:
    """Keep a calibration under the edge's state folder; return its file."""
    return CalibrationStore(state_dir / FOLDER).save(calibration)


def load_calibration(state_dir: Path, participant: str, preprocess: PreprocessConfig, spec: StreamSpec) -> Calibration:
    """The calibration a session needs.

    Args:
        state_dir: The edge's state folder.
        participant: Pseudonym.
        preprocess: The release's.
        spec: The stream that will be decoded.

    Raises:
        OperatorError: NOT_FOUND: the participant has none for this release and band.
        DataError: MALFORMED: the file is damaged.
    """
    found = CalibrationStore(state_dir / FOLDER).load(participant, preprocess, spec)
    if found is None:
        raise OperatorError(
            f"{participant!r} has no calibration for this release and {spec.device or spec.name!r}.",
            reason=Reason.NOT_FOUND,
            hint=_HINT,
        )
    return found


def file_name(participant: str) -> str:
    """A participant as the beginning of a file name."""
    if not participant:
        raise DataError("a calibration needs a participant")
    name = quote(participant, safe="")
    return name if len(name) <= 100 else f"sha256-{hashlib.sha256(participant.encode()).hexdigest()}"
