"""What every data set gives: participants, paired recordings, gestures, the publisher's splits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.data import Windows
from embridge_shared.errors import DataError, OperatorError, Reason

if TYPE_CHECKING:
    from embridge_cloud.datasets.check import Report


Progress = Callable[[int, int, str], None]
"""Told how many are done, of how many, and what is next."""


def silent(done: int, total: int, what: str) -> None:
    """Progress nobody watches."""


class EmgKind(StrEnum):
    """What a sample of EMG is."""

    RAW = "raw"  # signed, as amplified
    ENVELOPE = "envelope"  # rectified and smoothed by the device


class PoseKind(StrEnum):
    """What a sample of pose is."""

    JOINTS = "joints"  # 20 joint angles, rad (embridge_shared.hand)
    GLOVE = "glove"  # uncalibrated glove sensors, counts


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch in which one gesture was made.

    Attributes:
        gesture: Label.
        repetition: Counted from 1 within the gesture; 0 where the stretch belongs to no trial and is not cut.
        start: First EMG sample.
        stop: EMG sample after the last.
    """

    gesture: str
    repetition: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class PairedRecording:
    """A stretch of EMG and pose without gaps, both from the same first moment.

    Attributes:
        participant: Pseudonym, unique in the data set.
        session: Unique in the data set: two windows of one session may overlap in time, of two they cannot.
        emg: float32 (T, C).
        emg_rate_hz: Samples a second.
        emg_kind: What they are.
        segments: In order of time. What lies in none of them is rest where `rests` says so.
        pose: float32 (Tp, J), or None.
        pose_rate_hz: Samples a second.
        pose_kind: What they are.
        pose_valid: bool (Tp,), False where the pose is none; None where all of it is one.
        emg_valid: bool (T,), False where a lost sample was held; None where none was.
        donning: Recordings of a participant with the same donning wore the sensors without a change.
        side: Arm of the EMG.
        stage: The publisher's name of the block.
        rests: True where the participant rested between segments.
        start_s: Time of the first sample in its session, s.
        calibration: False where nothing of it may enter a fit of scale or glove.
    """

    participant: str
    session: str
    emg: NDArray[np.float32]
    emg_rate_hz: float
    emg_kind: EmgKind
    segments: tuple[Segment, ...]
    pose: NDArray[np.float32] | None = None
    pose_rate_hz: float = 0.0
    pose_kind: PoseKind = PoseKind.JOINTS
    pose_valid: NDArray[np.bool_] | None = None
    emg_valid: NDArray[np.bool_] | None = None
    donning: str = ""
    side: str = ""
    stage: str = ""
    rests: bool = True
    start_s: float = 0.0
    calibration: bool = True

    def __post_init__(self) -> None:
        if self.emg.ndim != 2 or self.emg.dtype != np.float32 or not self.emg_rate_hz > 0:
            raise DataError(f"{self.session}: EMG must be float32 (T, C) with a rate", reason=Reason.WRONG_SHAPE)
        if self.pose is not None and (self.pose.ndim != 2 or not self.pose_rate_hz > 0):
            raise DataError(f"{self.session}: pose must be (T, J) with a rate", reason=Reason.WRONG_SHAPE)
        if self.pose_valid is not None and (self.pose is None or self.pose_valid.shape != self.pose.shape[:1]):
            raise DataError(f"{self.session}: one validity flag a pose sample", reason=Reason.WRONG_SHAPE)
        if self.emg_valid is not None and self.emg_valid.shape != self.emg.shape[:1]:
            raise DataError(f"{self.session}: one validity flag an EMG sample", reason=Reason.WRONG_SHAPE)
        if any(not 0 <= s.start < s.stop <= len(self.emg) for s in self.segments):
            raise DataError(f"{self.session}: a segment leaves the recording", reason=Reason.WRONG_SHAPE)

    @property
    def seconds(self) -> float:
        """Length, s."""
        return len(self.emg) / self.emg_rate_hz

    def during(self, gestures: Collection[str] | None = None) -> NDArray[np.bool_]:
        """EMG samples inside segments (of some gestures), bool (T,)."""
        inside = np.zeros(len(self.emg), bool)
        for s in self.segments:
            if gestures is None or s.gesture in gestures:
                inside[s.start : s.stop] = True
        return inside


