"""Montage: envelopes of one ring read off at the electrodes of another."""

from __future__ import annotations

import numpy as np
import pytest

from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.preprocess import FrontEndConfig, Montage, Ring, montage_for

ENVELOPE, WAVEFORM = FrontEndConfig(mode="envelope"), FrontEndConfig(mode="waveform")


def field(angle_deg: np.ndarray, turn_deg: float = 0.0) -> np.ndarray:
    """Activity that changes slowly around the arm."""
    a = np.deg2rad(angle_deg + turn_deg)
    return (2 + np.cos(a - 0.3) + 0.5 * np.sin(2 * a) + 0.3 * np.cos(3 * a)).astype(np.float32)


@pytest.mark.parametrize(("band", "release"), [(8, 10), (10, 8), (8, 16), (16, 8), (7, 12)])
def test_slow_activity_is_read_off_exactly(band: int, release: int) -> None:
    here, there = Ring.even(band), Ring.even(release)
    made = montage_for(ENVELOPE, band, there)
    assert made is not None
    found = made.apply(field(np.array(here.angles_deg))[None])
    np.testing.assert_allclose(found[0], field(np.array(there.angles_deg)), atol=1e-5)
    np.testing.assert_allclose(made.matrix.sum(axis=1), 1)


def test_uneven_electrodes_rotation_and_the_other_way_round() -> None:
    there = Ring.even(8, 30.0)
    uneven = Ring(angles_deg=(0, 30, 75, 120, 170, 200, 250, 290, 330), rotation_deg=50.0)
    mirrored = Ring(angles_deg=tuple(-a for a in Ring.even(10).angles_deg))
    wanted = field(np.array(there.angles_deg), turn_deg=30.0)
    found = Montage(uneven, there).apply(field(np.array(uneven.angles_deg), turn_deg=50.0))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    found = Montage(mirrored, Ring.even(8)).apply(field(np.array(mirrored.angles_deg)))
    np.testing.assert_allclose(found, field(np.array(there.angles_deg)), atol=1e-4)


def test_nothing_becomes_negative() -> None:
    made = Montage(Ring.even(8), Ring.even(20))
    spike = np.eye(8, dtype=np.float32)
    assert (spike @ made.matrix.T).min() < -0.05
    assert made.apply(spike).min() == 0
    several = np.random.default_rng(0).random((50, 8)).astype(np.float32)
    whole = made.apply(several)
    assert np.array_equal(np.concatenate([made.apply(several[:7]), made.apply(several[7:])]), whole)
    assert np.array_equal(made.apply(several[None])[0], whole)
    with pytest.raises(DataError):
        made.apply(several[:, :7])


def test_the_same_ring_is_left_alone() -> None:
    assert montage_for(ENVELOPE, 8, 8) is None
    assert montage_for(ENVELOPE, 8, Ring.even(8)) is None
    assert montage_for(ENVELOPE, Ring.even(8, 20.0), Ring.even(8, 20.0)) is None
    assert montage_for(ENVELOPE, Ring.even(8, 20.0), Ring.even(8)) is None, "nobody knows where the release's sat"
    assert montage_for(ENVELOPE, Ring.even(8, 20.0), Ring.even(8, 65.0)) is not None
    assert montage_for(WAVEFORM, 8, Ring.even(8)) is None


def test_bands_a_release_cannot_take() -> None:
    for front_end, release in ((ENVELOPE, 8), (WAVEFORM, 8), (WAVEFORM, Ring.even(8))):
        with pytest.raises(ModelError) as caught:
            montage_for(front_end, 10, release)
        assert caught.value.reason is Reason.INCOMPATIBLE
    for angles in ((), (0.0, 120.0), (0.0, 120.0, 360.0), (0.0, 90.0, float("nan"))):
        with pytest.raises(DataError):
            Ring(angles_deg=angles)
