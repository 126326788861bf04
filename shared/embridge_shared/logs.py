"""Logs: one line a record for people on stderr, JSON lines in a rotating file."""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
import time
from pathlib import Path

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what is passed as `extra` becomes keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        fields = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        entry = {
            "t": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure(level: str, json_file: Path | None = None) -> None:
    """Set up the root logger of a process."""
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(level)
    human = logging.StreamHandler(sys.stderr)
    human.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    root.addHandler(human)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(json_file, maxBytes=16 << 20, backupCount=4, encoding="utf-8")
        file.setFormatter(JsonFormatter())
        root.addHandler(file)
