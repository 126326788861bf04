"""NinaPro data bases 1, 2, 5, 7 and 8 through one table.

Any part of a base is a data set: whatever participants and exercises the folder holds, flat or in folders of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.datasets.base import (
    EmgKind,
    Facts,
    PairedRecording,
    PoseKind,
    Progress,
    Segment,
    Split,
    Task,
    silent,
)
from embridge_cloud.datasets.ninapro_published import LICENCE, PUBLISHED, URL
from embridge_shared import ninapro
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.ninapro import BASES, FileName, NinaproBase, NinaproFile

if TYPE_CHECKING:
    from embridge_cloud.datasets.check import Report

_TEST_ACQUISITION: Final = 3
_CHOSEN: Final = ((1, 5, 10), (1, 5, 10, 15))


def scan(folder: Path) -> dict[Path, FileName | None]:
    """Every `.mat` file under a folder with what its name says, in order of participant and exercise."""
    found = {p: ninapro.parse_name(p.stem) for p in folder.rglob("*") if p.suffix.lower() == ".mat"}

    def key(path: Path) -> tuple[int, int, int, str]:
        name = found[path]
        return (*((name.subject, name.exercise, name.acquisition) if name else (1 << 30, 0, 0)), str(path))

    return {p: found[p] for p in sorted(found, key=key)}


def detect(folder: Path) -> NinaproBase:
    """Which base the files of a folder belong to.

    Raises:
        DataError: There are none, or they do not tell; the message names the bases left.
    """
    left = set(BASES)
    files = scan(folder)
    for path, name in files.items():
        try:
            left &= {b.name for b in ninapro.candidates(ninapro.header(path), name)}
        except DataError:
            continue
        if not left:
            break
    if len(left) == 1:
        return BASES[left.pop()]
    if not files:
        raise DataError(
            f"there is no .mat file under {folder}",
            reason=Reason.NOT_FOUND,
            hint="Unpack the publisher's archives there.",
        )
    could = " or ".join(sorted(left))
    raise DataError(
        f"the files of {folder} may be of {could}" if left else f"the files of {folder} fit no NinaPro base together",
        hint=f"Name it: {', '.join(f'ninapro-{n}:{folder}' for n in sorted(left or BASES))}.",
    )


class NinaproDataset:
    """A folder of files of one base.

    Args:
        root: The folder; searched whole.
        base: The base.

    Raises:
        DataError: It holds no file with the publisher's kind of name, or two of the same name.
    """

    def __init__(self, root: Path, base: NinaproBase) -> None:
        self.root = root
        self.base = base
        self.name = f"ninapro-{base.name}"
        self._files: dict[str, list[tuple[FileName, Path]]] = {}
        taken: dict[FileName, Path] = {}
        for path, name in scan(root).items():
            if name is None:
                continue
            if name in taken:
                raise DataError(
                    f"{path} and {taken[name]} are the same recording by name", hint="Leave only one under the folder."
                )
            taken[name] = path
            self._files.setdefault(self.participant(name.subject), []).append((name, path))
        if not taken:
            raise DataError(
                f"no file under {root} is named like S1_E1_A1.mat", reason=Reason.NOT_FOUND, hint="Keep the names."
            )

    def participant(self, subject: int) -> str:
        """Name of a participant of this base."""
        return f"{self.base.name}-s{subject}"

    @property
    def facts(self) -> Facts:
        """What the base is."""
        base, published = self.base, PUBLISHED[self.base.name]
        return Facts(
            title=f"NinaPro {base.name.upper()}",
            licence=LICENCE,
            citation=published.citation,
            url=f"{URL}/instructions/{base.name.upper()}.html",
            emg_rate_hz=base.rate_hz,
            channels=base.channels,
            emg_kind=EmgKind.ENVELOPE if base.envelope else EmgKind.RAW,
            pose_kind=PoseKind.GLOVE,
            band_limit_hz=base.band_limit_hz,
            pose=f"{' or '.join(map(str, base.glove))} glove sensors, counts",
            notes=published.notes,
        )

    def participants(self) -> tuple[str, ...]:
        """Who is in the folder, by number."""
        return tuple(self._files)

    def gestures(self) -> tuple[str, ...]:
        """Movements of the exercises in the folder."""
        present = {name.exercise for files in self._files.values() for name, _ in files}
        return tuple(g for n, e in self.base.exercises.items() if n in present for g in e.gestures)

    def files(self, participant: str) -> tuple[Path, ...]:
        """Files of a participant.

        Raises:
            OperatorError: There is no such participant.
        """
        if participant not in self._files:
            raise OperatorError(
                f"{self.root} holds no participant {participant!r}",
                reason=Reason.NOT_FOUND,
                hint=f"It holds {', '.join(self._files)}.",
            )
        return tuple(path for _, path in self._files[participant])

    def recordings(self, participant: str) -> Iterator[PairedRecording]:
        """Recordings of a participant, a file each.

        Raises:
            OperatorError: There is no such participant.
            DataError: A file is damaged or of another base.
        """
        for path in self.files(participant):
            yield to_recording(ninapro.read(path), self.base)

    def splits(self) -> tuple[Split, ...]:
        """The literature's split by repetition; by acquisition where the publisher keeps one for testing."""
        published = PUBLISHED[self.base.name]
        if published.train:
            return (
                Split("train", repetitions=frozenset(published.train)),
                Split("test", repetitions=frozenset(published.test)),
            )
        every = [(name, path.stem) for files in self._files.values() for name, path in files]
        tested = frozenset(stem for name, stem in every if name.acquisition == _TEST_ACQUISITION)
        return (
            Split("train", sessions=frozenset(stem for _, stem in every) - tested),
            Split("test", sessions=tested),
        )

    def tasks(self) -> tuple[Task, ...]:
        """Published choices of classes: three or four movements of an exercise of DB7, none of them unseen."""
        if self.base.name != "db7":
            return ()
        present, found = set(self.gestures()), []
        for exercise in self.base.exercises.values():
            for chosen in _CHOSEN:
                names = tuple(exercise.gestures[local - 1] for local in chosen)
                if present.issuperset(names):
                    found.append(Task(f"{exercise.letter.lower()}{len(chosen)}", names, ()))
        return tuple(found)


