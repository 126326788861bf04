"""Training as it runs, from windows on disk, against the bare update of the same network on a batch in memory.

MFU is the model's floating-point operations a second over those of a matrix product measured in the same run.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.framework import Row, compared, in_turn, row
from embridge_cloud.learn.align import align, fit_path, prepare
from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.encoders import MaskedAutoencoder, set_dropout
from embridge_cloud.learn.loop import Run
from embridge_cloud.learn.model import Bridge
from embridge_cloud.learn.optim import Progress, Stepper, autocast
from embridge_cloud.learn.presets import faithful, quick
from embridge_cloud.learn.pretrain import MaePlan, emg_statistics, new_encoder, pose_statistics, train_mae
from embridge_cloud.learn.window_store import write_windows

GROUP = "learn"
CPU = torch.device("cpu")
_SIDE = 1536  # of the matrices whose product is the machine's peak
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Size:
    """A configuration and how long it is measured."""

    name: str
    config: LearnConfig
    people: int
    windows: int
    steps: int
    repeats: int
    threads: tuple[int, ...]


def rows() -> list[Row]:
    cores = os.cpu_count() or 1
    sizes = [
        Size("quick", quick(), 16, 64, steps=30, repeats=5, threads=(1,)),
        Size("faithful", faithful(), 64, 16, steps=2, repeats=2, threads=(1, cores) if cores > 1 else (1,)),
    ]
    return [r for size in sizes for r in _measured(size)]


def _measured(size: Size) -> Iterator[Row]:
    before = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="embridge-bench-") as folder:
        windows = _stored(Path(folder), size)
        for threads in size.threads:
            torch.set_num_threads(threads)
            peak = _peak()
            yield row(GROUP, f"matmul, {threads} threads", "GFLOP/s", [peak / 1e9])
            for stage in ("emg_mae", "pose_mae", "align"):
                torch.manual_seed(0)
                yield from _stage(stage, size, windows, f"{stage} {size.name}, {threads} threads", peak)
    torch.set_num_threads(before)


def _stage(stage: str, size: Size, windows: Windows, name: str, peak: float) -> Iterator[Row]:
    """Windows a second of the loop and of the bare update, peak memory, MFU."""
    batch = size.config.align.batch if stage == "align" else getattr(size.config, stage).batch
    loop, bare, flops = (_align if stage == "align" else _mae)(stage, size, windows)
    with _highest() as memory:
        ours, limit = in_turn(loop, bare, repeats=size.repeats)
    yield compared(
        GROUP, name, "windows/s", [batch / s for s in ours], peer="bare update", theirs=[batch / s for s in limit]
    )
    yield row(GROUP, f"{name}: a step of {batch}", "s", ours)
    yield row(GROUP, f"{name}: operations of a step", "GFLOP", [flops / 1e9])
    yield row(GROUP, f"{name}: MFU", "%", [100 * flops / s / peak for s in ours])
    yield row(GROUP, f"{name}: peak memory of the process", "MB", [memory[0]])


Measures = tuple[Callable[[], float], Callable[[], float], float]


def _mae(stage: str, size: Size, windows: Windows) -> Measures:
    """A masked pre-training: seconds a step of the loop and of the bare update, and operations a step."""
    config = size.config
    modality = stage.removesuffix("_mae")
    values = windows.emg if modality == "emg" else windows.pose
    assert values is not None
    signal, settings = getattr(config, modality), getattr(config, stage)
    statistics = (emg_statistics if modality == "emg" else pose_statistics)(values)
    settings = msgspec.structs.replace(settings, steps=size.steps + 1)
    plan = MaePlan(stage, settings, config.optimiser)

    def loop(progress: Callable[[Progress], None]) -> None:
        encoder = new_encoder(signal, config, statistics)
        train_mae(encoder, values, plan, run=Run(CPU, progress), rng=np.random.default_rng(0))

    model = MaskedAutoencoder(new_encoder(signal, config, statistics), settings).train()
    set_dropout(model, settings.dropout)
    x = torch.from_numpy(values[np.arange(settings.batch)])
    stepper = Stepper([(list(model.parameters()), settings.lr)], config.optimiser, 10**6)
    return _both(loop, lambda: model(x)[0], stepper, size)


def _align(stage: str, size: Size, windows: Windows) -> Measures:
    """The alignment: as `_mae`."""
    change = msgspec.structs.replace
    config = change(size.config, align=change(size.config.align, steps=size.steps + 1))
    assert windows.emg is not None
    assert windows.pose is not None

    def made() -> Bridge:
        encoders = (
            new_encoder(config.emg, config, emg_statistics(windows.emg)),
            new_encoder(config.pose, config, pose_statistics(windows.pose)),
        )
        model = Bridge(*encoders, config)
        prepare(model, windows.pose, seed=0)
        fit_path(model, windows)
        return model

    ours, theirs = made(), made().train()
    start = {k: v.clone() for k, v in ours.state_dict().items()}

    def loop(progress: Callable[[Progress], None]) -> None:
        ours.load_state_dict(start)
        align(ours, windows, Run(CPU, progress), np.random.default_rng(0))

    rows = np.arange(config.align.batch)
    emg, pose = torch.from_numpy(windows.emg[rows]), torch.from_numpy(windows.pose[rows])
    groups = [
        (list(theirs.emg.parameters()), config.align.lr_emg),
        ([*theirs.qformer.parameters(), theirs.log_tau], config.align.lr_rest),
    ]
    return _both(loop, lambda: theirs.losses(emg, pose).total, Stepper(groups, config.optimiser, 10**6), size)


def _both(
    loop: Callable[[Callable[[Progress], None]], None], loss: Callable[[], Tensor], stepper: Stepper, size: Size
) -> Measures:
    """Seconds a step; the loop's first one, which fills the feed, is left out."""
    optimiser = size.config.optimiser

    def update() -> None:
        with autocast(optimiser, CPU):
            value = loss()
        stepper.step(value)

    def ours() -> float:
        moments: list[float] = []
        loop(lambda p: moments.append(time.perf_counter()))
        return (moments[-1] - moments[0]) / (len(moments) - 1)

    def bare() -> float:
        update()
        began = time.perf_counter()
        for _ in range(size.steps):
            update()
        return (time.perf_counter() - began) / size.steps

    with FlopCounterMode(display=False) as counter:
        update()
    return ours, bare, float(counter.get_total_flops())


