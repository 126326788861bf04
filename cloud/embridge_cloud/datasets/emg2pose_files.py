"""Files of emg2pose: the stages, `metadata.csv`, and one hand's minute in HDF5."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.hand import N_JOINTS

RATE_HZ: Final = 2000.0
CHANNELS: Final = 16
METADATA: Final = "metadata.csv"
SUFFIX: Final = ".hdf5"
_GROUP: Final = "emg2pose"
_SERIES: Final = "timeseries"
_ZERO: Final = 1e-8  # numpy's isclose to 0
_YES: Final = frozenset({"true", "1", "yes"})
_NO: Final = frozenset({"false", "0", "no", "none", ""})
_SELF: Final = ("user", "session", "stage", "side")
_COLUMNS: Final = ("filename", *_SELF, "moving_hand", "held_out_stage", "split", "generalization")

FAITHFUL: Final = "faithful"
"""Name of the published comparison: four stages against four."""
FAITHFUL_SEEN: Final = (
    "FingerPinchesSingleFingerPinchesMultiple",
    "IndividualFingerPointingSnap",
    "ThumbsUpDownThumbRotationsCWCCWP",
    "HandClawGraspFlicks",
)
FAITHFUL_UNSEEN: Final = (
    "ShakaVulcanPeace",
    "HookEmHornsOKScissors",
    "CountingUpDownFaceSideAway",
    "CountingUpDownFingerWigglingSpreading",
)
STAGES: Final = (
    *FAITHFUL_SEEN,
    *FAITHFUL_UNSEEN,
    *("AllFingerPinchesThumbSwipeThumbRotate", "CoffeePanicPete", "DoorknobFingerGraspFistGrab"),
    *("FastPongFronthandBackhandThrowing", "FingerAbductionSeries", "FingerFreeform"),
    *("FingerTouchPalmClapmrburns", "FingerWigglingSpreading", "GraspPunchCloseFar"),
    *("HandDeskSeparateClaspedChest", "HandOverHandAllFingerPinchesThumbSwipeThumbRotate"),
    *("HandOverHandCountingUpDownFingerWigglingSpreading", "unconstrained"),
    *("IndexPinchesMiddlePinchesThumbswipes", "OneHandedFreeStyle", "PlayBlocksChess"),
    *("PokeDrawPinchRotateclosefar", "PokePinchCloseFar", "ThumbsSwipesWholeHand"),
    *("TwoHandedFreeStyle", "WristFlexionAbduction"),
)
"""The 29 stages; files may add a suffix to a name."""


def stage_of(text: str) -> str:
    """The stage that a file's stage begins with, the longest that fits; its own text where none does."""
    fitting = [s for s in STAGES if text.startswith(s)]
    return max(fitting, key=len, default=text)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of `metadata.csv`, or what a file says of itself.

    Attributes:
        filename: Without suffix.
        user: Pseudonym.
        session: Both hands' files of one take have the same.
        stage: As written.
        side: "left" or "right".
        moving: False where the instructed movement was the other hand's.
        held_out_stage: True where no training looks at the stage.
        split: "train", "val", "test" or empty.
        generalization: "user", "stage", "user_stage" or empty.
        start: Unix time, s; 0 where it is not stated.
    """

    filename: str
    user: str
    session: str
    stage: str
    side: str
    moving: bool = True
    held_out_stage: bool = False
    split: str = ""
    generalization: str = ""
    start: float = 0.0

    @property
    def part(self) -> str:
        """Name of its split: "train", or as in "test/user_stage"."""
        return self.split if self.split in ("train", "") else f"{self.split}/{self.generalization}"


def read_metadata(path: Path) -> list[Entry]:
    """Read `metadata.csv`.

    Raises:
        DataError: It is missing, or a column or a value is.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}", reason=Reason.NOT_FOUND, hint="The publisher offers it beside the archives."
        ) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no table: {error}", reason=Reason.MALFORMED, hint="Fetch it again.") from error
    needed = (
        "filename",
        "user",
        "session",
        "stage",
        "side",
        "moving_hand",
        "held_out_stage",
        "split",
        "generalization",
    )
    lacking = [c for c in needed if not rows or rows[0].get(c) is None]
    if lacking:
        raise DataError(
            f"{path} lacks {', '.join(lacking)}", reason=Reason.MALFORMED, hint="Is it the publisher's metadata.csv?"
        )
    return [_entry(path, number, row) for number, row in enumerate(rows, 2)]


