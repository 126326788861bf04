"""What a delta between two releases costs on the way, against the whole bundle packed with zstd at the same level.

A network of the product's shape is exported, its weights are moved a little, as a few steps of training would, and it
is exported again; the int8 graphs are quantised anew each time.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import zstandard

from benchmarks.framework import Row, compared, row
from embridge_cloud.learn.trained import Trained
from embridge_shared import archive, delta
from embridge_shared.delta import DeltaTarget, apply_delta, make_delta
from embridge_shared.release import ENCODER_INT8
from support.untrained import bundle_of, streaming, untrained

GROUP = "deltas"
CHANNELS = 16
SEEDS = range(3)
_KB = 1e-3


def rows() -> list[Row]:
    """Sizes by how far the weights moved, whole and as an edge that decodes with int8 alone would need; and times."""
    torch.set_num_threads(1)
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        base = untrained(CHANNELS, config=streaming(CHANNELS))
        old = bytes_of(base, Path(folder))
        for what, move in MOVES.items():
            news = [bytes_of(moved(base, move, seed), Path(folder)) for seed in SEEDS]
            found += sizes(what, old, news)
        found += times(old, news[0])
    return found


def sizes(what: str, old: bytes, news: list[bytes]) -> list[Row]:
    """A delta's size beside the whole, and that of its int8 graph alone."""
    made = [make_delta(old, new) for new in news]
    members = [archive.unpack(new) for new in news]
    ways = [delta.ways(one) for one in made]
    whole, graph = [packed(new) * _KB for new in news], [packed(m[ENCODER_INT8]) * _KB for m in members]
    own = [found[ENCODER_INT8][1] * _KB for found in ways]
    return [
        compared(GROUP, f"{what}: bundle", "kB", [len(d) * _KB for d in made], peer="zstd", theirs=whole),
        compared(GROUP, f"{what}: int8 graph", "kB", own, peer="zstd", theirs=graph),
    ]


def times(old: bytes, new: bytes) -> list[Row]:
    """How long a registry and an edge work on one."""
    made = make_delta(old, new)
    about = DeltaTarget(
        release="embridge-2",
        digest=hashlib.sha256(new).hexdigest(),
        size=len(new),
        base=hashlib.sha256(old).hexdigest(),
    )
    return [
        row(GROUP, "make, processor", "ms", [timed(lambda: make_delta(old, new)) for _ in SEEDS]),
        row(GROUP, "apply, processor", "ms", [timed(lambda: apply_delta(old, made, about)) for _ in SEEDS]),
    ]


def timed(work: Callable[[], object]) -> float:
    """Processor time, ms."""
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e3


def packed(data: bytes) -> int:
    """Bytes of zstd alone."""
    return len(zstandard.ZstdCompressor(level=delta.LEVEL).compress(data))


def bytes_of(head: Trained, folder: Path) -> bytes:
    """A release of a head, as a file."""
    bundle_of(head, folder)
    return (folder / "embridge-1.embridge").read_bytes()


def moved(base: Trained, move: Callable[[str], float], seed: int) -> Trained:
    """The same network, each weight moved by a share of its tensor's spread."""
    head = deepcopy(base)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in head.model.named_parameters():
            spread = float(weights.std()) if weights.numel() > 1 else 0.0
            weights += move(name) * spread * torch.randn(weights.shape, generator=rng)
    return head


MOVES: dict[str, Callable[[str], float]] = {
    "all weights 1e-4": lambda name: 1e-4,
    "all weights 1e-3": lambda name: 1e-3,
    "all weights 1e-2": lambda name: 1e-2,
    "query former 1e-2": lambda name: 1e-2 if name.startswith("qformer") else 0.0,
}
