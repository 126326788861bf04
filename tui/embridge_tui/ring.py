"""The newest samples of a stream, for who wants to look at them now and then.

Whoever receives samples pushes them and waits for nobody; whoever draws takes envelopes when it pleases. There is no
lock: a reader sees what was complete when it asked, and what was overwritten meanwhile counts as missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.preprocess import iir
from embridge_shared.quality.grades import Grade
from embridge_shared.signal import StreamSpec
from embridge_shared.wire.messages import StreamQuality

KEPT_S: Final = 30.0
_BASELINE_HZ: Final = 0.5
_LEAST: Final = 64


@dataclass(frozen=True, slots=True)
class Lane:
    """What a channel is worth.

    Attributes:
        grade: As judged.
        reason: Why it is not better; empty where nothing is to be said.
    """

    grade: Grade = Grade.UNKNOWN
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """Least and greatest values over bins of equal length.

    Attributes:
        low: (C, columns), in the source's unit, the baseline taken out; NaN where a sample of the bin is missing.
        high: (C, columns).
        first: Index of the first sample of the first bin: a multiple of the bins' length, and negative before the
            stream's beginning.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    first: int


class SignalSource(Protocol):
    """What can be drawn as a scope."""

    @property
    def rate_hz(self) -> float:
        """Samples a second."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Names, in the order of the lanes."""
        ...

    @property
    def unit(self) -> str:
        """Of the values."""
        ...

    @property
    def end(self) -> int:
        """Index after the newest sample."""
        ...

    def envelope(self, columns: int, samples: int, end: int) -> Envelope:
        """The last bins that are whole at `end`.

        Args:
            columns: How many.
            samples: Length of a bin.
            end: Index after the newest sample that is wanted.
        """
        ...

    def quality(self) -> Sequence[Lane]:
        """One a channel."""
        ...

    def snapshot(self) -> SignalSource:
        """The same as it is now, which nothing changes any more."""
        ...


class SignalRing:
    """Keeps the last seconds of a stream. One may push while another reads, each in a thread of its own.

    The slow baseline of every channel is taken out sample by sample as they come, so what was drawn once does not move.

    Args:
        spec: The stream.
        kept_s: How much is kept, s.
    """

    def __init__(self, spec: StreamSpec, kept_s: float = KEPT_S) -> None:
        self._spec = spec
        self._kept = max(_LEAST, round(kept_s * spec.rate_hz))
        # Written twice, one length apart, so that any stretch lies in one piece.
        self._values = np.full((spec.n_channels, 2 * self._kept), np.nan, np.float32)
        self._end = 0
        self._writing = 0
        self._begun = False
        self._baseline = iir.butterworth(1, min(_BASELINE_HZ, spec.rate_hz / 20), "highpass", spec.rate_hz)
        self._state = np.zeros((1, 2, spec.n_channels))
        self._lanes: tuple[Lane, ...] = (Lane(),) * spec.n_channels

    @property
    def spec(self) -> StreamSpec:
        """The stream."""
        return self._spec

    @property
    def rate_hz(self) -> float:
        """Samples a second."""
        return self._spec.rate_hz

    @property
    def channels(self) -> tuple[str, ...]:
        """Names, in the order of the lanes."""
        return self._spec.channels

    @property
    def unit(self) -> str:
        """Of the values."""
        return self._spec.unit

    @property
    def end(self) -> int:
        """Index after the newest sample."""
        return self._end

    def push(self, first: int, samples: NDArray[Any]) -> None:
        """Take in samples; what was there before is left as it is, and a jump is a gap.

        Args:
            first: Index of the first one.
            samples: Raw, (n, C).

        Raises:
            DataError: WRONG_SHAPE: these are not samples of this stream.
        """
        if samples.ndim != 2 or samples.shape[1] != self._spec.n_channels:
            raise DataError(
                f"{self._spec.name} has {self._spec.n_channels} channels, not samples {samples.shape}",
                reason=Reason.WRONG_SHAPE,
            )
        known = self._end if self._begun else first
        fresh = samples[max(0, known - first) :]
        first = max(first, known)
        if not len(fresh):
            return
        values = self._filtered(fresh)
        until = first + len(fresh)
        self._writing = until
        if first > known or not self._begun:
            self._put(max(known, first - self._kept), np.full((self._spec.n_channels, 1), np.nan), first)
        self._put(first, values, until)
        self._begun = True
        self._end = until

    def judged(self, quality: StreamQuality) -> None:
        """Say what the channels are worth, as a recording's watch tells it."""
        reasons = dict(line.partition(": ")[::2] for line in quality.told)
        self.mark([Lane(g, reasons.get(c, "")) for c, g in zip(self.channels, quality.grades, strict=True)])

    def mark(self, lanes: Sequence[Lane]) -> None:
        """Say what the channels are worth.

        Args:
            lanes: One a channel.

        Raises:
            DataError: WRONG_SHAPE: there are more or fewer.
        """
        if len(lanes) != self._spec.n_channels:
            raise DataError(
                f"{self._spec.name} has {self._spec.n_channels} channels, not {len(lanes)}", reason=Reason.WRONG_SHAPE
            )
        self._lanes = tuple(lanes)

    def quality(self) -> tuple[Lane, ...]:
        """One a channel."""
        return self._lanes

    def envelope(self, columns: int, samples: int, end: int) -> Envelope:
        """The last bins that are whole at `end`.

        Args:
            columns: How many; what is older than the ring keeps is missing.
            samples: Length of a bin; bins begin at its multiples.
            end: Index after the newest sample that is wanted.
        """
        stop = min(end, self._end) // samples * samples
        first = stop - columns * samples
        low = np.full((self._spec.n_channels, columns), np.nan, np.float32)
        high = low.copy()
        # The oldest bins that are still whole.
        lost = -(-max(0, self._end - self._kept) // samples) * samples
        start = max(first, lost)
        if start < stop:
            at = start % self._kept
            shape = (self._spec.n_channels, -1, samples)
            values = self._values[:, at : at + stop - start].reshape(shape)
            skipped = (start - first) // samples
            # NaN wins over every number, so a bin with a hole is missing.
            np.min(values, axis=-1, out=low[:, skipped:])
            np.max(values, axis=-1, out=high[:, skipped:])
        # Whoever pushed meanwhile may have overwritten the oldest.
        torn = -(-max(0, self._writing - self._kept - first) // samples)
        low[:, :torn] = high[:, :torn] = np.nan
        return Envelope(low, high, first)

    def snapshot(self) -> SignalRing:
        """The same as it is now, which nothing changes any more."""
        other = SignalRing.__new__(SignalRing)
        other.__dict__.update(self.__dict__)
        other._values = self._values.copy()
        other._writing = self._writing
        return other

    def _filtered(self, samples: NDArray[Any]) -> NDArray[Any]:
        """(C, n), in the stream's unit."""
        scaled = samples * self._spec.scale
        if not self._begun:
            self._state = iir.rest_of(self._baseline)[..., None] * scaled[0]
        out, self._state = iir.sosfilt(self._baseline, scaled, self._state)
        return out.T

    def _put(self, first: int, values: NDArray[Any], until: int) -> None:
        """Write (C, n) values, or one for all, to both copies; of more than is kept the last."""
        first = max(first, until - self._kept)
        n = until - first
        if not n:
            return
        values = np.broadcast_to(values[:, -n:], (self._spec.n_channels, n))
        at = first % self._kept
        head = self._kept - at
        for start, part in ((at, values[:, :head]), (0, values[:, head:])):
            for copy in (start, start + self._kept):
                self._values[:, copy : copy + part.shape[1]] = part