def _entry(path: Path, number: int, row: Mapping[str, str]) -> Entry:
    where = f"{path}, line {number}"
    split, how = (row["split"] or "").strip(), (row["generalization"] or "").strip()
    if split not in ("train", "val", "test") or (split != "train" and how not in ("user", "stage", "user_stage")):
        raise DataError(f"{where}: split {split!r} of generalization {how!r}", reason=Reason.MALFORMED)
    try:
        start = float(row.get("start") or 0.0)
    except ValueError:
        start = 0.0
    side = row["side"].strip().lower()
    return Entry(
        filename=row["filename"].strip().removesuffix(SUFFIX),
        user=row["user"].strip(),
        session=row["session"].strip(),
        stage=row["stage"].strip(),
        side=side,
        moving=_moves(row["moving_hand"].strip().lower(), side, where),
        held_out_stage=_flag(row["held_out_stage"].strip().lower(), where),
        split=split,
        generalization=how,
        start=start,
    )


def _moves(text: str, side: str, where: str) -> bool:
    """Whether the instructed hand is this file's: "both", a hand, or a flag."""
    if text in ("left", "right", "both"):
        return text in (side, "both")
    return _flag(text, where)


def _flag(text: str, where: str) -> bool:
    if text not in _YES | _NO:
        raise DataError(f"{where}: {text!r} is neither true nor false", reason=Reason.MALFORMED)
    return text in _YES


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """One file in memory.

    Attributes:
        emg: float32 (T, 16).
        angles: float32 (T, 20), rad.
        valid: bool (T,): inverse kinematics found a pose.
        attributes: What the file says of itself.
        time_s: Unix time of each sample, s, float64 (T,).
    """

    emg: NDArray[np.float32]
    angles: NDArray[np.float32]
    valid: NDArray[np.bool_]
    attributes: Mapping[str, Any]
    time_s: NDArray[np.float64]


def read_take(path: Path) -> Take:
    """Read one file.

    Raises:
        DataError: It is damaged, of another layout, or holds samples that are not numbers.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            group = file[_GROUP]
            series, attributes = group[_SERIES][:], dict(group.attrs)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", reason=Reason.NOT_FOUND) from None
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path.name} is damaged or no emg2pose file: {error}",
            reason=Reason.TRUNCATED,
            hint="Compare its size with the archive's and unpack it again.",
        ) from error
    names = series.dtype.names or ()
    shapes = {n: series.dtype[n].shape for n in names}
    if series.ndim != 1 or not {"time", "joint_angles", "emg"} <= set(names) or shapes["joint_angles"] != (N_JOINTS,):
        raise DataError(
            f"{path.name}: {_SERIES} is {series.dtype}", reason=Reason.WRONG_SHAPE, hint="Is it an emg2pose file?"
        )
    emg = np.ascontiguousarray(series["emg"], dtype=np.float32)
    angles = np.ascontiguousarray(series["joint_angles"], dtype=np.float32)
    if emg.ndim != 2 or emg.shape[1] != CHANNELS or not len(emg):
        raise DataError(f"{path.name}: EMG of shape {emg.shape}", reason=Reason.WRONG_SHAPE, hint="Leave it out.")
    if float(attributes.get("sample_rate", RATE_HZ)) != RATE_HZ:
        raise DataError(f"{path.name} has {attributes['sample_rate']} Hz", hint=f"emg2pose has {RATE_HZ:g}.")
    if not np.isfinite(emg).all():
        raise DataError(f"{path.name}: EMG is not finite", reason=Reason.MALFORMED, hint="Leave the file out.")
    failed = (np.abs(angles) <= _ZERO).all(axis=1) | ~np.isfinite(angles).all(axis=1)
    time_s = np.ascontiguousarray(series["time"], dtype=np.float64)
    return Take(emg, angles, np.asarray(~failed), attributes, time_s)


def self_described(path: Path) -> Entry:
    """What a file says of itself, where there is no metadata: no split, every hand moving.

    Raises:
        DataError: It is damaged or says nothing.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            attributes = dict(file[_GROUP].attrs)
    except (OSError, KeyError, RuntimeError, AttributeError) as error:
        raise DataError(
            f"{path.name} is damaged or no emg2pose file: {error}", reason=Reason.TRUNCATED, hint="Unpack it again."
        ) from error
    lacking = [k for k in _SELF if k not in attributes]
    if lacking:
        raise DataError(f"{path.name} does not say its {', '.join(lacking)}", hint="Put metadata.csv beside it.")
    user, session, stage, side = (str(attributes[k]) for k in _SELF)
    return Entry(path.stem, user, session, stage, side, start=float(attributes.get("start", 0.0)))


def metadata_file(root: Path) -> Path | None:
    """`metadata.csv` of a folder, or None."""
    return next((p for p in (root / METADATA, root.parent / METADATA) if p.is_file()), None)
