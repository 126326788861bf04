from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_edge.capture import Chunker
from embridge_edge.source import Packet
from embridge_edge.timing import DeviceClock
from embridge_shared.errors import DeviceError
from embridge_shared.session import Participant, Session
from embridge_shared.signal import Modality, StreamSpec

SPEC = StreamSpec(name="emg", modality=Modality.EMG, channels=("a", "b"), rate_hz=100.0)
SESSION = Session(
    id=UUID(int=1), edge="e", participant=Participant(id="p"), streams=(SPEC,), started_ns=10**18, host_ns=5 * 10**9
)


def data(a: int, b: int) -> np.ndarray:
    return np.stack([np.arange(a, b), -np.arange(a, b)], axis=1).astype(np.int16)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 40)), min_size=1, max_size=30), st.integers(0, 200))
def test_every_sample_comes_out_once_and_gaps_are_declared(steps: list[tuple[int, int]], until: int) -> None:
    chunker = Chunker(SESSION, 0, 0.25, until)
    chunks, delivered, at = [], set(), 0
    for lost, n in steps:
        at += lost * 7
        chunks += chunker.push(Packet(at, data(at, at + n), SESSION.host_ns + at * 10**7))
        delivered |= set(range(max(at, until), at + n))
        at += n
    chunks += chunker.flush()
    out: list[int] = []
    for chunk in chunks:
        assert chunk.first - chunk.gap_before == (out[-1] + 1 if out else until)
        assert chunk.n <= 25
        np.testing.assert_array_equal(chunk.samples, data(chunk.first, chunk.end))
        assert all(chunk.first <= i < chunk.end for i in chunk.arrivals.index)
        out += range(chunk.first, chunk.end)
    assert out == sorted(delivered)


def test_a_device_that_changes_its_layout_is_an_error() -> None:
    with pytest.raises(DeviceError):
        Chunker(SESSION, 0, 1.0).push(Packet(0, np.zeros((5, 3), np.int16), 0))


def true_ns(index: np.ndarray, ppm: float) -> np.ndarray:
    return index / 2000 * 1e9 * (1 + ppm * 1e-6)


@pytest.mark.parametrize(("ppm", "seed"), [(60.0, 0), (-40.0, 1), (0.0, 2)])
def test_the_device_clock_is_found_behind_one_sided_delays(ppm: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = np.arange(31, 2000 * 120, 32)
    delay_ns = 5e6 + rng.exponential(12e6, len(index))
    arrival = np.maximum.accumulate(true_ns(index, ppm) + delay_ns)
    clock = DeviceClock(2000.0, 0)
    errors = []
    for k, a in zip(index, arrival, strict=True):
        clock.observe(int(k), int(a))
        errors.append((clock.estimate_ns(int(k)) - true_ns(k, ppm)) * 1e-6)
    settled = np.array(errors[len(errors) // 4 :])
    raw = (arrival - true_ns(index, ppm))[len(errors) // 4 :] * 1e-6
    assert settled.std() < 0.1 * raw.std()
    assert abs(clock.skew_ppm - ppm) < 10
    assert 4.5 < settled.mean() < 8


def test_stamps_never_run_backwards() -> None:
    rng = np.random.default_rng(3)
    clock = DeviceClock(2000.0, 0)
    stamps = []
    for k in range(0, 40_000, 500):
        for i in range(k, k + 500, 25):
            clock.observe(i, int(true_ns(np.array(i), 50) + rng.exponential(30e6)))
        stamps.append(clock.stamp_ns(k))
    steps = np.diff(stamps) * 1e-6
    assert (steps > 0).all()
    assert np.abs(steps[20:] - 250).max() < 0.5
