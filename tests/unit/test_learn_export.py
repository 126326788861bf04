from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from embridge_cloud import prototypes
from embridge_cloud.learn import evaluate
from embridge_cloud.learn import export as exporting
from embridge_cloud.learn.align import fit_path, prepare
from embridge_cloud.learn.baseline import fit_ridge
from embridge_cloud.learn.closed import fit_closed
from embridge_cloud.learn.encoders import Encoder
from embridge_cloud.learn.export import Exported, ParityLimits, export_encoder, export_pose, run_onnx
from embridge_cloud.learn.leakage import statistics_digest
from embridge_cloud.learn.model import Bridge
from embridge_cloud.learn.presets import quick
from embridge_cloud.learn.trained import Lineage, Sanity, Trained, statistics_of
from embridge_cloud.prototypes import PrototypeIndex, build_prototypes
from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.medoids import medoids
from support.learn_world import paired


@pytest.fixture(scope="module")
def trained() -> Trained:
    config = quick(channels=6)
    torch.manual_seed(0)
    model = Bridge(Encoder(config.emg, config.encoder), Encoder(config.pose, config.encoder), config).eval()
    world = paired(windows=64)
    assert world.pose is not None
    prepare(model, world.pose, seed=0)
    fit_path(model, world)
    torch.nn.init.normal_(model.qformer.projection.weight, std=0.1)
    lineage = Lineage(
        seed=0,
        config=config.digest(),
        data=(),
        statistics=statistics_digest(statistics_of(model)),
        participants=(),
        sessions=(),
        emg_gestures=(),
        pose_gestures=(),
    )
    figures = dict.fromkeys(Sanity.__struct_fields__, 0.0) | {"centered": False}
    return Trained(model=model, config=config, history={}, lineage=lineage, sanity=msgspec.convert(figures, Sanity))


@pytest.fixture(scope="module")
def exported(trained: Trained) -> Exported:
    return export_encoder(trained, paired(windows=32).emg)


def test_graphs_say_what_torch_says(trained: Trained, exported: Exported) -> None:
    emg = paired(windows=7, seed=5).emg
    expected = trained.embed_emg(emg)
    full, small = run_onnx(exported.onnx, emg), run_onnx(exported.int8, emg)
    assert full.shape == small.shape == (7, 8, 64)
    np.testing.assert_allclose(full, expected, atol=1e-4)
    assert (small * expected).sum(2).min() > 0.98
    np.testing.assert_allclose(np.linalg.norm(small, axis=2), 1, atol=1e-4)
    assert run_onnx(exported.onnx, emg[:1]).shape == (1, 8, 64)
    assert exported.parity.cosine > 0.9999
    assert exported.parity.max_abs < 1e-3
    assert 0.98 < exported.int8_parity.cosine < exported.parity.cosine


def test_the_quantised_graph_decides_as_the_full_one(trained: Trained, exported: Exported) -> None:
    world = paired(windows=256, seed=5)
    poses = trained.embed_pose(world.pose)
    decided = [
        evaluate.knn(evaluate.gallery_similarity(run_onnx(g, world.emg), poses), world.label, classes=8)
        for g in (exported.onnx, exported.int8)
    ]
    assert np.mean(decided[0] == decided[1]) >= 0.98


def test_graphs_are_self_contained(exported: Exported) -> None:
    for graph in (exported.onnx, exported.int8):
        proto = onnx.load_from_string(graph)
        onnx.checker.check_model(proto)
        assert [i.name for i in proto.graph.input] == ["windows"]
        assert [o.name for o in proto.graph.output] == ["queries"]
        batch, *fixed = proto.graph.input[0].type.tensor_type.shape.dim
        assert batch.dim_param
        assert [d.dim_value for d in fixed] == [160, 6]
        assert not any(t.external_data for t in proto.graph.initializer)
        assert b"site-packages" not in graph
        assert str(Path(exporting.__file__).parent).encode() not in graph
    small = onnx.load_from_string(exported.int8).graph
    assert "MatMulInteger" in {n.op_type for n in small.node}
    assert "path.weight" in {t.name for t in small.initializer}
    assert len(exported.int8) < 0.6 * len(exported.onnx)


