"""A band that sits turned: found from unlabelled activity, undone, and left alone where nothing speaks for it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.wearer.donning import Activity, activity, find_turn, rotation, turn

C = 8
ANGLES = np.arange(C) * 2 * np.pi / C


def arm(rng: np.random.Generator, n: int, *, turned: float = 0.0) -> NDArray[np.float64]:
    """Levels (n, 8, C) of three muscles of different width around the arm, seen by a turned band."""
    places, widths = np.array([0.3, 2.1, 3.9]), np.array([0.5, 0.9, 0.7])
    away = np.angle(np.exp(1j * (ANGLES[None] + turned * 2 * np.pi / C - places[:, None])))
    reach = np.exp(-0.5 * np.square(away / widths[:, None]))
    drive = rng.gamma(1.5, 1.0, (n, 1, 3)) * rng.uniform(0.8, 1.2, (n, 8, 3))
    return 0.05 + drive @ reach


@pytest.mark.parametrize("turned", [-2.0, -1.0, 1.0, 2.0, 0.5])
def test_a_turn_is_found_without_labels(turned: float) -> None:
    rng = np.random.default_rng(1)
    found = find_turn(activity(arm(rng, 40, turned=turned)), activity(arm(rng, 60)))
    assert found.electrodes == pytest.approx(turned, abs=0.25)
    assert found.degrees == pytest.approx(found.electrodes * 45)
    assert found.gain > 0.5


def test_a_band_that_sits_as_it_did_is_left_alone() -> None:
    rng = np.random.default_rng(2)
    found = [find_turn(activity(arm(rng, 40)), activity(arm(rng, 60))) for _ in range(5)]
    assert all(abs(t.electrodes) <= 0.25 and t.gain < 0.5 for t in found)


def test_strength_does_not_matter() -> None:
    level = arm(np.random.default_rng(3), 20)
    assert activity(level).covariance == pytest.approx(np.array(activity(9 * level).covariance))


def test_whole_turns_are_permutations_and_undo_each_other() -> None:
    features = np.random.default_rng(4).random((5, C)).astype(np.float32)
    assert np.allclose(rotation(C, 1) @ np.eye(C)[2], np.eye(C)[3])
    there = turn(features, 2.0, tuple(range(C)))
    assert np.allclose(there, np.roll(features, 2, axis=1), atol=1e-6)
    assert np.allclose(turn(there, -2.0, tuple(range(C))), features, atol=1e-6)
    assert np.allclose(rotation(7, 0.5) @ rotation(7, -0.5), np.eye(7))


def test_channels_off_the_ring_stay_and_levels_stay_positive() -> None:
    features = np.zeros((1, C + 2), np.float32)
    features[0, [0, C, C + 1]] = 1, 5, 6
    turned = turn(features, 0.5, tuple(range(C)))
    assert turned[0, C:].tolist() == [5, 6]
    assert turned.min() >= 0
    assert turn(features, 0.0, tuple(range(C))) is features


def test_too_little_activity_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        activity(arm(np.random.default_rng(5), 7))
    assert caught.value.reason is Reason.TOO_LITTLE_DATA
    with pytest.raises(DataError):
        activity(np.zeros((20, 8, C)))
    with pytest.raises(DataError):
        find_turn(activity(arm(np.random.default_rng(5), 9)), activity(arm(np.random.default_rng(6), 9)[:, :, :7]))
    with pytest.raises(DataError):
        Activity(mean=(1.0, 2.0, 3.0), covariance=((1.0,),), windows=9)
