"""Fixtures every test may use: recordings, free ports, a real broker."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run: what is merged was judged on them. `make test-all` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("exploring", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--ble-adapter",
        metavar="TRANSPORT,TRANSPORT",
        help="run the Bluetooth tests on real controllers: the edge's and the one that virtual bands are served on, as "
        "in usb:0,usb:1 or platform,usb:0; tests that need the simulated radio are skipped",
    )


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of recordings: EMBRIDGE_TEST_DATA, by default shared/data beside the repository."""
    path = Path(os.environ.get("EMBRIDGE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no recordings at {path}; set EMBRIDGE_TEST_DATA")
    return path


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Commands run in this process set the root logger's level and handlers; the next test has its own."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)


def take_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    """A loopback port nobody listens on."""
    return take_free_port()


@dataclass
class MosquittoBroker:
    """A Mosquitto of our own; `kill` and `start` are SIGKILL and a restart on the same port, with nothing kept."""

    folder: Path
    binary: str
    host: str = "127.0.0.1"
    port: int = field(default_factory=take_free_port)
    options: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} {self.host}\nallow_anonymous true\nlog_type error\nlog_type warning\n"
            f"include_dir {ROOT / 'deploy' / 'mosquitto' / 'conf.d'}\n{self.options}"
        )
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen([self.binary, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError((self.folder / "mosquitto.log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _mosquitto(folder: Path) -> Iterator[MosquittoBroker]:
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.fail("no mosquitto is installed; `make setup` installs it")
    broker = MosquittoBroker(folder, binary)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MosquittoBroker]:
    """A Mosquitto on a free loopback port, shared by all tests."""
    yield from _mosquitto(tmp_path_factory.mktemp("mosquitto"))


@pytest.fixture
def own_mosquitto(tmp_path: Path) -> Iterator[MosquittoBroker]:
    """A Mosquitto that a test may kill."""
    yield from _mosquitto(tmp_path)
