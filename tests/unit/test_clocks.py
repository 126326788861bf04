"""A band's clock from when its packets arrive: followed on the edge, fitted anew in the cloud."""

from __future__ import annotations

import json
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from embridge_cloud import clockfit, session_cli
from embridge_cloud.pairing import pair
from embridge_cloud.recipe import PairingConfig
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.wallclock import discipline
from embridge_edge.capture import Chunker
from embridge_edge.source import Packet
from embridge_edge.timing import NOMINAL_SKEW, DeviceClock, Slew
from embridge_shared.hand import JOINTS
from embridge_shared.preprocess import FrontEndConfig, PreprocessConfig, WindowConfig
from embridge_shared.session import ClockRead, Participant, Session, SessionClosed, SessionOpened
from embridge_shared.signal import Arrivals, Chunk, Modality, SampleType, StreamSpec
from embridge_shared.wire import codec
from support.arrivals import Radio, Trace, simulate, steady, warming
from support.sessions import T0, session_of

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
    [(60.0, Radio(), 0.4), (-40.0, Radio(interval_s=0.030, errors=lambda _: 0.1), 0.5)],
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
    assert kept == pytest.approx(80, abs=20)
    assert clock.skew_ppm == pytest.approx(80, abs=25)
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


def test_a_chunker_says_which_gaps_are_estimates():
    spec = StreamSpec(name="emg", modality=Modality.EMG, channels=("a",), rate_hz=100.0)
    session = Session(
        id=UUID(int=1), edge="e", participant=Participant(id="p"), streams=(spec,), started_ns=0, host_ns=0
    )
    chunker, samples, chunks = Chunker(session, 0, 1.0), np.zeros((10, 1), np.int16), []
    placed = [(0, False), (10, True), (30, True), (40, False), (60, False), (70, True), (90, False), (120, True)]
    for first, inferred in placed:
        chunks += chunker.push(Packet(first, samples, first * 10_000_000, inferred))
    chunks += chunker.flush()
    found = [(c.first, c.gap_before, c.gap_inferred) for c in chunks]
    assert found == [(0, 0, False), (30, 10, True), (60, 10, False), (90, 10, False), (120, 20, True)]


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


def test_the_bound_is_polished_by_the_packets_just_above_it():
    rng = np.random.default_rng(0)
    x = np.arange(0, 600, 0.5)
    y = 0.01 + 50e-6 * x + np.abs(rng.normal(0, 4e-4, len(x))) + 0.2 * (rng.random(len(x)) < 0.3)
    y[100] = 0.01 + 50e-6 * x[100] - 5e-4
    knots = np.array([0.0, x[-1]])
    intercept, slope = clockfit.lower_line(x, y)
    height = clockfit.polished(x, y, knots, intercept + slope * knots)
    skew = (height[1] - height[0]) / x[-1]
    assert 5 * abs(skew - 50e-6) < abs(slope - 50e-6)
    assert 0.01 < height[0] < 0.011


@pytest.mark.parametrize("seed", [0, 1])
def test_the_refit_follows_a_crystal_that_warms_up_through_congestion_and_outage(seed):
    t = simulate(900.0, warming(30, 38, 300.0), CROWDED, rng=np.random.default_rng(seed))
    stamps = refit(t).stamps_ns(t.index)
    error = t.error_ms(stamps)
    assert error.std() < 0.1
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


def sealed_session(tmp_path, events=()):
    """Half a minute of EMG and pose, each on a clock of its own, stamped badly by the edge."""
    specs = (
        StreamSpec(name="emg", modality=Modality.EMG, channels=("a",), rate_hz=2000.0),
        StreamSpec(name="pose", modality=Modality.POSE, channels=JOINTS, rate_hz=100.0, dtype=SampleType.FLOAT32),
    )
    session = session_of(*specs)
    quiet = Radio(removed=0.0, errors=lambda _: 0.0)
    traces = [
        simulate(30.0, steady(60), quiet, rng=np.random.default_rng(0)),
        simulate(30.0, steady(-80), quiet, rng=np.random.default_rng(1), rate_hz=100.0, packet=1),
    ]
    chunks = []
    for ordinal, (t, spec) in enumerate(zip(traces, specs, strict=True)):
        n = int(t.index[-1]) + 1
        values = np.zeros((n, spec.n_channels), spec.dtype.numpy)
        values[:] = np.arange(n)[:, None] % 1000 * (1.0 if ordinal == 0 else 1e-3) + 0.1
        arrivals = Arrivals(t.index, t.host_ns + session.host_ns)
        chunks.append(Chunk(session.id, ordinal, 0, values, session.started_ns + 300_000_000, 0, arrivals))
    told = [SessionOpened(session=session), *events]
    told.append(SessionClosed(t_ns=T0 + 10**11, totals=tuple(c.n for c in chunks)))
    with HotStore(tmp_path / "hot.duckdb") as store:
        sealer = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0)
        sealer.prepare()
        rows = tuple(ChunkRow.of(c, codec.encode(c), T0) for c in chunks)
        store.commit(Batch(chunks=rows, events=tuple(EventRow(session.id, i, e, T0) for i, e in enumerate(told))))
        sealer.seal(session.id)
    return Catalogue(tmp_path / "sealed").get(session.id)


