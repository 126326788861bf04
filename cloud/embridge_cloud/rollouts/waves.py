"""Who belongs to which wave: a matter of the edge's name alone, so the same edges go first every time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from embridge_shared.fleet import Wave

_SPAN: Final = 1 << 64


def position(edge: str) -> float:
    """Where an edge stands in the order of rollouts, 0 to 1; the same for ever."""
    return int.from_bytes(blake2b(edge.encode(), digest_size=8, person=b"rollout").digest(), "big") / _SPAN


def assign(edges: Iterable[str], waves: Sequence[Wave]) -> dict[str, int]:
    """The wave of every edge: of n edges the first `share * n` by position, and at least one, are in by a wave's end.

    Args:
        edges: Names.
        waves: Of growing shares, the last one 1.
    """
    ordered = sorted(set(edges), key=lambda edge: (position(edge), edge))
    found: dict[str, int] = {}
    for number, wave in enumerate(waves):
        # Shares like 0.07 of 100 edges are 7, not the 8 that rounding errors make of them.
        end = max(1, math.ceil(wave.share * len(ordered) - 1e-9))
        for edge in ordered[len(found) : end]:
            found[edge] = number
    return found


def late_wave(edge: str, waves: Sequence[Wave], current: int) -> int:
    """The wave of an edge that appears while `current` is under way: never that one or an earlier one, so that no
    wave outgrows its share, unless it is the last.
    """
    own = next(number for number, wave in enumerate(waves) if position(edge) < wave.share)
    return min(max(own, current + 1), len(waves) - 1)