def to_recording(file: NinaproFile, base: NinaproBase) -> PairedRecording:
    """A file as every data set gives it.

    Repetitions of a later acquisition count on, so that a number means one trial of a participant.

    Raises:
        DataError: It is not of this base.
    """
    sensors = base.glove[0] if file.glove is None else file.glove.shape[1]
    if file.emg.shape[1] != base.channels or sensors not in base.glove:
        raise DataError(
            f"{file.name} has {file.emg.shape[1]} electrodes and {sensors} glove sensors, "
            f"{base.name.upper()} has {base.channels} and {' or '.join(map(str, base.glove))}",
            reason=Reason.WRONG_SHAPE,
            hint="Is the folder of another base, or of two?",
        )
    names = base.names(file.exercise, file.label)
    later = (file.acquisition - 1) * base.repetitions
    segments = tuple(
        Segment(names[label], later + repetition if repetition > 0 else 0, start, stop)
        for label, repetition, start, stop in ninapro.runs(file.label, file.repetition)
    )
    return PairedRecording(
        participant=f"{base.name}-s{file.subject}",
        session=file.name,
        emg=file.emg,
        emg_rate_hz=base.rate_hz,
        emg_kind=EmgKind.ENVELOPE if base.envelope else EmgKind.RAW,
        segments=segments,
        pose=file.glove,
        pose_rate_hz=base.rate_hz if file.glove is not None else 0.0,
        pose_kind=PoseKind.GLOVE,
        pose_valid=_valid(file.glove),
        side="right",
        stage=f"exercise {base.exercises[file.exercise].letter or file.exercise}",
    )


def _valid(glove: NDArray[np.float32] | None) -> NDArray[np.bool_] | None:
    """Samples that are numbers; None where all are."""
    if glove is None or np.isfinite(glove).all():
        return None
    return np.asarray(np.isfinite(glove).all(axis=1))


class NinaproPlugin:
    """The plugin."""

    name = "ninapro"
    title = "NinaPro DB1, DB2, DB5, DB7, DB8"
    variants = tuple(BASES)

    def recognises(self, folder: Path) -> bool:
        """True where a file is named as the publisher names them."""
        return any(ninapro.parse_name(p.stem) for p in folder.rglob("*.mat"))

    def open(self, folder: Path, variant: str = "") -> NinaproDataset:
        """Open a folder; without a variant its files say which base it is.

        Raises:
            DataError: They do not.
            ConfigError: There is no such base.
        """
        if variant and variant not in BASES:
            raise ConfigError(f"no NinaPro base {variant!r}", hint=f"There are {', '.join(BASES)}.")
        return NinaproDataset(folder, BASES[variant] if variant else detect(folder))

    def check(self, folder: Path, variant: str = "", progress: Progress = silent) -> Report:
        """Look through everything."""
        from embridge_cloud.datasets.ninapro_check import check

        return check(folder, variant, progress)
