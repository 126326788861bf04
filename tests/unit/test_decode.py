"""Decoding: the encoder contract, the self-test, streaming parity, calibration."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from embridge_edge.decode.calibration import FOLDER, CalibrationStore, calibrate, load_calibration, save_calibration
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_shared.errors import DataError, ModelError, OperatorError, Reason
from embridge_shared.preprocess import FrontEndConfig, ScaleConfig, WearerScale, run, windows
from embridge_shared.release import (
    ENCODER,
    ENCODER_INT8,
    GOLDEN,
    Bundle,
    Golden,
    Tolerances,
    pack_golden,
    read_bundle,
    write_bundle,
)
from embridge_shared.signal import Modality, StreamSpec
from support.bundles import PREPROCESS, C, D, G, M, T, embed, encoder, make_bundle, parts

SPEC = StreamSpec(
    name="emg", modality=Modality.EMG, channels=tuple(f"e{i}" for i in range(C)), rate_hz=2000.0, device="test"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(make_bundle(tmp_path_factory.mktemp("release")))


def movement(seconds: float = 6.0, seed: int = 0) -> np.ndarray:
    """One second of rest, then each channel active in turn."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 2000)
    second = np.arange(n) // 2000
    level = np.where((second[:, None] - 1) % (C + 1) == np.arange(C), 500.0, 20.0)
    level[:2000] = 20.0
    return (rng.normal(size=(n, C)) * level).astype(np.int16)


def with_encoder(bundle: Bundle, tmp_path, **files: bytes) -> Bundle:
    manifest, original = parts()
    path = tmp_path / "changed.embridge"
    write_bundle(path, manifest, original | files)
    return read_bundle(path)


