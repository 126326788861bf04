"""What an agent gives back to the system."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from embridge_edge.memory import give_back

PIECE, PIECES = 4096, 10_000


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_freed_memory_goes_back_though_something_lies_above_it() -> None:
    pieces = [bytes([i % 251]) * PIECE for i in range(PIECES)]
    last = pieces.pop()
    pieces.clear()
    before = resident_bytes()
    assert give_back()
    assert before - resident_bytes() > PIECE * PIECES // 2
    assert len(last) == PIECE


def test_without_such_a_c_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert not give_back()


def resident_bytes() -> int:
    """Of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
