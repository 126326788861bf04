"""The device's clock fitted once more, with all of a session at hand.

A packet can be late, never early, so the line of the clock runs under the arrivals and touches the earliest: the edge
of their lower convex hull below their mean minimises the sum of delays (Moon, Skelly and Towsley 1999). A crystal warms
up, so over more than some minutes the line becomes a polyline, still under all arrivals and nearest to them in sum, a
linear programme. It bends no more than crystals do, so minutes of congestion do not lift it. A few packets carry that
bound, so it is polished by a weighted fit to the earliest packet of each half second, in which late ones count little,
as on the edge. Where a band came back with a count of its own the line is broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

from embridge_cloud.store.sealed import Samples, SealedSession
from embridge_shared.errors import DataError, Reason
from embridge_shared.signal import Arrivals

SEGMENT_S = 180.0
"""Length of a segment, between 2 and 10 minutes: longer bends, shorter touches too few early packets."""

_BEND = 2e-8
"""Most change of skew in a second: a crystal that warms up by a few ppm in minutes."""
_WINDOW_S = 0.5
_NEAR_S = 5e-4
"""Packets this little above the line are early ones; jitter of the host, not a queue, made them late."""
_DISTRUST = 3.0
_POLISHES = 15
_MIN_PACKETS, _MIN_S = 20, 5.0
_SILENCE_S = 0.25
"""A band does not come back from a lost link sooner."""
_ASIDE_S = 20.0
_STEP_S = 4e-3
_SKEW_S = 60.0
"""A piece shorter than this takes its skew from the others."""


@dataclass(frozen=True, slots=True)
class ClockFit:
    """Host time as a function of the sample index, linear between knots.

    Attributes:
        index: Knots, float64 (K,), rising; two a piece at the least.
        host_ns: Host time at each, ns relative to `origin_ns`, float64 (K,).
        origin_ns: Host time that knots count from, ns.
        pieces: First and last knot of every stretch of one count.
        delay_ms: Median delay of the packets over the fit.
    """

    index: NDArray[np.float64]
    host_ns: NDArray[np.float64]
    origin_ns: int
    pieces: tuple[tuple[int, int], ...]
    delay_ms: float

    def skew_ppm(self, rate_hz: float) -> float:
        """How much slower the device counted than the host over the longest piece, parts per million."""
        a, b = max(self.pieces, key=lambda p: self.index[p[1]] - self.index[p[0]])
        lasted_s = (self.index[b] - self.index[a]) / rate_hz
        return float((self.host_ns[b] - self.host_ns[a]) * 1e-9 / lasted_s - 1) * 1e6

    def stamps_ns(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Host time of samples, ns, int64 like `index`, which must rise; the times do not fall."""
        out = np.empty(len(index), np.float64)
        starts = [self.index[a] for a, _ in self.pieces[1:]]
        for (a, b), part in zip(
            self.pieces, np.split(np.arange(len(index)), np.searchsorted(index, starts)), strict=True
        ):
            out[part] = _along(index[part].astype(np.float64), self.index[a : b + 1], self.host_ns[a : b + 1])
        stamps: NDArray[np.int64] = np.maximum.accumulate(np.rint(out).astype(np.int64)) + self.origin_ns
        return stamps


