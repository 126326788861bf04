"""A gate: many may read at once, and now and then one has the file to itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets readers in unless somebody wants to be alone; whoever is inside already comes in again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._owner: int | None = None
        self._mine = threading.local()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Read; waits while somebody is alone inside."""
        depth = getattr(self._mine, "depth", 0)
        if depth == 0 and self._owner != threading.get_ident():
            with self._changed:
                while self._owner is not None:
                    self._changed.wait()
                self._inside += 1
            self._mine.entered = True
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            if depth == 0 and getattr(self._mine, "entered", False):
                self._mine.entered = False
                with self._changed:
                    self._inside -= 1
                    self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until everybody has left, and let nobody in meanwhile."""
        with self._changed:
            while self._owner is not None:
                self._changed.wait()
            self._owner = threading.get_ident()
            while self._inside:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._owner = None
                self._changed.notify_all()
