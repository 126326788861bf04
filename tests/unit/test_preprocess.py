"""Preprocessing: parity of streaming and batch, alignment, gaps, frequency response, scale, windows."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_shared.errors import ConfigError, DataError, ModelError, Reason
from embridge_shared.preprocess import (
    Features,
    FrontEnd,
    FrontEndConfig,
    PoseConfig,
    PreprocessConfig,
    WindowConfig,
    Windower,
    config_hash,
    fit_wearer_scale,
    pose_windows,
    run,
    run_chunks,
    windows,
)
from embridge_shared.signal import Modality, SampleType, StreamSpec


def spec(rate_hz: float, channels: int = 3, dtype: SampleType = SampleType.INT16) -> StreamSpec:
    names = tuple(f"e{i}" for i in range(channels))
    return StreamSpec(name="emg", modality=Modality.EMG, channels=names, rate_hz=rate_hz, dtype=dtype, scale=0.195)


def noise(n: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2000, 2000, (n, channels)).astype(np.int16)


CASES = [
    ("envelope", 2000.0, 100.0),
    ("envelope", 1925.926, 100.0),
    ("envelope", 200.0, 100.0),
    ("envelope", 90.0, 100.0),
    ("waveform", 1000.0, 2000.0),
    ("waveform", 4000.0, 2000.0),
    ("waveform", 1925.926, 2000.0),
    ("waveform", 500.0, 500.0),
    ("identity", 100.0, 100.0),
    ("identity", 111.0, 100.0),
]


@pytest.mark.parametrize(("mode", "rate_in_hz", "rate_hz"), CASES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 1500), max_size=12), channels=st.integers(1, 4), start=st.integers(0, 5000))
def test_any_chunking_gives_the_same_bits(mode, rate_in_hz, rate_hz, cuts, channels, start):
    config = FrontEndConfig(mode=mode, rate_hz=rate_hz)
    raw = noise(1500, channels)
    whole = FrontEnd(config, spec(rate_in_hz, channels)).feed(raw, start)
    front_end = FrontEnd(config, spec(rate_in_hz, channels))
    front_end.skip(start)
    parts = [front_end.feed(part) for part in np.split(raw, sorted(cuts))]
    assert np.array_equal(np.concatenate([p.values for p in parts]), whole.values)
    assert np.array_equal(np.concatenate([p.flawed for p in parts]), whole.flawed)
    assert whole.values.dtype == np.float32
    assert front_end.next_feature == whole.end
    for part in parts:
        assert not len(part) or np.array_equal(part.values, whole.values[part.first - whole.first :][: len(part)])


@settings(max_examples=30, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 300)), min_size=1, max_size=6),
    cut=st.integers(1, 60),
)
def test_gaps_do_not_depend_on_chunking(pieces, cut):
    config = FrontEndConfig()
    whole, fine, at = [], [], 0
    for n, gap in pieces:
        raw = noise(n, seed=at)
        whole.append((at, raw))
        fine += [(at + k, raw[k : k + cut]) for k in range(0, n, cut)]
        at += n + gap
    a, b = run_chunks(config, spec(2000), whole), run_chunks(config, spec(2000), fine)
    assert [(x.first, x.end) for x in a] == [(x.first, x.end) for x in b]
    for x, y in zip(a, b, strict=True):
        assert np.array_equal(x.values, y.values)
        assert np.array_equal(x.flawed, y.flawed)


def test_batch_is_the_streaming_code():
    raw = noise(4000)
    front_end = FrontEnd(FrontEndConfig(), spec(2000))
    assert np.array_equal(
        run(FrontEndConfig(), spec(2000), raw), np.concatenate([front_end.process(p) for p in np.split(raw, 40)])
    )


def test_features_carry_the_newest_sample_of_their_instant():
    ramp = np.arange(1000, dtype=np.int16)[:, None]
    for rate_in_hz in (100.0, 250.0, 130.0, 60.0):
        front_end = FrontEnd(FrontEndConfig(mode="identity"), spec(rate_in_hz, 1))
        out = front_end.feed(ramp[7:], 7)
        j = np.arange(out.first, out.end)
        assert np.array_equal(out.values[:, 0], (np.floor(j * rate_in_hz / 100) * 0.195).astype(np.float32))
        assert [front_end.input_index(k) for k in (0, 13)] == [0, int(13 * rate_in_hz // 100)]
        assert front_end.input_index(out.end) >= 1000 > front_end.input_index(out.end - 1)


def test_no_feature_sees_the_future():
    for mode, rate_hz in (("envelope", 100.0), ("waveform", 1500.0)):
        front_end = FrontEnd(FrontEndConfig(mode=mode, rate_hz=rate_hz), spec(2000))
        a, b = noise(2000), noise(2000)
        b[1200:] += 500
        differ = (run(front_end.config, spec(2000), a) != run(front_end.config, spec(2000), b)).any(axis=1)
        first = int(np.argmax(differ))
        assert differ.any()
        assert front_end.input_index(first) >= 1200
        assert front_end.input_index(first - 1) < 1200


def test_a_long_gap_reseeds_and_flags_until_settled():
    front_end = FrontEnd(FrontEndConfig(), spec(2000))
    steady = front_end.feed(noise(8000))
    settle = round(front_end.settle_s * 100)
    assert 10 < settle < 100
    assert steady.flawed[:settle].all()
    assert not steady.flawed[settle + 1 :].any()
    front_end.skip(1000)
    after = front_end.feed(noise(8000, seed=1) + np.int16(3000))
    assert after.first == 450
    assert front_end.position == 17000
    level = steady.values[200:].mean()
    assert after.values[0].max() < 0.5 * level, "an offset must not ring through a re-seeded filter"
    assert after.flawed[: settle - 1].all()
    assert not after.flawed[settle + 1 :].any()
    assert after.values[settle + 1 :].mean() == pytest.approx(level, rel=0.05)


def test_a_short_gap_is_held_and_flagged():
    front_end = FrontEnd(FrontEndConfig(), spec(2000))
    front_end.feed(noise(8000))
    front_end.skip(80)
    out = front_end.feed(noise(200, seed=1))
    assert (out.first, len(out)) == (400, 14)
    assert out.flawed.tolist() == [True] * 4 + [False] * 10
    with pytest.raises(DataError) as caught:
        front_end.feed(noise(10), 100)
    assert caught.value.reason is Reason.OVERLAP


def gain_at(hz: float, rate_hz: float = 2000.0, **config: object) -> float:
    t = np.arange(int(6 * rate_hz)) / rate_hz
    raw = (1000 * np.sin(2 * np.pi * hz * t)).astype(np.float32)[:, None]
    stream = spec(rate_hz, 1, SampleType.FLOAT32)
    out = run(msgspec.convert({"average": "rms", **config}, FrontEndConfig), stream, raw)
    return float(np.mean(out[len(out) // 2 :]) / (195 / np.sqrt(2)))


def test_frequency_response():
    assert gain_at(100) == pytest.approx(1, abs=0.03)
    assert gain_at(300) == pytest.approx(1, abs=0.05)
    assert gain_at(50) < 0.01
    assert gain_at(60) == pytest.approx(1, abs=0.06)
    assert gain_at(60, notch_hz=(60,)) < 0.01
    assert gain_at(10) < 0.08
    assert gain_at(800) < 0.1
    assert gain_at(90, rate_hz=200) == pytest.approx(1, abs=0.05), "a low-pass above Nyquist is left out"


def test_waveform_keeps_the_band_and_removes_aliases():
    t_in, t_out = np.arange(8000) / 4000, np.arange(2000) / 1000
    config = FrontEndConfig(mode="waveform", rate_hz=1000, highpass_hz=None, lowpass_hz=None, notch_hz=())
    stream = spec(4000, 1, SampleType.FLOAT32)
    delay_s = FrontEnd(config, stream).delay_s
    inside = run(config, stream, np.sin(2 * np.pi * 200 * t_in)[:, None])[:, 0] / 0.195
    assert np.allclose(inside[200:], np.sin(2 * np.pi * 200 * (t_out - delay_s))[200:], atol=2e-3)
    alias = run(config, stream, np.sin(2 * np.pi * 700 * t_in)[:, None])[:, 0] / 0.195
    assert np.abs(alias[200:]).max() < 2e-3


def test_bad_input_is_refused():
    front_end = FrontEnd(FrontEndConfig(), spec(2000, 1, SampleType.FLOAT32))
    with pytest.raises(DataError, match="channels"):
        front_end.feed(np.zeros((5, 2)))
    with pytest.raises(DataError, match="not finite"):
        front_end.feed(np.full((5, 1), np.nan))
    with pytest.raises(ModelError) as caught:
        FrontEnd(FrontEndConfig(), spec(40))
    assert caught.value.reason is Reason.INCOMPATIBLE
    for bad in ({"rate_hz": 0}, {"highpass_hz": 500.0}, {"notch_hz": (-50.0,)}, {"bridge_s": 9}, {"order": 0}):
        with pytest.raises(ConfigError):
            FrontEndConfig(**bad)
    with pytest.raises(ConfigError):
        WindowConfig(length=100, patch=30)


def test_scale_maps_rest_to_0_and_strong_to_1():
    rng = np.random.default_rng(0)
    active = np.repeat(rng.random(40) < 0.5, 50)[:, None]
    features = (5 + rng.random((2000, 4)) + active * np.array([10.0, 20, 40, 0])).astype(np.float32)
    features[:, 3] = 2
    scale = fit_wearer_scale(features)
    scaled = scale.apply(features)
    assert np.abs(np.quantile(scaled, 0.25, axis=0)).max() < 1e-5
    assert np.allclose(np.quantile(scaled[:, :3], 0.97, axis=0), 1, atol=1e-4)
    assert np.abs(scaled[:, 3]).max() == 0
    dead = features.copy()
    dead[:, 3] = rng.normal(0, 1e-3, 2000)
    assert np.abs(fit_wearer_scale(dead).apply(dead)[:, 3]).max() < 0.01
    assert scale.apply(features * 1e6).max() == scale.clip
    assert msgspec.json.decode(msgspec.json.encode(scale), type=type(scale)) == scale
    parts = np.concatenate([scale.apply(p) for p in np.array_split(features, 7)])
    assert np.array_equal(parts, scaled)


def test_scale_refuses_what_it_cannot_fit():
    for bad in (np.zeros((10, 3)), np.zeros((500, 3)), np.full((500, 3), np.nan)):
        with pytest.raises(DataError):
            fit_wearer_scale(bad.astype(np.float32))
    with pytest.raises(DataError, match="channels"):
        fit_wearer_scale(noise(500).astype(np.float32)).apply(np.zeros((5, 4), np.float32))


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 200), max_size=8),
    first=st.integers(0, 50),
    hop=st.integers(1, 25),
    length=st.integers(1, 60),
)
def test_streamed_windows_are_the_batch_windows(cuts, first, hop, length):
    config = WindowConfig(length=length, hop=hop, patch=1)
    values = noise(200).astype(np.float32)
    flawed = np.zeros(200, bool)
    flawed[:30] = True
    view, ends = windows(values, config, first=first)
    windower = Windower(config)
    at, out = 0, []
    for cut in [*sorted(cuts), 200]:
        out += windower.push(Features(first + at, values[at:cut], flawed[at:cut]))
        at = cut
    assert [w.end for w in out] == ends.tolist()
    assert all(end % hop == 0 and first + length <= end <= first + 200 for end in ends)
    for got, want, end in zip(out, view, ends, strict=True):
        assert np.array_equal(got.values, want)
        assert np.array_equal(want, values[end - first - length : end - first])
        assert got.flawed == pytest.approx(flawed[end - first - length : end - first].mean())


def test_no_window_spans_a_gap():
    windower = Windower(WindowConfig(length=20, hop=5, patch=10))
    ones = np.ones((30, 2), np.float32)
    ok = np.zeros(30, bool)
    assert [w.end for w in windower.push(Features(0, ones, ok))] == [20, 25, 30]
    assert [w.end for w in windower.push(Features(31, ones, ok))] == [55, 60]


def test_pose_windows_are_standardised():
    pose = np.arange(40, dtype=np.float32).reshape(20, 2)
    config = PoseConfig(length=4, patch=2, mean=(1.0, 2.0), sd=(2.0, 4.0))
    out = pose_windows(pose, config, np.array([4, 20]))
    assert out.shape == (2, 4, 2)
    assert np.allclose(out[1, -1], [(38 - 1) / 2, (39 - 2) / 4])
    for bad in (3, 21):
        with pytest.raises(DataError):
            pose_windows(pose, config, np.array([bad]))


def test_the_configuration_travels_as_json_and_hashes_stably():
    config = PreprocessConfig(front_end=FrontEndConfig(mode="identity"), window=WindowConfig(length=100))
    again = msgspec.json.decode(msgspec.json.encode(config), type=PreprocessConfig)
    assert again == config
    assert config_hash(again) == config_hash(config) != config_hash(PreprocessConfig())
    assert (config.hop_s, config.window_s) == (0.1, 1.0)
