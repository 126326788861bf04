"""A band that sits otherwise than in the calibration: features turned and rescaled, in the same bits however fed."""

from __future__ import annotations

import numpy as np
import pytest

from embridge_shared.errors import DataError
from embridge_shared.preprocess import FrontEndConfig, WearerScale
from embridge_shared.signal import Modality, StreamSpec
from embridge_shared.wearer.donning import activity, refit, turn
from embridge_shared.wearer.worn import Sits, WornScale, ring_of

C = 10
RING = tuple(range(8))
SCALE = WearerScale(offset=tuple(0.1 * i for i in range(C)), gain=tuple(1.0 + i for i in range(C)), clip=50.0)
ENVELOPE, WAVEFORM = FrontEndConfig(), FrontEndConfig(mode="waveform", rate_hz=200.0)


def sits(electrodes: float, gain: float = 1.0) -> Sits:
    return Sits(ring=RING, electrodes=electrodes, gain=(gain,) * C)


def features(n: int = 50) -> np.ndarray:
    return np.random.default_rng(0).gamma(1, 1, (n, C)).astype(np.float32)


def spec(device: str, channels: int = 8) -> StreamSpec:
    names = tuple(f"e{i}" for i in range(channels))
    return StreamSpec(name="emg", modality=Modality.EMG, channels=names, rate_hz=200.0, device=device)


def test_a_band_that_sits_as_it_did_is_scaled_in_the_same_bits() -> None:
    assert np.array_equal(WornScale(SCALE, sits(0.0), ENVELOPE).apply(features()), SCALE.apply(features()))


def test_a_turn_is_undone_before_the_scale() -> None:
    x = features()
    rolled = x.copy()
    rolled[:, :8] = np.roll(x[:, :8], -1, axis=1)
    assert np.array_equal(WornScale(SCALE, sits(1.0), ENVELOPE).apply(rolled), SCALE.apply(x))


def test_strength_is_undone_at_every_level() -> None:
    x = features()
    found = WornScale(SCALE, sits(0.0, 2.0), ENVELOPE).apply(x / 2)
    assert np.allclose(found, SCALE.apply(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("front_end", [ENVELOPE, WAVEFORM])
def test_moments_are_turned_alone(front_end: FrontEndConfig) -> None:
    x = features() - (1.0 if front_end is WAVEFORM else 0.0)
    worn = WornScale(SCALE, sits(0.625), front_end)
    whole = worn.apply(x)
    assert np.array_equal(np.concatenate([worn.apply(x[i : i + 7]) for i in range(0, 50, 7)]), whole)
    assert np.array_equal(worn.apply(x.reshape(5, 10, C)).reshape(50, C), whole)


def test_a_waveform_is_turned_linearly_even_where_it_happens_to_be_positive() -> None:
    x = np.zeros((1, C), np.float32)
    x[0, 0] = 1.0
    assert turn(x, 0.5, RING, rectified=False).min() < 0
    assert turn(x, 0.5, RING).min() == 0
    both = WornScale(WearerScale.identity(C), sits(0.5), WAVEFORM)
    assert np.allclose(both.apply(2 * x), 2 * both.apply(x))


def test_what_is_no_ring_is_refused() -> None:
    for ring in ((0, 1, 2), (0, 1, 2, 3, 3), (0, 1, 2, 3, 10)):
        with pytest.raises(DataError):
            Sits(ring=ring, electrodes=1.0, gain=(1.0,) * C)
    with pytest.raises(DataError):
        Sits(ring=RING, electrodes=1.0, gain=(0.0,) * C)
    with pytest.raises(DataError):
        WornScale(WearerScale.identity(8), sits(1.0), ENVELOPE)
    with pytest.raises(DataError):
        WornScale(SCALE, sits(1.0), ENVELOPE).apply(np.zeros((3, 8), np.float32))


def test_rings_are_known_by_device_or_given() -> None:
    assert ring_of(spec("myo")) == RING
    assert ring_of(spec("ninapro-envelope", 10)) == RING
    assert ring_of(spec("something")) == ()
    assert ring_of(spec("myo", 4)) == ()
    assert ring_of(spec("diy", 6), {"diy": (5, 4, 3, 2, 1, 0)}) == (5, 4, 3, 2, 1, 0)
    assert ring_of(spec("myo"), {"myo": ()}) == ()
    with pytest.raises(DataError, match="no ring"):
        ring_of(spec("diy", 6), {"diy": (0, 1, 2, 3, 4, 6)})


def test_strength_is_refitted_half_by_electrode_half_by_ring() -> None:
    rng = np.random.default_rng(1)
    then = rng.gamma(2, 1, (60, 8, 8)) * (1 + np.arange(8))
    weaker = then * np.array([0.25] + [1.0] * 7)
    same = refit(activity(then), activity(then), 0.0)
    assert np.allclose(same, 1.0)
    assert np.allclose(refit(activity(then / 3), activity(then), 0.0), 3.0)
    found = refit(activity(weaker), activity(then), 0.0)
    assert found[0] == pytest.approx(2.0, rel=0.1)
    assert np.allclose(found[1:], 1.0, atol=0.05)
    assert max(refit(activity(then / 1000), activity(then), 0.0)) == 4.0
