from __future__ import annotations

import itertools

import numpy as np
import pytest

from embridge_cloud.verdict import DecodedSession, ScoredWindows, choose, choose_any, gather, trial_vote, within
from embridge_shared.errors import DataError
from embridge_shared.session import Repetition, RepetitionStatus

S = 10**9
GESTURES = ("a", "b", "c", "d", "e")


def done(gesture: str, start_s: float, end_s: float, number: int = 1, **more) -> Repetition:
    return Repetition(gesture=gesture, repetition=number, start_ns=round(start_s * S), end_ns=round(end_s * S), **more)


def scored(rng: np.random.Generator, n: int = 400, signal: float = 0.0) -> ScoredWindows:
    truth = rng.integers(0, 5, n)
    scores = rng.normal(size=(n, 5)).astype(np.float32)
    scores[np.arange(n), truth] += signal
    return ScoredWindows(scores, truth, rng.integers(0, 3, n), np.arange(n) // 4, GESTURES, ("x", "y", "z"))


def test_only_windows_whole_inside_accepted_repetitions_count() -> None:
    t_ns = np.arange(0, 12 * S, S // 2)
    rejected = done("b", 4, 6, status=RepetitionStatus.REJECTED, reason="weak")
    session = DecodedSession(
        "x", t_ns, np.eye(len(t_ns), 5, dtype=np.float32), [done("a", 1, 3), rejected, done("c", 7, 9, 2)]
    )
    found = gather([session], GESTURES, 1.0)
    assert found.truth.tolist() == [0, 0, 0, 2, 2, 2]
    assert t_ns[within(t_ns, done("a", 1, 3), 1.0)].tolist() == [2 * S, 5 * S // 2, 3 * S]
    assert gather([session], GESTURES, 1.0, skip_repetitions=(1,)).truth.tolist() == [2, 2, 2]
    with pytest.raises(DataError):
        gather([session], GESTURES, 5.0)


def test_choosing_among_all_sets_is_what_enumerating_them_gives() -> None:
    windows = scored(np.random.default_rng(1), signal=0.7)
    rng = np.random.default_rng(0)
    right = []
    for size in (2, 3, 4):
        recalls = []
        for g, name in enumerate(GESTURES):
            own = []
            for others in itertools.combinations([x for x in GESTURES if x != name], size - 1):
                columns = [GESTURES.index(x) for x in (name, *others)]
                own.append(np.mean(windows.scores[windows.truth == g][:, columns].argmax(axis=1) == 0))
            recalls.append(np.mean(own))
        right.append(np.mean(recalls))
        assert choose_any(windows, size) == pytest.approx(right[-1], abs=1e-9)
    assert choose_any(windows, 5) == pytest.approx(choose(windows, GESTURES, rng).balanced_accuracy, abs=1e-9)


def test_a_model_that_knows_nothing_sits_at_chance_whatever_order_it_prefers() -> None:
    rng = np.random.default_rng(2)
    windows = scored(rng)
    always = ScoredWindows(
        np.tile(rng.normal(size=5).astype(np.float32), (400, 1)), *(getattr(windows, k) for k in
        ("truth", "participant", "repetition", "gestures", "participants"))
    )  # fmt: skip
    for size in (2, 3, 4):
        assert choose_any(always, size) == pytest.approx(1 / size)
        assert choose_any(windows, size) == pytest.approx(1 / size, abs=0.06)


def test_a_vote_over_a_repetition_beats_its_windows() -> None:
    rng = np.random.default_rng(3)
    windows = scored(rng, 800, signal=1.0)
    blocks = ScoredWindows(
        windows.scores, np.repeat(rng.integers(0, 5, 100), 8), windows.participant, np.arange(800) // 8, GESTURES,
        windows.participants,
    )  # fmt: skip
    blocks.scores[:] = rng.normal(size=(800, 5))
    blocks.scores[np.arange(800), blocks.truth] += 1.0
    assert trial_vote(blocks, GESTURES) > choose(blocks, GESTURES, rng).balanced_accuracy + 0.1
