"""Latency of the streaming decoder, hop by hop, against ONNX Runtime alone on the same windows."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.framework import Row, compared
from benchmarks.signals import CHANNELS, RATE_HZ, forearm_emg
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_shared.preprocess import WearerScale, fit_wearer_scale, run
from embridge_shared.release import ENCODER, ENCODER_INT8
from support.sessions import emg_spec
from support.untrained import HOP, untrained_bundle

GROUP, PEER = "decode", "ONNX Runtime alone"
SECONDS, REPEATS = 30.0, 5
HOP_SAMPLES = round(HOP / 100 * RATE_HZ)


class Watched(Decoder):
    """Remembers the last window."""

    window: NDArray[np.float32]

    def scores(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        self.window = window
        return super().scores(window)


def rows() -> list[Row]:
    torch.set_num_threads(1)
    emg = forearm_emg(SECONDS, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        bundle = untrained_bundle(Path(folder), channels=CHANNELS)
    front_end = bundle.manifest.preprocess.front_end
    scale = fit_wearer_scale(run(front_end, emg_spec(CHANNELS, RATE_HZ), emg))
    found = []
    for int8 in (False, True):
        decoder = Watched(bundle, int8=int8)
        bare = alone(bundle.files[ENCODER_INT8 if int8 else ENCODER])
        runs = [turns(decoder, bare, emg, scale) for _ in range(REPEATS + 1)][1:]
        for q in (50, 99):
            values, theirs = ([float(np.percentile(v, q)) for v in side] for side in zip(*runs, strict=True))
            name = f"a hop of 100 ms, {'int8' if int8 else 'float32'}, p{q}"
            found.append(compared(GROUP, name, "ms", values, peer=PEER, theirs=theirs))
    return found


def turns(
    decoder: Watched, bare: onnxruntime.InferenceSession, emg: NDArray[np.int16], scale: WearerScale
) -> tuple[list[float], list[float]]:
    """Milliseconds of the decoder and of its encoder alone, hop by hop in turn."""
    stream = StreamDecoder(decoder, emg_spec(CHANNELS, RATE_HZ), scale)
    ours, theirs = [], []
    for first in range(0, len(emg) - HOP_SAMPLES + 1, HOP_SAMPLES):
        part = emg[first : first + HOP_SAMPLES]
        began = time.perf_counter()
        decoded = stream.push(part, first)
        between = time.perf_counter()
        if len(decoded) == 1:
            bare.run(["queries"], {"windows": decoder.window[None]})
            theirs.append((time.perf_counter() - between) * 1e3)
            ours.append((between - began) * 1e3)
    return ours, theirs


def alone(model: bytes) -> onnxruntime.InferenceSession:
    """The encoder with nothing around it, one thread as on an edge."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
