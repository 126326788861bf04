"""Leakage rules as code: each raises where an evaluation would see what it must not see."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.data import Windows
from embridge_shared.errors import LeakageError


class PoseRegime(StrEnum):
    """What the pose side knew of the gestures called unseen; results of the two never share a table."""

    STRICT = "strict"
    POSE_ENROLLED = "pose-enrolled"


def _named(names: Iterable[str]) -> str:
    """Up to five names."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (" …" if len(ordered) > 5 else "")


def check_participants(train: Iterable[str], test: Iterable[str], *, what: str = "test") -> None:
    """Splits are made by participant first.

    Raises:
        LeakageError: Someone is on both sides.
    """
    both = set(train) & set(test)
    if both:
        raise LeakageError(
            f"participants of the train split are in the {what} split: {_named(both)}",
            hint="Split by participant, both hands of a person on one side.",
        )


def check_sessions(train: Iterable[str], test: Iterable[str], *, what: str = "test") -> None:
    """No session is on both sides.

    Raises:
        LeakageError: A session is.
    """
    both = set(train) & set(test)
    if both:
        raise LeakageError(f"sessions of the train split are in the {what} split: {_named(both)}")


def check_overlap(train: Windows, test: Windows, window_s: float) -> None:
    """No window of one side overlaps a window of the other in time.

    Args:
        train: One side.
        test: The other.
        window_s: Length of a window, s.

    Raises:
        LeakageError: Two do.
    """
    for name in train.present("sessions") & test.present("sessions"):
        ours = np.sort(train.start_s[train.session == train.sessions.index(name)])
        theirs = test.start_s[test.session == test.sessions.index(name)]
        at = np.searchsorted(ours, theirs - window_s, side="right")
        near = ours[np.minimum(at, len(ours) - 1)]
        if np.any(np.abs(near - theirs) < window_s):
            raise LeakageError(f"windows of session {name} overlap across splits")


def check_repetitions(train: Windows, test: Windows) -> None:
    """Where one participant is on both sides, splits are made by repetition, never by random windows.

    Raises:
        LeakageError: A participant's repetition of a gesture is on both sides.
    """
    both = _repetitions(train) & _repetitions(test)
    if both:
        person, gesture, repetition = sorted(both)[0]
        raise LeakageError(f"repetition {repetition} of {gesture} by {person} is in both splits")


def _repetitions(windows: Windows) -> set[tuple[str, str, int]]:
    """(participant, gesture, repetition) that occur with a label."""
    rows = np.flatnonzero(windows.label >= 0)
    return {
        (
            windows.participants[windows.participant[i]],
            windows.gestures[windows.label[i]],
            int(windows.repetition[i]),
        )
        for i in rows
    }


def check_calibration(calibration: Windows, tested: Windows, unseen: Iterable[str], window_s: float) -> None:
    """A wearer who calibrates is on both sides by repetition: labelled EMG of seen gestures, and none that is tested.

    Sessions do not guard here, because a wearer may calibrate and be tested in one.

    Args:
        calibration: EMG of wearers under test, for training.
        tested: Their windows under test.
        unseen: Gestures nobody calibrates with.
        window_s: Length of a window, s.

    Raises:
        LeakageError: The calibration holds pose, unseen gestures, repetitions or moments under test, or other people.
    """
    if calibration.pose is not None:
        raise LeakageError(
            "the calibration carries the wearer's own pose",
            hint="Calibration has labels alone; borrow poses of train participants.",
        )
    check_unseen(calibration, unseen, what="calibration")
    check_repetitions(calibration, tested)
    check_overlap(calibration, tested, window_s)
    strangers = calibration.present("participants") - tested.present("participants")
    if strangers:
        raise LeakageError(f"calibration of people who are not tested: {_named(strangers)}")


def check_gallery(gallery: Windows, tested: Windows, window_s: float) -> None:
    """The gallery holds poses of other people and other sessions only, so no paired pose can be reached.

    Raises:
        LeakageError: It holds EMG, or a participant, session or moment of the tested windows.
    """
    if gallery.emg is not None:
        raise LeakageError("the gallery carries EMG", hint="Use Windows.without_emg().")
    if tested.pose is not None:
        raise LeakageError("the tested windows carry their own pose", hint="Use Windows.without_pose().")
    check_overlap(gallery, tested, window_s)
    for what in ("sessions", "participants"):
        both = gallery.present(what) & tested.present(what)
        if both:
            raise LeakageError(f"{what} of the tested EMG are in the gallery: {_named(both)}")


def check_unseen(train: Windows, unseen: Iterable[str], *, what: str = "training") -> None:
    """No EMG of an unseen gesture is used, neither to train nor to choose.

    Raises:
        LeakageError: There is some.
    """
    if train.emg is not None:
        check_gestures(train.present("gestures"), unseen, what=what)


def check_gestures(trained: Iterable[str], unseen: Iterable[str], *, what: str = "training") -> None:
    """No gesture whose EMG was learnt is called unseen.

    Raises:
        LeakageError: One is.
    """
    found = set(trained) & set(unseen)
    if found:
        raise LeakageError(f"{what} windows hold EMG of unseen gestures: {_named(found)}")


def pose_regime(
    pose_gestures: Iterable[str], unseen: Iterable[str], *, claimed: PoseRegime | None = None
) -> PoseRegime:
    """Which regime a run was.

    Args:
        pose_gestures: Gestures whose pose trained the pose encoder or its communities.
        unseen: Gestures called unseen.
        claimed: What the run calls itself.

    Raises:
        LeakageError: It calls itself strict and saw poses of an unseen gesture.
    """
    seen = set(pose_gestures) & set(unseen)
    found = PoseRegime.POSE_ENROLLED if seen else PoseRegime.STRICT
    if claimed is PoseRegime.STRICT and seen:
        raise LeakageError(
            f"the pose encoder was trained on poses of unseen gestures: {_named(seen)}",
            hint="Report the run as pose-enrolled, or train without these poses.",
        )
    return found


def statistics_digest(statistics: dict[str, NDArray[np.float32]]) -> str:
    """SHA-256 over named arrays: scales, centring vector, communities; hex."""
    h = hashlib.sha256()
    for name in sorted(statistics):
        value = np.ascontiguousarray(statistics[name], "<f4")
        h.update(f"{name}{value.shape}".encode())
        h.update(value.data)
    return h.hexdigest()


def check_statistics(stored: str, statistics: dict[str, NDArray[np.float32]]) -> None:
    """Statistics are those computed on the train split and stored with the weights.

    Raises:
        LeakageError: They were changed since.
    """
    if statistics_digest(statistics) != stored:
        raise LeakageError(
            "statistics differ from those of the train split",
            hint="Load the checkpoint again; nothing may be refitted on other data.",
        )
