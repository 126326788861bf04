"""A band's clock from when its packets arrive: followed on the edge, fitted anew in the cloud."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_cloud import clockfit
from embridge_edge.capture import Chunker
from embridge_edge.source import Packet
from embridge_edge.timing import NOMINAL_SKEW, DeviceClock, Slew
from embridge_shared.session import Participant, Session
from embridge_shared.signal import Arrivals, Modality, StreamSpec
from support.arrivals import Radio, Trace, simulate, steady, warming

CROWDED = Radio(errors=lambda t: 0.25 if 100 <= t < 180 else 0.02, away=(220.0, 225.0))


def trace(seconds: float = 60.0, ppm: float = 60.0, radio: Radio | None = None, seed: int = 0) -> Trace:
    return simulate(seconds, steady(ppm), radio or Radio(), rng=np.random.default_rng(seed))


def follow(t: Trace, clock: DeviceClock | None = None) -> np.ndarray:
    clock = clock or DeviceClock(t.rate_hz, int(t.host_ns[0]))
    out = []
    for index, host_ns in zip(t.index.tolist(), t.host_ns.tolist(), strict=True):
        clock.observe(index, host_ns)
        out.append(clock.estimate_ns(index))
    return np.array(out)


def refit(t: Trace) -> clockfit.ClockFit:
    fitted = clockfit.fit(Arrivals(t.index, t.host_ns), t.rate_hz)
    assert fitted is not None
    return fitted


def broken(t: Trace, at_s: float, silence_s: float, step_s: float) -> tuple[Trace, int]:
    """The trace of a band that restarts: its count goes on with an error of `step_s`. The first packet after it too."""
    cut = int(np.searchsorted(t.index, at_s * t.rate_hz))
    back = int(np.searchsorted(t.index, (at_s + silence_s) * t.rate_hz))
    index = np.concatenate([t.index[:cut], t.index[back:] + round(step_s * t.rate_hz)])
    keep = np.r_[0:cut, back : len(t.index)]
    return Trace(t.rate_hz, t.packet, index, t.host_ns[keep], t.true_ns[keep]), cut


# on the edge


@pytest.mark.parametrize(
    ("ppm", "radio", "least_ms"),
    [(60.0, Radio(), 0.1), (-40.0, Radio(interval_s=0.030, errors=lambda _: 0.1), 0.5)],
    ids=["15 ms", "30 ms"],
)
def test_the_spread_of_the_edges_stamps_is_below_half_a_millisecond(ppm, radio, least_ms):
    t = trace(120.0, ppm, radio)
    error = t.error_ms(follow(t))
    assert error.std() < least_ms
    assert t.error_ms(t.host_ns).std() > 10 * error.std()
    assert 0 < error.mean() < 5


def test_an_early_packet_after_a_crowded_start_is_believed():
    t = trace(240.0, 30.0, Radio(errors=lambda s: 0.3 if s < 60 else 0.02))
    error = t.error_ms(follow(t), after_s=120.0)
    assert abs(error).max() < 4


def test_a_restart_moves_the_offset_at_once_and_keeps_the_skew():
    t, cut = broken(trace(90.0, 80.0), at_s=60.0, silence_s=1.0, step_s=0.3)
    clock = DeviceClock(t.rate_hz, int(t.host_ns[0]))
    errors = []
    for i, (index, host_ns) in enumerate(zip(t.index.tolist(), t.host_ns.tolist(), strict=True)):
        if i == cut:
            kept = clock.skew_ppm
        clock.observe(index, host_ns, broken=i == cut)
        errors.append((clock.estimate_ns(index) - t.true_ns[i]) * 1e-6)
    assert clock.breaks == 1
    assert kept == pytest.approx(80, abs=5)
    assert clock.skew_ppm == pytest.approx(80, abs=10)
    assert np.abs(errors[cut + 300 :]).max() < 5


def test_an_index_that_goes_back_is_a_restart():
    clock = DeviceClock(100.0, 0)
    for k in range(1000):
        clock.observe(k, k * 10_000_000)
    for k in range(100):
        clock.observe(k, 10_000_000_000 + k * 10_000_000)
    assert clock.breaks == 1
    assert clock.estimate_ns(100) == pytest.approx(11_000_000_000, abs=1_000_000)


def test_samples_missing_that_nobody_counted_are_found_out():
    clock = DeviceClock(100.0, 0)
    for k in range(1000):
        clock.observe(k, k * 10_000_000)
    for k in range(1000, 6000):
        clock.observe(k, (k + 500) * 10_000_000)
    assert clock.breaks == 1
    assert clock.estimate_ns(6000) == pytest.approx(65_000_000_000, abs=1_000_000)


def test_a_long_queue_is_not_taken_for_missing_samples():
    clock = DeviceClock(100.0, 0)
    for k in range(10_000):
        late = 0.9 if 3000 <= k < 9000 else 0.0
        clock.observe(k, round((k / 100 + late) * 1e9))
    assert clock.breaks == 0
    assert clock.estimate_ns(10_000) == pytest.approx(100e9, abs=2e6)


def test_a_tracker_with_a_round_rate_is_followed():
    clock = DeviceClock(60.0, 0, max_skew=NOMINAL_SKEW)
    rng = np.random.default_rng(0)
    for k in range(60 * 120):
        clock.observe(k, round((k / 59.94 + rng.exponential(0.004)) * 1e9))
    assert clock.skew_ppm == pytest.approx(1001, abs=30)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 3000), min_size=2, max_size=40))
def test_stamps_rise_whatever_comes(seed, steps):
    rng = np.random.default_rng(seed)
    clock, index, host, stamps = DeviceClock(1000.0, 0), 0, 0.0, []
    reader = Slew(clock)
    for n in steps:
        index += n
        host = max(host, index / 1000 + rng.exponential(0.2) + rng.choice([0.0, 2.0]))
        clock.observe(index, round(host * 1e9), broken=bool(rng.random() < 0.1))
        stamps.append(reader.stamp_ns(index))
    assert (np.diff(stamps) > 0).all()


def test_readers_of_one_clock_do_not_disturb_each_other():
    t = trace(20.0)
    clock = DeviceClock(t.rate_hz, int(t.host_ns[0]))
    one, two = Slew(clock), Slew(clock)
    for i, (index, host_ns) in enumerate(zip(t.index.tolist(), t.host_ns.tolist(), strict=True)):
        clock.observe(index, host_ns)
        if i % 50 == 0:
            one.stamp_ns(index)
    last = int(t.index[-1])
    assert two.stamp_ns(last) == clock.estimate_ns(last)


def test_a_chunker_breaks_its_clock_where_the_band_restarted():
    spec = StreamSpec(name="emg", modality=Modality.EMG, channels=("a",), rate_hz=100.0)
    session = Session(
        id=UUID(int=1), edge="e", participant=Participant(id="p"), streams=(spec,), started_ns=0, host_ns=0
    )
    chunker, samples = Chunker(session, 0, 1.0), np.zeros((10, 1), np.int16)
    for k in range(0, 1000, 10):
        chunker.push(Packet(k, samples, (k + 9) * 10_000_000))
    chunker.push(Packet(1100, samples, 11_090_000_000))
    assert chunker.clock.breaks == 0
    chunker.push(Packet(1200, samples, 12_090_000_000, inferred=True))
    assert chunker.clock.breaks == 1


# in the cloud


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.floats(0.0, 3.0)), min_size=3, max_size=60))
def test_the_line_lies_under_all_points_and_no_line_through_two_of_them_is_better(points):
    x = np.cumsum([dx for dx, _ in points])
    y = np.array([v for _, v in points])
    a, b = clockfit.lower_line(x, y)
    assert (y - a - b * x > -1e-9).all()
    ours = (y - a - b * x).sum()
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            slope = (y[j] - y[i]) / (x[j] - x[i])
            over = y - y[i] - slope * (x - x[i])
            assert over.min() < -1e-9 or over.sum() > ours - 1e-6


def test_the_polyline_lies_under_all_points_and_touches_some():
    rng = np.random.default_rng(0)
    x = np.arange(0, 900, 0.5)
    y = 1e-9 * x**2 + rng.exponential(5e-3, len(x))
    knots = np.linspace(x[0], x[-1], 6)
    height = clockfit.lower_polyline(x, y, knots)
    over = y - np.interp(x, knots, height)
    assert over.min() > -1e-7
    assert (over < 1e-6).sum() >= 4


@pytest.mark.parametrize("seed", [0, 1])
def test_the_refit_follows_a_crystal_that_warms_up_through_congestion_and_outage(seed):
    t = simulate(900.0, warming(30, 38, 300.0), CROWDED, rng=np.random.default_rng(seed))
    stamps = refit(t).stamps_ns(t.index)
    error = t.error_ms(stamps)
    assert error.std() < 0.25
    assert 0 < error.mean() < 3
    assert (np.diff(stamps) >= 0).all()
    assert len(refit(t).pieces) == 1


def test_the_refit_is_broken_where_the_count_was():
    t, cut = broken(trace(200.0, -50.0), at_s=120.0, silence_s=0.8, step_s=-0.012)
    fitted = refit(t)
    assert len(fitted.pieces) == 2
    assert fitted.index[fitted.pieces[1][0]] == t.index[cut]
    assert abs(t.error_ms(fitted.stamps_ns(t.index)) - 1.5).max() < 1.5


def test_a_short_piece_takes_its_skew_from_the_long_one():
    t, _ = broken(trace(200.0, 150.0), at_s=180.0, silence_s=0.8, step_s=0.05)
    fitted = refit(t)
    a, b = fitted.pieces[1]
    slope = (fitted.host_ns[b] - fitted.host_ns[a]) / (fitted.index[b] - fitted.index[a]) * t.rate_hz
    assert slope * 1e-9 == pytest.approx(1 + 150e-6, abs=5e-6)


@pytest.mark.parametrize("n", [0, 1, 10])
def test_too_little_is_not_fitted(n):
    index = np.arange(n, dtype=np.int64) * 7
    assert clockfit.fit(Arrivals(index, index * 500_000), 2000.0) is None


def test_delays_are_told():
    t = trace(60.0)
    fitted = refit(t)
    assert fitted.delay_ms == pytest.approx(np.median(t.host_ns - fitted.stamps_ns(t.index)) * 1e-6)
    assert fitted.delay_ms > 2