def _along(at: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The polyline through (x, y), its first and last leg extended."""
    leg = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    slope = np.diff(y)[leg] / np.diff(x)[leg]
    return y[leg] + slope * (at - x[leg])


def lower_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """The line under all points that is nearest to them in sum: (intercept, slope).

    Args:
        x: Rising, float64 (n,), n >= 2, not all equal.
        y: float64 (n,).
    """
    hull: list[int] = []
    xs, ys = x.tolist(), y.tolist()
    for i in _candidates(x, y):
        while len(hull) > 1 and _left_or_on(xs, ys, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    right = int(np.searchsorted(x[hull], x.mean()))
    a, b = hull[max(right, 1) - 1], hull[max(right, 1)]
    slope = (ys[b] - ys[a]) / (xs[b] - xs[a])
    return ys[a] - slope * xs[a], slope


def _candidates(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[int]:
    """Points that may lie on the lower hull: the lowest of each of many short stretches, and both ends."""
    size = max(1, len(x) // 4096)
    starts = np.arange(0, len(x), size)
    lowest = [int(s + np.argmin(y[s : s + size])) for s in starts]
    return sorted({0, *lowest, len(x) - 1})


def _left_or_on(x: list[float], y: list[float], a: int, b: int, c: int) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a])


def fit(arrivals: Arrivals, rate_hz: float, *, segment_s: float = SEGMENT_S) -> ClockFit | None:
    """Fit a stream's clock to when its packets arrived.

    Args:
        arrivals: Of every packet, in order.
        rate_hz: Nominal rate.
        segment_s: Length of a segment.

    Returns:
        The fit, or None where there is too little to fit.
    """
    index, first = np.unique(arrivals.index, return_index=True)
    if len(index) < _MIN_PACKETS or (index[-1] - index[0]) / rate_hz < _MIN_S:
        return None
    origin_ns = int(arrivals.host_ns[first[0]])
    host_s = (arrivals.host_ns[first] - origin_ns).astype(np.float64) * 1e-9
    device_s = (index - index[0]) / rate_hz
    pieces = _pieces(device_s, host_s)
    longest = max(pieces, key=lambda p: device_s[p[1] - 1] - device_s[p[0]])
    skew = lower_line(device_s[slice(*longest)], (host_s - device_s)[slice(*longest)])[1]
    knots_x: list[float] = []
    knots_y: list[float] = []
    bounds: list[tuple[int, int]] = []
    for a, b in pieces:
        x, y = _piece(device_s[a:b], (host_s - device_s)[a:b], segment_s, skew)
        bounds.append((len(knots_x), len(knots_x) + len(x) - 1))
        knots_x += x
        knots_y += [at + over for at, over in zip(x, y, strict=True)]
    knots = np.array(knots_x) * rate_hz + index[0]
    fitted = ClockFit(knots, np.array(knots_y) * 1e9, origin_ns, tuple(bounds), 0.0)
    late_ms = float(np.median(arrivals.host_ns[first] - fitted.stamps_ns(index))) * 1e-6
    return ClockFit(knots, fitted.host_ns, origin_ns, tuple(bounds), late_ms)


def _piece(
    x: NDArray[np.float64], y: NDArray[np.float64], segment_s: float, skew: float
) -> tuple[list[float], list[float]]:
    """Knots of one stretch of one count."""
    start, end = float(x[0]), float(x[-1])
    if end - start < _SKEW_S or len(x) < _MIN_PACKETS:
        intercept = float((y - skew * x).min())
        return [start, max(end, start + 1.0)], [intercept + skew * start, intercept + skew * max(end, start + 1.0)]
    lowest = _lowest(x, y, _WINDOW_S)
    x, y = x[lowest], y[lowest]
    segments = max(1, round((end - start) / segment_s))
    if segments == 1:
        intercept, slope = lower_line(x, y)
        knots = np.array([start, end])
        return knots.tolist(), polished(x, y, knots, intercept + slope * knots).tolist()
    knots = np.linspace(start, end, segments + 1)
    return knots.tolist(), polished(x, y, knots, lower_polyline(x, y, knots)).tolist()


def _lowest(x: NDArray[np.float64], y: NDArray[np.float64], window_s: float) -> NDArray[np.int64]:
    """The earliest packet of each window."""
    window = np.floor((x - x[0]) / window_s)
    order = np.lexsort((y, window))
    return np.sort(order[np.unique(window[order], return_index=True)[1]])


def lower_polyline(x: NDArray[np.float64], y: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """The polyline under all points that is nearest to them in sum and bends no more than a crystal does.

    Args:
        x: s, float64 (n,), rising.
        y: s, float64 (n,).
        knots: Evenly spaced, float64 (K,), K >= 3; all of x lies between the first and the last.

    Returns:
        Its height at the knots, s, float64 (K,).

    Raises:
        DataError: The points are not finite.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("arrival times are not finite", reason=Reason.MALFORMED)
    n, step = len(knots), float(knots[1] - knots[0])
    under, bend = _hats(x, knots), _bends(n)
    origin = float(y.min())
    most = np.full(n - 2, 1e3 * _BEND * step * step)
    # The stubs of scipy know no sparse constraints.
    programme: Any = linprog
    solved = programme(
        -under.sum(axis=0),
        A_ub=sparse.vstack([under, bend, -bend]),
        b_ub=np.concatenate([(y - origin) * 1e3, most, most]),
        bounds=(None, None),
        method="highs",
    )
    assert solved.success, solved.message
    return np.asarray(solved.x, np.float64) * 1e-3 + origin


def _hats(x: NDArray[np.float64], knots: NDArray[np.float64]) -> Any:
    """What maps heights at evenly spaced knots to heights at points, sparse (n, K)."""
    n, step = len(knots), float(knots[1] - knots[0])
    leg = np.clip(((x - knots[0]) / step).astype(np.int64), 0, n - 2)
    along = (x - knots[leg]) / step
    columns, rows = np.concatenate([leg, leg + 1]), np.tile(np.arange(len(x)), 2)
    return sparse.csr_array((np.concatenate([1 - along, along]), (rows, columns)), shape=(len(x), n))


def _bends(n: int) -> Any:
    """What maps heights at knots to their second differences, sparse (K - 2, K)."""
    return sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(n - 2, n))


