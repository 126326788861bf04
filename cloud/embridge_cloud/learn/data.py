"""Windows: what the learner sees, and how batches are drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.slices import Slices, is_finite, select_rows, window_hashes
from embridge_shared.errors import DataError, Reason

_VOCABULARIES = (("label", "gestures"), ("participant", "participants"), ("session", "sessions"))


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of EMG, of pose, or of both at the same time.

    Attributes:
        emg: float32 (N, T, C), preprocessed and wearer-scaled; None in a pose-only set. Like `pose` it may be kept in a
            window store, from which indexing reads.
        pose: float32 (N, Tp, 20), joint angles, rad, 100 Hz; None in an EMG-only set.
        label: int64 (N,), index into `gestures`, -1 for none.
        participant: int64 (N,), index into `participants`.
        session: int64 (N,), index into `sessions`.
        repetition: int64 (N,).
        start_s: float64 (N,), start of the window in its session, s.
        gestures: Names; the same name means the same gesture in every set.
        participants: Pseudonyms.
        sessions: Session ids.

    Raises:
        DataError: Lengths, indices or values do not fit together.
    """

    emg: NDArray[np.float32] | None
    pose: NDArray[np.float32] | None
    label: NDArray[np.int64]
    participant: NDArray[np.int64]
    session: NDArray[np.int64]
    repetition: NDArray[np.int64]
    start_s: NDArray[np.float64]
    gestures: tuple[str, ...]
    participants: tuple[str, ...]
    sessions: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.label)
        if self.emg is None and self.pose is None:
            raise DataError("windows need EMG or pose", reason=Reason.WRONG_SHAPE)
        for name in ("emg", "pose"):
            _check_signal(name, getattr(self, name), n)
        for name in ("label", "participant", "session", "repetition", "start_s"):
            if getattr(self, name).shape != (n,):
                raise DataError(f"{name} must hold one value for each of {n} windows", reason=Reason.WRONG_SHAPE)
        for name, names in _VOCABULARIES:
            _check_vocabulary(name, getattr(self, name), getattr(self, names))
        if not np.isfinite(self.start_s).all():
            raise DataError("start_s is not finite")

    def __len__(self) -> int:
        return len(self.label)

    def select(self, mask: NDArray[np.bool_] | NDArray[np.int64]) -> Windows:
        """The windows a boolean mask or an index array names; vocabularies stay."""
        picked: dict[str, Any] = {
            f.name: select_rows(value, mask)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), (np.ndarray, Slices))
        }
        return replace(self, **picked)

    def of_gestures(self, names: Sequence[str]) -> Windows:
        """The windows of the gestures named."""
        return self.select(np.isin(self.label, [i for i, g in enumerate(self.gestures) if g in set(names)]))

    def of_participants(self, names: Sequence[str]) -> Windows:
        """The windows of the participants named."""
        wanted = [i for i, p in enumerate(self.participants) if p in set(names)]
        return self.select(np.isin(self.participant, wanted))

    def without_pose(self) -> Windows:
        """EMG alone: what an evaluation may see of the windows it tests."""
        return replace(self, pose=None)

    def without_emg(self) -> Windows:
        """Pose alone: what a gallery may hold."""
        return replace(self, emg=None)

    def present(self, what: str) -> frozenset[str]:
        """Names that occur: of "gestures", "participants" or "sessions"."""
        index = next(field for field, names in _VOCABULARIES if names == what)
        names = getattr(self, what)
        return frozenset(names[i] for i in np.unique(getattr(self, index)) if i >= 0)

    def digest(self) -> str:
        """SHA-256 over every value and name, hex; equal for equal sets only, wherever they are kept."""
        h = hashlib.sha256()
        for f in fields(self):
            value = getattr(self, f.name)
            h.update(f.name.encode())
            if f.name in ("emg", "pose") and value is not None:
                h.update(f"{value.shape}".encode())
                h.update(window_hashes(value).tobytes())
            elif isinstance(value, np.ndarray):
                h.update(f"{value.dtype.str}{value.shape}".encode())
                h.update(np.ascontiguousarray(value).data)
            else:
                h.update(repr(value).encode())
        return h.hexdigest()


def _check_signal(name: str, value: NDArray[np.float32] | None, n: int) -> None:
    """Three axes, n rows, float32, finite."""
    if value is None:
        return
    if value.ndim != 3 or len(value) != n or 0 in value.shape[1:]:
        raise DataError(f"{name} must be ({n}, time, channels), not {value.shape}", reason=Reason.WRONG_SHAPE)
    if value.dtype != np.float32:
        raise DataError(f"{name} must be float32, not {value.dtype}", reason=Reason.WRONG_SHAPE)
    if not is_finite(value):
        raise DataError(f"{name} holds values that are not finite", hint="Drop windows over gaps when pairing.")


def _check_vocabulary(name: str, index: NDArray[np.int64], names: tuple[str, ...]) -> None:
    """Indices point into distinct names."""
    lowest = -1 if name == "label" else 0
    if len(set(names)) != len(names):
        raise DataError(f"{name} vocabulary repeats a name")
    if len(index) and not (lowest <= int(index.min()) and int(index.max()) < len(names)):
        raise DataError(f"{name} points outside its vocabulary of {len(names)}")


