"""Quality: every fault is told by its own metric, nothing is told of sound signals."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_shared.errors import DataError
from embridge_shared.quality import ADVICE, LIMITS, TITLES, Grade, Judge, Metric, Profile, Summary, Windows, assess
from embridge_shared.quality import judge as judging
from embridge_shared.quality.activity import Activity
from embridge_shared.quality.levels import clipping, held, longest_run, railed, slope
from embridge_shared.quality.profile import SignalKind
from embridge_shared.quality.spectra import Spectrum, likeness, motion_db, shape
from embridge_shared.quality.windows import Window
from embridge_shared.signal import Modality, SampleType, StreamSpec
from support.signal_faults import CHANNEL, FAULTS, OTHER, SPEC, Site, bad, forearm, lossy, spoil, verdicts

SPAN = 32767.0


def spec(
    channels: int = 8, rate_hz: float = 200.0, device: str = "", dtype: SampleType = SampleType.INT16
) -> StreamSpec:
    names = tuple(f"e{i}" for i in range(channels))
    return StreamSpec(name="emg", modality=Modality.EMG, channels=names, rate_hz=rate_hz, dtype=dtype, device=device)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return forearm(3)


# every fault, and the metric that tells it

NEUTRAL: dict[Metric, tuple[Any, str, Callable[..., Any]]] = {
    Metric.FLAT: (judging.levels, "longest_run", lambda x: np.ones(x.shape[1], np.int64)),
    Metric.DROPOUT: (judging.levels, "held", lambda x, least: np.zeros(x.shape[1])),
    Metric.CLIPPING: (judging.levels, "clipping", lambda x, rails: np.zeros(x.shape[1])),
    Metric.RAILED: (judging.levels, "railed", lambda x, rails: np.zeros(x.shape[1])),
    Metric.DRIFT: (judging.levels, "slope", lambda x, rate: np.zeros(x.shape[1])),
    Metric.MAINS: (Spectrum, "mains", lambda s, hz: (np.zeros(s.power.shape[1]), s.power[s.band].sum(axis=0))),
    Metric.MOTION: (judging.spectra, "motion_db", lambda hz, power, c: np.full(power.shape[1], 99.0)),
    Metric.SHAPE: (judging.spectra, "shape", lambda hz, power: np.ones(power.shape[1])),
    Metric.BRIDGE: (judging.spectra, "likeness", lambda s, hz: np.zeros((s.power.shape[1],) * 2)),
    Metric.RESPONSE: (Activity, "response_db", lambda a: np.full(len(a.rest), 30.0)),
    Metric.ODD: (Judge, "_odd", lambda j, power, alive: np.zeros(len(power))),
}


def found(x: np.ndarray) -> list[Any]:
    return verdicts(SPEC, [(0, x)])


@pytest.mark.parametrize("seed", [3, 4])
def test_a_sound_forearm_is_nowhere_bad(seed):
    seen = found(forearm(seed))
    assert len(seen) > 15
    assert {m for v in seen for c in range(16) for m in v.faults(c, Grade.BAD)} == set()
    assert set(seen[-1].values) == set(Metric)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_told_by_its_metric_on_its_channel_alone(sound, name):
    metric = FAULTS[name][1]
    seen = found(spoil(sound, name, 2000.0, SPAN))
    assert metric in bad(seen, CHANNEL)
    touched = {CHANNEL, OTHER} if name == "bridged" else {CHANNEL}
    assert {c for c in range(16) if bad(seen, c)} == touched
    worst = next(v for v in seen if metric in v.faults(CHANNEL, Grade.BAD))
    assert worst.grade(CHANNEL) is Grade.BAD
    assert worst.reason(metric, CHANNEL)
    assert worst.advice(CHANNEL) in ADVICE.values()


@pytest.mark.parametrize("name", [n for n, (_, m) in FAULTS.items() if m in NEUTRAL])
def test_a_metric_that_is_blind_tells_nothing(sound, name, monkeypatch):
    metric = FAULTS[name][1]
    target, attribute, blind = NEUTRAL[metric]
    monkeypatch.setattr(target, attribute, blind)
    assert metric not in bad(found(spoil(sound, name, 2000.0, SPAN)), CHANNEL)


def test_noise_at_rest_is_told_from_rest_alone(sound, monkeypatch):
    noisy = spoil(sound, "noisy", 2000.0, SPAN)
    monkeypatch.setattr(Activity, "rest", property(lambda a: np.ones(16), lambda a, v: None), raising=False)
    assert Metric.FLOOR not in bad(found(noisy), CHANNEL)


def test_loss_is_told_of_every_channel(sound, monkeypatch):
    seen = verdicts(SPEC, list(lossy(sound, 2000.0)))
    assert all(Metric.LOSS in bad(seen, c) for c in range(16))
    monkeypatch.setattr(Window, "loss", property(lambda w: 0.0))
    assert not bad(verdicts(SPEC, list(lossy(sound, 2000.0))), 0)


def test_a_weak_contraction_is_told_of_the_band(monkeypatch):
    sound = forearm(3, repetitions=4)
    noise = np.random.default_rng(1).normal(0, 1.2, sound.shape) * sound.std(axis=0)
    weak = np.round(sound + noise)
    seen = found(weak)
    assert all(Metric.SNR in bad(seen, c) for c in range(16))
    monkeypatch.setattr(Activity, "snr_db", lambda a: np.full(16, 30.0))
    assert Metric.SNR not in bad(found(weak), 0)


# the formulas

T = np.arange(4000) / 2000.0


def spectrum(x: np.ndarray, rate_hz: float = 2000.0) -> Spectrum:
    out = Spectrum.of(x, rate_hz, (20.0, 0.45 * rate_hz if rate_hz < 1000 else 450.0))
    assert out is not None
    return out


def test_the_spectrum_sums_to_the_variance():
    x = np.random.default_rng(0).normal(0, 3.0, (20000, 2))
    assert spectrum(x).power.sum(axis=0) == pytest.approx([9.0, 9.0], rel=0.05)
    assert Spectrum.of(x[:1999], 2000.0, (20.0, 450.0)) is None


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_hum_is_measured_in_the_emg_it_drowns(mains_hz):
    noise = np.random.default_rng(1).normal(0, 1.0, (20000, 1))
    t = np.arange(20000) / 2000.0
    wave = 2.0 * np.sin(2 * np.pi * mains_hz * t) + 1.0 * np.sin(6 * np.pi * mains_hz * t)
    hum, emg = spectrum(noise + wave[:, None]).mains(mains_hz)
    assert hum[0] == pytest.approx(2.5, rel=0.05)
    assert emg[0] == pytest.approx(431 / 1000, rel=0.06)
    assert spectrum(noise).mains(mains_hz)[0][0] < 0.01


def test_motion_is_what_muscle_does_not_explain():
    rng = np.random.default_rng(2)
    hz = np.arange(1001.0)
    muscle = np.where(hz < 100, hz / 100, np.exp(-(hz - 100) / 60))[:, None] * rng.uniform(0.95, 1.05, (1001, 1))
    assert motion_db(hz, muscle, np.zeros(1))[0] > 20
    moved = muscle.copy()
    moved[3] += muscle.sum() / 3
    assert motion_db(hz, moved, np.zeros(1))[0] == pytest.approx(10 * np.log10(4), abs=0.2)
    assert motion_db(hz, moved, 10 * muscle.sum(axis=0))[0] == pytest.approx(10 * np.log10(31), abs=0.2)


def test_shape_is_the_ratio_of_moments():
    hz = np.arange(0.0, 1001.0)
    assert shape(hz, np.ones((1001, 1)))[0] == pytest.approx(2 / np.sqrt(3), rel=1e-3)
    line = np.zeros((1001, 1))
    line[200] = 1.0
    assert shape(hz, line)[0] == pytest.approx(1.0)


def test_likeness_ignores_hum_and_drift():
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (4000, 3))
    x[:, 1] = -x[:, 0]
    x += 30 * np.sin(2 * np.pi * 50 * T)[:, None] + 100 * T[:, None]
    found = likeness(spectrum(x), 50.0)
    assert found[0, 1] == pytest.approx(-1, abs=1e-3)
    assert abs(found[0, 2]) < 0.15
    assert np.diag(found).tolist() == [0, 0, 0]


def test_levels():
    x = np.array([[0, 5], [0, 5], [3, 5], [3, 6], [3, 7], [1, 7]], float)
    assert longest_run(x).tolist() == [3, 3]
    assert held(x, 3).tolist() == [0.5, 0.5]
    assert held(x, 4).tolist() == [0, 0]
    assert slope(np.stack([T, 1 - 2 * T], axis=1), 2000.0) == pytest.approx([1.0, -2.0])
    assert railed(np.array([[-64.0, 127.0], [-64.0, 127.0]]), (-128.0, 127.0)).tolist() == [0.5, 1.0]
    assert clipping(np.array([[127.0], [124.0], [-128.0], [0.0]]), (-128.0, 127.0)).tolist() == [0.5]


def test_unknown_rails_are_found_by_their_plateaus():
    wave = np.round(1000 * np.sin(2 * np.pi * 3 * T))[:, None]
    flat = np.clip(wave, -900, 900)
    whole = clipping(wave + np.random.default_rng(0).integers(-20, 20, wave.shape), None)[0]
    assert whole == 0
    expected = (np.abs(wave) >= 900).mean()
    assert clipping(flat, None)[0] == pytest.approx(expected, abs=0.01)
    assert clipping(np.clip(wave / 100, -9, 9).round(), None)[0] == 0, "a coarse converter has plateaus by nature"


# windows


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=30), st.integers(0, 500))
def test_windows_do_not_depend_on_packets(sizes, first):
    x = np.arange(sum(sizes) * 2, dtype=np.int16).reshape(-1, 2)
    stream = spec(2)
    at, cut = 0, Windows(stream, first)
    pieces = []
    for n in sizes:
        pieces += cut.push(first + at, x[at : at + n])
        at += n
    whole = Windows(stream, first).push(first, x)
    assert [(w.first, w.loss, w.samples.tolist()) for w in pieces] == [
        (w.first, w.loss, w.samples.tolist()) for w in whole
    ]
    assert [w.first - first for w in whole] == list(range(0, len(x) - 399, 200))


def test_a_window_with_a_gap_holds_its_longest_stretch():
    x = np.arange(3000, dtype=np.int16)[:, None]
    windows = Windows(spec(1))
    (first,) = windows.push(0, x[:500])
    assert (first.loss, len(first.samples)) == (0.0, 400)
    (second,) = windows.push(520, x[520:700])
    assert (second.first, second.samples[0, 0], len(second.samples)) == (200, 200, 300)
    assert second.loss == pytest.approx(20 / 600)


def test_a_long_gap_is_told_briefly():
    x = np.zeros((1000, 1), np.int16)
    windows = Windows(spec(1))
    windows.push(0, x)
    after = windows.push(200_000, x)
    assert len(after) < 12
    assert [w.loss for w in after][:2] == pytest.approx([0.2, 0.4])
    assert after[-1].loss == 0
    assert windows.push(200_100, x[:50]) == [], "what came already is dropped"


def test_a_resumed_stream_keeps_the_grid():
    windows = Windows(spec(1), 330, grid=0)
    assert [w.first for w in windows.push(330, np.zeros((1000, 1)))] == [400, 600, 800]


def test_windows_want_the_channels_they_were_told():
    with pytest.raises(DataError):
        Windows(spec(3)).push(0, np.zeros((5, 2)))


# kinds of signal


def test_what_makes_no_sense_is_not_computed_and_says_so():
    myo = Profile.of(spec(8, 200.0, "myo"))
    assert (myo.kind, myo.rails) == (SignalKind.RAW, (-128.0, 127.0))
    assert set(myo.skipped) == {Metric.SHAPE, Metric.FLOOR}
    envelope = Profile.of(spec(10, 100.0, "ninapro-envelope", SampleType.FLOAT32))
    assert set(Metric) - set(envelope.skipped) == {Metric.LOSS, Metric.CLIPPING, Metric.FLAT}
    slow = Profile.of(spec(4, 120.0, "x"))
    assert Metric.MAINS in slow.skipped
    assert {Metric.BRIDGE, Metric.ODD, Metric.RESPONSE} <= set(Profile.of(spec(1, 500.0)).skipped)
    assert Profile.of(SPEC).skipped == {}
    for profile in (myo, envelope, slow):
        assert all(profile.skipped.values())


def test_verdicts_hold_only_what_is_computed():
    rng = np.random.default_rng(0)
    for stream in (spec(8, 200.0, "myo"), spec(10, 100.0, "ninapro-envelope", SampleType.FLOAT32), spec(4, 120.0)):
        x = np.abs(rng.normal(0, 20, (round(20 * stream.rate_hz), stream.n_channels))).round()
        for verdict in assess(stream, [(0, x)]):
            assert not set(verdict.values) & set(Profile.of(stream).skipped)
            assert set(verdict.values) == set(verdict.grades)


def test_an_envelope_may_rest_for_half_a_minute():
    stream = spec(4, 100.0, "ninapro-envelope", SampleType.FLOAT32)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (9000, 4))
    x[1000:3500, 1] = 0.0024
    x[1000:, 2] = 0.0024
    seen = verdicts(stream, [(0, x)])
    assert bad(seen, 1) == set()
    assert bad(seen, 2) == {Metric.FLAT}


def test_the_hold_keeps_short_troubles_quiet(sound):
    x = sound.copy()
    x[10500:11500, CHANNEL] += 4000 * np.sin(2 * np.pi * 50 * T[:1000])
    assert Metric.MAINS not in bad(found(x), CHANNEL)


def test_every_metric_has_limits_words_and_advice():
    assert set(LIMITS) == set(TITLES) == set(ADVICE) == set(Metric)
    for metric, limit in LIMITS.items():
        assert (limit.warn > limit.bad) == limit.low, metric


def test_the_summary_counts_and_advises(sound):
    summary = Summary(SPEC)
    for verdict in found(spoil(sound, "flat", 2000.0, SPAN)):
        summary.add(verdict)
    channels = summary.channels()
    assert channels[CHANNEL].grade is summary.grade is Grade.BAD
    assert channels[CHANNEL].bad == channels[CHANNEL].windows == summary.windows
    assert {c.grade for i, c in enumerate(channels) if i != CHANNEL} == {Grade.GOOD}
    (flat, *_) = [m for m in channels[CHANNEL].faults() if m.metric is Metric.FLAT]
    assert flat.advice == ADVICE[Metric.FLAT]
    assert any("stands still" in line for line in summary.lines())
    assert Summary(SPEC).grade is Grade.UNKNOWN


# real recordings


@cache
def three_dc_pieces(data_dir: Path, participant: int, device: str) -> list[np.ndarray]:
    pl = pytest.importorskip("polars")
    name = f"three_dc_{'myo_' if device == 'myo' else ''}Participant{participant}.parquet"
    frame = pl.read_parquet(data_dir / "three_dc" / name).filter(pl.col("session") == "train")
    columns = [c for c in frame.columns if c.startswith("emg_")]
    parts = frame.partition_by(["gesture", "rep"], maintain_order=True)
    return [p.select(columns).to_numpy().astype(float) for p in parts]


def three_dc(data_dir: Path, participant: int, device: str) -> list[np.ndarray]:
    return [p.copy() for p in three_dc_pieces(data_dir, participant, device)]


def judged(pieces: list[np.ndarray], stream: StreamSpec) -> list[Any]:
    judge = Judge(stream)
    return [v for p in pieces for v in verdicts(stream, [(0, p)], judge)]


def wrong(seen: list[Any], channels: int) -> dict[int, set[Metric]]:
    return {c: found for c in range(channels) if (found := bad(seen, c))}


@pytest.mark.real_data
def test_the_known_bad_electrode_is_the_only_one_found(data_dir):
    seen = judged(three_dc(data_dir, 1, "3dc"), spec(10, 1000.0, "3dc"))
    assert wrong(seen, 10) == {1: {Metric.ODD, Metric.MAINS, Metric.MOTION}}
    assert sum(v.grade(1) is Grade.BAD for v in seen) > 0.9 * len(seen)


@pytest.mark.real_data
@pytest.mark.parametrize("participant", [2, 3, 4, 5])
def test_sound_armbands_are_nowhere_bad(data_dir, participant):
    assert wrong(judged(three_dc(data_dir, participant, "3dc"), spec(10, 1000.0, "3dc")), 10) == {}
    myo = judged(three_dc(data_dir, participant, "myo"), spec(8, 200.0, "myo"))
    assert {m for found in wrong(myo, 8).values() for m in found} <= {Metric.CLIPPING}


@pytest.mark.real_data
@pytest.mark.parametrize("name", [n for n, (_, m) in FAULTS.items() if m not in (Metric.RAILED, Metric.FLOOR)])
def test_faults_put_into_a_real_armband_are_told(data_dir, name):
    pieces = three_dc(data_dir, 4, "3dc")[:22]
    level = float(np.concatenate(pieces)[:, CHANNEL].std())
    for piece in pieces:
        FAULTS[name][0](piece, Site(1000.0, level, SPAN, np.random.default_rng(7)))
        np.clip(np.round(piece), -SPAN, SPAN, out=piece)
    seen = judged(pieces, spec(10, 1000.0, "3dc"))
    assert FAULTS[name][1] in bad(seen, CHANNEL)
    assert set(wrong(seen, 10)) == ({CHANNEL, OTHER} if name == "bridged" else {CHANNEL})


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", [n for n, (_, m) in FAULTS.items() if m not in (Metric.SHAPE, Metric.FLOOR, Metric.DRIFT)]
)
def test_faults_put_into_a_real_myo_are_told(data_dir, name):
    pieces = three_dc(data_dir, 3, "myo")[:22]
    level = float(np.concatenate(pieces)[:, CHANNEL].std())
    for piece in pieces:
        FAULTS[name][0](piece, Site(200.0, level, 127.0, np.random.default_rng(7)))
        np.clip(np.round(piece), -127, 127, out=piece)
    seen = judged(pieces, spec(8, 200.0, "myo"))
    assert FAULTS[name][1] in bad(seen, CHANNEL)
    assert set(wrong(seen, 8)) == ({CHANNEL, OTHER} if name == "bridged" else {CHANNEL})
