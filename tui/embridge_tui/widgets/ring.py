"""The newest seconds of a stream, for a screen: one writer, readers that never wait.

A band's packets are appended from the loop; the scope pulls envelopes at its own rate. Bins are aligned to the absolute
index of samples, so a trace that scrolls does not shimmer. What did not arrive is NaN and stays a gap.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_shared.quality.grades import Grade
from embridge_shared.signal import StreamSpec
from embridge_shared.wire.messages import StreamQuality

SECONDS: Final = 12.0
_MEAN_S: Final = 1.0
"""Over so long a channel's offset is taken from it: bands without a high-pass sit anywhere."""

Envelope = tuple[NDArray[np.float32], NDArray[np.float32]]


class SignalRing:
    """Samples of one stream by their index.

    Args:
        spec: The stream.
        seconds: How much is kept, s.
        monotonic_s: Tells how long ago the newest came.
    """

    def __init__(
        self, spec: StreamSpec, *, seconds: float = SECONDS, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.spec = spec
        self._monotonic_s = monotonic_s
        self._n = max(2, round(seconds * spec.rate_hz))
        self._values = np.full((spec.n_channels, self._n), np.nan, np.float32)
        self._mean = np.zeros(spec.n_channels, np.float32)
        self._grades = (Grade.UNKNOWN,) * spec.n_channels
        self._told: tuple[str, ...] = ()
        self._came_s: float | None = None
        self.end = 0
        """Index after the newest sample."""

    @property
    def rate_hz(self) -> float:
        """Samples a second."""
        return self.spec.rate_hz

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self.spec.channels

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return self.spec.unit

    @property
    def age_s(self) -> float | None:
        """Seconds since the newest sample came; None before the first."""
        return None if self._came_s is None else self._monotonic_s() - self._came_s

    def push(self, first: int, samples: NDArray[Any]) -> None:
        """Append raw samples.

        Args:
            first: Index of the first; a jump is a gap, what lies before the newest is left out.
            samples: (n, C).
        """
        late = max(0, self.end - first) if self._came_s is not None else 0
        values = (samples[late:].T * np.float32(self.spec.scale)).astype(np.float32, copy=False)
        first += late
        n = values.shape[1]
        if not n:
            return
        values, first = values[:, -self._n :], first + max(0, n - self._n)
        self._settle(values, n)
        gap = min(first - self.end, self._n) if self._came_s is not None else 0
        if gap > 0:
            self._values[:, np.arange(first - gap, first) % self._n] = np.nan
        self._values[:, np.arange(first, first + values.shape[1]) % self._n] = values
        self.end = first + values.shape[1]
        self._came_s = self._monotonic_s()

    def _settle(self, values: NDArray[np.float32], n: int) -> None:
        """Follow the channels' offsets."""
        mean = values.mean(axis=1)
        share = 1.0 if self._came_s is None else min(1.0, n / (_MEAN_S * self.rate_hz))
        self._mean += np.float32(share) * (mean - self._mean)

    def judge(self, quality: StreamQuality) -> None:
        """Take what is known of the channels' quality; a line of what is told begins with the channel's name."""
        self._grades, self._told = quality.grades, quality.told

    def quality(self) -> list[tuple[Grade, str]]:
        """Grade and reason of every channel."""
        told = {line.partition(":")[0]: line.partition(":")[2].strip() for line in self._told}
        return [(g, told.get(name, "")) for name, g in zip(self.channels, self._grades, strict=True)]

    def held(self) -> SignalRing:
        """A copy that nothing is pushed into."""
        other = copy.copy(self)
        other._values, other._mean = self._values.copy(), self._mean.copy()
        return other

    def envelope(self, columns: int, samples: int) -> Envelope:
        """Least and greatest value in bins of `samples`, the newest whole bin last, around each channel's offset.

        Args:
            columns: Bins.
            samples: In each; bins begin at its multiples.

        Returns:
            Two arrays (C, columns), float32, in the stream's unit; NaN where nothing is held.
        """
        stop = self.end // samples * samples
        start = stop - columns * samples
        low = np.full((self.spec.n_channels, columns), np.nan, np.float32)
        high = low.copy()
        oldest = -(-max(0, self.end - self._n, start) // samples) * samples
        if oldest >= stop:
            return low, high
        at = np.arange(oldest, stop) % self._n
        bins = self._values[:, at].reshape(self.spec.n_channels, -1, samples)
        skipped = (oldest - start) // samples
        offset = self._mean[:, None]
        # A bin with a gap in it is a gap: a lower and an upper bound of half the samples would look whole.
        low[:, skipped:] = bins.min(axis=2) - offset
        high[:, skipped:] = bins.max(axis=2) - offset
        return low, high
