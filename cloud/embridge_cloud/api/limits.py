"""How much anybody may ask: buckets that fill with time, one a caller."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from embridge_shared.clock import Clock

MAX_CALLERS: Final = 10_000
FAILURES_PER_S: Final = 0.1
FAILURES_AT_ONCE: Final = 10.0


@dataclass(slots=True)
class _Bucket:
    left: float
    at_ns: int


class Buckets:
    """A bucket a caller: each request takes one drop, and drops come back with time.

    Callers nobody heard of for longest are forgotten first, and with the bucket full, so memory is bounded and nobody
    is refused for it.

    Args:
        rate: Drops a second.
        size: Drops a full bucket holds.
        clock: Time.
        max_callers: Callers remembered.
    """

    def __init__(self, rate: float, size: float, clock: Clock, *, max_callers: int = MAX_CALLERS) -> None:
        self._rate = rate
        self._size = size
        self._clock = clock
        self._max_callers = max_callers
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: str) -> float:
        """Take a drop; returns 0, or how long to wait for the next one, s."""
        bucket = self._filled(caller)
        if bucket.left < 1.0:
            return (1.0 - bucket.left) / self._rate
        bucket.left -= 1.0
        return 0.0

    def wait_s(self, caller: str) -> float:
        """How long to wait until `take` would give a drop, s; takes none."""
        found = self._buckets.get(caller)
        if found is None:
            return 0.0
        return max(0.0, 1.0 - self._filled(caller).left) / self._rate

    def _filled(self, caller: str) -> _Bucket:
        now = self._clock.monotonic_ns()
        bucket = self._buckets.setdefault(caller, _Bucket(self._size, now))
        self._buckets.move_to_end(caller)
        bucket.left = min(self._size, bucket.left + max(0, now - bucket.at_ns) * 1e-9 * self._rate)
        bucket.at_ns = now
        while len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        return bucket


class Limits:
    """The limits of the HTTP interface.

    A token has a bucket, and so has every address that shows none. A wrong token takes from a third, small one, by
    address; while that is empty, the answer to a wrong token is to wait. A right one is served all the same, so that
    nobody behind the same proxy can lock an operator out; there is nothing to guess, since a secret has 256 bits.

    Args:
        rate: Requests a second of one caller.
        clock: Time.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        self._callers = Buckets(rate, 4 * rate, clock)
        self._failures = Buckets(FAILURES_PER_S, FAILURES_AT_ONCE, clock)

    def of_token(self, name: str) -> float:
        """Count a request of a token; returns 0, or how long to wait, s."""
        return self._callers.take(f"token:{name}")

    def of_address(self, address: str) -> float:
        """Count a request without a token; returns 0, or how long to wait, s."""
        return self._callers.take(f"address:{address}")

    def of_failure(self, address: str) -> float:
        """Count a wrong token; returns 0, or how long this address is told nothing but to wait, s."""
        return self._failures.take(address)
