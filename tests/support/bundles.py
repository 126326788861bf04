"""A small but complete release: a real ONNX encoder, prototypes on its embeddings, golden answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from embridge_shared.preprocess import FrontEndConfig, PreprocessConfig, WindowConfig
from embridge_shared.release import (
    CARD,
    ENCODER,
    ENCODER_INT8,
    GOLDEN,
    PROTOTYPES,
    Gesture,
    Golden,
    Lineage,
    Manifest,
    pack_array,
    pack_golden,
    write_bundle,
)
from embridge_shared.scoring import PrototypeScorer

T, C, M, D, G, K = 20, 4, 2, 8, 3, 4
PREPROCESS = PreprocessConfig(
    front_end=FrontEndConfig(mode="envelope", rate_hz=100.0), window=WindowConfig(length=T, hop=5, patch=10)
)


def encoder(weights: np.ndarray, window: int = T) -> bytes:
    """Mean over time, a linear map (C, M·d), normalised: float32 (B, T, C) -> (B, M, d)."""
    nodes = [
        helper.make_node("ReduceMean", ["windows"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "W"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["queries"], axis=-1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("windows", TensorProto.FLOAT, ["B", window, len(weights)])],
        [helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["B", M, D])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "W"),
            numpy_helper.from_array(np.array([-1, M, D], np.int64), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def embed(weights: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """What `encoder(weights)` answers, float32 (B, M, d)."""
    raw = (windows.mean(axis=1) @ weights).reshape(-1, M, D)
    return (raw / np.linalg.norm(raw, axis=-1, keepdims=True)).astype(np.float32)


def parts(version: int = 1, seed: int = 0, **changes: Any) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and files of release `embridge-{version}`: gesture g is channel g active."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(C, M * D)).astype(np.float32)
    rows = np.arange(G * K) % G
    active = np.eye(C, dtype=np.float32)[rows][:, None, :]
    examples = (active + 0.05 * rng.random((len(rows), T, C))).astype(np.float32)
    prototypes = embed(weights, examples)[:, 0]
    windows = rng.random((6, T, C)).astype(np.float32)
    queries = embed(weights, windows)
    scores = PrototypeScorer(prototypes, rows, k=3)(queries)
    manifest = Manifest(
        name="embridge",
        version=version,
        created_ns=1_700_000_000_000_000_000,
        code="0.1.0",
        preprocess=PREPROCESS,
        window=T,
        channels=C,
        queries=M,
        dim=D,
        gestures=tuple(
            Gesture(label=f"g{g}", title=f"Gesture {g}", emg_seen=g < 2, prototypes=K, provenance="test")
            for g in range(G)
        ),
        rows=tuple(int(r) for r in rows),
        k=3,
        thresholds={"g0": 0.2},
        lineage=Lineage(snapshot="0" * 64, sessions=("s1",), participants=("p1",), seed=seed),
        metrics={"zero_shot": 0.5},
    )
    files = {
        ENCODER: encoder(weights),
        ENCODER_INT8: encoder(weights + 0.001 * rng.normal(size=weights.shape)),
        PROTOTYPES: pack_array(prototypes),
        GOLDEN: pack_golden(Golden(windows, queries, scores)),
        CARD: b"# A release for tests\n",
    }
    return msgspec.structs.replace(manifest, **changes), files


def make_bundle(folder: Path, version: int = 1, seed: int = 0, **changes: Any) -> Path:
    """Write release `embridge-{version}`."""
    manifest, files = parts(version, seed, **changes)
    path = folder / f"{manifest.release}.embridge"
    write_bundle(path, manifest, files)
    return path
