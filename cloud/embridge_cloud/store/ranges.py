"""Sets of sample indices as ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Range = tuple[int, int]


class RangeSet:
    """Half-open ranges of indices, disjoint, sorted, merged where they touch."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    @property
    def end(self) -> int:
        """Index after the last member; 0 when empty."""
        return self._ends[-1] if self._ends else 0

    @property
    def count(self) -> int:
        """Number of members."""
        return sum(self._ends) - sum(self._starts)

    def add(self, start: int, end: int) -> None:
        """Include `start`..`end`; an empty range changes nothing."""
        if end <= start:
            return
        if self._ends and start == self._ends[-1]:
            self._ends[-1] = end
            return
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def discard(self, start: int, end: int) -> None:
        """Leave out `start`..`end`."""
        kept = [(a, min(b, start)) for a, b in self if a < start] + [(max(a, end), b) for a, b in self if b > end]
        self._starts, self._ends = [a for a, _ in kept], [b for _, b in kept]

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any index of `start`..`end` is a member."""
        at = bisect_right(self._ends, start)
        return start < end and at < len(self._starts) and self._starts[at] < end

    def covers(self, start: int, end: int) -> bool:
        """Whether every index of `start`..`end` is a member."""
        at = bisect_right(self._ends, start)
        return at < len(self._starts) and self._starts[at] <= start and end <= self._ends[at]

    def missing(self, start: int, end: int) -> list[Range]:
        """The ranges of `start`..`end` that are not members."""
        holes: list[Range] = []
        at = bisect_right(self._ends, start)
        while start < end:
            if at == len(self._starts) or self._starts[at] >= end:
                holes.append((start, end))
                break
            if self._starts[at] > start:
                holes.append((start, self._starts[at]))
            start = self._ends[at]
            at += 1
        return holes


@dataclass(slots=True)
class CommittedRanges:
    """What the store knows of one stream.

    Attributes:
        stored: Samples it holds.
        declared: Samples the device said were lost before they reached the edge.
    """

    stored: RangeSet = field(default_factory=RangeSet)
    declared: RangeSet = field(default_factory=RangeSet)

    def add(self, first: int, n: int, gap_before: int = 0) -> None:
        """Take in a chunk."""
        self.stored.add(first, first + n)
        self.declared.add(first - gap_before, first)

    def awaited(self, end: int | None = None) -> list[Range]:
        """Ranges below `end` (by default the last stored sample) that are neither stored nor declared lost."""
        end = self.stored.end if end is None else end
        return [part for hole in self.stored.missing(0, end) for part in self.declared.missing(hole[0], hole[1])]
