"""What a study measures and on whom: regimes, protocols, folds of unseen gestures, rotation of participants."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np

from embridge_shared.errors import ConfigError
from embridge_shared.gestures import NINAPRO_DB1_E1

GROUP = 3
UNSEEN = 4
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
CALIBRATION_REPETITIONS = (1, 2, 3)
LATE_REPETITIONS = (6, 7, 8, 9, 10)
SHOTS = (1, 3, 5)

_DB1_FOLDS = {
    "A": (1, 4, 7, 11),
    "B": (2, 5, 8, 9),
    "C": (3, 6, 10, 12),
    "P": (1, 6, 8, 10),
    "Q": (2, 3, 7, 12),
    "R": (4, 5, 9, 11),
}
_REPORTED = ("A", "B", "C")
_ROTATION_SEED = 20


class Regime(StrEnum):
    """What training had of the wearer under test; results of the two never share a cell."""

    NEW_WEARER = "new-wearer"
    CALIBRATED = "calibrated-wearer"


class Protocol(StrEnum):
    """What is asked of a fitted method; the name of a row."""

    ZS_SEEN = "zs-seen"
    ZS_UNSEEN = "zs-unseen"
    ZS_SEEN_TRIAL = "zs-seen-trial"
    ZS_UNSEEN_TRIAL = "zs-unseen-trial"
    ZS_SEEN_PROTO = "zs-seen-proto"
    ZS_UNSEEN_PROTO = "zs-unseen-proto"
    GZS_SEEN = "gzs-seen"
    GZS_UNSEEN = "gzs-unseen"
    GZS_HARMONIC = "gzs-harmonic"
    LP_SEEN = "lp-seen"
    LP_UNSEEN = "lp-unseen"
    SUPERVISED = "supervised"
    FEW_SHOT_1 = "few-shot-1"
    FEW_SHOT_3 = "few-shot-3"
    FEW_SHOT_5 = "few-shot-5"


REFERENCES = frozenset({Protocol.LP_UNSEEN})
"""Protocols whose probe reads labels of train participants' EMG of unseen gestures: references, not zero-shot."""


class Fold(msgspec.Struct, frozen=True):
    """One choice of unseen gestures.

    Attributes:
        name: Of the fold.
        unseen: Gestures of whose EMG nothing is learnt.
    """

    name: str
    unseen: tuple[str, ...]


class Run(msgspec.Struct, frozen=True):
    """One fold met by one group of held-out participants: the unit of every mean, spread and paired difference.

    Attributes:
        fold: Its unseen gestures.
        rotation: Number of the group.
        seed: Of everything trained.
        held_out: Participants under test.
    """

    fold: Fold
    rotation: int
    seed: int
    held_out: tuple[str, ...]

    @property
    def name(self) -> str:
        """A name fit for a file."""
        return f"{self.fold.name}-r{self.rotation}-s{self.seed}"


def db1_fold(name: str) -> Fold:
    """A fold of NinaPro DB1, exercise 1: A, B, C are reported, P, Q, R serve development.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in _DB1_FOLDS:
        raise ConfigError(f"no fold {name!r}", hint=f"Choose among {', '.join(_DB1_FOLDS)}.")
    return Fold(name, tuple(NINAPRO_DB1_E1[n] for n in _DB1_FOLDS[name]))


def folds_of(gestures: Sequence[str], names: Sequence[str] = ()) -> tuple[Fold, ...]:
    """Disjoint sets of unseen gestures, the same ones for the same gestures.

    NinaPro DB1's twelve movements have folds by name; any other vocabulary is dealt into up to three, in an order that
    only the names decide.

    Args:
        gestures: All that the data set holds.
        names: Folds wanted, by default all that are reported.

    Raises:
        ConfigError: Fewer than four gestures, or a fold that is not there.
    """
    if set(gestures) == set(NINAPRO_DB1_E1.values()):
        return tuple(db1_fold(name) for name in names or _REPORTED)
    if len(set(gestures)) < 2 * 2:
        raise ConfigError(f"{len(set(gestures))} gestures cannot be parted into seen and unseen ones")
    dealt = sorted(set(gestures), key=lambda g: hashlib.sha256(g.encode()).hexdigest())
    count = min(3, len(dealt) // 2)
    size = max(2, min(UNSEEN, len(dealt) // 3))
    made = {
        name: Fold(name, tuple(sorted(dealt[i * size : (i + 1) * size])))
        for i, name in enumerate(_REPORTED[:count])
        if (i + 1) * size <= len(dealt)
    }
    missing = [name for name in names if name not in made]
    if missing:
        raise ConfigError(f"no fold {missing[0]!r} for these gestures", hint=f"Choose among {', '.join(made)}.")
    return tuple(made[name] for name in names or made)


def fold_by_hand(gestures: Sequence[str], unseen: Sequence[str]) -> Fold:
    """A fold somebody chose: names of gestures, or their numbers from 1 in the data set's order.

    Raises:
        ConfigError: A gesture is unknown or named twice, or fewer than two are left on a side.
    """
    known = tuple(gestures)
    chosen: list[str] = []
    for word in unseen:
        if word.isdigit() and word not in known:
            if not 1 <= int(word) <= len(known):
                raise ConfigError(f"there is no gesture number {word}", hint=f"Gestures are numbered 1..{len(known)}.")
            chosen.append(known[int(word) - 1])
        elif word in known:
            chosen.append(word)
        else:
            raise ConfigError(f"no gesture {word!r} in this data set", hint=f"It holds {', '.join(known)}.")
    if len(set(chosen)) != len(chosen) or not 2 <= len(chosen) <= len(known) - 2:
        raise ConfigError("name two or more different unseen gestures, and leave two or more seen ones")
    return Fold("hand", tuple(chosen))


def groups_of(participants: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Everybody in groups of about three, each group held out once; the same groups for the same people.

    Raises:
        ConfigError: Fewer than two participants.
    """
    people = _in_order(participants)
    if len(people) < 2:
        raise ConfigError(
            f"{len(people)} participant(s) cannot be parted into train and test", hint="Add recordings of more people."
        )
    order = np.random.default_rng(_ROTATION_SEED).permutation(len(people))
    count = max(2, math.ceil(len(people) / GROUP))
    return tuple(tuple(_in_order([people[i] for i in part])) for part in np.array_split(order, count))


def _in_order(participants: Sequence[str]) -> list[str]:
    """Distinct names, numbers in them compared as numbers."""
    return sorted(set(participants), key=lambda p: (int("".join(filter(str.isdigit, p)) or 0), p))


def plan(
    folds: Sequence[Fold],
    groups: Sequence[tuple[str, ...]],
    *,
    seeds: int = 3,
    sampled: bool = False,
) -> tuple[Run, ...]:
    """All runs of a study.

    With several groups each (fold, group) is one run and the seeds go with the groups, so that everybody is tested
    once a fold; a single group is tested with every seed.

    Args:
        folds: Choices of unseen gestures.
        groups: Held-out participants.
        seeds: Number of seeds.
        sampled: One group a fold instead of all of them, a different one for each fold.
    """
    if len(groups) == 1:
        return tuple(Run(f, 0, s, groups[0]) for f in folds for s in range(seeds))
    runs = []
    for i, fold in enumerate(folds):
        picked = [i * len(groups) // max(1, len(folds))] if sampled else range(len(groups))
        runs += [Run(fold, r, r * seeds // len(groups), groups[r]) for r in picked]
    return tuple(runs)
