"""A streaming encoder as ONNX graphs, and proof that a stream answers as its windows do."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from embridge_cloud.learn.export import Exported, Parity, forget_sources, open_session, parity_of, quantise, quiet
from embridge_cloud.learn.streaming import StreamGraph
from embridge_cloud.learn.trained import Trained
from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.release import STREAM_PATCH, STREAM_QUERIES, STREAM_STATE, stream_next

PHASES = 4
"""Phases of a patch an export is proved in."""
_GAP = 1e3


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a streaming export must reach: largest difference from the window's answer; quantised, least cosine."""

    max_abs: float = 1e-4
    int8_cosine: float = 0.98


def export_stream(head: Trained, sample: NDArray[np.float32], *, limits: StreamLimits | None = None) -> Exported | None:
    """Export and prove the EMG side of a head a patch at a time.

    The sample's windows, one after another, are a recording. It is streamed in several phases of a patch and with a gap
    that leaves the worst of states, and after every patch the answer is held against that to the window before it.

    Args:
        head: A trained model.
        sample: Real windows the proof runs on, float32 (N, T, C), at least 2.
        limits: What the graphs must reach.

    Returns:
        Graphs from `patch` float32 (1, patch, C) and states to `queries` float32 (1, M, d) and the next states;
        None where the encoder sees whole windows.

    Raises:
        ModelError: PARITY: a stream strays from its windows further than the limits allow.
        DataError: The sample is too small.
    """
    module = head.stream_module()
    if module is None:
        return None
    if len(sample) < 2:
        raise DataError("a streaming export is proved on at least 2 windows", reason=Reason.TOO_LITTLE_DATA)
    limits = limits or StreamLimits()
    full = _to_onnx(module)
    small = quantise(full, module.exact)
    recording = np.ascontiguousarray(sample[:8].reshape(-1, sample.shape[2]))
    parity, int8 = (_proved(head, graph, recording) for graph in (full, small))
    if parity.max_abs > limits.max_abs or int8.cosine < limits.int8_cosine:
        raise ModelError(
            f"a stream strays from its windows: off by {parity.max_abs:.2g} (most {limits.max_abs}), quantised cosine "
            f"{int8.cosine:.4f} (least {limits.int8_cosine})",
            reason=Reason.PARITY,
            hint="Check the versions of torch, onnxscript and onnxruntime, or train with encoder.span = 0.",
        )
    return Exported(onnx=full, int8=small, parity=parity, int8_parity=int8)


def stream_onnx(graph: bytes, recording: NDArray[np.float32], patch: int) -> NDArray[np.float32]:
    """Run a streaming graph from the worst of states: float32 (n, C) to queries a patch, (n // patch, M, d)."""
    session = open_session(graph)
    names = [i.name for i in session.get_inputs()][1:]
    state: dict[str, Any] = {
        i.name: np.full(i.shape, _GAP, np.float32) for i in session.get_inputs() if i.name in names
    }
    out = []
    for at in range(0, len(recording) - patch + 1, patch):
        fed = {STREAM_PATCH: recording[None, at : at + patch], **state}
        queries, *rest = session.run([STREAM_QUERIES, *map(stream_next, names)], fed)
        state = dict(zip(names, rest, strict=True))
        out.append(np.asarray(queries, np.float32))
    return np.concatenate(out)


def _proved(head: Trained, graph: bytes, recording: NDArray[np.float32]) -> Parity:
    """The worst of several phases; what a state was before a window's worth does not matter."""
    window, patch = head.config.emg.window, head.config.emg.patch
    expected, found = [], []
    for phase in range(0, patch, -(-patch // PHASES)):
        part = recording[phase:]
        views = sliding_window_view(part, window, axis=0)[::patch].transpose(0, 2, 1)
        expected.append(head.embed_emg(np.ascontiguousarray(views)))
        found.append(stream_onnx(graph, part, patch)[window // patch - 1 :])
    return parity_of(np.concatenate(expected), np.concatenate(found))


def _to_onnx(module: StreamGraph) -> bytes:
    """One file with its weights inside; every shape fixed."""
    graph = module.eval()
    signal, state = module.emg.signal, module.state()
    names = [f"{STREAM_STATE}{name}" for name in state]
    patch = torch.zeros(1, signal.patch, signal.channels)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (patch, *state.values()),
            input_names=[STREAM_PATCH, *names],
            output_names=[STREAM_QUERIES, *map(stream_next, names)],
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError("torch made no graph", reason=Reason.PARITY)
    proto = program.model_proto
    forget_sources(proto)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))
