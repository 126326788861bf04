"""NinaPro: the data bases, what tells them apart, and the reading of their `.mat` files.

A file holds one exercise of one participant. `restimulus` and `rerepetition` are the labels corrected to the real
movement, `stimulus` and `repetition` are the cue. A repetition of 0 under a movement's label is a collection buffer: it
belongs to no trial and is no rest either.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.gestures import NINAPRO_DB1_E1

LABELS: Final = ("restimulus", "rerepetition", "stimulus", "repetition")
"""Names of the label arrays."""
_NEEDED: Final = ("emg", "restimulus", "rerepetition")
_SIGNALS: Final = ("emg", "glove", *LABELS)
_NAME: Final = re.compile(r"s(\d+)_(?:e(\d+)_a(\d+)|a(\d+)_e(\d+))", re.IGNORECASE)
_COPY_AGAIN: Final = "Compare its size with the publisher's and copy it again."

_POSTURES: Final = (
    *("thumb_up", "index_middle_extension", "ring_pinky_flexion", "thumb_opposing_pinky", "fingers_abducted", "fist"),
    *("pointing_index", "fingers_adducted", "supination_middle_axis", "pronation_middle_axis"),
    *("supination_pinky_axis", "pronation_pinky_axis", "wrist_flexion", "wrist_extension", "radial_deviation"),
    *("ulnar_deviation", "wrist_extension_fist"),
)
_GRASPS: Final = (
    *("large_diameter", "small_diameter", "fixed_hook", "index_extension_grasp", "medium_wrap", "ring_grasp"),
    *("prismatic_four_finger", "stick", "writing_tripod", "power_sphere", "three_finger_sphere", "precision_sphere"),
    *("tripod", "prismatic_pinch", "tip_pinch", "quadpod", "lateral", "parallel_extension", "extension_type"),
    *("power_disk", "open_bottle", "turn_screw", "cut"),
)
_FREE: Final = (
    *("thumb_flexion_extension", "thumb_abduction_adduction", "index_flexion_extension", "middle_flexion_extension"),
    *("ring_pinky_flexion_extension", "pointing_index", "cylindrical_grip", "lateral_grip", "tripod_grip"),
)


@dataclass(frozen=True, slots=True)
class Exercise:
    """A block of movements recorded into one file.

    Attributes:
        letter: The publisher's letter.
        gestures: Label of movement 1, 2, …
    """

    letter: str
    gestures: tuple[str, ...]


FINGERS: Final = Exercise("A", tuple(NINAPRO_DB1_E1[i] for i in range(1, 13)))
POSTURES: Final = Exercise("B", tuple(f"b{i:02d}_{name}" for i, name in enumerate(_POSTURES, 1)))
GRASPS: Final = Exercise("C", tuple(f"c{i:02d}_{name}" for i, name in enumerate(_GRASPS, 1)))
FORCES: Final = Exercise("D", tuple(f"d{i:02d}_force" for i in range(1, 10)))
FREE: Final = Exercise("", tuple(f"m{i:02d}_{name}" for i, name in enumerate(_FREE, 1)))


@dataclass(frozen=True, slots=True)
class NinaproBase:
    """One data base.

    Attributes:
        name: As in "db1".
        rate_hz: Samples a second in the files, of EMG and glove alike.
        channels: Electrodes.
        glove: Numbers of glove sensors its files are known to hold.
        exercises: By the number in the file's name.
        repetitions: Of each movement in one acquisition.
        envelope: True where the device already rectified and smoothed the EMG.
        band_limit_hz: No EMG content above this; below half of `rate_hz` where the files were upsampled.
        contralateral: True where the glove sat on the other hand, which mirrored the movement.
        marks: Variables that only files of this base, among those of equal channels, hold.
    """

    name: str
    rate_hz: float
    channels: int
    glove: tuple[int, ...]
    exercises: Mapping[int, Exercise]
    repetitions: int
    envelope: bool = False
    band_limit_hz: float = 0.0
    contralateral: bool = False
    marks: frozenset[str] = frozenset()

    def names(self, exercise: int, label: NDArray[np.int32]) -> dict[int, str]:
        """Names of the movements in a file, which numbers them from 1 or on from exercise to exercise.

        Args:
            exercise: Number of the exercise.
            label: Labels of the file's samples, 0 for rest.

        Raises:
            DataError: The base has no such exercise or movement.
        """
        present = [int(n) for n in np.unique(label) if n > 0]
        block = self.exercises.get(exercise)
        gestures = () if block is None else block.gestures
        before = sum(len(e.gestures) for n, e in self.exercises.items() if n < exercise)
        offset = before if present and present[0] > before else 0
        if block is None or (present and present[-1] - offset > len(gestures)):
            raise DataError(
                f"NinaPro {self.name.upper()} has no movement {max(present, default=0)} in exercise {exercise}",
                hint="Is the folder of another base? Name it, as in ninapro-db7:PATH.",
            )
        return {n: gestures[n - offset - 1] for n in present}


_FULL: Final = MappingProxyType({1: FINGERS, 2: POSTURES, 3: GRASPS})
_HAND: Final = MappingProxyType({1: POSTURES, 2: GRASPS})
BASES: Final[Mapping[str, NinaproBase]] = MappingProxyType(
    {
        b.name: b
        for b in (
            NinaproBase("db1", 100.0, 10, (22,), _FULL, 10, envelope=True, band_limit_hz=50.0),
            NinaproBase(
                *("db2", 2000.0, 12, (22,), MappingProxyType({**_HAND, 3: FORCES}), 6),
                band_limit_hz=500.0,
                marks=frozenset({"inclin", "force", "forcecal"}),
            ),
            NinaproBase("db5", 200.0, 16, (22,), _FULL, 6, band_limit_hz=100.0),
            NinaproBase(
                *("db7", 2000.0, 12, (18, 22), _HAND, 6), band_limit_hz=500.0, marks=frozenset({"gyro", "mag"})
            ),
            NinaproBase(
                *("db8", 2000.0, 16, (18,), MappingProxyType({1: FREE}), 10),
                band_limit_hz=555.0,
                contralateral=True,
                marks=frozenset({"gyro", "mag"}),
            ),
        )
    }
)
"""The bases by name; band limits from the publisher's description of the acquisition."""


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file's name says, whichever order it is written in."""

    subject: int
    exercise: int
    acquisition: int


