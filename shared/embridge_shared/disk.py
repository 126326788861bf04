"""Room on a disk: how much is left, and how near that is to the reserve which nothing may eat."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

FreeSpace = Callable[[Path], int]
"""Bytes a process may still write to the disk that holds a path."""

_LOW = 4


class DiskLevel(StrEnum):
    """How much room there is."""

    OK = "ok"
    LOW = "low"
    FULL = "full"


def free_bytes(path: Path) -> int:
    """Bytes an ordinary process may still write to the disk that holds `path`, or its nearest folder there is.

    Raises:
        OSError: The disk does not answer.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def level(free: int, reserve: int) -> DiskLevel:
    """FULL at the reserve, LOW below four times as much.

    Args:
        free: Bytes left.
        reserve: Bytes that are kept back; 0 asks for no level but OK and FULL.
    """
    if free <= reserve:
        return DiskLevel.FULL
    return DiskLevel.LOW if free < _LOW * reserve else DiskLevel.OK


def mib(size: int) -> str:
    """A size for people, as in "512 MiB"; below 10 MiB with a decimal."""
    amount = size / (1 << 20)
    return f"{amount:.0f} MiB" if amount >= 10 else f"{amount:.1f} MiB"
