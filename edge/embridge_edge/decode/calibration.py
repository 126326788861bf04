"""Calibration: the wearer's scale from an unlabelled recording, kept per participant on the edge.

A calibration holds for one front end, one kind of scale and one band: a release that changes its window or its
encoder only keeps it, one that filters differently needs a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.activity import reference_activity
from embridge_edge.decode.kept import Kept
from embridge_shared.errors import DataError, OperatorError, Reason
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


class CalibrationStore(Kept[Calibration]):
    """Calibrations on disk.

    Args:
        folder: Its folder; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Calibration, hint=_HINT)

    def for_band(self, participant: str, preprocess: PreprocessConfig, spec: StreamSpec) -> Calibration | None:
        """The participant's calibration for this release and band, or None.

        Raises:
            DataError: MALFORMED: the file is damaged or another's.
        """
        found = self.load(participant, calibration_key(preprocess, spec))
        if found is not None and len(found.scale.gain) != spec.n_channels:
            raise DataError(
                f"the calibration of {participant!r} has {len(found.scale.gain)} channels.",
                reason=Reason.MALFORMED,
                hint=_HINT,
            )
        return found


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
    found = CalibrationStore(state_dir / FOLDER).for_band(participant, preprocess, spec)
    if found is None:
        raise OperatorError(
            f"{participant!r} has no calibration for this release and {spec.device or spec.name!r}.",
            reason=Reason.NOT_FOUND,
            hint=_HINT,
        )
    return found