def _peak() -> float:
    """Floating-point operations a second of a large matrix product; the best of some."""
    a, b = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * _SIDE**3 / best


def _stored(folder: Path, size: Size) -> Windows:
    """Random windows of many people on disk, each overlapping the next by half."""
    rng = np.random.default_rng(0)
    emg, pose = size.config.emg, size.config.pose
    ahead, n = emg.window // 2, size.windows
    at = np.arange(n)

    def person(number: int) -> Windows:
        x = rng.normal(size=(ahead * (n + 1), emg.channels)).astype(np.float32)
        p = rng.normal(size=(pose.window // 2 * (n + 1), pose.channels)).astype(np.float32)
        zeros = np.zeros(n, np.int64)
        return Windows(
            emg=np.stack([x[i * ahead : i * ahead + emg.window] for i in at]),
            pose=np.stack([p[i * pose.window // 2 : i * pose.window // 2 + pose.window] for i in at]),
            label=at % 8,
            participant=zeros,
            session=zeros,
            repetition=at,
            start_s=at * (ahead / emg.rate_hz),
            gestures=tuple("abcdefgh"),
            participants=(f"p{number}",),
            sessions=(f"s{number}",),
        )

    rates = {"emg": emg.rate_hz, "pose": pose.rate_hz}
    return write_windows(folder, (person(i) for i in range(size.people)), rates_hz=rates)


@contextmanager
def _highest() -> Iterator[list[float]]:
    """Greatest resident memory of the process inside the block, MB."""
    Path("/proc/self/clear_refs").write_text("5")
    found = [0.0]
    yield found
    peak = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    assert peak is not None
    found[0] = int(peak[1]) / 1e3
