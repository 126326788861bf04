"""The guard before the gate: which new sessions contradict themselves or everybody else, each by name.

A gate refuses what a poisoned drop did to a model; who is to mend it must know which recordings did it. Three decoders
look at every session, none of them fitted on what it judges:

    own      the session's other repetitions, from EMG to gesture: labels that EMG does not bear out fall to chance
    pose     other people's hand poses, from pose to gesture: labels the hand itself contradicts
    others   other people's EMG: a band that sat elsewhere, dead channels, or again wrong labels

A session is suspicious where one of them lies far below what the trusted sessions show.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.gates.files import Seen
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.evaluate import balanced_accuracy, shrinkage_lda

Floats = NDArray[np.float32]

_FAR = 4.0
"""Robust standard deviations below the median of the trusted sessions."""
_SPREAD = 0.04
"""Least standard deviation that trusted sessions are taken to have."""
_BELOW = 0.8
"""Share of the trusted median that a suspicious session stays under."""
_LEAST = 3
"""Trusted sessions without whom nothing is said."""
_SEGMENTS = 4
_FOLDS = 4
_MOST = 4000


_WORDS: Final = {
    "own": "its EMG does not bear out its own labels",
    "pose": "its hand poses are not those of its labels",
    "others": "nobody else's EMG looks like it",
}


def inspect(train: Windows, trusted: Collection[str]) -> tuple[Seen, ...]:
    """Look at every session of a training.

    Args:
        train: Labelled windows, paired with pose or not.
        trusted: Sessions an earlier, accepted release was made of; empty for the first, when all vouch for each other.

    Returns:
        One a session, in order.
    """
    emg, pose = _emg_features(train), _pose_features(train)
    names = sorted(train.present("sessions"))
    known = {s for s in names if s in set(trusted)}
    found = [_seen(train, emg, pose, name, known or set(names)) for name in names]
    found = [msgspec.structs.replace(s, trusted=s.session in known) for s in found]
    return tuple(_marked(s, [t for t in found if t.trusted or not known]) for s in found)


def _emg_features(train: Windows) -> Floats | None:
    """Mean level of each channel in each quarter of a window (N, 4·C)."""
    return None if train.emg is None else _segmented(np.abs(np.asarray(train.emg)))


def _pose_features(train: Windows) -> Floats | None:
    """Mean angle of each joint (N, J)."""
    return None if train.pose is None else np.asarray(np.asarray(train.pose).mean(axis=1), np.float32)


def _segmented(values: Floats) -> Floats:
    parts = np.array_split(values, _SEGMENTS, axis=1)
    return np.concatenate([p.mean(axis=1) for p in parts], axis=1).astype(np.float32)


def _seen(train: Windows, emg: Floats | None, pose: Floats | None, name: str, vouching: Collection[str]) -> Seen:
    mine = train.session == train.sessions.index(name)
    person = train.participants[int(train.participant[mine][0])]
    stranger = train.participant != train.participants.index(person)
    vouches = np.isin(train.session, [i for i, s in enumerate(train.sessions) if s in vouching])
    others = _thinned(np.flatnonzero(stranger & vouches))
    return Seen(
        session=name,
        participant=person,
        trusted=False,
        chance=1 / len(np.unique(train.label[mine])),
        own=None if emg is None else _borne_out(emg[mine], train.label[mine], train.repetition[mine]),
        pose=None if pose is None else _told(pose, train.label, others, np.flatnonzero(mine)),
        others=None if emg is None else _told(emg, train.label, others, np.flatnonzero(mine)),
    )


def _thinned(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Evenly fewer of many rows."""
    return rows[:: max(1, len(rows) // _MOST)]


def _told(features: Floats, label: NDArray[np.int64], fit: NDArray[np.int64], test: NDArray[np.int64]) -> float | None:
    """Balanced accuracy on some rows of what is fitted on others, among the gestures of both."""
    common = np.intersect1d(label[fit], label[test])
    fit, test = fit[np.isin(label[fit], common)], test[np.isin(label[test], common)]
    if len(common) < 2:
        return None
    place = np.searchsorted(common, label)
    scores = shrinkage_lda((features[fit], place[fit]), features[test], classes=len(common))
    return balanced_accuracy(place[test], scores.argmax(axis=1).astype(np.int64))


def _borne_out(features: Floats, label: NDArray[np.int64], repetition: NDArray[np.int64]) -> float | None:
    """Balanced accuracy on each repetition of what is fitted on the session's others."""
    numbers = np.unique(repetition)
    if len(numbers) < 2:
        return None
    folds = np.array_split(numbers, min(_FOLDS, len(numbers)))
    found = [
        _told(features, label, np.flatnonzero(~held), np.flatnonzero(held))
        for held in (np.isin(repetition, fold) for fold in folds)
    ]
    told = [f for f in found if f is not None]
    return float(np.mean(told)) if told else None


def _marked(seen: Seen, trusted: list[Seen]) -> Seen:
    """The same with why it is suspicious, if it is."""
    reasons = []
    for what, words in _WORDS.items():
        value = getattr(seen, what)
        usual = np.array([v for s in trusted if (v := getattr(s, what)) is not None])
        if value is None or len(usual) < _LEAST:
            continue
        middle = float(np.median(usual))
        spread = max(_SPREAD, 1.4826 * float(np.median(np.abs(usual - middle))))
        if value < middle - _FAR * spread and value < _BELOW * middle:
            reasons.append(f"{words} ({value:.2f}, elsewhere {middle:.2f}, chance {seen.chance:.2f})")
    return msgspec.structs.replace(seen, suspicious="; ".join(reasons))
