"""How an edge's wall clock was set while it recorded, and what time it was really.

Within a session time runs by the edge's monotonic clock from one anchor and never steps. Sessions of several edges are
laid on one time by what their wall clocks said once NTP had set them: the last word counts for what came before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.store.sealed import SealedSession
from embridge_shared.session import ClockRead

_STEP_NS = 50_000_000
_SLEW = 1e-3
"""A clock is slewed by no more than 500 ppm; a change beyond twice that is a step."""


@dataclass(frozen=True, slots=True)
class Discipline:
    """The two clocks of an edge over a session.

    Attributes:
        host_ns: Monotonic clock at each reading, int64 (R,); the first is the session's start.
        ahead_ns: Wall clock less monotonic clock at each, int64 (R,).
        steps: (monotonic time of the reading after it, by how much), ns.
    """

    host_ns: NDArray[np.int64]
    ahead_ns: NDArray[np.int64]
    steps: tuple[tuple[int, int], ...]

    @property
    def stepped_ns(self) -> int:
        """By how much the wall clock was set in all, ns."""
        return sum(by for _, by in self.steps)

    @property
    def slew_ppm(self) -> float:
        """How much faster than the monotonic clock the wall clock ran between steps; 0 with a single reading."""
        if len(self.host_ns) < 2:
            return 0.0
        smooth = self._smooth_ns()
        return float((smooth[-1] - smooth[0]) / (self.host_ns[-1] - self.host_ns[0]) * 1e6)

    def _smooth_ns(self) -> NDArray[np.int64]:
        """The readings as if the wall clock had been right from the start."""
        smooth = self.ahead_ns.copy()
        for at, by in self.steps:
            smooth[self.host_ns < at] += by
        return smooth

    def unix_ns(self, host_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Unix time of moments of the monotonic clock, by the wall clock as it was set in the end."""
        smooth = self._smooth_ns()
        ahead = np.interp(host_ns, self.host_ns, (smooth - smooth[0]).astype(np.float64))
        unix: NDArray[np.int64] = host_ns + smooth[0] + np.rint(ahead).astype(np.int64)
        return unix


def discipline(sealed: SealedSession) -> Discipline:
    """What a session's readings tell; a session without any has its start alone."""
    session = sealed.session
    reads = [e.event for e in sealed.events() if isinstance(e.event, ClockRead)]
    pairs = {session.host_ns: session.started_ns} | {r.host_ns: r.t_ns for r in reads}
    host_ns = np.array(sorted(pairs), np.int64)
    ahead_ns = np.array([pairs[int(h)] for h in host_ns], np.int64) - host_ns
    change, since = np.diff(ahead_ns), np.diff(host_ns)
    stepped = np.flatnonzero(np.abs(change) > _STEP_NS + _SLEW * since)
    return Discipline(host_ns, ahead_ns, tuple((int(host_ns[i + 1]), int(change[i])) for i in stepped))
