"""Recording files that can be replayed as if a wearer were there.

Known so far: NinaPro `.mat` files (`embridge_shared.ninapro`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge_shared import ninapro
from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.session import CueShown, Repetition
from embridge_shared.signal import Modality, SampleType, StreamSpec

_ENVELOPE_MAX_HZ = 100.0


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
    file = ninapro.read(path)
    bases = file.bases()
    rates = {b.rate_hz for b in bases}
    rate = rate_hz or (rates.pop() if len(rates) == 1 else None)
    if rate is None:
        raise ConfigError(
            f"{path.name} has {file.emg.shape[1]} channels and does not state its rate",
            hint="Give rate_hz in the plan.",
        )
    annotations = [
        *_runs(file, file.cue, file.cue_repetition, rate, CueShown),
        *_runs(file, file.label, file.repetition, rate, Repetition),
    ]
    envelope = all(b.envelope for b in bases) if bases else rate <= _ENVELOPE_MAX_HZ
    device = f"ninapro-{'envelope' if envelope else 'raw'}"
    glove = file.glove
    return Recording(
        participant=f"ninapro-s{file.subject}",
        emg=_spec("emg", Modality.EMG, file.emg.shape[1], rate, device),
        emg_samples=file.emg,
        pose=None if glove is None else _spec("glove", Modality.GLOVE, glove.shape[1], rate, "cyberglove-2"),
        pose_samples=glove,
        annotations=tuple(sorted(annotations, key=lambda a: (a.end_ns, a.start_ns))),
        name=path.stem,
    )


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
    file: ninapro.NinaproFile,
    label: NDArray[np.int32],
    repetition: NDArray[np.int32],
    rate_hz: float,
    kind: type[CueShown | Repetition],
) -> list[CueShown | Repetition]:
    names = _names(file, label)
    return [
        kind(
            gesture=names.get(number, f"ninapro_e{file.exercise}_{number}"),
            repetition=rep,
            start_ns=_ns(a, rate_hz),
            end_ns=_ns(b, rate_hz),
        )
        for number, rep, a, b in ninapro.runs(label, repetition)
        if rep > 0
    ]


def _names(file: ninapro.NinaproFile, label: NDArray[np.int32]) -> dict[int, str]:
    """Names of the movements where every base the file may belong to agrees on them."""
    known = []
    for base in file.bases():
        with suppress(DataError):
            known.append(base.names(file.exercise, label))
    return known[0] if known and all(k == known[0] for k in known) else {}


def _ns(sample: int, rate_hz: float) -> int:
    return round(sample / rate_hz * 1e9)
