"""How a release fares on this edge, and when that is not well enough to keep it.

What is gathered costs about a microsecond a window and a fixed few kilobytes, so it runs always.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from embridge_shared.fleet import ReleaseHealth, Trial

_LEAST_S: Final = 1e-4
_STEP: Final = math.log(1.05)
_BINS: Final = 260  # up to 30 s


class Latencies:
    """Times in bins 5 % wide: quantiles of any number of them in fixed memory."""

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self.count = 0

    def add(self, seconds: float) -> None:
        """Take one, s."""
        at = int(math.log(seconds / _LEAST_S) / _STEP) + 1 if seconds > _LEAST_S else 0
        self._bins[min(at, _BINS - 1)] += 1
        self.count += 1

    def quantile_ms(self, share: float) -> float | None:
        """The time that `share` of them stay below, ms, within 5 %; None before any."""
        if not self.count:
            return None
        wanted, seen = share * self.count, 0
        for at, n in enumerate(self._bins):
            seen += n
            if seen >= wanted:
                return round(_LEAST_S * math.exp(at * _STEP) * 1e3, 3)
        raise AssertionError("quantiles lie between 0 and 1")


class Vitals:
    """Gathers how the release in force fares, window by window.

    Args:
        before: What is known of it already: crashes, its self-test, its shadow run.
    """

    def __init__(self, before: ReleaseHealth) -> None:
        self._before = before
        self._latencies = Latencies()
        self._confidence, self._sure = 0.0, 0
        self._broken = 0
        self._due, self._heard_s, self._busy_s = 0.0, 0.0, 0.0
        self._rate_hz, self._window_s, self._hop_s = 1.0, 0.0, 1.0
        self._next, self._warm_s = -1, 0.0

    @property
    def release(self) -> str:
        """Name of the release."""
        return self._before.release

    def begin(self, *, rate_hz: float, window_s: float, hop_s: float) -> None:
        """A stream begins.

        Args:
            rate_hz: Samples a second.
            window_s: Length of a window, s.
            hop_s: Time between two, s.
        """
        self._rate_hz, self._window_s, self._hop_s = rate_hz, window_s, hop_s
        self._next = -1

    def fed(self, first: int, n: int, took_s: float) -> None:
        """Samples were given to the decoder.

        Args:
            first: Index of the first one; a jump is a gap, and no window is due across one.
            n: How many.
            took_s: Time until the scores they completed were there, s; 0 where they completed none.
        """
        if first != self._next:
            self._warm_s = self._window_s
        self._next = first + n
        heard_s = n / self._rate_hz
        self._heard_s += heard_s
        self._busy_s += took_s
        self._due += max(0.0, heard_s - self._warm_s) / self._hop_s
        self._warm_s = max(0.0, self._warm_s - heard_s)

    def decoded(self, latency_s: float, confidence: float | None) -> None:
        """A window was decoded.

        Args:
            latency_s: From its last sample at hand to its scores, s.
            confidence: Probability of the best gesture; None where nothing is decided.
        """
        self._latencies.add(latency_s)
        if confidence is not None:
            self._confidence += confidence
            self._sure += 1

    def broke(self) -> None:
        """A window's scores were not finite."""
        self._broken += 1

    def now(self) -> ReleaseHealth:
        """How it fares."""
        p50, p99 = (self._latencies.quantile_ms(q) for q in (0.5, 0.99))
        return msgspec.structs.replace(
            self._before,
            windows=self._latencies.count,
            rate=self._rate(),
            latency_p50_ms=p50,
            latency_p99_ms=p99,
            confidence=round(self._confidence / self._sure, 4) if self._sure else None,
            broken=self._broken,
        )

    def _rate(self) -> float:
        """Of the windows due; a decoder that needs longer than the signal lasts cannot decode all of them either."""
        share = self._latencies.count / self._due if self._due >= 1.0 else 1.0
        keeps_up = self._heard_s / self._busy_s if self._busy_s > 0.0 else 1.0
        return round(min(1.0, share, keeps_up), 4)


def ailment(health: ReleaseHealth, trial: Trial) -> str:
    """Why a release must not stay, in a sentence; empty when it may.

    Args:
        health: How it fares, on probation or in its shadow run.
        trial: The limits.
    """
    if health.broken:
        return f"{health.broken} windows had scores that are no finite numbers"
    if health.windows < trial.min_windows:
        return ""
    if health.latency_p99_ms is not None and health.latency_p99_ms > trial.max_p99_ms:
        return f"1 % of its windows took more than {health.latency_p99_ms:.0f} ms, at most {trial.max_p99_ms:.0f} may"
    if health.rate < trial.min_rate:
        return f"it decoded {health.rate:.0%} of the windows that were due, at least {trial.min_rate:.0%} must be"
    before, now = health.shadow_confidence, health.confidence
    if before is not None and now is not None and before - now > trial.max_confidence_loss:
        return f"its mean confidence is {now:.2f}, that of the release before was {before:.2f}"
    return ""
