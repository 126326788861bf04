"""Cloud processes that share a broker, each with its range of shards and a state folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from embridge_shared.cloud_client import CloudApi, connect
from embridge_shared.settings import CloudSettings, Settings

Range = tuple[int, int]
_MAIN = "from embridge_shared.cli import main; main()"


class Ingesters:
    """Started, killed and asked by shard range."""

    def __init__(self, folder: Path, port: int, *, commit_s: float = 0.05) -> None:
        self._folder, self._port, self._commit_s = folder, port, commit_s
        self._processes: dict[Range, subprocess.Popen[bytes]] = {}

    def start(self, first: int, last: int) -> None:
        """Run one, until it ingests."""
        ready = self._folder / f"ready-{first}.json"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-c", _MAIN, "cloud", "run", "--http-port", "0", "--ready-file", str(ready)]
        with (self._folder / f"cloud-{first}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment(first, last))
        self._processes[first, last] = process
        deadline = time.monotonic() + 30
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / f"cloud-{first}.log").read_text())
            time.sleep(0.02)

    def kill(self, first: int, last: int) -> None:
        """SIGKILL."""
        process = self._processes.pop((first, last))
        process.kill()
        process.wait()

    def close(self) -> None:
        """Kill all."""
        for shards in list(self._processes):
            self.kill(*shards)

    def pid(self, first: int, last: int) -> int:
        """Its process."""
        return self._processes[first, last].pid

    def url(self, first: int, last: int) -> str:
        """Where one listens."""
        assert (first, last) in self._processes
        return json.loads((self._folder / f"ready-{first}.json").read_text())["http_url"]

    def api(self, first: int, last: int) -> CloudApi:
        """Its HTTP interface."""
        settings = Settings(cloud=CloudSettings(state_dir=self._state(first)))
        return connect(self.url(first, last), settings=settings)

    def embridge(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside them, at home with the first."""
        command = [sys.executable, "-c", _MAIN, *arguments]
        return subprocess.run(
            command, env=self._environment(0, 255), cwd=self._folder, capture_output=True, text=True, timeout=240
        )

    def _state(self, first: int) -> Path:
        return self._folder / f"cloud-{first}"

    def _environment(self, first: int, last: int) -> dict[str, str]:
        own = {
            "EMBRIDGE_MQTT__PORT": self._port,
            "EMBRIDGE_CLOUD__STATE_DIR": self._state(first),
            "EMBRIDGE_CLOUD__FIRST_SHARD": first,
            "EMBRIDGE_CLOUD__LAST_SHARD": last,
            "EMBRIDGE_CLOUD__COMMIT_S": self._commit_s,
            "EMBRIDGE_LOG__LEVEL": "WARNING",
        }
        return os.environ | {key: str(value) for key, value in own.items()}
