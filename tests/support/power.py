"""A power cut at the n-th step towards the disk: nothing after it happens, and what was not synced may be lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.symlink", "os.truncate", "os.chmod", "os.rmdir"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class PowerCut(BaseException):
    """The machine is off."""


class Power:
    """The disk under a folder, until the power is cut.

    Args:
        folder: What is watched.
        cut_at: The step before which the power goes; 0 for never.
    """

    def __init__(self, folder: Path, cut_at: int = 0) -> None:
        self._folder = str(folder)
        self._cut_at = cut_at
        self.steps = 0
        self._synced: dict[int, tuple[int, int]] = {}
        self._renames: list[tuple[str, str, bytes | None]] = []

    def step(self) -> None:
        """Something is about to reach the disk."""
        self.steps += 1
        if self._cut_at and self.steps >= self._cut_at:
            raise PowerCut

    def event(self, name: str, args: tuple[Any, ...]) -> None:
        """What the interpreter says it is about to do."""
        if name not in _EVENTS or not isinstance(args[0], str | Path) or not str(args[0]).startswith(self._folder):
            return
        if name == "open" and not (isinstance(args[2], int) and args[2] & _WRITES):
            return
        self.step()
        if name == "os.rename":
            src, dst = map(str, args[:2])
            self._renames.append((src, dst, Path(dst).read_bytes() if Path(dst).is_file() else None))

    def synced(self, path: str) -> None:
        """A file or folder is about to be made durable."""
        if not path.startswith(self._folder):
            return
        self.step()
        if Path(path).is_dir():
            self._renames = [r for r in self._renames if str(Path(r[1]).parent) != path]
        else:
            found = Path(path).stat()
            self._synced[found.st_ino] = (found.st_size, found.st_mtime_ns)

    def lose(self) -> None:
        """Take from the disk what nobody synced: renames are undone, contents cut in half."""
        for src, dst, before in reversed(self._renames):
            if Path(dst).is_file() and not Path(dst).is_symlink():
                Path(dst).replace(src)
                if before is not None:
                    Path(dst).write_bytes(before)
                    found = Path(dst).stat()
                    self._synced[found.st_ino] = (found.st_size, found.st_mtime_ns)
        for path in Path(self._folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                found = path.stat()
                if self._synced.get(found.st_ino) != (found.st_size, found.st_mtime_ns):
                    os.truncate(path, found.st_size // 2)


_on: Power | None = None


def _hook(name: str, args: tuple[Any, ...]) -> None:
    if _on is not None:
        _on.event(name, args)


_hooked = False


@contextmanager
def unsynced() -> Iterator[None]:
    """Nobody waits for the disk inside."""
    real = os.fsync
    os.fsync = lambda _: None  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = real


@contextmanager
def power(folder: Path, cut_at: int = 0) -> Iterator[Power]:
    """Run what is inside on such a disk; it ends when the power is cut, and nothing of what it does then counts.

    What lies in the folder at the beginning is durable.
    """
    global _on, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    found = Power(folder, cut_at)
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            found._synced[stat.st_ino] = (stat.st_size, stat.st_mtime_ns)
    real = os.fsync

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        found.synced(str(Path(f"/proc/self/fd/{number}").readlink()))

    _on = found
    os.fsync = fsync  # type: ignore[assignment]
    try:
        yield found
    except PowerCut:
        pass
    finally:
        os.fsync = real
        _on = None
