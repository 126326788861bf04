"""Streaming decoding: a patch at a time says what whole windows say, at every hop, after gaps and when resumed."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
import torch

from embridge_cloud.learn.config import EncoderConfig, SignalConfig
from embridge_cloud.learn.encoders import Encoder, MaskedAutoencoder
from embridge_cloud.learn.export_stream import StreamLimits, export_stream
from embridge_cloud.learn.presets import quick
from embridge_cloud.learn.streaming import StreamGraph, run_stream
from embridge_edge.decode.hops import PatchHops, WindowHops, hops_of, streams, window_at
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.decode.streaming import StreamModel
from embridge_shared.errors import ConfigError, ModelError, Reason
from embridge_shared.preprocess import Features, Ring, WearerScale, WindowConfig
from embridge_shared.release import STREAM, STREAM_INT8, Bundle, read_bundle, write_bundle
from support.learn_world import paired
from support.sessions import emg_spec
from support.untrained import streaming, untrained, untrained_bundle

C, PATCH, LENGTH = 6, 20, 160
RATE_HZ = 2000.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return untrained_bundle(tmp_path_factory.mktemp("stream"), channels=C, gestures=4, each=3, learn=streaming(C))


@pytest.fixture(scope="module")
def whole(bundle: Bundle) -> Decoder:
    decoder = Decoder(bundle, int8=False)
    decoder.stream = None
    return decoder


def raw(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE_HZ)
    level = 50 + 300 * np.abs(np.sin(np.arange(n)[:, None] / 700 + np.arange(C)))
    return (rng.normal(size=(n, C)) * level).astype(np.int16)


def scale() -> WearerScale:
    return WearerScale(offset=(20.0,) * C, gain=(0.004,) * C)


@pytest.mark.parametrize("hop_s", [0.05, 0.1, 0.2, 0.4, 0.01])
@pytest.mark.parametrize("size", [37, 1000])
def test_a_stream_says_what_windows_say(bundle: Bundle, whole: Decoder, hop_s: float, size: int) -> None:
    spec = emg_spec(C, RATE_HZ)
    one = StreamDecoder(Decoder(bundle, int8=False), spec, scale(), hop_s=hop_s)
    other = StreamDecoder(whole, spec, scale(), hop_s=hop_s)
    assert (one.streaming, other.streaming) == (True, False)
    signal = raw(8.0)
    # begins in the middle, bridges a short gap, restarts after a long one
    pieces = [(1234, 6500), (6530, 9600), (10_500, 16_000)]
    found, wanted = [], []
    for begin, end in pieces:
        for at in range(begin, end, size):
            part = signal[at : min(end, at + size)]
            found += one.push(part, at)
            wanted += other.push(part, at)
    assert len(wanted) > 2
    assert [(d.end, d.sample) for d in found] == [(d.end, d.sample) for d in wanted]
    assert [d.flawed for d in found] == pytest.approx([d.flawed for d in wanted])
    np.testing.assert_allclose([d.scores for d in found], [d.scores for d in wanted], atol=1e-4)
    for a, b in zip(found, wanted, strict=True):
        assert a.evidence.activity == pytest.approx(b.evidence.activity)
    one.reset()
    other.reset()
    again, ours = other.push(signal), one.push(signal)
    np.testing.assert_allclose([d.scores for d in ours], [d.scores for d in again], atol=1e-4)


def test_the_scores_move(bundle: Bundle) -> None:
    stream = StreamDecoder(Decoder(bundle, int8=False), emg_spec(C, RATE_HZ), scale())
    scores = np.stack([d.scores for d in stream.push(raw(4.0))])
    assert np.ptp(scores, axis=0).min() > 1e-3, "a comparison of constants proves nothing"


def test_quantised_streams_stay_near(bundle: Bundle, whole: Decoder) -> None:
    decoder = Decoder(bundle)
    decoder.self_test()
    spec = emg_spec(C, RATE_HZ)
    found = StreamDecoder(decoder, spec, scale()).push(raw(4.0))
    wanted = StreamDecoder(whole, spec, scale()).push(raw(4.0))
    np.testing.assert_allclose([d.scores for d in found], [d.scores for d in wanted], atol=0.1)


def test_a_hop_too_long_to_pay_runs_whole_windows(bundle: Bundle) -> None:
    decoder = Decoder(bundle)
    config = bundle.manifest.preprocess.window
    for hop, way in ((5, PatchHops), (20, PatchHops), (40, PatchHops), (60, WindowHops)):
        assert isinstance(hops_of(decoder, msgspec.structs.replace(config, hop=hop)), way)
    assert not streams(WindowConfig(length=160, hop=30, patch=20))
    with pytest.raises(ConfigError):
        PatchHops(decoder, msgspec.structs.replace(config, hop=60))


def test_hops_a_release_does_not_have_are_refused(bundle: Bundle) -> None:
    preprocess = bundle.manifest.preprocess
    assert window_at(preprocess, None) is preprocess.window
    assert window_at(preprocess, 0.05).hop == 5
    assert window_at(preprocess, 0.6).hop == 60
    for bad in (0.015, 0.03, 0.3, 0.0, -0.1, 3.2):
        with pytest.raises(ConfigError) as caught:
            window_at(preprocess, bad)
        assert "0.01, 0.02, 0.04, 0.05, 0.1, 0.2, 0.4" in caught.value.hint


def test_a_band_of_another_ring_is_read_off(tmp_path) -> None:
    bundle = untrained_bundle(tmp_path, channels=C, gestures=4, each=3, learn=streaming(C))
    told = msgspec.structs.replace(bundle.manifest, ring=Ring.even(C))
    write_bundle(tmp_path / "ring.embridge", told, bundle.files)
    decoder = Decoder(read_bundle(tmp_path / "ring.embridge"), int8=False)
    ten, rate_hz = 10, 1000.0
    angle = np.deg2rad(np.arange(ten) * 36)
    level = 300 + 150 * np.cos(angle - 1.0)
    noise = np.random.default_rng(0).normal(size=(4000, 1))
    unscaled = WearerScale(offset=(0.0,) * ten, gain=(0.004,) * ten)
    stream = StreamDecoder(decoder, emg_spec(ten, rate_hz), unscaled)
    found = stream.push(np.round(noise * level).astype(np.int16))
    # the same activity where six electrodes sit
    six = 300 + 150 * np.cos(np.deg2rad(np.arange(C) * 60) - 1.0)
    own = StreamDecoder(decoder, emg_spec(C, rate_hz), WearerScale(offset=(0.0,) * C, gain=(0.004,) * C))
    wanted = own.push(np.round(noise * six).astype(np.int16))
    assert len(found) == len(wanted) > 10
    np.testing.assert_allclose([d.scores for d in found], [d.scores for d in wanted], atol=2e-3)
    turned = StreamDecoder(decoder, emg_spec(C, rate_hz), scale(), ring=Ring(angles_deg=tuple(range(0, -360, -60))))
    mirrored = turned.push(np.round(noise * six).astype(np.int16))
    assert not np.allclose([d.scores for d in mirrored], [d.scores for d in wanted], atol=2e-3)
    with pytest.raises(ModelError) as caught:
        StreamDecoder(Decoder(bundle), emg_spec(ten, rate_hz), unscaled)
    assert caught.value.reason is Reason.INCOMPATIBLE


def test_windows_are_views_of_one_ring(bundle: Bundle) -> None:
    hops = PatchHops(Decoder(bundle), bundle.manifest.preprocess.window)
    rng = np.random.default_rng(0)
    values = rng.random((500, C)).astype(np.float32)
    flawed = rng.random(500) < 0.3
    seen = [
        (s.end, s.window.copy(), s.flawed, s.window.base is not None)
        for at in range(0, 500, 33)
        for s in hops.push(Features(7 + at, values[at : at + 33], flawed[at : at + 33]))
    ]
    assert [end for end, *_ in seen] == list(range(170, 508, 10))
    for end, window, share, view in seen:
        assert np.array_equal(window, values[end - 7 - LENGTH : end - 7])
        assert share == pytest.approx(flawed[end - 7 - LENGTH : end - 7].mean())
        assert view


def test_the_self_test_replays_a_golden_stream(bundle: Bundle, tmp_path) -> None:
    Decoder(bundle, int8=False).self_test()
    config = streaming(C)
    other = export_stream(untrained(C, seed=5, config=config), paired(windows=4, channels=C).emg)
    assert other is not None
    wrong = bundle.files | {STREAM: other.onnx, STREAM_INT8: other.int8}
    write_bundle(tmp_path / "wrong.embridge", bundle.manifest, wrong)
    changed = read_bundle(tmp_path / "wrong.embridge")
    for int8 in (True, False):
        with pytest.raises(ModelError) as caught:
            Decoder(changed, int8=int8).self_test()
        assert caught.value.reason is Reason.SELF_TEST


def test_a_streaming_encoder_of_another_contract_is_refused(bundle: Bundle) -> None:
    proto = onnx.load_from_string(bundle.files[STREAM])
    proto.graph.input[0].name = "patches"
    for node in proto.graph.node:
        node.input[:] = ["patches" if name == "patch" else name for name in node.input]
    for data, reason in ((proto.SerializeToString(), Reason.INCOMPATIBLE), (b"no", Reason.MALFORMED)):
        broken = Bundle(
            bundle.manifest, bundle.digest, 0, {**bundle.files, STREAM: data}, bundle.prototypes, bundle.golden
        )
        with pytest.raises(ModelError) as caught:
            StreamModel(broken, int8=False)
        assert caught.value.reason is reason


@pytest.mark.parametrize("reader", ["queries", "summary"])
@pytest.mark.parametrize("features", ["levels", "rich"])
def test_every_reader_and_path_streams(reader: str, features: str) -> None:
    base = streaming(C)
    config = msgspec.structs.replace(
        base,
        linear=msgspec.structs.replace(base.linear, features=features),
        qformer=msgspec.structs.replace(base.qformer, reader=reader),
        loss=msgspec.structs.replace(base.loss, lam=0.0),
    )
    trained = untrained(C, config=config)
    assert trained.model.path is not None
    torch.nn.init.normal_(trained.model.path.weight, std=0.1)
    recording = np.random.default_rng(0).random((PATCH * 20, C)).astype(np.float32)
    found = run_stream(StreamGraph(trained.model), recording)
    windows = np.stack([recording[e - LENGTH : e] for e in range(LENGTH, len(recording) + 1, PATCH)])
    wanted = trained.embed_emg(windows)
    np.testing.assert_allclose(found[LENGTH // PATCH - 1 :], wanted, atol=1e-5)
    assert np.abs(found[0] - wanted[0]).max() > 1e-3
    assert np.ptp(wanted, axis=0).max() > 1e-3


def test_an_export_that_strays_is_refused() -> None:
    trained = untrained(C, config=streaming(C))
    emg = paired(windows=3, channels=C).emg
    assert emg is not None
    with pytest.raises(ModelError) as caught:
        export_stream(trained, emg, limits=StreamLimits(int8_cosine=1.1))
    assert caught.value.reason is Reason.PARITY
    assert export_stream(untrained(C), emg) is None


def test_a_window_must_hold_the_past_of_what_is_read() -> None:
    assert streaming(C).reads == 4
    with pytest.raises(ConfigError, match="Lengthen the window to 200"):
        streaming(C, span=5)
    for bad in (1, -2):
        with pytest.raises(ConfigError):
            EncoderConfig(span=bad)
    assert quick().encoder.span == 0


def test_tokens_see_their_span_and_no_position() -> None:
    torch.manual_seed(0)
    signal = SignalConfig(rate_hz=100.0, channels=C, window=160, patch=20)
    encoder = Encoder(signal, EncoderConfig(width=64, depth=2, heads=4, span=3)).eval()
    x = torch.rand(1, 200, C)
    with torch.no_grad():
        early, late = encoder(x[:, :160]), encoder(x[:, 40:])
        changed = x[:, :160].clone()
        changed[:, :40] += 1.0
        assert encoder(changed)[:, -2].sub(early[:, -2]).abs().max() < 1e-6, "token 6 sees tokens 2 to 6"
        assert encoder(changed)[:, 1].sub(early[:, 1]).abs().max() > 1e-3, "token 4 sees tokens 0 to 4"
        tokens = early[:, 3:] - encoder.age[2:], late[:, 1:3] - encoder.age[:2]
    torch.testing.assert_close(*tokens, atol=1e-5, rtol=0)


def test_masked_pretraining_masks_by_index() -> None:
    torch.manual_seed(0)
    config = streaming(C)
    encoder = Encoder(config.emg, config.encoder)
    tokens = torch.rand(2, 8, 64)
    whole = encoder._run_span(tokens, torch.arange(8).expand(2, 8))
    order = torch.stack([torch.randperm(8), torch.randperm(8)])
    shuffled = tokens.gather(1, order[:, :, None].expand(-1, -1, 64))
    torch.testing.assert_close(
        encoder.run(shuffled, order)[:, 1:], whole[:, 1:].gather(1, order[:, :, None].expand(-1, -1, 64))
    )
    autoencoder = MaskedAutoencoder(encoder, config.emg_mae)
    loss, _ = autoencoder(torch.rand(4, 160, C))
    loss.backward()
    assert encoder.patch_embed.weight.grad is not None
    assert encoder.blocks[0].attention.q.weight.grad.abs().sum() > 0
