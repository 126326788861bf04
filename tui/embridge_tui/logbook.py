"""The log of an interface that owns the terminal: into a file and a drawer, never onto the screen."""

from __future__ import annotations

import logging
from collections import deque
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from embridge_shared import logs
from embridge_shared.settings import Settings

KEPT: Final = 500
_FILE: Final = "tui.log"
_BYTES: Final = 2 << 20


class Logbook(logging.Handler):
    """Keeps the last lines."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=KEPT)
        self.path = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._lines.append(self.format(record))

    @property
    def lines(self) -> list[str]:
        """The last lines, the oldest first."""
        return list(self._lines)


def open_logbook(settings: Settings, folder: Path) -> Logbook:
    """Log into a file under `folder` and into the book that is returned, and nowhere else."""
    book = Logbook()
    logs.configure_for(settings)
    root = logging.getLogger()
    form = root.handlers[0].formatter if root.handlers else None
    for handler in list(root.handlers):
        root.removeHandler(handler)
    handlers: list[logging.Handler] = [book]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handlers.append(RotatingFileHandler(folder / _FILE, maxBytes=_BYTES, backupCount=1, encoding="utf-8"))
        book.path = str(folder / _FILE)
    except OSError as error:
        book.emit(logging.makeLogRecord({"msg": f"no log file: {error}", "levelname": "WARNING"}))
    for handler in handlers:
        handler.setFormatter(form or logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    return book
