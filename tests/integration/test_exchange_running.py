"""Import and export beside a running cloud: through its broker and its HTTP interface."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from embridge_cloud.context import CloudPaths
from embridge_cloud.exchange.delivery import BrokerDoor
from embridge_cloud.exchange.recording import of_sealed
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.exports import ExportIndex
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.errors import NetworkError, Reason
from embridge_shared.settings import MqttSettings
from support.exchange import cloud_settings, rich_recording, seal

EMBRIDGE = [sys.executable, "-c", "from embridge_shared.cli import main; main()"]


@contextmanager
def cloud(tmp_path, port):
    """A cloud process of its own: the environment its commands run in, and its address."""
    env = os.environ | {
        "EMBRIDGE_CLOUD__STATE_DIR": str(tmp_path / "cloud"),
        "EMBRIDGE_CLOUD__HTTP_PORT": "0",
        "EMBRIDGE_CLOUD__COMMIT_S": "0.05",
        "EMBRIDGE_MQTT__PORT": str(port),
    }
    ready = tmp_path / "ready.json"
    with (tmp_path / "cloud.log").open("wb") as log:
        process = subprocess.Popen([*EMBRIDGE, "cloud", "run", "--ready-file", str(ready)], env=env, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not ready.is_file():
                assert process.poll() is None, (tmp_path / "cloud.log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "cloud.log").read_text()
                time.sleep(0.05)
            yield env, json.loads(ready.read_text())["http_url"]
        finally:
            process.terminate()
            assert process.wait(30) == 0, (tmp_path / "cloud.log").read_text()


def run(env, *arguments):
    done = subprocess.run(
        [*EMBRIDGE, "session", *map(str, arguments)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_sessions_enter_and_leave_a_cloud_that_runs(tmp_path, mosquitto):
    elsewhere, here = cloud_settings(tmp_path / "elsewhere"), cloud_settings(tmp_path / "cloud")
    original = seal(elsewhere, rich_recording())
    with cloud(tmp_path, mosquitto.port) as (env, url):
        env["EMBRIDGE_API__URL"] = url
        for arrival in ("stored", "already there"):
            (row,) = run(env, "import", CloudPaths.of(elsewhere).sealed, "--format", "parquet", "--json")
            assert (row["arrival"], row["content_hash"]) == (arrival, original.content_hash)
        found = Catalogue(CloudPaths.of(here).sealed).get(original.id)
        assert found.content_hash == original.content_hash
        assert found.events() == original.events()
        run(env, "export", original.id, "--format", "bids", "--out", tmp_path / "out", "--json")
        assert list((tmp_path / "out").rglob("*_emg.edf"))
        assert run(env, "verify", "--all", "--json")[0]["ok"]
    with HotStore(CloudPaths.of(here).hot) as store:
        (noted,) = ExportIndex(store).of(original.session.participant.id)
        assert (noted.format, noted.path) == ("bids", tmp_path / "out")
        assert "session.export" in {e.action for e in AuditLog(store).entries()}
        assert store.read.rows("SELECT count(*) FROM quarantine") == [(0,)]


async def test_silence_is_no_success(tmp_path, mosquitto):
    original = seal(cloud_settings(tmp_path / "one"), rich_recording(number=7))
    door = BrokerDoor(MqttSettings(port=mosquitto.port), Catalogue(tmp_path / "none"), patience_s=0.1)
    with pytest.raises(NetworkError) as caught:
        await asyncio.wait_for(door.deliver(of_sealed(original)), 30)
    assert caught.value.reason is Reason.TIMEOUT
