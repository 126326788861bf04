"""emg2pose: 2 kHz EMG of a wristband with motion-capture joint angles, a file for each hand and stage.

A stage is the class: one minute of an instructed kind of movement. Which stages are held out, and to which part of the
split a file belongs, is read from `metadata.csv`; file names say nothing of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
from embridge_cloud.datasets.emg2pose_files import (
    CHANNELS,
    FAITHFUL,
    FAITHFUL_SEEN,
    FAITHFUL_UNSEEN,
    RATE_HZ,
    STAGES,
    SUFFIX,
    Entry,
    Take,
    metadata_file,
    read_metadata,
    read_take,
    self_described,
    stage_of,
)
from embridge_cloud.datasets.features import stretches
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.hand import N_JOINTS

if TYPE_CHECKING:
    from embridge_cloud.datasets.check import Report


class Emg2PoseDataset:
    """A folder of emg2pose files, whole or in part.

    Args:
        root: The folder of `.hdf5` files and `metadata.csv`.
        stages: Only files of these; None for all.

    Raises:
        DataError: It holds no such file, or its metadata are damaged.
    """

    def __init__(self, root: Path, stages: Collection[str] | None = None) -> None:
        self.root = root
        self.name = "emg2pose" if stages is None else f"emg2pose-{FAITHFUL}"
        paths = {p.stem: p for p in root.rglob(f"*{SUFFIX}")}
        if not paths:
            raise DataError(
                f"there is no {SUFFIX} file under {root}",
                reason=Reason.NOT_FOUND,
                hint="Unpack emg2pose_dataset.tar or emg2pose_dataset_mini.tar there.",
            )
        listed = metadata_file(root)
        entries = [self_described(p) for p in paths.values()] if listed is None else read_metadata(listed)
        here = [e for e in entries if e.filename in paths]
        if not here:
            raise DataError(f"{listed} lists none of the files of {root}", hint="Are the two of one release?")
        self.entries = tuple(sorted((e for e in here if stages is None or stage_of(e.stage) in stages), key=_order))
        if not self.entries:
            raise DataError(
                f"none of the files of {root} is of {', '.join(stages or ())}",
                reason=Reason.NOT_FOUND,
                hint=f"Open all of it: emg2pose:{root}.",
            )
        self._paths = paths
        self._takes = _numbered(self.entries)

    @property
    def facts(self) -> Facts:
        """What it is."""
        return Facts(
            title="emg2pose",
            licence="CC BY-NC-SA 4.0: no commercial use, and no shipped weights trained on it",
            citation="Salter et al., emg2pose: A large and diverse benchmark for surface electromyographic hand pose "
            "estimation, NeurIPS Datasets and Benchmarks 2024, arXiv:2412.02725",
            url="https://github.com/facebookresearch/emg2pose",
            emg_rate_hz=RATE_HZ,
            channels=CHANNELS,
            emg_kind=EmgKind.RAW,
            pose_kind=PoseKind.JOINTS,
            band_limit_hz=850.0,
            pose=f"{N_JOINTS} joint angles, rad",
            notes=(
                "EMG is already high-passed and scaled to the noise floor.",
                "A stage is a minute of movement with rest, transitions and often several gestures in it.",
                "Where inverse kinematics failed all angles are 0; such samples are never used.",
            ),
        )

    def participants(self) -> tuple[str, ...]:
        """Users, sorted."""
        return tuple(dict.fromkeys(e.user for e in self.entries))

    def gestures(self) -> tuple[str, ...]:
        """Stages present, the eight of the published comparison first."""
        present = {stage_of(e.stage) for e in self.entries}
        return tuple([s for s in STAGES if s in present] + sorted(present - set(STAGES)))

    def held_out(self) -> tuple[str, ...]:
        """Stages that no training looks at, as the metadata say."""
        secret = {stage_of(e.stage) for e in self.entries if e.held_out_stage}
        return tuple(s for s in self.gestures() if s in secret)

    def tasks(self) -> tuple[Task, ...]:
        """Four seen stages against four unseen, and every stage in training against every one held out."""
        present = set(self.gestures())
        unseen = self.held_out()
        every = Task("all", tuple(s for s in self.gestures() if s not in unseen), unseen)
        four = Task(FAITHFUL, FAITHFUL_SEEN, FAITHFUL_UNSEEN)
        return tuple(t for t in (four, every) if t.seen and t.unseen and {*t.seen, *t.unseen} <= present)

    def recordings(self, participant: str) -> Iterator[PairedRecording]:
        """Files of a user, one hand after the other.

        Raises:
            OperatorError: There is no such user.
            DataError: A file is damaged.
        """
        chosen = [e for e in self.entries if e.user == participant]
        if not chosen:
            raise OperatorError(
                f"{self.root} holds no user {participant!r}",
                reason=Reason.NOT_FOUND,
                hint="`embridge data check` lists them.",
            )
        for entry in chosen:
            yield to_recording(read_take(self._paths[entry.filename]), entry, self._takes[entry.filename])

    def take_number(self, entry: Entry) -> int:
        """Which take of its stage a file is, from 1."""
        return self._takes[entry.filename]

    def splits(self) -> tuple[Split, ...]:
        """The publisher's: "train", and each of "val" and "test" by what is new in it."""
        parts: dict[str, list[Entry]] = {}
        for e in self.entries:
            if e.part:
                parts.setdefault(e.part, []).append(e)
        return tuple(
            Split(name, frozenset(e.user for e in parts[name]), frozenset(e.filename for e in parts[name]))
            for name in sorted(parts)
        )


