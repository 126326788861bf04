"""Live decoding at a hop of 50 ms: latency, CPU, start and memory, beside the same network whole and beside peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.framework import Row, compared, row
from benchmarks.signals import CHANNELS, RATE_HZ, forearm_emg
from embridge_cloud.learn.closed import fit_closed
from embridge_cloud.learn.model import InferenceGraph
from embridge_cloud.learn.presets import product, quick
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.update.slots import FOLDER, Slots
from embridge_shared.preprocess import WearerScale, fit_wearer_scale, run
from embridge_shared.release import Bundle, read_bundle
from support.learn_world import paired
from support.sessions import emg_spec
from support.untrained import bundle_of, untrained

GROUP = "decode"
HOP_S, SECONDS, REPEATS = 0.05, 20.0, 3
HOP = round(HOP_S * RATE_HZ)
LIBEMG = "EMBRIDGE_BENCH_LIBEMG"
"""Names the Python of an environment that LibEMG is installed in."""
LIBEMG_WINDOW = 400
SPEC = emg_spec(CHANNELS, RATE_HZ)

Times = tuple[list[float], list[float]]
"""Wall and CPU milliseconds of each hop."""


class TorchDecoder(Decoder):
    """Runs the network whole, in torch."""

    module: InferenceGraph

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(self.module(torch.from_numpy(np.array(window))[None])[0].numpy())


def rows() -> list[Row]:
    torch.set_num_threads(1)
    emg = forearm_emg(SECONDS, seed=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained = untrained(CHANNELS, config=product())
        bundle = bundle_of(trained, made(folder / "product"), hop=HOP)
        ways: dict[str, Callable[[], Times]] = {
            "stream": lambda: timed(Decoder(bundle), emg),
            "whole windows in ONNX, float32": lambda: timed(whole(Decoder(bundle, int8=False)), emg),
            "whole windows in ONNX, int8": lambda: timed(whole(Decoder(bundle)), emg),
            "whole windows in torch": lambda: timed(torch_decoder(bundle, InferenceGraph(trained.model)), emg),
        }
        if os.environ.get(LIBEMG):
            ways["LibEMG, 0.2 s, HTD and LDA"] = lambda: libemg(emg, folder)
        config = quick(channels=CHANNELS, patch=10)
        closed = bundle_of(fit_closed(paired(windows=256, channels=CHANNELS), config), made(folder / "closed"), hop=5)
        ways["closed"] = lambda: timed(Decoder(closed), emg)
        turns = [{way: run_() for way, run_ in ways.items()} for _ in range(REPEATS)]
        found = list(told(turns))
        wall, cpu = zip(*(cold_start_s(folder / "product") for _ in range(REPEATS)), strict=True)
        found += [row(GROUP, "decode.cold_start_s", "s", wall), row(GROUP, "decode.cold_start_cpu", "s", cpu)]
        found.append(row(GROUP, "decode.agent_rss_mb", "MB", [agent_rss_mb(folder / "product")]))
        return found


def told(turns: list[dict[str, Times]]) -> list[Row]:
    """Ours against each way, turn by turn."""
    found = []
    peers = [way for way in turns[0] if way not in ("stream", "closed")]
    for q in (50, 99):
        ours, closed = ([float(np.percentile(t[way][0], q)) for t in turns] for way in ("stream", "closed"))
        for peer in peers:
            theirs = [float(np.percentile(t[peer][0], q)) for t in turns]
            found.append(compared(GROUP, f"decode.latency_p{q}_ms", "ms", ours, peer=peer, theirs=theirs))
        found.append(row(GROUP, f"decode.cpu_p{q}_ms", "ms", [float(np.percentile(t["stream"][1], q)) for t in turns]))
        found.append(row(GROUP, f"decode.closed_latency_p{q}_ms", "ms", closed))
    spent = {way: [float(np.mean(t[way][1])) for t in turns] for way in turns[0]}
    for peer in peers:
        # how often ours fits into theirs
        name = "decode.cpu_vs_whole_window" if peer == peers[0] else "decode.cpu"
        found.append(compared(GROUP, name, "ms a hop", spent["stream"], peer=peer, theirs=spent[peer]))
    found.append(row(GROUP, "decode.closed_cpu", "ms a hop", spent["closed"]))
    return found


def made(folder: Path) -> Path:
    """A folder, made."""
    folder.mkdir()
    return folder


def whole(decoder: Decoder) -> Decoder:
    """The same release as if it had no stream."""
    decoder.stream = None
    return decoder


def torch_decoder(bundle: Bundle, module: InferenceGraph) -> Decoder:
    """The release's network in torch."""
    decoder = TorchDecoder(bundle)
    decoder.module = module.eval()
    return whole(decoder)


