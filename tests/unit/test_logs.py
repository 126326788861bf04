"""Logs: fields, secrets, lines that cannot be forged, the journal."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from embridge_shared import logs
from embridge_shared.settings import ApiSettings, LogSettings, MqttSettings, Settings

TOKEN = "emb_0123456789ab_" + "x" * 43


@pytest.fixture(autouse=True)
def own_handlers():
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers


def written(style: str, message: str, *args, secrets=(), exc=None, **extra) -> str:
    formatter = (
        logs.JsonFormatter(logs.Redactor(secrets)) if style == "json" else logs.TextFormatter(logs.Redactor(secrets))
    )
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("embridge.test")
    logger.addHandler(handler)
    logger.warning(message, *args, extra=extra, exc_info=exc)
    return stream.getvalue()


def test_fields_come_from_around_and_from_the_line():
    with logs.context(edge="edge-1", session="s"), logs.context(stream="emg"):
        row = json.loads(written("json", "refused %d", 3, first=7))
    assert (row["message"], row["edge"], row["session"], row["stream"], row["first"]) == (
        "refused 3", "edge-1", "s", "emg", 7,
    )  # fmt: skip
    assert (row["level"], row["logger"]) == ("WARNING", "embridge.test")
    assert "edge" not in json.loads(written("json", "later"))


def test_people_are_not_told_twice():
    with logs.context(session="grip-1", edge="edge-1"):
        assert written("text", "session grip-1 stops").endswith("embridge.test: session grip-1 stops edge=edge-1\n")


def test_a_process_says_whose_it_is(tmp_path, capsys):
    logs.configure_for(Settings(log=LogSettings(json_file=tmp_path / "log.jsonl")), edge="edge-7")
    logging.getLogger("x").info("ready")
    assert capsys.readouterr().err.endswith("x: ready\n")
    assert json.loads((tmp_path / "log.jsonl").read_text())["edge"] == "edge-7"


async def test_fields_follow_tasks_and_threads():
    def in_thread() -> str:
        return json.loads(written("json", "x"))["request"]

    async def one(name: str) -> str:
        with logs.context(request=name):
            await asyncio.sleep(0)
            return await asyncio.to_thread(in_thread)

    assert await asyncio.gather(one("a"), one("b")) == ["a", "b"]


def test_a_field_cannot_stand_in_for_what_the_line_is():
    row = json.loads(written("json", "real", **{"logger": "forged", "level": "forged"}))
    assert (row["logger"], row["level"], row["message"]) == ("embridge.test", "WARNING", "real")


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        f"shown {TOKEN} twice {TOKEN}",
        "password=hunter22",
        'password="hunter22"',
        '{"password": "hunter22"}',
        "mqtt://edge:hunter22@broker:8883",
        "the secret: hunter22",
        "my-very-own-secret",
        "-----BEGIN PRIVATE KEY-----\nhunter22\n-----END PRIVATE KEY-----",
    ],
)
@pytest.mark.parametrize("style", ["json", "text"])
def test_secrets_are_struck_out(text, style):
    for message, extra in ((text, {}), ("%s", {"detail": text})):
        args = () if not extra else ("x",)
        out = written(style, message.replace("%", "%%") if not args else message, *args,
                      secrets=["my-very-own-secret"], **extra)  # fmt: skip
        assert "***" in out
        assert not any(s in out for s in ("hunter22", "x" * 43, "my-very-own-secret"))


@pytest.mark.parametrize("style", ["json", "text"])
def test_secrets_in_tracebacks_are_struck_out(style):
    try:
        raise ValueError(f"refused {TOKEN}")
    except ValueError:
        out = written(style, "broke", exc=sys.exc_info())
    assert "ValueError: refused ***" in out


def test_ordinary_words_stay():
    said = "token:ana revoked a token; the password was wrong; no secret here"
    assert said in written("text", said)


FORGED = "ok\n12:00:00 ERROR   embridge: forged\r\x1b[2J\x85\u2028<3>forged"


def test_a_message_is_one_line():
    out = written("text", FORGED, session=FORGED)
    assert out.count("\n") == 1
    assert out.endswith("\n")
    assert not any(c in out[:-1] for c in "\r\x1b\x85\u2028")
    assert "\\n12:00:00 ERROR" in out
    assert written("json", FORGED).count("\n") == 1


def test_a_traceback_cannot_forge_a_line():
    try:
        raise ValueError(FORGED)
    except ValueError:
        out = written("text", "broke", exc=sys.exc_info())
    first, *rest = out.rstrip("\n").split("\n")
    assert "broke" in first
    assert all(line.startswith("    | ") for line in rest)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_stays_one_line(message, value):
    formatter = logs.TextFormatter()
    record = logging.LogRecord("n", 30, "f", 1, "%s", (message,), None)
    record.detail = value
    assert len(formatter.format(record).splitlines()) == 1


def test_the_settings_secrets_are_known(tmp_path, capsys):
    settings = Settings(
        mqtt=MqttSettings(password=SecretStr("correct horse")),
        api=ApiSettings(token=SecretStr("battery staple")),
        log=LogSettings(json_file=tmp_path / "log.jsonl"),
    )
    logs.configure_for(settings)
    logging.getLogger("x").warning("tried correct horse and battery staple")
    assert capsys.readouterr().err.rstrip().endswith("x: tried *** and ***")
    assert json.loads((tmp_path / "log.jsonl").read_text())["message"] == "tried *** and ***"


CODE = (
    "from embridge_shared import logs; import logging; logs.configure('INFO', style={!r}); logging.error('no\\nroom')"
)


def stderr_of(style: str, journal: bool) -> str:
    read, write = os.pipe()
    found = os.fstat(write)
    environment = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"} if journal else dict(os.environ)
    try:
        subprocess.run([sys.executable, "-c", CODE.format(style)], stderr=write, env=environment, check=True)
    finally:
        os.close(write)
    with os.fdopen(read) as said:
        return said.read()


def test_the_journal_is_given_levels_and_no_times():
    assert stderr_of("auto", journal=True) == "<3>root: no\\nroom\n"
    assert " ERROR   root: no\\nroom\n" in stderr_of("auto", journal=False)
    assert json.loads(stderr_of("json", journal=True))["message"] == "no\nroom"