def to_recording(take: Take, entry: Entry, repetition: int) -> PairedRecording:
    """A file as every data set gives it: a segment for each stretch with a pose, 0 for the rest of it."""
    stage, trial = stage_of(entry.stage), repetition if entry.moving else 0
    segments = [Segment(stage, trial, a, b) for a, b in stretches(take.valid)]
    segments += [Segment(stage, 0, a, b) for a, b in stretches(~take.valid)]
    return PairedRecording(
        participant=entry.user,
        session=entry.filename,
        emg=take.emg,
        emg_rate_hz=RATE_HZ,
        emg_kind=EmgKind.RAW,
        segments=tuple(sorted(segments, key=lambda s: s.start)),
        pose=take.angles,
        pose_rate_hz=RATE_HZ,
        pose_kind=PoseKind.JOINTS,
        pose_valid=None if take.valid.all() else take.valid,
        donning=entry.side,
        side=entry.side,
        stage=entry.stage,
        rests=False,
    )


def _order(entry: Entry) -> tuple[str, str, float, str]:
    return entry.user, entry.side, entry.start, entry.filename


def _numbered(entries: Sequence[Entry]) -> dict[str, int]:
    """Which take of its stage a file is, from 1; both hands of one take have one number."""
    takes: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for e in entries:
        takes.setdefault((e.user, stage_of(e.stage)), []).append((e.start, e.session))
    ranks = {k: list(dict.fromkeys(session for _, session in sorted(v))) for k, v in takes.items()}
    return {e.filename: ranks[e.user, stage_of(e.stage)].index(e.session) + 1 for e in entries}


class Emg2PosePlugin:
    """The plugin."""

    name = "emg2pose"
    title = "emg2pose"
    variants = (FAITHFUL,)

    def recognises(self, folder: Path) -> bool:
        """True where `.hdf5` files lie."""
        return next(folder.rglob(f"*{SUFFIX}"), None) is not None

    def open(self, folder: Path, variant: str = "") -> Emg2PoseDataset:
        """Open a folder; the variant "faithful" is the eight stages of the published comparison alone.

        Raises:
            DataError: It holds no such data set.
            ConfigError: There is no such variant.
        """
        if variant not in ("", FAITHFUL):
            raise ConfigError(f"emg2pose has no variant {variant!r}", hint=f"Write emg2pose-{FAITHFUL}:PATH.")
        return Emg2PoseDataset(folder, (*FAITHFUL_SEEN, *FAITHFUL_UNSEEN) if variant else None)

    def check(self, folder: Path, variant: str = "", progress: Progress = silent) -> Report:
        """Look through everything."""
        from embridge_cloud.datasets.emg2pose_check import check

        return check(folder, self.open, variant, progress)
