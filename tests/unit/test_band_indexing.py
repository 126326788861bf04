"""Indices from counters: exact where the counter allows it, estimated and said so where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.bands.indexing import Counted, Indexer
from embridge_edge.bands.mudra import ClockCount

S = 1_000_000_000


class Device:
    """A band that takes samples at its own pace and loses packets as told; the true index of each is kept."""

    def __init__(self, rate_hz, n, modulus, *, drift=0.0, counter=0):
        self.rate_hz, self.n, self.modulus = rate_hz, n, modulus
        self.true_hz = rate_hz * (1 + drift)
        self.index, self.counter, self.seq = 0, counter, 0

    def packet(self, delay_s=0.005, *, lose=False):
        """(counted, host_ns, true first index) of the next packet; None when it is lost."""
        first = self.index
        self.index += self.n
        samples = np.arange(first, self.index).reshape(-1, 1)
        value = None if self.modulus == 0 else (first + self.counter) % self.modulus
        seq, self.seq = self.seq, (self.seq + 1) & 0xFFFF
        host_ns = 100 * S + round((self.index / self.true_hz + delay_s) * S)
        return None if lose else (Counted(samples, value, seq), host_ns, first)

    def skip(self, seconds):
        packets = round(seconds * self.rate_hz / self.n)
        self.index += packets * self.n
        self.seq = (self.seq + packets) & 0xFFFF


def feed(indexer, device, packets, epoch=1):
    placed = []
    for packet in packets:
        if packet is not None:
            placed += indexer.push(packet[0], packet[1], epoch)
    return placed


def true(placed):
    """Whether every packet lies where its samples say it was taken."""
    return [p.first for p in placed] == [int(p.samples[0, 0]) for p in placed]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(2000, 7, 1 << 32), (1000, 16, 4096), (200, 2, 200), (500, 10, 256), (834, 18, 1 << 32)]),
    st.lists(st.integers(0, 99), min_size=150, max_size=150),
    st.integers(0, 2**16),
    st.floats(-300e-6, 300e-6),
    st.integers(0, 2**32 - 1),
)
def test_scattered_loss_is_found_exactly_whatever_the_delay(kind, draws, seed, drift, counter):
    rate_hz, n, modulus = kind
    rng = np.random.default_rng(seed)
    device = Device(rate_hz, n, modulus, drift=drift, counter=counter)
    late, packets = 0.0, []
    for draw in draws:
        # Arrivals keep their order, as on a link layer; loss is up to 8 % of the packets.
        late = max(late - n / rate_hz, 0.004 + float(rng.exponential(0.01)))
        packets.append(device.packet(late, lose=draw < 8 and len(packets) > 10))
    indexer = Indexer(rate_hz, modulus)
    placed = feed(indexer, device, packets)
    offset = int(placed[0].samples[0, 0])
    assert [p.first for p in placed] == [int(p.samples[0, 0]) - offset for p in placed]
    assert not any(p.inferred for p in placed)
    assert indexer.lost == placed[-1].first + n - sum(len(p.samples) for p in placed)


@pytest.mark.parametrize(("rate_hz", "n", "modulus"), [(1000, 16, 4096), (200, 2, 200), (500, 10, 256)])
@pytest.mark.parametrize("seconds", [0.3, 1.7, 6.0, 20.0])
def test_an_outage_longer_than_a_turn_of_the_counter_is_measured_by_time(rate_hz, n, modulus, seconds):
    device = Device(rate_hz, n, modulus, drift=40e-6)
    indexer = Indexer(rate_hz, modulus)
    before = [device.packet() for _ in range(60)]
    device.skip(seconds)
    placed = feed(indexer, device, [*before, *(device.packet() for _ in range(60))])
    assert true(placed)
    assert placed[60].inferred == (seconds > modulus / rate_hz)


def test_a_stall_without_loss_is_no_gap():
    device = Device(1000, 16, 4096)
    indexer = Indexer(1000, 4096)
    placed = feed(indexer, device, [device.packet(0.005 + 0.9 * (20 <= i < 60)) for i in range(20)])
    late = [device.packet() for _ in range(100)]
    placed += [p for c, ns, _ in late for p in indexer.push(c, max(ns, late[60][1] + 1000 * ns // 10**12), 1)]
    assert true(placed)
    assert indexer.lost == 0


@pytest.mark.parametrize("by", [-1000, -7, 5_000_000])
def test_a_counter_that_jumps_while_no_packet_is_missing_is_no_gap(by):
    device = Device(2000, 7, 1 << 32, counter=50_000)
    indexer = Indexer(2000, 1 << 32)
    before = [device.packet() for _ in range(50)]
    device.counter += by
    placed = feed(indexer, device, [*before, *(device.packet() for _ in range(50))])
    assert true(placed)
    assert (indexer.jumps, indexer.lost, indexer.strays) == (1, 0, 0)


def without_seq(packet):
    return None if packet is None else (Counted(packet[0].samples, packet[0].value), *packet[1:])


@pytest.mark.parametrize("lost_s", [0.0, 0.5])
def test_a_counter_that_begins_anew_is_placed_by_time_and_said_to_be(lost_s):
    device = Device(2000, 7, 1 << 32, counter=50_000)
    indexer = Indexer(2000, 1 << 32)
    before = [without_seq(device.packet()) for _ in range(50)]
    device.skip(lost_s)
    device.counter = -device.index
    placed = feed(indexer, device, [*before, *(without_seq(device.packet()) for _ in range(50))])
    assert [len(p.samples) for p in placed] == [7] * 100
    assert abs(placed[50].first - placed[50].samples[0, 0]) <= 2
    assert [p.inferred for p in placed[49:52]] == [False, True, False]
    assert indexer.jumps == 1


def test_one_packet_with_a_mad_counter_is_dropped_and_the_gap_is_just_that():
    device = Device(2000, 7, 1 << 32)
    indexer = Indexer(2000, 1 << 32)
    packets = [device.packet() for _ in range(60)]
    counted, ns, _ = packets[30]
    packets[30] = (Counted(counted.samples, (counted.value - 9999) % (1 << 32), 12345), ns, 0)
    placed = feed(indexer, device, packets)
    assert true(placed)
    assert (len(placed), indexer.strays, indexer.lost) == (59, 1, 7)


@pytest.mark.parametrize("away_s", [0.6, 30.0])
def test_a_large_counter_says_exactly_what_a_dropped_link_cost(away_s):
    device = Device(2000, 7, 1 << 32, counter=2**32 - 40, drift=90e-6)
    indexer = Indexer(2000, 1 << 32)
    placed = feed(indexer, device, [device.packet() for _ in range(300)], epoch=1)
    device.skip(away_s)
    placed += feed(indexer, device, [device.packet(0.02) for _ in range(50)], epoch=2)
    assert true(placed)
    assert not placed[300].inferred
    assert indexer.lost == round(away_s * 2000 / 7) * 7


@pytest.mark.parametrize("modulus", [4096, 1 << 32, 0, 8])
def test_a_band_switched_off_and_on_is_placed_by_time(modulus):
    device = Device(1000, 2, modulus, counter=777)
    indexer = Indexer(1000, modulus)
    placed = feed(indexer, device, [device.packet() for _ in range(2500)], epoch=1)
    device.skip(3.0)
    device.counter = -device.index
    placed += feed(indexer, device, [device.packet(0.006) for _ in range(50)], epoch=2)
    assert len(placed) == 2550
    assert abs(placed[2500].first - placed[2500].samples[0, 0]) <= 3
    assert placed[2500].inferred
    assert not any(p.inferred for p in placed[2501:])


def test_a_counter_far_behind_after_a_reconnect_is_one_that_began_anew():
    device = Device(2000, 7, 1 << 32)
    indexer = Indexer(2000, 1 << 32)
    placed = feed(indexer, device, [device.packet() for _ in range(100)], epoch=1)
    device.skip(10.0)
    device.counter = 4000 - device.index  # more than before, but much less than ten seconds on
    placed += feed(indexer, device, [device.packet(0.006) for _ in range(50)], epoch=2)
    assert abs(placed[100].first - placed[100].samples[0, 0]) <= 4
    assert placed[100].inferred


def test_a_silence_longer_than_a_long_turn_is_measured_in_turns():
    device = Device(1000, 10, 12_000)
    indexer = Indexer(1000, 12_000)
    placed = feed(indexer, device, [device.packet() for _ in range(100)])
    device.skip(40.0)
    placed += feed(indexer, device, [device.packet() for _ in range(100)])
    assert true(placed)
    assert placed[100].inferred


def test_a_lag_that_goes_away_after_a_silence_is_no_loss():
    device = Device(200, 2, 8)
    indexer = rotating(device)
    placed = feed(indexer, device, [device.packet() for _ in range(200)])
    device.skip(1.0)
    late = [0.005] + [0.065] * 25 + [0.005] * 100
    placed += feed(indexer, device, [device.packet(delay) for delay in late])
    assert true(placed)


def rotating(device):
    return Indexer(200, 8, exact=False)


def test_rotation_shows_single_losses_and_flags_them():
    device = Device(200, 2, 8)
    indexer = rotating(device)
    placed = feed(indexer, device, [device.packet(lose=i in (30, 31, 77)) for i in range(200)])
    assert true(placed)
    assert [p.inferred for p in placed].count(True) == 2
    assert indexer.inferred == indexer.lost == 6


def test_a_whole_rotation_lost_shows_as_a_lag_that_stays():
    device = Device(200, 2, 8, drift=100e-6)
    indexer = rotating(device)
    placed = feed(indexer, device, [device.packet(lose=300 <= i < 304) for i in range(700)])
    assert placed[-1].first == placed[-1].samples[0, 0]
    assert sum(p.inferred for p in placed) == 1
    late = next(p for p in placed if p.inferred)
    assert 300 * 2 <= late.first <= (300 + 120) * 2


def test_jitter_is_not_taken_for_loss_where_nothing_counts():
    rng = np.random.default_rng(3)
    device = Device(200, 2, 8, drift=-200e-6)
    indexer, late, packets = rotating(device), 0.0, []
    for i in range(4000):
        burst = 0.12 if i % 500 == 250 else 0.0
        late = max(late - 0.01, 0.005 + float(rng.exponential(0.006)) + burst)
        packets.append(device.packet(late))
    placed = feed(indexer, device, packets)
    assert true(placed)
    assert indexer.lost == 0


def test_a_silence_where_nothing_counts_is_measured_by_time():
    device = Device(50, 1, 0)
    indexer = Indexer(50, 0, exact=False)
    placed = feed(indexer, device, [device.packet() for _ in range(100)])
    device.skip(4.0)
    placed += feed(indexer, device, [device.packet() for _ in range(100)])
    assert true(placed)
    assert placed[100].inferred


def test_a_session_that_goes_on_starts_where_it_is_told():
    device = Device(2000, 7, 1 << 32, counter=5)
    indexer = Indexer(2000, 1 << 32, start=12_000)
    first, second = feed(indexer, device, [device.packet(), device.packet()])
    assert (first.first, first.inferred) == (12_000, True)
    assert (second.first, second.inferred) == (12_007, False)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.995, 1.005), st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_a_device_clock_counts_samples_over_gaps(pace, gaps, start):
    rate_hz, n = 834.0, 18
    period_us = 1e6 / (rate_hz * pace) * n
    clock, now, true_count = ClockCount(rate_hz), float(start), 0
    assert clock.first(round(now) % 2**32, n) == 0
    for gap in [1] * 400 + [step for long in gaps for step in (long, 1, 1)]:
        now += gap * period_us
        true_count += gap * n
        assert clock.first(round(now) % 2**32, n) == true_count
