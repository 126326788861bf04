"""The newest samples of a stream."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_shared.errors import DataError
from embridge_shared.quality.grades import Grade
from embridge_shared.signal import Modality, SampleType, StreamSpec
from embridge_shared.wire.messages import StreamQuality
from embridge_tui.ring import Lane, SignalRing

RATE_HZ = 1000.0


def spec(channels: int = 2, *, scale: float = 1.0) -> StreamSpec:
    names = tuple(f"ch{i:02d}" for i in range(channels))
    return StreamSpec(name="emg", modality=Modality.EMG, channels=names, rate_hz=RATE_HZ, unit="µV", scale=scale)


def signal(n: int, channels: int = 2, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, (n, channels)).astype(np.int16)


def filled(n: int, kept_s: float = 1.0, packet: int = 10) -> SignalRing:
    ring, samples = SignalRing(spec(), kept_s), signal(n)
    for first in range(0, n, packet):
        ring.push(first, samples[first : first + packet])
    return ring


def test_an_envelope_holds_the_extremes_of_its_bins():
    samples = signal(400)
    ring = SignalRing(spec(scale=0.5))
    ring.push(0, samples)
    found = ring.envelope(30, 10, 400)
    assert found.first == 100
    # What is kept is that without its baseline: nearly the same for noise about zero.
    bins = 0.5 * samples[100:].reshape(30, 10, 2)
    assert np.abs(found.low.T - bins.min(1)).max() < 40
    assert np.corrcoef(found.high[0], bins.max(1)[:, 0])[0, 1] > 0.99


def test_an_offset_of_the_device_is_not_shown():
    ring = SignalRing(spec())
    ring.push(0, np.full((3000, 2), 12_000, np.int16))
    found = ring.envelope(100, 10, 3000)
    assert np.abs(found.high).max() < 1e-2


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), max_size=30), st.integers(1, 40))
def test_however_samples_come_an_envelope_is_that_of_those_kept(pushes, length):
    ring = SignalRing(spec(1), 0.5)
    truth = np.full(20_000, np.nan)
    at = 0
    for jump, n in pushes:
        at += jump
        ring.push(at, np.arange(at, at + n, dtype=np.int32)[:, None])
        truth[at : at + n] = 1.0
        at += n
    end = at if pushes else 0
    assert ring.end == end
    found = ring.envelope(8, length, end)
    stop = end // length * length
    for column in range(8):
        first = stop - (8 - column) * length
        inside = truth[max(first, 0) : first + length]
        whole = first >= 0 and len(inside) == length and not np.isnan(inside).any() and first >= end - 500
        assert np.isfinite(found.low[0, column]) == whole
    assert found.first == stop - 8 * length


def test_what_scrolls_by_does_not_change():
    ring, samples = SignalRing(spec()), signal(3000)
    ring.push(0, samples[:1000])
    before = ring.envelope(50, 13, ring.end)
    for first in range(1000, 3000, 7):
        ring.push(first, samples[first : first + 7])
        now = ring.envelope(50, 13, ring.end)
        moved, rest = divmod(now.first - before.first, 13)
        assert rest == 0
        if 0 <= moved < 50:
            assert np.array_equal(now.low[:, : 50 - moved], before.low[:, moved:])


def test_packets_make_no_difference():
    a, b = filled(2000, packet=3), filled(2000, packet=500)
    one, other = a.envelope(40, 20, 2000), b.envelope(40, 20, 2000)
    assert np.allclose(one.low, other.low, atol=1e-2)


def test_what_came_already_is_left_as_it_is():
    ring = filled(500)
    before = ring.envelope(40, 10, 500)
    ring.push(400, np.zeros((60, 2), np.int16))
    assert ring.end == 500
    ring.push(490, np.zeros((20, 2), np.int16))
    assert ring.end == 510
    assert np.array_equal(ring.envelope(40, 10, 500).low, before.low)


def test_a_ring_may_begin_anywhere():
    ring = SignalRing(spec())
    ring.push(1_000_000, signal(100))
    found = ring.envelope(20, 10, ring.end)
    assert np.isnan(found.low[:, :10]).all()
    assert np.isfinite(found.low[:, 10:]).all()


def test_before_the_first_sample_there_is_nothing():
    assert np.isnan(SignalRing(spec()).envelope(5, 10, 0).low).all()


def test_a_snapshot_stays():
    ring = filled(500)
    held = ring.snapshot()
    before = ring.envelope(40, 10, 500)
    ring.push(500, signal(5000))
    assert held.end == 500
    assert np.array_equal(held.envelope(40, 10, 500).low, before.low)


def test_a_reader_beside_a_writer_sees_whole_samples_or_none():
    ring, n = SignalRing(spec(1), 0.2), 20
    stop = threading.Event()

    def packet(number: int) -> np.ndarray:
        # As many packets as the ring holds later there stands another height.
        height = 8000 + 1000 * (number % 16)
        return np.array([[-height], [height]] * (n // 2), np.int16)

    ring.push(0, np.concatenate([packet(k) for k in range(1000)]))

    def write() -> None:
        while not stop.is_set():
            ring.push(ring.end, packet(ring.end // n))

    writer = threading.Thread(target=write)
    writer.start()
    wrong, seen, reads = 0, 0, 0
    try:
        while reads < 3000 or not seen:
            found = ring.envelope(200 // n, n, ring.end)
            number = found.first // n + np.arange(200 // n)
            whole = np.isfinite(found.high[0])
            off = np.abs(found.high[0] - (8000 + 1000 * (number % 16)))[whole]
            wrong += int((off > 400).sum())
            reads, seen = reads + 1, seen + int(whole.sum())
    finally:
        stop.set()
        writer.join()
    assert not wrong


def test_quality_is_told_with_its_reason():
    ring = SignalRing(spec())
    assert ring.quality() == (Lane(), Lane())
    ring.judged(StreamQuality(stream="emg", grades=(Grade.GOOD, Grade.BAD), told=("ch01: flat. Press the band.",)))
    assert ring.quality() == (Lane(Grade.GOOD), Lane(Grade.BAD, "flat. Press the band."))


def test_what_is_of_another_stream_is_refused():
    ring = SignalRing(spec())
    with pytest.raises(DataError):
        ring.push(0, signal(10, 3))
    with pytest.raises(DataError):
        ring.mark([Lane()])


@pytest.mark.parametrize("dtype", SampleType)
def test_every_type_of_sample_is_taken(dtype):
    ring = SignalRing(spec())
    ring.push(0, signal(100).astype(dtype.numpy))
    assert np.isfinite(ring.envelope(10, 10, 100).low).all()