class Ticks:
    """A clock that moves 1 ms a look."""

    def __init__(self) -> None:
        self.now_ns = 0

    def wall_ns(self) -> int:
        return 0

    def monotonic_ns(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


def test_the_encoder_answers_as_numpy_does(bundle):
    decoder = Decoder(bundle, int8=False)
    window = np.random.default_rng(5).random((T, C)).astype(np.float32)
    weights = np.random.default_rng(0).normal(size=(C, M * D)).astype(np.float32)
    queries = decoder.embed(window)
    assert queries.dtype == np.float32
    assert np.allclose(queries, embed(weights, window[None])[0], atol=1e-5)
    assert decoder.scores(window).shape == (G,)
    assert np.allclose(decoder.scores(window), bundle.scorer()(queries))
    assert decoder.labels == ("g0", "g1", "g2")


def test_each_gesture_wins_on_its_own_channel(bundle):
    for int8 in (False, True):
        decoder = Decoder(bundle, int8=int8)
        for gesture in range(G):
            window = np.full((T, C), 0.02, np.float32)
            window[:, gesture] = 1
            assert int(decoder.scores(window).argmax()) == gesture


def test_self_test_passes_and_times(bundle):
    exact = Decoder(bundle, int8=False).self_test(Ticks())
    assert exact.cosine > 0.9999
    assert exact.score < 1e-4
    assert exact.compute_s == pytest.approx(1e-3)
    quantised = Decoder(bundle).self_test()
    assert quantised.cosine < exact.cosine
    assert quantised.score > 0


def fails(bundle: Bundle, *, int8: bool) -> Reason:
    with pytest.raises(ModelError) as caught:
        Decoder(bundle, int8=int8).self_test()
    return caught.value.reason


def test_self_test_refuses_another_encoder(bundle, tmp_path):
    other = encoder(np.random.default_rng(9).normal(size=(C, M * D)))
    changed = with_encoder(bundle, tmp_path, **{ENCODER_INT8: other})
    assert fails(changed, int8=True) is Reason.SELF_TEST
    Decoder(changed, int8=False).self_test()


def test_self_test_refuses_scores_that_moved(bundle, tmp_path):
    golden = bundle.golden
    moved = pack_golden(Golden(golden.windows, golden.queries, golden.scores + np.float32(0.05)))
    assert fails(with_encoder(bundle, tmp_path, **{GOLDEN: moved}), int8=False) is Reason.SELF_TEST


def test_self_test_refuses_what_is_not_finite(bundle, tmp_path):
    for bad in (np.zeros((C, M * D)), np.full((C, M * D), np.nan)):
        changed = with_encoder(bundle, tmp_path, **{ENCODER: encoder(bad)})
        assert fails(changed, int8=False) is Reason.SELF_TEST


def test_self_test_keeps_to_the_manifest(tmp_path):
    tight = make_bundle(tmp_path, tolerances=Tolerances(int8_cosine=1.0, int8_score=1.0))
    assert fails(read_bundle(tight), int8=True) is Reason.SELF_TEST


def model(name: str, shape: list, output: str = "queries") -> bytes:
    node = helper.make_node("Identity", [name], [output])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_an_encoder_of_another_contract_is_refused(bundle, tmp_path):
    cases = [
        (model("x", ["B", T, C]), Reason.INCOMPATIBLE),
        (model("windows", ["B", T, C]), Reason.INCOMPATIBLE),
        (model("windows", ["B", T, C + 1]), Reason.INCOMPATIBLE),
        (model("windows", ["B", T]), Reason.INCOMPATIBLE),
        (model("windows", ["B", M, D], "answer"), Reason.INCOMPATIBLE),
        (b"no model", Reason.MALFORMED),
    ]
    for data, reason in cases:
        with pytest.raises(ModelError) as caught:
            Decoder(with_encoder(bundle, tmp_path, **{ENCODER: data}), int8=False)
        assert caught.value.reason is reason
    assert onnx.load_from_string(cases[0][0]).graph.name == "g"


def test_a_window_of_another_shape_is_refused(bundle):
    with pytest.raises(DataError) as caught:
        Decoder(bundle).embed(np.zeros((T, C + 1), np.float32))
    assert caught.value.reason is Reason.WRONG_SHAPE


def test_streaming_gives_what_training_would_see(bundle):
    decoder = Decoder(bundle)
    raw = movement()
    scale = calibrate("p1", PREPROCESS, SPEC, [(0, raw)], created_ns=1).scale
    features = scale.apply(run(PREPROCESS.front_end, SPEC, raw))
    view, ends = windows(features, PREPROCESS.window)
    want = np.stack([decoder.scores(window) for window in view])
    for size in (13, 200, len(raw)):
        stream = StreamDecoder(decoder, SPEC, scale)
        got = [d for at in range(0, len(raw), size) for d in stream.push(raw[at : at + size], at)]
        assert [d.end for d in got] == ends.tolist()
        assert [d.sample for d in got] == [(end - 1) * 20 for end in ends]
        assert np.array_equal(np.stack([d.scores for d in got]), want)
    steady = {int(d.sample // 2000): int(d.scores.argmax()) for d in got if d.sample % 2000 > 1800}
    assert [steady[s] for s in (1, 2, 3)] == [0, 1, 2]


def test_gaps_and_latency(bundle):
    stream = StreamDecoder(Decoder(bundle), SPEC, WearerScale.identity(C), clock=Ticks())
    before = stream.push(movement())
    assert before[-1].end == 600
    assert before[-1].flawed == 0
    assert before[0].flawed == 1
    assert before[0].latency_s == pytest.approx(1e-3)
    assert stream.push(movement(0.1)[:100], 12050)[-1].flawed == pytest.approx(3 / T)
    stream.skip(10_000)
    after = stream.push(movement())
    assert after[0].end == -(-((12150 + 10_000) // 20 + 1 + T) // 5) * 5
    assert after[0].flawed == 1
    stream.reset()
    assert stream.push(movement())[0].end == before[0].end


def test_another_band_is_refused(bundle):
    for channels, scaled in ((C + 1, C), (C, C + 1)):
        spec = msgspec.structs.replace(SPEC, channels=tuple(map(str, range(channels))))
        with pytest.raises(ModelError) as caught:
            StreamDecoder(Decoder(bundle), spec, WearerScale.identity(scaled))
        assert caught.value.reason is Reason.INCOMPATIBLE


def test_calibrations_are_kept_per_participant_release_and_band(tmp_path):
    store = CalibrationStore(tmp_path / "calibration")
    assert store.for_band("p 1/é", PREPROCESS, SPEC) is None
    made = calibrate("p 1/é", PREPROCESS, SPEC, [(0, movement()), (20_000, movement(seed=1))], created_ns=7)
    assert 9 < made.duration_s < 12
    path = store.save(made)
    assert path.parent == tmp_path / "calibration"
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.for_band("p 1/é", PREPROCESS, SPEC) == made
    longer = msgspec.structs.replace(PREPROCESS, window=msgspec.structs.replace(PREPROCESS.window, length=40))
    assert store.for_band("p 1/é", longer, SPEC) == made, "another window keeps the calibration"
    filtered = msgspec.structs.replace(PREPROCESS, front_end=FrontEndConfig(notch_hz=(60.0,)))
    assert store.for_band("p 1/é", filtered, SPEC) is None
    assert store.for_band("p 1/é", PREPROCESS, msgspec.structs.replace(SPEC, device="other")) is None
    assert store.for_band("p 1", PREPROCESS, SPEC) is None
    assert store.drop("p 1/é", made.key)
    assert store.for_band("p 1/é", PREPROCESS, SPEC) is None


def test_a_session_without_calibration_is_refused(tmp_path):
    with pytest.raises(OperatorError, match="Calibrate again"):
        load_calibration(tmp_path, "p1", PREPROCESS, SPEC)
    made = calibrate("p1", PREPROCESS, SPEC, [(0, movement())], created_ns=1)
    assert save_calibration(tmp_path, made).parent == tmp_path / FOLDER
    assert load_calibration(tmp_path, "p1", PREPROCESS, SPEC) == made


def test_a_damaged_calibration_says_so(tmp_path):
    store = CalibrationStore(tmp_path)
    path = store.save(calibrate("p1", PREPROCESS, SPEC, [(0, movement())], created_ns=1))
    for damage in (path.read_bytes()[:-20], path.read_bytes().replace(b"p1", b"p2")):
        path.write_bytes(damage)
        with pytest.raises(DataError) as caught:
            store.for_band("p1", PREPROCESS, SPEC)
        assert caught.value.reason is Reason.MALFORMED


def test_a_calibration_needs_movement():
    for chunks in ([], [(0, movement(0.5))], [(0, np.zeros((20_000, C), np.int16))]):
        with pytest.raises(DataError) as caught:
            calibrate("p1", PREPROCESS, SPEC, chunks, created_ns=1)
        assert caught.value.reason is Reason.TOO_LITTLE_DATA
    none = msgspec.structs.replace(PREPROCESS, scale=ScaleConfig(kind="none"))
    scale = calibrate("p1", none, SPEC, [(0, movement())], created_ns=1).scale
    features = run(PREPROCESS.front_end, SPEC, movement())
    assert np.array_equal(scale.apply(features), features)
