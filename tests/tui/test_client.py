"""The client against a real cloud, and against everything that is none; the command around it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
import time
from urllib.error import URLError
from uuid import uuid4

import pytest

from embridge_cloud.fleet import add_fleet
from embridge_cloud.server import serve
from embridge_shared import cloud_client
from embridge_shared.cloud_client import CloudApi
from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_shared.settings import CloudSettings, MqttSettings, Settings
from embridge_tui.app import EmbridgeApp
from embridge_tui.client import HttpClient
from embridge_tui.screens.sessions import SessionsScreen
from embridge_tui.widgets.records import Records
from support.publisher import TestEdge
from support.sessions import emg_spec, pose_spec, record, session_of


def answering(*replies: bytes, drip_s: float = 0.0, hold_s: float = 0.0) -> tuple[str, threading.Thread]:
    """A server with a reply for each caller, said whole or a byte at a time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener:
            for reply in replies:
                answer(listener.accept()[0], reply)

    def answer(caller: socket.socket, reply: bytes) -> None:
        with caller:
            caller.recv(65536)
            try:
                if drip_s:
                    for byte in reply:
                        caller.sendall(bytes([byte]))
                        time.sleep(drip_s)
                else:
                    caller.sendall(reply)
                time.sleep(hold_s)
            except OSError:
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def test_the_interface_over_a_real_cloud(tmp_path):
    settings = Settings(
        mqtt=MqttSettings(),
        cloud=CloudSettings(state_dir=tmp_path / "cloud", http_port=0, commit_s=0.05, embedded_broker=True),
    )
    recording = record(session_of(emg_spec(8, 500.0), pose_spec()), 3, n_chunks=4)
    async with serve(settings, extensions=[add_fleet], broker_port=0) as cloud:
        edge = TestEdge("edge-1", recording.messages())
        await edge.deliver(cloud.broker.host, cloud.broker.port, recording.session.id)
        asked = CloudApi(cloud.url, cloud.tokens.local_path.read_text().strip())
        app = EmbridgeApp(HttpClient(asked), period_s=0.1)
        async with app.run_test(size=(120, 34)) as pilot, asyncio.timeout(10):
            shown = ""
            while "stored" not in shown or "sealed" not in shown:
                await pilot.pause(0.05)
                if isinstance(app.screen, SessionsScreen):
                    shown = str(app.screen.query_one("#detail-text").render())
            table = app.screen.query_one("#sessions", Records)
            assert table.chosen == str(recording.session.id)
            stored = [len(samples) for samples in recording.samples]
            assert all(f"{n} stored, " in shown for n in stored)
            assert "sealed" in str(table.get_row_at(0)[-1]) or "✓" in str(table.get_row_at(0)[-1])
            with pytest.raises(NetworkError) as caught:
                await HttpClient(asked).session(uuid4())
            assert caught.value.reason is Reason.NOT_FOUND
            with pytest.raises(NetworkError, match="asks for a token") as caught:
                await HttpClient(cloud.url).snapshot()
            assert "api.token" in caught.value.hint


async def test_nobody_there(free_port):
    with pytest.raises(NetworkError, match="Connection refused") as caught:
        await HttpClient(f"http://127.0.0.1:{free_port}/").snapshot()
    assert caught.value.reason is Reason.UNREACHABLE
    assert "embridge cloud run" in caught.value.hint


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        (http(b"<html>"), "is not what an EMBridge cloud answers"),
        (http(b'{"ready": 1}'), "is not what an EMBridge cloud answers"),
        (http(b"{}", "404 Not Found"), "answered 404"),
        (b"220 smtp.example.org ready\r\n", "no cloud answers"),
        (b"", "no cloud answers"),
    ],
    ids=["html", "wrong fields", "404", "no http", "hangs up"],
)
async def test_somebody_else_is_there(reply, word):
    url, thread = answering(reply)
    with pytest.raises(NetworkError, match=word) as caught:
        await HttpClient(url, timeout_s=2.0).snapshot()
    assert caught.value.hint
    thread.join(5)


@pytest.mark.parametrize("drip_s", [0.0, 0.05], ids=["silent", "a byte at a time"])
async def test_an_answer_has_a_time_limit(drip_s):
    reply = http(b" " * 1000) if drip_s else b""
    url, _ = answering(reply, drip_s=0.002 if drip_s else 0.0, hold_s=1.0)
    began = time.monotonic()
    with pytest.raises(NetworkError) as caught:
        await HttpClient(url, timeout_s=0.3).snapshot()
    assert caught.value.reason is Reason.TIMEOUT
    assert time.monotonic() - began < 1.5


async def test_the_loop_goes_on_while_the_cloud_is_silent():
    url, _ = answering(b"", hold_s=0.5)
    asking = asyncio.create_task(HttpClient(url, timeout_s=0.4).snapshot())
    turns = 0
    while not asking.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 10
    assert isinstance(asking.exception(), NetworkError)


async def test_a_503_says_why_it_is_not_ready():
    ready = b'{"ready": false, "state": "connecting", "last_error": "no broker"}'
    counters = b'{"chunks": 1, "samples": 2, "duplicates": 3, "refused": 4, "sealed": 5, "of a later version": 6}'
    url, thread = answering(http(ready, "503 Service Unavailable"), http(counters), *[http(b"[]")] * 5)
    found = await HttpClient(url, timeout_s=2.0).snapshot()
    assert (found.readiness.ready, found.readiness.state, found.readiness.last_error) == (
        False,
        "connecting",
        "no broker",
    )
    assert (found.ingest.sealed, found.sessions, found.jobs) == (5, (), ())
    thread.join(5)


def test_an_address_is_checked():
    with pytest.raises(ConfigError, match="no address"):
        HttpClient("file:///etc/passwd")


def run(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\n"
        "if sys.argv[1]: sys.modules[sys.argv[1]] = None\n"
        "sys.argv = ['embridge', *sys.argv[2:]]\n"
        "from embridge_shared.cli import main\nmain()"
    )
    return subprocess.run([sys.executable, "-c", code, without, *arguments], capture_output=True, text=True, timeout=60)


def test_the_command_needs_its_extra():
    done = run("tui", without="textual")
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("embridge: error: `embridge tui` needs textual")
    assert line.endswith('pip install "embridge[tui]"')


def test_help_needs_no_textual():
    done = run("tui", "--help", without="textual")
    assert done.returncode == 0, done.stderr
    assert "--url" in done.stdout


@pytest.mark.parametrize(("url", "word"), [("ftp://x", "no address"), ("http://127.0.0.1:9", "needs a terminal")])
def test_the_command_says_what_is_wrong(url, word):
    done = run("tui", "--url", url)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert word in line


def test_a_certificate_that_is_not_trusted_is_told_from_silence(monkeypatch):
    refused = ssl.SSLCertVerificationError(1, "no")
    refused.verify_message = "unable to get local issuer certificate"

    class Opener:
        def open(self, *_: object, **__: object) -> None:
            raise URLError(refused)

    monkeypatch.setattr(cloud_client, "_opener", lambda _: Opener())
    with pytest.raises(NetworkError, match="not trusted") as caught:
        CloudApi("https://127.0.0.1:8470").get("/health")
    assert caught.value.reason is Reason.INSECURE
    assert "api.ca_file" in caught.value.hint
