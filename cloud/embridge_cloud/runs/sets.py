"""From a run's description to windows, parted so that nothing leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embridge_cloud.datasets.base import Dataset, all_recordings, pick_participants
from embridge_cloud.datasets.config import CutConfig
from embridge_cloud.datasets.registry import open_dataset
from embridge_cloud.datasets.windows import cut_each, cut_windows
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.leakage import PoseRegime
from embridge_cloud.learn.window_store import about_windows, open_windows, write_windows
from embridge_cloud.runs.spec import RunSpec, SplitConfig
from embridge_cloud.study.protocol import Fold, Run, fold_by_hand, folds_of, groups_of
from embridge_cloud.study.splits import Split, make_split
from embridge_shared.errors import ConfigError, DataError, LeakageError, OperatorError, Reason

STORED = "windows:"


@dataclass(frozen=True, slots=True)
class Sets:
    """The data of a run.

    Attributes:
        split: Who trains, the gallery, who is tested.
        validation: Seen gestures of the validation participants; None without any.
        learn: The learning, with the shapes of these windows.
    """

    split: Split
    validation: Windows | None
    learn: LearnConfig


class _Cut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a store of windows says of itself."""

    data: str
    hidden: tuple[str, ...]
    cut: CutConfig


def prepare_sets(spec: RunSpec) -> Sets:
    """Open the data of a run, cut it and part it.

    Raises:
        OperatorError: There is no such data set, participant or gesture.
        DataError: Files are damaged, or a part is empty.
        LeakageError: Stored windows were scaled with the EMG of a gesture that is to stay unseen.
        ConfigError: The configuration does not fit the data.
    """
    if not spec.data:
        raise OperatorError("there is no data to learn from", hint='Give --data, as in "ninapro:FOLDER".')
    windows, run, cut = _stored(spec) if spec.data.startswith(STORED) else _cut(spec)
    watching = _named(windows.participants, spec.split.validation)
    if set(watching) & set(run.held_out):
        raise ConfigError(f"{sorted(set(watching) & set(run.held_out))} both watch the training and are tested")
    others = [p for p in windows.participants if p not in watching]
    regime = PoseRegime.POSE_ENROLLED if spec.split.pose_enrolled else PoseRegime.STRICT
    split = make_split(windows.of_participants(others), run, cut.window_s, pose_regime=regime)
    validation = windows.of_participants(watching).of_gestures(split.seen) if watching else None
    return Sets(split, validation, fitted(spec.learn, windows, cut))


def fitted(learn: LearnConfig, windows: Windows, cut: CutConfig) -> LearnConfig:
    """The learning with rates and shapes of the windows; patches stay.

    Raises:
        ConfigError: A window does not divide into patches.
    """
    change = msgspec.structs.replace
    if windows.emg is None or windows.pose is None:
        raise DataError("training needs EMG and pose", reason=Reason.WRONG_SHAPE, hint='Set cut.pose = "joints".')
    emg, pose = windows.emg.shape, windows.pose.shape
    return change(
        learn,
        emg=change(learn.emg, rate_hz=cut.rate_hz, window=emg[1], channels=emg[2]),
        pose=change(learn.pose, rate_hz=cut.pose_rate_hz, window=pose[1], channels=pose[2]),
    )


def cut_store(spec: RunSpec, folder: Path) -> Windows:
    """Cut a whole data set into a window store, one recording in memory at a time.

    Raises:
        OperatorError: There is no such data set or gesture.
        DataError: Files are damaged, or the folder holds windows already.
    """
    dataset = open_dataset(spec.data)
    hidden = _fold(dataset.gestures(), spec.split).unseen
    about = _Cut(data=spec.data.partition(":")[0], hidden=hidden, cut=spec.cut)
    return write_windows(
        folder,
        cut_each(all_recordings(dataset), spec.cut, hidden=hidden, gestures=dataset.gestures()),
        rates_hz={"emg": spec.cut.rate_hz, "pose": spec.cut.pose_rate_hz},
        about=msgspec.to_builtins(about),
    )


def _cut(spec: RunSpec) -> tuple[Windows, Run, CutConfig]:
    """Windows of everybody a run names, cut in memory."""
    dataset: Dataset = open_dataset(spec.data)
    fold = _fold(dataset.gestures(), spec.split)
    tested = pick_participants(dataset, spec.split.test) or groups_of(dataset.participants())[0]
    windows = cut_windows(all_recordings(dataset), spec.cut, hidden=fold.unseen, gestures=dataset.gestures())
    return windows, Run(fold, 0, spec.seed, tested), spec.cut


def _stored(spec: RunSpec) -> tuple[Windows, Run, CutConfig]:
    """Windows that were cut before."""
    folder = Path(spec.data.removeprefix(STORED))
    windows = open_windows(folder)
    try:
        about = msgspec.convert(about_windows(folder), _Cut)
    except msgspec.ValidationError as error:
        raise DataError(f"{folder} does not say how it was cut: {error}", reason=Reason.MALFORMED) from None
    fold = _fold(windows.gestures, spec.split)
    if shown := sorted(set(fold.unseen) - set(about.hidden)):
        raise LeakageError(
            f"{folder} was scaled with EMG of {', '.join(shown)}",
            hint="Cut it again with the gestures that are to stay unseen.",
        )
    tested = _named(windows.participants, spec.split.test) or groups_of(windows.participants)[0]
    return windows, Run(fold, 0, spec.seed, tested), about.cut


def _fold(gestures: Sequence[str], split: SplitConfig) -> Fold:
    """Unseen gestures by the name of a fold, or by hand."""
    if not split.unseen:
        return Fold("none", ())
    if len(split.unseen) == 1 and split.unseen[0] not in gestures:
        return folds_of(gestures, split.unseen)[0]
    return fold_by_hand(gestures, split.unseen)


def _named(names: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Participants by name or by the number their name ends in."""
    out = []
    for text in wanted:
        found = [n for n in names if n == text or (text.isdigit() and n[len(n.rstrip("0123456789")) :] == text)]
        if len(found) != 1:
            raise OperatorError(
                f"there is no participant {text!r}", reason=Reason.NOT_FOUND, hint=f"There are {', '.join(names)}."
            )
        out.append(found[0])
    return tuple(out)
