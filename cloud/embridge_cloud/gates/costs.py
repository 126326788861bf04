"""What a candidate costs on an edge, beside the champion in the same run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.gates.checks import at_least, at_most
from embridge_cloud.gates.contender import Contender, memory_bytes, race
from embridge_cloud.gates.policy import GatePolicy
from embridge_cloud.traces import Stretch
from embridge_shared.fleet import GateCheck

_MIB = 1 << 20
_PERCENTILE = 0.01


def windows_of(contender: Contender, stretches: Sequence[Stretch], count: int, seed: int) -> NDArray[np.float32]:
    """Windows of the panel as a release takes them, drawn at even chances; its golden ones without a panel."""
    if not stretches:
        golden = contender.bundle.golden.windows
        return golden[np.arange(count) % len(golden)]
    rng = np.random.default_rng([seed, 2])
    lengths = np.array([len(s.windows()) for s in stretches])
    places = np.sort(rng.choice(lengths.sum(), min(count, int(lengths.sum())), replace=False))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    which = np.searchsorted(starts, places, side="right") - 1
    return np.stack([stretches[w].windows()[at - starts[w]] for w, at in zip(which, places, strict=True)])


def costs(
    candidate: Contender, champion: Contender | None, windows: Sequence[NDArray[np.float32]], policy: GatePolicy
) -> list[GateCheck]:
    """Latency, size and memory.

    Args:
        candidate: What is judged.
        champion: What it stands beside; None for the first release.
        windows: As each contender takes them.
        policy: What it may cost.
    """
    contenders = [candidate] if champion is None else [candidate, champion]
    took = race(contenders, windows)
    hop_ms = 1e3 * candidate.bundle.manifest.preprocess.hop_s
    allowed = policy.costs
    checks = []
    for name, share in (("p50", 50.0), ("p99", 99.0)):
        own, other = (float(np.percentile(t, share)) for t in (took[0], took[-1]))
        limit = max(allowed.hop * hop_ms, 0.0 if champion is None else allowed.latency * other)
        beside = None if champion is None else other
        checks.append(
            at_most(f"latency.{name}", f"processor time of a window, {name}", own, beside, limit, unit=" ms", places=3)
        )
    sizes = [c.bundle.size / _MIB for c in contenders]
    checks.append(
        _cost("size", "size of the bundle", sizes, allowed.size, allowed.free_bytes / _MIB),
    )
    memory = [memory_bytes(c.path) / _MIB for c in contenders]
    checks.append(_cost("memory", "memory while it decodes", memory, allowed.memory, allowed.free_memory_bytes / _MIB))
    return checks


def _cost(name: str, title: str, values: Sequence[float], times: float, free: float) -> GateCheck:
    own, other = values[0], values[1] if len(values) > 1 else None
    return at_most(name, title, own, other, max(free, times * (other or 0.0)), unit=" MiB", places=1)


def quantised(candidate: Contender, windows: NDArray[np.float32], policy: GatePolicy) -> GateCheck:
    """Whether quantising leaves the answers to real windows what they are."""
    cosine = float(np.quantile(candidate.quantised_cosine(windows), _PERCENTILE))
    return at_least(
        "int8.cosine", "quantised beside full precision, all but 1 in 100 windows", cosine, policy.int8_cosine
    )