def timed(decoder: Decoder, emg: NDArray[np.int16]) -> Times:
    """Push a recording hop by hop, raw samples to scores; the first window's worth is not counted."""
    stream = StreamDecoder(decoder, SPEC, scale_of(decoder, emg), hop_s=HOP_S)
    wall, cpu = [], []
    for first in range(0, len(emg) - HOP + 1, HOP):
        part = emg[first : first + HOP]
        began, spent = time.perf_counter(), time.process_time()
        decoded = stream.push(part, first)
        if decoded:
            wall.append((time.perf_counter() - began) * 1e3)
            cpu.append((time.process_time() - spent) * 1e3)
    return wall, cpu


def scale_of(decoder: Decoder, emg: NDArray[np.int16]) -> WearerScale:
    """The wearer's."""
    return fit_wearer_scale(run(decoder.manifest.preprocess.front_end, SPEC, emg[: 6 * int(RATE_HZ)]))


def libemg(emg: NDArray[np.int16], folder: Path) -> Times:
    """The peer, in its own environment."""
    path = folder / "emg.npy"
    np.save(path, emg)
    script = Path(__file__).parents[1] / "libemg_peer.py"
    command = [os.environ[LIBEMG], str(script), str(path), str(LIBEMG_WINDOW), str(HOP)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["wall"], found["cpu"]


COLD = """
import sys, time, numpy as np
from pathlib import Path
from embridge_shared.release import read_bundle
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_shared.preprocess import WearerScale
from embridge_shared.signal import Modality, StreamSpec
decoder = Decoder(read_bundle(Path(sys.argv[1])))
c = decoder.manifest.channels
spec = StreamSpec(name="emg", modality=Modality.EMG, channels=tuple(map(str, range(c))), rate_hz=2000.0)
stream = StreamDecoder(decoder, spec, WearerScale.identity(c), hop_s=0.05)
assert stream.push(np.ones((4100, c), np.int16))
"""


def cold_start_s(folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds from a fresh interpreter to the first scores, imports and verifying the bundle included."""
    began, spent = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", COLD, str(path_of(folder))], check=True)
    now = os.times()
    cpu = now.children_user + now.children_system - spent.children_user - spent.children_system
    return time.perf_counter() - began, cpu


def agent_rss_mb(folder: Path) -> float:
    """Resident memory of a whole agent that decodes one virtual band."""
    state = folder / "state"
    (state / FOLDER).mkdir(parents=True)
    slots, bundle = Slots(state / FOLDER), path_of(folder)
    fetched = slots.path(read_bundle(bundle).digest)
    fetched.parent.mkdir(parents=True, exist_ok=True)
    fetched.write_bytes(bundle.read_bytes())
    slots.activate(fetched)
    command = [sys.executable, "-m", "benchmarks.agent_child", str(state)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["hops"]:
        raise RuntimeError(f"the agent decoded nothing: {done.stderr[-2000:]}")
    return float(found["rss_mb"])


def path_of(folder: Path) -> Path:
    """Where a bundle lies."""
    return next(folder.glob("*.embridge"))
