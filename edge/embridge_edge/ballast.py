"""Ballast: room that is taken while there is plenty, to be thrown out when the disk is full.

A spool on a full disk cannot even forget what the cloud has, since deleting writes too. Without ballast it would stay
full for ever.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from embridge_shared.disk import FreeSpace, free_bytes

logger = logging.getLogger(__name__)

SIZE = 4 << 20


class Ballast:
    """A file of nothing beside a spool.

    Args:
        path: Where it lies.
        reserve: It is taken on board while more than twice this many bytes are free beside it.
        free: Tells what is free.
    """

    def __init__(self, path: Path, reserve: int, *, free: FreeSpace = free_bytes) -> None:
        self._path = path
        self._reserve = reserve
        self._free = free

    def load(self) -> None:
        """Take it on board, if there is room and it is not there."""
        if self._path.exists() or self._free(self._path.parent) < 2 * self._reserve + 2 * SIZE:
            return
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, SIZE)
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.debug("no ballast: %s", error)
            self._path.unlink(missing_ok=True)

    def drop(self) -> bool:
        """Throw it out; whether that made room."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