@dataclass(frozen=True, slots=True)
class Split:
    """A named part of a data set, by participants, sessions and repetitions; None stands for all.

    Attributes:
        name: As in "train" or "test/user_stage".
        participants: Who.
        sessions: Which recordings.
        repetitions: Which repetitions.
    """

    name: str
    participants: frozenset[str] | None = None
    sessions: frozenset[str] | None = None
    repetitions: frozenset[int] | None = None

    def of(self, windows: Windows) -> Windows:
        """The windows that belong to it."""
        keep = np.ones(len(windows), bool)
        for wanted, index, names in (
            (self.participants, windows.participant, windows.participants),
            (self.sessions, windows.session, windows.sessions),
        ):
            if wanted is not None:
                keep &= np.isin(index, [i for i, name in enumerate(names) if name in wanted])
        if self.repetitions is not None:
            keep &= np.isin(windows.repetition, sorted(self.repetitions))
        return windows.select(keep)


@dataclass(frozen=True, slots=True)
class Task:
    """A choice of gestures that results are published for.

    Attributes:
        name: As in "faithful".
        seen: Gestures whose EMG may be learnt.
        unseen: Gestures of which only the pose may be known; empty where the task is to tell the seen ones apart.
    """

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a data set is, for people and for reports.

    Attributes:
        title: Name and part.
        licence: What may be done with it.
        citation: What to cite.
        url: Where it is published.
        emg: What its EMG is, as in "12 × 2000 Hz, raw".
        pose: What its pose is, as in "22 glove sensors, counts".
        emg_rate_hz: Samples a second.
        channels: Electrodes.
        emg_kind: What a sample of EMG is.
        pose_kind: What a sample of pose is; None without pose.
        band_limit_hz: There is no EMG content above.
        notes: What a user of it must know.
    """

    title: str
    licence: str
    citation: str
    url: str
    emg_rate_hz: float
    channels: int
    emg_kind: EmgKind
    pose_kind: PoseKind | None
    band_limit_hz: float
    pose: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def emg(self) -> str:
        """What its EMG is, in a few words."""
        return f"{self.channels} × {self.emg_rate_hz:g} Hz, {self.emg_kind}"


class Dataset(Protocol):
    """A folder of recordings, opened."""

    @property
    def name(self) -> str:
        """Short name, as in "ninapro-db1"."""

    @property
    def root(self) -> Path:
        """Its folder."""

    @property
    def facts(self) -> Facts:
        """What it is."""

    def participants(self) -> tuple[str, ...]:
        """Who is in it, in the publisher's order."""

    def gestures(self) -> tuple[str, ...]:
        """Labels, in the publisher's order."""

    def recordings(self, participant: str) -> Iterator[PairedRecording]:
        """Recordings of a participant, one in memory at a time, those of one donning together.

        Raises:
            OperatorError: There is no such participant.
            DataError: A file is damaged.
        """

    def splits(self) -> tuple[Split, ...]:
        """The publisher's or the literature's splits."""

    def tasks(self) -> tuple[Task, ...]:
        """Choices of seen and unseen gestures that results are published for, as far as the folder holds them."""


class DatasetPlugin(Protocol):
    """A kind of data set; entry-point group "embridge.datasets" lists factories of these."""

    @property
    def name(self) -> str:
        """The word before the colon, as in "ninapro"."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def variants(self) -> tuple[str, ...]:
        """What may follow the name after a hyphen, as in "db7"."""

    def recognises(self, folder: Path) -> bool:
        """True where the folder looks like one of these; must be quick and must not raise."""

    def open(self, folder: Path, variant: str = "") -> Dataset:
        """Open a folder.

        Raises:
            EmbridgeError: It holds no such data set, or cannot be told which variant.
        """

    def check(self, folder: Path, variant: str = "", progress: Progress = silent) -> Report:
        """Look through everything a folder holds and say what is wrong; must not raise for what is in it."""


def all_recordings(dataset: Dataset, participants: Iterable[str] | None = None) -> Iterator[PairedRecording]:
    """Recordings of several participants, by default of all, one in memory at a time."""
    for participant in dataset.participants() if participants is None else participants:
        yield from dataset.recordings(participant)


def pick_participants(dataset: Dataset, wanted: Iterable[str]) -> tuple[str, ...]:
    """Participants by name or by the number their name ends in, in the order asked for.

    Raises:
        OperatorError: Nobody answers to one of them.
    """
    names = dataset.participants()
    out = []
    for text in (w.strip() for w in wanted):
        found = [n for n in names if n == text] or [
            n for n in names if text.isdigit() and n[len(n.rstrip("0123456789")) :] == text
        ]
        if len(found) != 1:
            raise OperatorError(
                f"{dataset.name} has no participant {text!r}",
                reason=Reason.NOT_FOUND,
                hint=f"It has {', '.join(names)}.",
            )
        out.append(found[0])
    return tuple(out)