def test_pairing_goes_by_the_refitted_clock(tmp_path):
    sealed = sealed_session(tmp_path)
    samples = sealed.samples("emg")
    times = clockfit.times_ns(sealed, "emg", samples)
    assert (samples.t_ns[0] - T0) * 1e-6 == pytest.approx(300, abs=1)
    true = steady(60)(samples.index / 2000) * 1e9
    assert ((times - T0) - true).std() * 1e-6 < 0.1
    assert 0 < ((times - T0) - true).mean() * 1e-6 < 3
    paired = pair(sealed, PreprocessConfig(front_end=FrontEndConfig(), window=WindowConfig()), PairingConfig())
    [run] = paired.runs
    # The pose counts its own frames: by its value, when was the frame taken that stands beside each feature?
    assert run.pose is not None
    frame = np.rint((run.pose[:, 0] - 0.1) * 1e3)
    wanted = (run.t_ns - T0) * 1e-9 / (1 - 80e-6) * 100 % 1000
    off = (frame - wanted + 500) % 1000 - 500
    assert np.abs(off).max() < 1.5


def test_a_session_of_few_packets_keeps_the_edges_times(tmp_path):
    sealed = sealed_session(tmp_path)
    empty = Arrivals(np.zeros(0, np.int64), np.zeros(0, np.int64))
    samples = sealed.samples("emg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(sealed), "arrivals", lambda *_: empty)
        np.testing.assert_array_equal(clockfit.times_ns(sealed, "emg", samples), samples.t_ns)


# the wall clock


def reads(*offsets_s: float) -> list[ClockRead]:
    """Readings every 10 s from 10 s on, the wall clock so far ahead of its place at the start."""
    return [
        ClockRead(t_ns=T0 + round((10 * k + ahead) * 1e9), host_ns=10**9 + 10 * k * 10**9)
        for k, ahead in enumerate(offsets_s, 1)
    ]


def test_a_step_of_the_wall_clock_is_found_and_taken_back(tmp_path):
    sealed = sealed_session(tmp_path, reads(0.0, 3600.0, 3600.001, 3600.002))
    wall = discipline(sealed)
    assert wall.steps == ((10**9 + 20 * 10**9, 3600 * 10**9),)
    assert wall.stepped_ns == 3600 * 10**9
    assert wall.slew_ppm == pytest.approx(50, abs=1)
    at = np.array([10**9, 10**9 + 15 * 10**9, 10**9 + 40 * 10**9])
    np.testing.assert_allclose((wall.unix_ns(at) - T0) * 1e-9, [3600, 3615, 3640.002], atol=1e-6)


def test_a_session_without_readings_has_its_start(tmp_path):
    sealed = sealed_session(tmp_path)
    wall = discipline(sealed)
    assert (len(wall.host_ns), wall.steps, wall.slew_ppm) == (1, (), 0.0)
    assert wall.unix_ns(np.array([10**9 + 5]))[0] == T0 + 5


def test_the_clocks_of_a_session_are_shown(tmp_path):
    sealed = sealed_session(tmp_path, reads(0.0, -2.5))
    arguments = ["clock", str(sealed.id), "--dir", str(tmp_path / "sealed")]
    told = json.loads(CliRunner().invoke(session_cli.app, [*arguments, "--json"]).stdout)
    emg, pose = told["streams"]
    assert emg["skew_ppm"] == pytest.approx(60, abs=15)
    assert pose["skew_ppm"] == pytest.approx(-80, abs=100)
    assert emg["breaks"] == 0
    assert emg["edge_mean_ms"] == pytest.approx(300, abs=5)
    assert told["wall"]["steps"] == [{"at_s": pytest.approx(20), "by_s": pytest.approx(-2.5)}]
    shown = CliRunner().invoke(session_cli.app, arguments).stdout
    assert "ppm" in shown
    assert "stepped by -2.500 s before 20 s" in shown


def test_delays_are_told():
    t = trace(60.0)
    fitted = refit(t)
    assert fitted.delay_ms == pytest.approx(np.median(t.host_ns - fitted.stamps_ns(t.index)) * 1e-6)
    assert fitted.delay_ms > 2
