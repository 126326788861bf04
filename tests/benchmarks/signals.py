"""Signals to measure with: a simulated forearm's EMG, and what its entropy allows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embridge_edge.forearm import CONTROL_HZ, EMG_RATE_HZ, Donning, Forearm, Performance, Wearer
from embridge_shared.gestures import find

CHANNELS, RATE_HZ, CHUNK = 16, EMG_RATE_HZ, 1000


def forearm_emg(seconds: float, seed: int = 1) -> NDArray[np.int16]:
    """EMG of a wearer who performs, int16 counts (T, 16) at 2 kHz."""
    rng = np.random.default_rng(seed)
    gestures = find(("fist", "point", "open", "pinch_index"))
    performance = Performance(Wearer.random(seed), gestures, repetitions=max(1, int(seconds / 18)), rng=rng)
    steps = np.arange(int(seconds * CONTROL_HZ))
    forearm = Forearm(performance.wearer, Donning(), seed=seed)
    return forearm.emg(performance.angles(steps / CONTROL_HZ + performance.wearer.lead_s))


def entropy_bits(values: NDArray[np.int16]) -> float:
    """Order-0 entropy of a sample, bits."""
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())
