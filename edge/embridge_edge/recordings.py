"""Recording files that can be replayed as if a wearer were there.

Known so far: NinaPro `.mat` files (any data base that follows the common variable names; rates and channels per data
base from the publisher's instructions).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.gestures import NINAPRO_DB1_E1
from embridge_shared.session import CueShown, Repetition
from embridge_shared.signal import Modality, SampleType, StreamSpec

_RATE_BY_CHANNELS = {10: 100.0, 12: 2000.0}
_ENVELOPE_MAX_HZ = 200.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in memory.

    Attributes:
        participant: The publisher's code.
        emg: What `emg_samples` is.
        emg_samples: float32 (T, C).
        pose: What `pose_samples` is, or None.
        pose_samples: float32 (T', K), or None.
        annotations: Cues and repetitions in order of their end, ns from the first sample.
        name: Name for reports.
    """

    participant: str
    emg: StreamSpec
    emg_samples: NDArray[np.float32]
    pose: StreamSpec | None
    pose_samples: NDArray[np.float32] | None
    annotations: tuple[CueShown | Repetition, ...]
    name: str


def load(path: Path, rate_hz: float | None = None) -> Recording:
    """Read a recording file.

    Args:
        path: The file.
        rate_hz: Sample rate where the file does not tell and it cannot be known from the channels.

    Raises:
        DataError: The file is missing, damaged or of no known format.
        ConfigError: The rate is needed.
    """
    if not path.is_file():
        raise DataError(
            f"there is no recording at {path}", reason=Reason.NOT_FOUND, hint="A path in a plan starts from its folder."
        )
    if path.suffix != ".mat":
        raise DataError(f"{path.name} is of no known recording format", hint="Known: NinaPro .mat files.")
    return _ninapro(path, rate_hz)


def _ninapro(path: Path, rate_hz: float | None) -> Recording:
    mat = _read_mat(path)
    emg = np.ascontiguousarray(mat["emg"], dtype=np.float32)
    length = min(len(mat[k]) for k in ("emg", "stimulus", "repetition", "restimulus", "rerepetition"))
    rate = rate_hz or _RATE_BY_CHANNELS.get(emg.shape[1])
    if rate is None:
        raise ConfigError(
            f"{path.name} has {emg.shape[1]} channels and does not state its rate", hint="Give rate_hz in the plan."
        )
    participant, exercise = int(mat["subject"].ravel()[0]), int(mat["exercise"].ravel()[0])
    names = NINAPRO_DB1_E1 if (emg.shape[1], exercise) == (10, 1) else {}
    annotations = [
        *_runs(mat["stimulus"], mat["repetition"], length, rate, exercise, names, cue=True),
        *_runs(mat["restimulus"], mat["rerepetition"], length, rate, exercise, names, cue=False),
    ]
    device = f"ninapro-{'envelope' if rate <= _ENVELOPE_MAX_HZ else 'raw'}"
    glove = np.ascontiguousarray(mat["glove"][:length], dtype=np.float32) if "glove" in mat else None
    return Recording(
        participant=f"ninapro-s{participant}",
        emg=_spec("emg", Modality.EMG, emg.shape[1], rate, device),
        emg_samples=emg[:length],
        pose=None if glove is None else _spec("glove", Modality.GLOVE, glove.shape[1], rate, "cyberglove-2"),
        pose_samples=glove,
        annotations=tuple(sorted(annotations, key=lambda a: (a.end_ns, a.start_ns))),
        name=path.stem,
    )


def _read_mat(path: Path) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    damage = (MatReadError, ValueError, TypeError, OSError, EOFError, IndexError, KeyError, zlib.error, MemoryError)
    try:
        mat = loadmat(path)
    except damage as error:
        raise DataError(
            f"{path.name} is damaged or no MATLAB file: {error}",
            reason=Reason.TRUNCATED,
            hint="Compare its size with the publisher's and copy it again.",
        ) from error
    missing = [k for k in ("emg", "restimulus", "rerepetition", "subject", "exercise") if k not in mat]
    if missing:
        raise DataError(f"{path.name} lacks {', '.join(missing)}", hint="Is it a NinaPro file?")
    mat.setdefault("stimulus", mat["restimulus"])
    mat.setdefault("repetition", mat["rerepetition"])
    if mat["emg"].ndim != 2 or not np.isfinite(mat["emg"]).all():
        raise DataError(f"{path.name}: emg is no finite (T, C) array", reason=Reason.WRONG_SHAPE)
    return {k: v for k, v in mat.items() if isinstance(v, np.ndarray)}


def _spec(name: str, modality: Modality, channels: int, rate_hz: float, device: str) -> StreamSpec:
    return StreamSpec(
        name=name,
        modality=modality,
        channels=tuple(f"{name}_{i}" for i in range(channels)),
        rate_hz=rate_hz,
        dtype=SampleType.FLOAT32,
        unit="a.u." if modality is Modality.EMG else "count",
        device=device,
    )


def _runs(
    label: NDArray[Any],
    repetition: NDArray[Any],
    length: int,
    rate_hz: float,
    exercise: int,
    names: dict[int, str],
    *,
    cue: bool,
) -> list[CueShown | Repetition]:
    label, repetition = label.ravel()[:length].astype(int), repetition.ravel()[:length].astype(int)
    edges = np.flatnonzero((np.diff(label) != 0) | (np.diff(repetition) != 0)) + 1
    starts, ends = np.r_[0, edges], np.r_[edges, length]
    kind = CueShown if cue else Repetition
    return [
        kind(
            gesture=names.get(label[a], f"ninapro_e{exercise}_{label[a]}"),
            repetition=int(repetition[a]),
            start_ns=round(a / rate_hz * 1e9),
            end_ns=round(b / rate_hz * 1e9),
        )
        for a, b in zip(starts, ends, strict=True)
        if label[a] > 0 and repetition[a] > 0
    ]