def test_export_is_quiet_and_repeatable(
    trained: Trained, exported: Exported, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    again = export_encoder(trained, paired(windows=32).emg)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not [r for r in caplog.records if r.levelno > logging.INFO]
    assert again.onnx == exported.onnx


def test_a_graph_that_strays_is_refused(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    emg = paired(windows=8).emg
    with pytest.raises(ModelError) as strict:
        export_encoder(trained, emg, limits=ParityLimits(int8_cosine=1.1))
    assert strict.value.reason is Reason.PARITY
    honest = run_onnx
    monkeypatch.setattr(exporting, "run_onnx", lambda graph, x: np.roll(honest(graph, x), 1, axis=2))
    with pytest.raises(ModelError) as wrong:
        export_encoder(trained, emg)
    assert wrong.value.reason is Reason.PARITY
    with pytest.raises(DataError):
        export_encoder(trained, emg[:1])


@pytest.fixture(scope="module")
def index(trained: Trained) -> PrototypeIndex:
    poses = paired(windows=200, seed=2)
    return build_prototypes(trained.embed_pose, poses, ("g3", "g1", "g5"), per_gesture=5, encoder="abc")


def test_prototypes_are_balanced_and_traceable(trained: Trained, index: PrototypeIndex) -> None:
    vectors, rows, provenance = index.export()
    assert vectors.shape == (15, 64)
    assert rows.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    poses = paired(windows=200, seed=2)
    for vector, row, origin in zip(vectors, rows, provenance, strict=True):
        at = (
            (poses.start_s == origin.start_s)
            & (poses.session == poses.sessions.index(origin.session))
            & (poses.participant == poses.participants.index(origin.participant))
        )
        assert at.sum() == 1
        assert poses.gestures[poses.label[at][0]] == index.gestures[row]
        np.testing.assert_allclose(trained.embed_pose(poses.select(at).pose)[0], vector, atol=1e-5)


def test_prototypes_come_from_poses_alone(trained: Trained, index: PrototypeIndex) -> None:
    poses = paired(windows=200, seed=2)
    for same in (poses, poses.without_emg()):
        again = build_prototypes(trained.embed_pose, same, index.gestures, per_gesture=5)
        assert np.array_equal(again.vectors, index.vectors)
        assert again.provenance == index.provenance
    with pytest.raises(DataError) as missing:
        build_prototypes(trained.embed_pose, poses, ("g1", "unknown"))
    assert missing.value.reason is Reason.TOO_LITTLE_DATA
    with pytest.raises(DataError):
        build_prototypes(trained.embed_pose, poses, ())
    rare = poses.select((poses.label != 3) | (np.arange(200) < 20))
    assert np.bincount(build_prototypes(trained.embed_pose, rare, ("g3", "g1")).rows).tolist() == [3, 3]


def test_search_is_exact(trained: Trained, index: PrototypeIndex) -> None:
    queries = trained.embed_emg(paired(windows=20, seed=3).emg)
    assert index.recall(queries, 10) == 1.0
    assert index.recall(queries, 99) == 1.0
    exact = (queries @ index.vectors.T).max(axis=1)
    for hits, row in zip(index.search(queries, 4), exact, strict=True):
        assert [h.similarity for h in hits] == pytest.approx(sorted(row, reverse=True)[:4], abs=1e-5)
        assert all(h.gesture == index.gestures[index.rows[h.row]] for h in hits)
    own = index.search(index.vectors[:, None], 1)
    assert [h[0].row for h in own] == list(range(15))
    with pytest.raises(DataError):
        index.search(queries[:, 0])


def test_the_scorer_ranks_as_the_search_does(trained: Trained, index: PrototypeIndex) -> None:
    queries = trained.embed_emg(paired(windows=20, seed=3).emg)
    best = [index.gestures[i] for i in index.scorer(1)(queries).argmax(axis=1)]
    assert best == [hits[0].gesture for hits in index.search(queries, 1)]


def test_prototypes_round_trip(index: PrototypeIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    loaded = PrototypeIndex.load(tmp_path)
    assert np.array_equal(loaded.vectors, index.vectors)
    assert np.array_equal(loaded.rows, index.rows)
    assert (loaded.gestures, loaded.provenance, loaded.encoder) == (index.gestures, index.provenance, "abc")
    tensors = bytearray((tmp_path / prototypes.TENSORS).read_bytes())
    tensors[-1] ^= 1
    (tmp_path / prototypes.TENSORS).write_bytes(tensors)
    with pytest.raises(ModelError) as damaged:
        PrototypeIndex.load(tmp_path)
    assert damaged.value.reason is Reason.HASH_MISMATCH
    (tmp_path / prototypes.SIDECAR).write_text("[]")
    with pytest.raises(ModelError):
        PrototypeIndex.load(tmp_path)
    with pytest.raises(ModelError):
        PrototypeIndex.load(tmp_path / "none")


@pytest.mark.parametrize(
    "change",
    [
        {"vectors": np.ones((15, 64), np.float32)},
        {"rows": np.zeros(15, np.int64)},
        {"provenance": ()},
        {"gestures": ("a", "b", "c", "d")},
    ],
)
def test_prototypes_that_do_not_fit_are_refused(index: PrototypeIndex, change: dict[str, object]) -> None:
    with pytest.raises(DataError):
        replace(index, **change)


def test_medoids_stand_for_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 8)
    x = (np.repeat(centres, 25, axis=0) + 0.1 * rng.normal(size=(100, 8))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    chosen = medoids(x, 4)
    assert sorted(chosen // 25) == [0, 1, 2, 3]
    assert np.array_equal(chosen, medoids(x, 4))
    assert medoids(x[:3], 5).tolist() == [0, 1, 2]
    outlier = np.vstack([x[:25], -x[:1]])
    assert medoids(outlier, 1)[0] != 25


@pytest.mark.parametrize("kind", ["embridge", "closed", "regression"])
def test_the_pose_side_of_every_head_says_the_same_outside_torch(trained: Trained, kind: str) -> None:
    world = paired(windows=96)
    heads = {
        "embridge": lambda: trained,
        "closed": lambda: fit_closed(world, trained.config),
        "regression": lambda: fit_ridge(world, trained.config),
    }
    head = heads[kind]()
    poses = paired(windows=9, seed=5).pose
    assert poses is not None
    graph = export_pose(head, poses)
    session = onnxruntime.InferenceSession(graph)
    (found,) = session.run(["vectors"], {"poses": poses})
    np.testing.assert_allclose(found, head.embed_pose(poses), atol=1e-4)
    assert session.run(["vectors"], {"poses": poses[:1]})[0].shape == (1, found.shape[1])
    with pytest.raises(DataError):
        export_pose(head, poses[:1])


def test_a_pose_side_that_strays_is_not_exported(trained: Trained) -> None:
    poses = paired(windows=4).pose
    assert poses is not None
    with pytest.raises(ModelError) as caught:
        export_pose(trained, poses, limits=ParityLimits(cosine=1.1))
    assert caught.value.reason is Reason.PARITY
