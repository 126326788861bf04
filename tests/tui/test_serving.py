"""The interface in a browser: only with the key, only from its own address, a real process behind it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp
import pytest

from embridge_shared.errors import OperatorError
from embridge_tui.serving import serve

APP = """
from textual.app import App
from textual.widgets import Static
class Hello(App):
    def compose(self):
        yield Static("HELLO-FROM-THE-TAB")
Hello().run()
"""


def wait_for(port: int) -> None:
    """It listens a moment after it said where."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.02)
    raise TimeoutError


@dataclass
class Served:
    public_url: str
    key: str

    @property
    def address(self) -> str:
        return f"{self.public_url}/?key={self.key}"


@pytest.fixture
def served(free_port: int) -> Iterator[Served]:
    command = [sys.executable, "-c", APP]
    child = f"from embridge_tui.serving import serve; serve({command!r}, port={free_port}, title='EMBridge')"
    process = subprocess.Popen([sys.executable, "-c", child], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        found = re.search(r"(http://127\.0\.0\.1:\d+)/\?key=(\S+)", process.stderr.readline())
        assert found is not None
        wait_for(free_port)
        yield Served(*found.groups())
        process.send_signal(signal.SIGINT)
        process.wait(20)


async def test_the_key_opens_the_page_and_stays_in_a_cookie(served):
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        async with client.get(f"{served.public_url}/") as answer:
            assert answer.status == 403
            assert "terminal" in await answer.text()
        async with client.get(f"{served.public_url}/?key=wrong") as answer:
            assert answer.status == 403
        async with client.get(served.address) as answer:
            assert answer.status == 200
            assert "EMBridge" in await answer.text()
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert "fonts" not in answer.headers["Content-Security-Policy"]
        async with client.get(f"{served.public_url}/") as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}], ids=str
)
async def test_a_page_of_others_gets_neither_page_nor_terminal(served, headers):
    async with aiohttp.ClientSession() as client:
        async with client.get(served.address, headers=headers) as answer:
            assert answer.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(f"{served.public_url}/ws?key={served.key}", headers=headers)
        assert caught.value.status == 403


async def test_a_tab_is_a_process_that_paints(served):
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"{served.public_url}/ws?key={served.key}&width=80&height=24") as link,
    ):
        painted = b""
        async with asyncio.timeout(30):
            while b"HELLO-FROM-THE-TAB" not in painted:
                message = await link.receive()
                painted += message.data if isinstance(message.data, bytes) else b""


def test_a_port_that_is_taken_is_said(served):
    port = int(served.public_url.rpartition(":")[2])
    with pytest.raises(OperatorError, match=f"127.0.0.1:{port} cannot be served") as caught:
        serve(["true"], port=port, title="EMBridge")
    assert "--port" in caught.value.hint
