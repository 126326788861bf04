"""What live decoding was worth: scores that edges recorded, held against what participants did.

Only windows that lie whole inside an accepted repetition count. A choice is made among the gestures of one group at a
time, seen or unseen, as zero-shot results are reported; the choice among all of them stands beside.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.evaluate import Score, Truth, balanced_accuracy, score
from embridge_shared.errors import DataError, Reason
from embridge_shared.session import Repetition, RepetitionStatus


@dataclass(frozen=True, slots=True)
class ScoredWindows:
    """Decoded windows with the truth beside them.

    Attributes:
        scores: One a gesture, float32 (N, G).
        truth: Index of the performed gesture, int64 (N,).
        participant: Index into `participants`, int64 (N,).
        repetition: One number a repetition, int64 (N,), across sessions.
        gestures: Labels in the order of the scores.
        participants: Pseudonyms.
    """

    scores: NDArray[np.float32]
    truth: NDArray[np.int64]
    participant: NDArray[np.int64]
    repetition: NDArray[np.int64]
    gestures: tuple[str, ...]
    participants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DecodedSession:
    """One session's scores.

    Attributes:
        participant: Whose.
        t_ns: Unix time of each window's end, ns (N,).
        scores: float32 (N, G).
        repetitions: What the participant did.
    """

    participant: str
    t_ns: NDArray[np.int64]
    scores: NDArray[np.float32]
    repetitions: Sequence[Repetition]


def gather(
    sessions: Sequence[DecodedSession],
    gestures: tuple[str, ...],
    window_s: float,
    *,
    skip_repetitions: Collection[int] = (),
) -> ScoredWindows:
    """The windows that count.

    Args:
        sessions: Decoded sessions.
        gestures: Labels in the order of the scores.
        window_s: Length of a window, s.
        skip_repetitions: Numbers of repetitions the calibration used; they are left out for every gesture alike.

    Raises:
        DataError: No window lies inside a repetition.
    """
    people = tuple(dict.fromkeys(s.participant for s in sessions))
    scores, truth, who, which, count = [], [], [], [], 0
    for session in sessions:
        for r in session.repetitions:
            if r.gesture not in gestures or r.repetition in skip_repetitions:
                continue
            inside = within(session.t_ns, r, window_s)
            n = int(inside.sum())
            scores.append(session.scores[inside])
            truth += [gestures.index(r.gesture)] * n
            who += [people.index(session.participant)] * n
            which += [count] * n
            count += 1
    if not truth:
        raise DataError("no decoded window lies inside a repetition", reason=Reason.TOO_LITTLE_DATA)
    return ScoredWindows(
        np.concatenate(scores),
        np.array(truth, np.int64),
        np.array(who, np.int64),
        np.array(which, np.int64),
        gestures,
        people,
    )


def within(t_ns: NDArray[np.int64], repetition: Repetition, window_s: float) -> NDArray[np.bool_]:
    """Which windows lie whole inside an accepted repetition.

    Args:
        t_ns: Unix time of each window's end, ns (N,).
        repetition: What was done.
        window_s: Length of a window, s.
    """
    if repetition.status is not RepetitionStatus.ACCEPTED:
        return np.zeros(len(t_ns), bool)
    inside: NDArray[np.bool_] = (t_ns - round(window_s * 1e9) >= repetition.start_ns) & (t_ns <= repetition.end_ns)
    return inside


def choose(windows: ScoredWindows, among: Sequence[str], rng: np.random.Generator) -> Score:
    """Balanced accuracy of choosing among some gestures, on windows of these gestures.

    Args:
        windows: Scored windows.
        among: The gestures to choose from.
        rng: Draws the bootstrap over participants.
    """
    columns = [windows.gestures.index(g) for g in among]
    rows = np.isin(windows.truth, columns)
    place = {c: i for i, c in enumerate(columns)}
    tested = Truth(
        truth=np.array([place[t] for t in windows.truth[rows]], np.int64),
        participant=windows.participant[rows],
        participants=windows.participants,
        gestures=tuple(among),
    )
    return score(tested, np.argmax(windows.scores[rows][:, columns], axis=1).astype(np.int64), rng)


def choose_any(windows: ScoredWindows, size: int) -> float:
    """Balanced accuracy of choosing among `size` gestures, over every set of that many that holds the right one.

    A model that knows nothing ranks gestures in some fixed order, and on one set of four that order may be right or
    wrong as a whole; over all sets it comes to chance.

    Args:
        windows: Scored windows.
        size: Gestures in a set, 1/size is chance.
    """
    right = windows.scores[np.arange(len(windows.truth)), windows.truth][:, None]
    below = (windows.scores < right).sum(axis=1) + ((windows.scores == right).sum(axis=1) - 1) // 2
    others = len(windows.gestures) - 1
    wins = np.array([math.comb(n, size - 1) / math.comb(others, size - 1) for n in range(others + 1)])
    return float(np.mean([wins[below[windows.truth == g]].mean() for g in np.unique(windows.truth)]))


def trial_vote(windows: ScoredWindows, among: Sequence[str]) -> float:
    """Balanced accuracy of one choice a repetition, from the mean of its windows' scores."""
    columns = [windows.gestures.index(g) for g in among]
    truth, found = [], []
    for r in np.unique(windows.repetition[np.isin(windows.truth, columns)]):
        own = windows.repetition == r
        truth.append(columns.index(int(windows.truth[own][0])))
        found.append(int(np.argmax(windows.scores[own][:, columns].mean(axis=0))))
    return balanced_accuracy(np.array(truth, np.int64), np.array(found, np.int64))
