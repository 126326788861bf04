"""What a service tells its manager, and credentials as settings."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from embridge_shared import settings
from embridge_shared.errors import ConfigError
from embridge_shared.service import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def said(manager: socket.socket) -> list[str]:
    """What was said since it was last asked."""
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


def test_a_service_tells_its_manager(manager):
    notifier = Notifier(manager.getsockname())
    notifier.ready("idle;\nall well")
    notifier.status("idle; all well")
    notifier.status("recording")
    notifier.status("recording")
    notifier.watchdog()
    notifier.stopping()
    assert said(manager) == [
        "READY=1\nSTATUS=idle; all well",
        "STATUS=idle; all well",
        "STATUS=recording",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=stopping",
    ]
    notifier.close()


def test_an_abstract_socket(manager):
    name = f"embridge-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        notifier = Notifier(f"@{name}")
        notifier.watchdog()
        notifier.close()
        listening.settimeout(5)
        assert listening.recv(64) == b"WATCHDOG=1"


def test_a_manager_that_left_is_complained_of_once(tmp_path, caplog):
    notifier = Notifier(str(tmp_path / "gone"))
    notifier.watchdog()
    notifier.watchdog()
    notifier.close()
    (record,) = caplog.records
    assert "does not listen" in record.message


@pytest.mark.parametrize(
    ("environ", "listened", "watchdog_s"),
    [
        ({}, False, 0.0),
        ({"NOTIFY_SOCKET": "/run/x"}, True, 0.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "20000000"}, True, 20.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "7"}, True, 20.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "8"}, True, 0.0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, True, 0.0),
    ],
)
def test_the_environment_tells_whom(environ, listened, watchdog_s):
    notifier = Notifier.from_environment(environ, pid=7)
    assert (notifier.listened_to, notifier.watchdog_s) == (listened, watchdog_s)


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of credentials of this process, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBRIDGE_CONFIG", str(tmp_path / "own.toml"))
    (tmp_path / "own.toml").write_text('[mqtt]\nusername = "from-file"\npassword = "from-file"\n')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given"))
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def test_credentials_are_settings(credentials):
    (credentials / "mqtt.password").write_text("s3cret\n")
    (credentials / "mqtt.key_file").write_text("-----BEGIN")
    (credentials / "of-somebody-else").write_text("x")
    (credentials / "other.key").write_text("x")
    loaded = settings.load()
    assert loaded.mqtt.password.get_secret_value() == "s3cret"
    assert loaded.mqtt.key_file == credentials / "mqtt.key_file"
    assert loaded.mqtt.username == "from-file"
    origins = {o.key: o.origin for o in settings.origins(loaded)}
    assert origins["mqtt.password"] == "credential mqtt.password"
    assert origins["mqtt.username"].endswith("own.toml")


def test_the_environment_is_stronger_than_a_credential(credentials, monkeypatch):
    (credentials / "mqtt.password").write_text("weaker")
    monkeypatch.setenv("EMBRIDGE_MQTT__PASSWORD", "stronger")
    assert settings.load().mqtt.password.get_secret_value() == "stronger"


def test_a_credential_that_is_no_setting_is_named(credentials):
    (credentials / "mqtt.pasword").write_text("x")
    with pytest.raises(ConfigError, match=r"mqtt\.pasword \(credential mqtt\.pasword\): there is no such setting"):
        settings.load()


def test_a_credential_that_cannot_be_read(credentials):
    (credentials / "mqtt.password").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.load()


def test_no_folder_of_credentials(credentials, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials / "missing"))
    assert settings.load().mqtt.password.get_secret_value() == "from-file"
