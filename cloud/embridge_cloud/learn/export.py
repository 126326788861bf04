"""Heads as self-contained ONNX graphs, the EMG side quantised as well, and proof that they say what torch says."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from embridge_shared.errors import DataError, ModelError, Reason

INPUT = "windows"
OUTPUT = "queries"
POSE_INPUT = "poses"
POSE_OUTPUT = "vectors"


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How near an exported graph is to torch, over every query of the sample.

    Attributes:
        cosine: Least cosine.
        mean_cosine: Mean cosine.
        max_abs: Largest difference of a value.
    """

    cosine: float
    mean_cosine: float
    max_abs: float


class ParityLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What an export must reach: least cosine and largest difference; quantised, least cosine only."""

    cosine: float = 0.9999
    max_abs: float = 1e-3
    int8_cosine: float = 0.98


@dataclass(frozen=True, slots=True)
class Exported:
    """An EMG side as two graphs that end in `queries`, L2-normalised: whole windows in, or a patch and states.

    Attributes:
        onnx: Full precision.
        int8: Linear maps quantised.
        parity: Of the first.
        int8_parity: Of the second.
    """

    onnx: bytes
    int8: bytes
    parity: Parity
    int8_parity: Parity


class Exportable(Protocol):
    """A head whose EMG side can leave torch."""

    def embed_emg(self, emg: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """float32 (N, T, C) to unit queries (N, M, d)."""
        ...

    def module(self) -> nn.Module:
        """The same as a graph of its own, with no pose side.

        Weights whose names start with one of its `exact`, if it has that, are not quantised.
        """
        ...

    def embed_pose(self, pose: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Joint angles, float32 (N, Tp, J), rad, to unit vectors (N, d)."""
        ...

    def pose_module(self) -> nn.Module:
        """The same as a graph of its own, with no EMG side."""
        ...


def export_encoder(head: Exportable, sample: NDArray[np.float32], *, limits: ParityLimits | None = None) -> Exported:
    """Export and prove the EMG side of a head.

    Args:
        head: A trained model, or a closed form.
        sample: Real windows the proof runs on, float32 (N, T, C), at least 2.
        limits: What the graphs must reach.

    Raises:
        ModelError: PARITY: a graph strays from torch further than the limits allow.
        DataError: The sample is too small or of another shape.
    """
    if len(sample) < 2:
        raise DataError("an export is proved on at least 2 windows", reason=Reason.TOO_LITTLE_DATA)
    limits = limits or ParityLimits()
    expected = head.embed_emg(sample)
    module = head.module()
    full = _to_onnx(module, sample[:2])
    small = quantise(full, tuple(getattr(module, "exact", ())))
    parity, int8 = (parity_of(expected, run_onnx(graph, sample)) for graph in (full, small))
    if parity.cosine < limits.cosine or parity.max_abs > limits.max_abs:
        raise ModelError(
            f"the exported encoder strays from torch: cosine {parity.cosine:.6f}, off by {parity.max_abs:.2g}",
            reason=Reason.PARITY,
            hint="Check the versions of torch, onnxscript and onnxruntime.",
        )
    if int8.cosine < limits.int8_cosine:
        raise ModelError(
            f"the quantised encoder strays from torch: cosine {int8.cosine:.4f}, least {limits.int8_cosine}",
            reason=Reason.PARITY,
            hint="Release the encoder of full precision, or train with more windows.",
        )
    return Exported(onnx=full, int8=small, parity=parity, int8_parity=int8)


def export_pose(head: Exportable, sample: NDArray[np.float32], *, limits: ParityLimits | None = None) -> bytes:
    """Export and prove the pose side of a head: `poses` float32 (B, Tp, J), rad, to `vectors` (B, d), L2-normalised.

    Args:
        head: A trained model, or a closed form.
        sample: Real poses the proof runs on, float32 (N, Tp, J), at least 2.
        limits: What the graph must reach.

    Raises:
        ModelError: PARITY: the graph strays from the head further than the limits allow.
        DataError: The sample is too small or of another shape.
    """
    if len(sample) < 2:
        raise DataError("an export is proved on at least 2 poses", reason=Reason.TOO_LITTLE_DATA)
    limits = limits or ParityLimits()
    graph = _to_onnx(head.pose_module(), sample[:2], POSE_INPUT, POSE_OUTPUT)
    (found,) = open_session(graph).run([POSE_OUTPUT], {POSE_INPUT: np.ascontiguousarray(sample, np.float32)})
    parity = parity_of(head.embed_pose(sample)[:, None], np.asarray(found)[:, None])
    if parity.cosine < limits.cosine or parity.max_abs > limits.max_abs:
        raise ModelError(
            f"the exported pose side strays: cosine {parity.cosine:.6f}, off by {parity.max_abs:.2g}",
            reason=Reason.PARITY,
            hint="Check the versions of torch, onnxscript and onnxruntime.",
        )
    return graph


def run_onnx(graph: bytes, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a graph on one thread: float32 (N, T, C) to (N, M, d)."""
    return _run(open_session(graph), windows)


def run_singly(graph: bytes, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `run_onnx`, window by window, as an edge does: a quantised graph scales by all that it is given at once."""
    session = open_session(graph)
    return np.concatenate([_run(session, window[None]) for window in windows])


def open_session(graph: bytes) -> onnxruntime.InferenceSession:
    """A graph on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(session.run([OUTPUT], {INPUT: np.ascontiguousarray(windows, np.float32)})[0], np.float32)


def _to_onnx(module: nn.Module, sample: NDArray[np.float32], takes: str = INPUT, gives: str = OUTPUT) -> bytes:
    """One file with its weights inside and a free batch axis."""
    graph = module.eval()
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (torch.from_numpy(np.ascontiguousarray(sample)),),
            input_names=[takes],
            output_names=[gives],
            dynamic_shapes={takes: {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError("torch made no graph", reason=Reason.PARITY)
    proto = program.model_proto
    forget_sources(proto)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def forget_sources(proto: onnx.ModelProto) -> None:
    """Drop stack traces and paths of the machine that exported."""
    graph = proto.graph
    del proto.metadata_props[:]
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def quantise(graph: bytes, exact: tuple[str, ...]) -> bytes:
    """Linear maps as int8 but for exact ones; reduce_range keeps the sums inside 16 bits on processors without VNNI."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder) / "full.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=_reading(graph, exact),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()


def _reading(graph: bytes, prefixes: tuple[str, ...]) -> list[str]:
    """Nodes that read a weight whose name starts with one of `prefixes`."""
    if not prefixes:
        return []
    proto = onnx.load_from_string(graph).graph
    weights = {w.name for w in proto.initializer if w.name.startswith(prefixes)}
    return [n.name for n in proto.node if weights & set(n.input)]


def parity_of(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Parity:
    """Both have unit length, so their product is the cosine."""
    cosine = (expected * found).sum(axis=2)
    return Parity(
        cosine=float(cosine.min()),
        mean_cosine=float(cosine.mean()),
        max_abs=float(np.abs(expected - found).max()),
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' advice to their own developers out of our logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