def parse_name(stem: str) -> FileName | None:
    """`S3_E1_A2` or `S3_A2_E1`; None where it is neither."""
    found = _NAME.fullmatch(stem)
    if found is None:
        return None
    subject, e1, a1, a2, e2 = found.groups()
    return FileName(int(subject), int(e1 or e2), int(a1 or a2))


def candidates(variables: Mapping[str, tuple[int, ...]], name: FileName | None = None) -> tuple[NinaproBase, ...]:
    """Bases a file can belong to, by the shapes of its variables (as `header` gives them) and its name."""
    channels, glove = variables.get("emg", (0, 0))[-1], variables.get("glove", (0, 0))[-1]
    found = [b for b in BASES.values() if b.channels == channels and (not glove or glove in b.glove)]
    if name is not None:
        found = [b for b in found if name.exercise in b.exercises and (name.acquisition == 1 or b.name == "db8")]
    marked = [b for b in found if b.marks & set(variables)]
    return tuple(marked or found)


@dataclass(frozen=True, slots=True, eq=False)
class NinaproFile:
    """One file in memory, every array cut to the shortest.

    Attributes:
        name: File name without suffix.
        subject: The publisher's number.
        exercise: Number of the exercise.
        acquisition: Number of the acquisition, 1 where the name does not tell.
        emg: float32 (T, C).
        glove: float32 (T, 18 or 22), counts; None where there is none.
        label: int32 (T,), movement corrected to what was done, 0 for rest.
        repetition: int32 (T,).
        cue: int32 (T,), movement asked for.
        cue_repetition: int32 (T,).
        variables: Shape of every variable in the file.
    """

    name: str
    subject: int
    exercise: int
    acquisition: int
    emg: NDArray[np.float32]
    glove: NDArray[np.float32] | None
    label: NDArray[np.int32]
    repetition: NDArray[np.int32]
    cue: NDArray[np.int32]
    cue_repetition: NDArray[np.int32]
    variables: Mapping[str, tuple[int, ...]]

    def bases(self) -> tuple[NinaproBase, ...]:
        """Bases it can belong to."""
        return candidates(self.variables, parse_name(self.name))