def polished(
    x: NDArray[np.float64], y: NDArray[np.float64], knots: NDArray[np.float64], height: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A polyline drawn towards the many packets just above it: the bound rests on a few.

    Args:
        x: s, float64 (n,), rising.
        y: s, float64 (n,).
        knots: Evenly spaced, float64 (K,), K >= 2.
        height: Of the polyline below all points at the knots, s, float64 (K,).

    Returns:
        Its height afterwards, s, float64 (K,).
    """
    hats, step = _hats(x, knots), float(knots[1] - knots[0])
    stiff = np.zeros((len(knots), len(knots)))
    if len(knots) > 2:
        bends = _bends(len(knots)).toarray()
        stiff = bends.T @ bends / (0.5 * _BEND * step * step) ** 2
    origin = float(height.min())
    fitted, y = height - origin, y - origin
    for _ in range(_POLISHES):
        late = y - hats @ fitted
        weight = 1 / (_NEAR_S**2 + (_DISTRUST * np.maximum(late, 0.0)) ** 2)
        weighted = hats.T * weight
        fitted = np.linalg.solve((weighted @ hats).toarray() + stiff, weighted @ y)
    return np.asarray(fitted + origin, np.float64)


def _pieces(device_s: NDArray[np.float64], host_s: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Ranges of packets of one count: the offset steps where a band came back and began to count anew."""
    silent = np.flatnonzero(np.diff(host_s) >= _SILENCE_S) + 1
    cuts = [0, *(int(s) for s in silent if _steps(device_s, host_s, int(s))), len(device_s)]
    return list(pairwise(cuts))


def _steps(device_s: NDArray[np.float64], host_s: NDArray[np.float64], cut: int) -> bool:
    """Whether the earliest arrivals before and after a silence disagree."""
    late = host_s - device_s
    # What was queued when the link was lost comes late after it: the host's time has to pass, not the device's.
    before = late[np.searchsorted(host_s, host_s[cut - 1] - _ASIDE_S) : cut]
    after = late[cut : np.searchsorted(host_s, host_s[cut] + _ASIDE_S, side="right")]
    return abs(float(after.min()) - float(before.min())) > _STEP_S


def times_ns(sealed: SealedSession, name: str, samples: Samples) -> NDArray[np.int64]:
    """Unix time of samples by the refitted clock; as the edge stamped them where there is too little to fit.

    Args:
        sealed: The session.
        name: The stream.
        samples: Of it.

    Returns:
        ns, int64 (n,), which do not fall.
    """
    session = sealed.session
    fitted = fit(sealed.arrivals(name), sealed.spec(name).rate_hz)
    if fitted is None:
        return samples.t_ns
    return fitted.stamps_ns(samples.index) + (session.started_ns - session.host_ns)
