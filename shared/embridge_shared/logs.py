"""Logs: one line a record on standard error, for people or as JSON, and JSON lines in a rotating file.

Every line may carry fields: what is passed as `extra`, and what surrounds it (`context`): edge, session, stream,
request. Secrets are struck out wherever they turn up, and a control character in a message cannot begin a line.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from embridge_shared.settings import Settings

Style = Literal["auto", "text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_STRUCK: Final = "***"
_SECRET_MIN = 4
_SECRETS: Final = re.compile(
    r"(?P<kept>\bBearer\s+)\S+"
    r"|\bemb_[0-9a-f]{12}_[A-Za-z0-9_-]+"
    r"|(?P<key>\b(?:password|passwd|secret|token|api_key|authorization)[\"']?(?:\s*=\s*|\s*:\s+|:(?=[\"']))[\"']?)(?!Bearer\b)[^\s\"',;&]+"
    r"|(?P<url>://[^\s/:@]+:)[^\s/@]+(?=@)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PRIORITY: Final = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}

_fields: ContextVar[dict[str, Any]] = ContextVar("embridge_log_fields", default={})  # noqa: B039


@contextmanager
def context(**fields: Any) -> Iterator[None]:
    """Give every line of this task, and of tasks and threads begun within, further fields.

    Args:
        fields: As in edge="edge-1", session=…, stream="emg", request="f3c1".
    """
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


class Redactor:
    """Strikes out secrets: those it is told, and whatever looks like one.

    Args:
        secrets: Values that must never be written.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= _SECRET_MIN}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(_STRUCK, text)
        return _SECRETS.sub(_strike, text)

    def value(self, value: Any) -> Any:
        """A field without secrets; numbers stay numbers."""
        if value is None or isinstance(value, bool | int | float):
            return value
        return self(str(value))


def _strike(found: re.Match[str]) -> str:
    return (found["kept"] or found["key"] or found["url"] or "") + _STRUCK


class _Formatter(logging.Formatter):
    def __init__(self, redact: Redactor | None = None) -> None:
        super().__init__()
        self._redact = redact or Redactor()

    def _own_fields(self, record: logging.LogRecord) -> dict[str, Any]:
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        found = {**_fields.get(), **extra}
        return {k: self._redact.value(v) for k, v in found.items() if v not in (None, "")}

    def _trace(self, record: logging.LogRecord) -> str:
        return self._redact(self.formatException(record.exc_info)) if record.exc_info else ""


class JsonFormatter(_Formatter):
    """One JSON object a line; fields become keys.

    Args:
        redact: Strikes out secrets.
        fields: Of every line.
    """

    def __init__(self, redact: Redactor | None = None, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(redact)
        self._always = dict(fields or {})

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        entry = {
            **self._always,
            **self._own_fields(record),
            "t": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        order = ("t", "level", "logger", "message")
        entry = {**{key: entry.pop(key) for key in order}, **entry}
        if record.exc_info:
            entry["error"] = self._trace(record)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(_Formatter):
    """One line for people: time, level, logger, message and what fields add to it; a traceback follows, indented.

    Args:
        redact: Strikes out secrets.
        journal: The journal dates lines itself; it is given levels.
    """

    def __init__(self, redact: Redactor | None = None, *, journal: bool = False) -> None:
        super().__init__(redact)
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        message = self._redact(record.getMessage())
        fields = {k: v for k, v in self._own_fields(record).items() if str(v) not in message}
        said = _one_line(f"{record.name}: {message}{''.join(f' {key}={value}' for key, value in fields.items())}")
        if self._journal:
            head = f"<{_PRIORITY.get(record.levelno, 6)}>"
        else:
            head = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname:<7} "
        # Split at line ends alone, so that nothing in a traceback can begin a line of its own.
        trace = "".join(f"\n    | {_one_line(line)}" for line in self._trace(record).split("\n") if line)
        return head + said + trace


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def configure(
    level: str,
    json_file: Path | None = None,
    *,
    style: Style = "auto",
    secrets: Iterable[str] = (),
    fields: Mapping[str, Any] | None = None,
) -> None:
    """Set up the root logger of a process.

    Args:
        level: Least level that is written.
        json_file: Also write JSON lines there; 16 MiB each, four old ones are kept.
        style: Of standard error.
        secrets: Values that must never be written.
        fields: Of every line of JSON, as in edge="edge-1"; a text for people goes without.
    """
    redact = Redactor(secrets)
    in_json = JsonFormatter(redact, fields)
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(level)
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(in_json if style == "json" else TextFormatter(redact, journal=_to_journal(style)))
    root.addHandler(stream)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(json_file, maxBytes=16 << 20, backupCount=4, encoding="utf-8")
        file.setFormatter(in_json)
        root.addHandler(file)


def configure_for(settings: Settings, **fields: Any) -> None:
    """Set up the root logger as the settings say; the secrets among them are never written.

    Args:
        settings: Of the process.
        fields: Of every line of JSON, as in edge="edge-1".
    """
    log = settings.log
    secrets = [settings.mqtt.password.get_secret_value(), settings.api.token.get_secret_value()]
    configure(log.level, log.json_file, style=log.style, secrets=secrets, fields=fields)


def _to_journal(style: Style) -> bool:
    """Whether standard error is the journal's own pipe, as it says in JOURNAL_STREAM."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if style != "auto" or not inode:
        return False
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return (str(found.st_dev), str(found.st_ino)) == (device, inode)