def header(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every variable of a file, without reading the samples.

    Raises:
        DataError: It is damaged, no MATLAB file, or of a version nobody published.
    """
    from scipy.io import whosmat

    return {name: tuple(map(int, shape)) for name, shape, _ in _guarded(path, whosmat)}


def read(path: Path) -> NinaproFile:
    """Read a file.

    Raises:
        DataError: It is damaged, lacks a variable, or its EMG is no finite matrix.
    """
    from scipy.io import loadmat

    variables = header(path)
    lacking = [k for k in _NEEDED if k not in variables]
    if lacking:
        _guarded(path, loadmat)  # a file cut off shows fewer variables
        raise DataError(f"{path.name} lacks {', '.join(lacking)}", hint="Is it a NinaPro file?")
    mat = _guarded(path, lambda p: loadmat(p, variable_names=[*_SIGNALS, "subject", "exercise"]))
    lengths = [len(mat[k]) for k in _SIGNALS if k in mat]
    length = min(lengths)
    emg = np.ascontiguousarray(mat["emg"][:length], dtype=np.float32)
    if emg.ndim != 2 or not length or not np.isfinite(emg).all():
        raise DataError(
            f"{path.name}: emg is no finite (T, C) array", reason=Reason.WRONG_SHAPE, hint="Leave the file out."
        )
    name = parse_name(path.stem)
    labels = {k: mat[k].ravel()[:length].astype(np.int32) for k in LABELS if k in mat}
    return NinaproFile(
        name=path.stem,
        subject=_number(mat, "subject", name.subject if name else None, path),
        exercise=_number(mat, "exercise", name.exercise if name else None, path),
        acquisition=name.acquisition if name else 1,
        emg=emg,
        glove=np.ascontiguousarray(mat["glove"][:length], dtype=np.float32) if "glove" in mat else None,
        label=labels["restimulus"],
        repetition=labels["rerepetition"],
        cue=labels.get("stimulus", labels["restimulus"]),
        cue_repetition=labels.get("repetition", labels["rerepetition"]),
        variables=MappingProxyType(variables),
    )


def runs(label: NDArray[np.int32], repetition: NDArray[np.int32]) -> Iterator[tuple[int, int, int, int]]:
    """Stretches of one movement: (label, repetition, first sample, sample after the last); rest is left out."""
    edges = np.flatnonzero((np.diff(label) != 0) | (np.diff(repetition) != 0)) + 1
    for a, b in zip(np.r_[0, edges].tolist(), np.r_[edges, len(label)].tolist(), strict=True):
        if label[a] > 0:
            yield int(label[a]), int(repetition[a]), a, b


def _number(mat: Mapping[str, Any], key: str, named: int | None, path: Path) -> int:
    """The file's own number; its name's where it has none."""
    value = np.ravel(mat[key]) if key in mat else np.zeros(0)
    if len(value):
        return int(value[0])
    if named is None:
        raise DataError(f"{path.name} does not say its {key}", hint="Name it as the publisher does: S1_E1_A1.mat.")
    return named


def _guarded(path: Path, reader: Any) -> Any:
    """What scipy's reader makes of a file, its many ways to fail turned into one."""
    from scipy.io.matlab import MatReadError

    damage = (MatReadError, ValueError, TypeError, OSError, EOFError, IndexError, KeyError, zlib.error, MemoryError)
    try:
        return reader(path)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", reason=Reason.NOT_FOUND) from None
    except NotImplementedError as error:
        raise DataError(
            f"{path.name} is a MATLAB 7.3 file, which NinaPro never published",
            reason=Reason.UNSUPPORTED_VERSION,
            hint="Fetch the original, or save it again with -v7.",
        ) from error
    except damage as error:
        raise DataError(
            f"{path.name} is damaged or no MATLAB file: {error}", reason=Reason.TRUNCATED, hint=_COPY_AGAIN
        ) from error
