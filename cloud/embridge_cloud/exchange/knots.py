"""Where to cut a stream so that its times come back: the fewest chunks whose clock is a line each.

The store keeps one time a chunk and draws lines between them (`store.sealing.timeline`), so a list of times survives a
journey exactly where chunks begin at the bends of its clock.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_SAMPLES: Final = 8192
MAX_BYTES: Final = 4 << 20
_HALF_NS: Final = 0.5 - 1e-6
_FIRST_LOOK: Final = 512


def longest_chunk(channels: int, itemsize: int) -> int:
    """Samples a chunk may hold."""
    return max(1, min(MAX_SAMPLES, MAX_BYTES // (channels * itemsize)))


def knots(
    index: NDArray[np.int64],
    t_ns: NDArray[np.int64],
    rate_hz: float,
    *,
    longest: int = MAX_SAMPLES,
    tolerance_ns: float = 0.0,
) -> NDArray[np.int64]:
    """Positions at which chunks begin.

    Args:
        index: Sample indices, rising, int64 (n,).
        t_ns: Unix times, not falling, int64 (n,).
        rate_hz: Nominal rate; it holds after the last knot.
        longest: Samples in a chunk at most.
        tolerance_ns: How far the times drawn from the knots may be off; 0 for not at all.

    Returns:
        Rising positions in 0..n, int64 (k,); 0 and every sample after a gap are among them.
    """
    n = len(index)
    if not n:
        return np.zeros(0, np.int64)
    begins = np.append(np.flatnonzero(np.diff(index) != 1) + 1, n)
    slack = max(tolerance_ns, _HALF_NS)
    found, at = [0], 0
    while True:
        limit = int(min(begins[np.searchsorted(begins, at, side="right")], at + longest))
        if limit >= n and _nominal(index[at:], t_ns[at:], rate_hz, slack):
            return np.array(found, np.int64)
        at = _reach(index, t_ns, at, min(limit, n - 1), slack)
        found.append(at)
        if at == n - 1:
            return np.array(found, np.int64)


def _nominal(index: NDArray[np.int64], t_ns: NDArray[np.int64], rate_hz: float, slack: float) -> bool:
    """Whether times run at the nominal rate."""
    steps = (index - index[0]) * (1e9 / rate_hz)
    return bool((np.abs((t_ns - t_ns[0]) - steps) <= slack).all())


def _reach(index: NDArray[np.int64], t_ns: NDArray[np.int64], at: int, limit: int, slack: float) -> int:
    """The furthest position up to `limit` to which a line from `at` meets every time between within `slack`."""
    look, best = _FIRST_LOOK, at + 1
    while True:
        to = min(at + look, limit)
        dx = (index[at + 1 : to + 1] - index[at]).astype(np.float64)
        dy = (t_ns[at + 1 : to + 1] - t_ns[at]).astype(np.float64)
        low, high = np.maximum.accumulate((dy - slack) / dx), np.minimum.accumulate((dy + slack) / dx)
        slope = dy / dx
        fits = np.flatnonzero((low <= slope) & (slope <= high))
        best = max(best, at + 1 + int(fits[-1]))
        if to == limit or low[-1] > high[-1]:
            return best
        look *= 2
