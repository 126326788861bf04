"""Cuts a stream into the windows that are judged: two seconds, one a second, on a grid of sample indices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DataError, Reason
from embridge_shared.signal import StreamSpec

if TYPE_CHECKING:
    from embridge_shared.quality.judge import Judge, Verdict

WINDOW_S = 2.0
HOP_S = 1.0
LOSS_S = 5.0
_WHOLLY_LOST = 3  # windows told of before a long gap is skipped


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a stream.

    Attributes:
        first: Index of its first sample.
        samples: Raw samples of the longest stretch in it without a gap, (t, channels); t may be 0.
        expected: Samples that should have come in the last `LOSS_S`.
        received: Those that did.
        n: Samples it spans, whether they came or not.
    """

    first: int
    samples: NDArray[Any]
    expected: int
    received: int
    n: int

    @property
    def loss(self) -> float:
        """Share of the last `LOSS_S` that did not come."""
        return 1.0 - self.received / self.expected


class Windows:
    """Gathers packets into windows; cheap enough for the path that records.

    Args:
        spec: The stream.
        first: Where it starts.
        grid: Windows start at whole multiples of `HOP_S` after this index; by default after `first`.
    """

    def __init__(self, spec: StreamSpec, first: int = 0, grid: int | None = None) -> None:
        self._channels = spec.n_channels
        self._hop = max(1, round(HOP_S * spec.rate_hz))
        self._size = max(2, round(WINDOW_S * spec.rate_hz))
        origin = first if grid is None else grid
        self._start = origin + -((origin - first) // self._hop) * self._hop
        self._first = self._next = first
        self._runs: deque[tuple[int, NDArray[Any]]] = deque()
        self._counts: deque[tuple[int, int]] = deque()
        self._lost_windows = 0

    def push(self, first: int, samples: NDArray[Any]) -> list[Window]:
        """Take in samples (n, channels) that start at index `first`; return the windows they complete.

        Raises:
            DataError: They have other channels.
        """
        if samples.ndim != 2 or samples.shape[1] != self._channels:
            raise DataError(f"{samples.shape} is not (n, {self._channels})", reason=Reason.WRONG_SHAPE)
        skip = max(0, self._next - first)
        if skip >= len(samples):
            return []
        samples, first = samples[skip:], first + skip
        self._runs.append((first, samples))
        self._counts.append((first, len(samples)))
        self._next = first + len(samples)
        return list(self._complete())

    def _complete(self) -> Iterator[Window]:
        while self._start + self._size <= self._next:
            samples = self._longest(self._start, self._start + self._size)
            self._lost_windows = 0 if len(samples) else self._lost_windows + 1
            if self._lost_windows <= _WHOLLY_LOST:
                expected, received = self._received(self._start + self._size)
                yield Window(self._start, samples, expected, received, self._size)
                self._start += self._hop
            else:
                # Nothing more can be said of a long gap than that it is one.
                behind = self._runs[0][0] - self._start - self._size
                self._start += self._hop * max(1, behind // self._hop + 1)
            while self._runs and self._runs[0][0] + len(self._runs[0][1]) <= self._start:
                self._runs.popleft()

    def _longest(self, a: int, b: int) -> NDArray[Any]:
        """Longest gapless stretch within [a, b)."""
        stretches: list[list[NDArray[Any]]] = []
        at = -1
        for first, samples in self._runs:
            part = samples[max(0, a - first) : max(0, b - first)]
            if not len(part):
                continue
            if first != at or not stretches:
                stretches.append([])
            stretches[-1].append(part)
            at = first + len(samples)
        best = max(stretches, key=lambda s: sum(map(len, s)), default=[])
        return np.concatenate(best) if best else np.zeros((0, self._channels))

    def _received(self, end: int) -> tuple[int, int]:
        """Samples expected and received in the `LOSS_S` before `end`."""
        start = max(self._first, end - round(LOSS_S / HOP_S) * self._hop)
        while self._counts and sum(self._counts[0]) <= start:
            self._counts.popleft()
        got = sum(max(0, min(f + n, end) - max(f, start)) for f, n in self._counts)
        return end - start, got


def assess(
    spec: StreamSpec, chunks: Iterable[tuple[int, NDArray[Any]]], judge: Judge | None = None
) -> Iterator[Verdict]:
    """Judge a whole stream.

    Args:
        spec: The stream; EMG.
        chunks: (index of the first sample, raw samples (n, channels)) in order.
        judge: Goes on from what it has seen, as where a recording consists of several pieces.

    Yields:
        A verdict a second.
    """
    from embridge_shared.quality.judge import Judge

    windows, judge = Windows(spec), judge or Judge(spec)
    for first, samples in chunks:
        for window in windows.push(first, samples):
            yield judge.judge(window)
