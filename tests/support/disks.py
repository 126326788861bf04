"""Small disks of our own, to be filled, cleared and locked."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from embridge_shared.disk import free_bytes


@dataclass
class SmallDisk:
    """A tmpfs mounted on a folder."""

    folder: Path
    size: int

    def mount(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "embridge-test", str(self.folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)

    def writable(self, yes: bool) -> bool:
        """Remount; whether that was possible: a file open for writing keeps a disk writable."""
        how = "remount,rw" if yes else "remount,ro"
        return not subprocess.run(["mount", "-o", how, str(self.folder)], capture_output=True, check=False).returncode

    @property
    def free(self) -> int:
        return free_bytes(self.folder)

    def fill(self, leave: int = 0) -> None:
        """Let somebody else take all but `leave` bytes."""
        descriptor = os.open(self.folder / "somebody-else", os.O_CREAT | os.O_WRONLY)
        try:
            size = os.fstat(descriptor).st_size
            while (room := self.free - leave) > 0:
                # Others write meanwhile: what was free a moment ago may be too much by now.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(descriptor, size, room)
                    size += room
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        (self.folder / "somebody-else").unlink(missing_ok=True)