def concatenate(sets: Sequence[Windows]) -> Windows:
    """Join sets with vocabularies of their own; a modality stays only where every set has it.

    Raises:
        DataError: There is no set, or shapes differ.
    """
    if not sets:
        raise DataError("nothing to join", reason=Reason.TOO_LITTLE_DATA)
    joined: dict[str, Any] = {}
    for index, names in _VOCABULARIES:
        union = tuple(dict.fromkeys(name for s in sets for name in getattr(s, names)))
        place = {name: i for i, name in enumerate(union)}
        joined[names] = union
        # the last place serves index -1
        maps = [np.array([*(place[n] for n in getattr(s, names)), -1], np.int64) for s in sets]
        joined[index] = np.concatenate([m[getattr(s, index)] for m, s in zip(maps, sets, strict=True)])
    for name in ("emg", "pose"):
        parts = [getattr(s, name) for s in sets]
        if any(p is None for p in parts):
            joined[name] = None
        elif len({p.shape[1:] for p in parts}) > 1:
            raise DataError(f"{name} windows differ in shape: {sorted({p.shape[1:] for p in parts})}")
        else:
            joined[name] = np.concatenate(parts)
    for name in ("repetition", "start_s"):
        joined[name] = np.concatenate([getattr(s, name) for s in sets])
    return Windows(**joined)


def batches(
    windows: Windows, size: int, rng: np.random.Generator, *, min_gap_s: float = 0.0
) -> Iterator[NDArray[np.int64]]:
    """Batches of one pass, each with every participant in proportion.

    Two windows of one session start at least `min_gap_s` apart in a batch, because near-duplicates are false
    negatives; what does not fit waits for the next batch. A last batch below half of `size` is dropped unless it is
    the only one.
    """
    waiting = _interleaved(windows.participant, rng)
    first = True
    while len(waiting):
        batch, waiting = _take(windows, waiting, size, min_gap_s)
        if first or 2 * len(batch) >= size:
            yield batch
        else:
            return
        first = False


def broken_pairs(label: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation that gives every class members of all classes in proportion.

    A plain permutation favours some class by chance, a model learns that, and a control of few classes then strays far
    from chance in either direction.
    """
    out = np.empty(len(label), np.int64)
    out[np.lexsort((rng.random(len(label)), label))] = _interleaved(label, rng)
    return out


def _interleaved(group: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order in which every stretch holds each group in proportion."""
    key = np.empty(len(group))
    for g in np.unique(group):
        rows = np.flatnonzero(group == g)
        key[rows] = (rng.permutation(len(rows)) + rng.random(len(rows))) / len(rows)
    return np.argsort(key, kind="stable")


def _take(
    windows: Windows, order: NDArray[np.int64], size: int, min_gap_s: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The next batch and what is left, in order."""
    if min_gap_s <= 0:
        return order[:size], order[size:]
    looked_at = 2 * size
    while True:
        pool = order[:looked_at]
        places = np.flatnonzero(_apart(windows.session[pool], windows.start_s[pool], min_gap_s))
        if len(places) >= size or len(pool) == len(order):
            break
        looked_at *= 2
    places = places[:size]
    return order[places], np.delete(order, places)


def _apart(session: NDArray[np.int64], start_s: NDArray[np.float64], min_gap_s: float) -> NDArray[np.bool_]:
    """Which windows, taken in order, start far enough from all that were taken before, (n,)."""
    taken = np.ones(len(session), np.bool_)
    by_time = np.lexsort((start_s, session))
    near = (np.diff(session[by_time]) == 0) & (np.diff(start_s[by_time]) < min_gap_s)
    doubtful = np.zeros(len(session), np.bool_)
    doubtful[by_time[1:][near]] = True
    doubtful[by_time[:-1][near]] = True
    starts: dict[int, list[float]] = {}
    # only windows with a neighbour can be in anyone's way
    for i in np.flatnonzero(doubtful):
        others = starts.setdefault(int(session[i]), [])
        start = float(start_s[i])
        if any(abs(start - other) < min_gap_s for other in others):
            taken[i] = False
        else:
            others.append(start)
    return taken


def class_balanced(
    label: NDArray[np.int64], rng: np.random.Generator, *, per_class: int | None = None
) -> NDArray[np.int64]:
    """Indices with equally many of each class (-1 left out): `per_class`, or as many as the rarest has.

    Raises:
        DataError: There is no labelled window.
    """
    classes, counts = np.unique(label[label >= 0], return_counts=True)
    if len(classes) == 0:
        raise DataError("no labelled window to balance", reason=Reason.TOO_LITTLE_DATA)
    n = int(counts.min()) if per_class is None else min(per_class, int(counts.min()))
    picks = [rng.choice(np.flatnonzero(label == c), n, replace=False) for c in classes]
    return np.sort(np.concatenate(picks))
