"""A small site on this machine: one cloud process and edge agents, started by their own commands."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from embridge_cloud.demo.worlds import Entry
from embridge_shared.cloud_client import CloudApi
from embridge_shared.errors import EmbridgeError, Reason

_START_S = 60.0
_STOP_S = 30.0
_POLL_S = 0.25
_ANSWER_S = 30.0


class Site:
    """Processes, their configuration and their logs under one folder.

    Args:
        folder: Everything is kept here.
        chunk_s: Length of a chunk on the edges.
    """

    def __init__(self, folder: Path, chunk_s: float) -> None:
        self.folder = folder
        self._env = {
            **os.environ,
            "EMBRIDGE_CLOUD__STATE_DIR": str(folder / "cloud"),
            "EMBRIDGE_EDGE__CHUNK_S": str(chunk_s),
            "EMBRIDGE_EDGE__RELEASE_WAIT_S": "300",
            "OMP_NUM_THREADS": "1",
        }
        self._cloud: subprocess.Popen[bytes] | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._edges: dict[str, subprocess.Popen[bytes]] = {}
        self._api: CloudApi | None = None
        (folder / "logs").mkdir(parents=True, exist_ok=True)

    @property
    def sealed(self) -> Path:
        """Folder of sealed sessions."""
        return self.folder / "cloud" / "sealed"

    @property
    def jobs(self) -> Path:
        """Folder of jobs."""
        return self.folder / "cloud" / "jobs"

    def start_cloud(self) -> None:
        """Start the cloud process with its embedded broker.

        Raises:
            EmbridgeError: It did not start; the message holds its last words.
        """
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        arguments = ["cloud", "run", "--embedded-broker", "--mqtt-port", "0", "--http-port", "0"]
        self._cloud = self._spawn("cloud", [*arguments, "--ready-file", str(ready)])
        deadline = time.monotonic() + _START_S
        while not ready.is_file():
            if self._cloud.poll() is not None or time.monotonic() > deadline:
                raise EmbridgeError(f"the cloud process did not start: {self._last_words('cloud')}")
            time.sleep(_POLL_S)
        found = json.loads(ready.read_text())
        token = Path(found["token_file"]).read_text().strip()
        self._api = CloudApi(found["http_url"], token, timeout_s=_ANSWER_S)
        root = self.folder / "cloud" / "registry" / "repository" / "metadata" / "1.root.json"
        self._env |= {
            "EMBRIDGE_MQTT__HOST": found["mqtt_host"],
            "EMBRIDGE_MQTT__PORT": str(found["mqtt_port"]),
            "EMBRIDGE_EDGE__UPDATE_ROOT": str(root),
        }

    def start_edges(self, stage: str, plans: dict[str, list[Entry]]) -> None:
        """Start an agent for every edge, to carry out its plan, deliver all of it and leave.

        Args:
            stage: Names the plan files and logs.
            plans: Sessions, by edge.
        """
        for edge, sessions in plans.items():
            if not sessions:
                continue
            plan = self.folder / "plans" / f"{edge}-{stage}.json"
            plan.parent.mkdir(exist_ok=True)
            plan.write_text(json.dumps({"session": sessions}, indent=1))
            state = str(self.folder / edge)
            arguments = ["edge", "run", "--name", edge, "--state-dir", state, "--plan", str(plan), "--until-done"]
            self._edges[f"{edge}-{stage}"] = self._spawn(f"{edge}-{stage}", arguments)

    def serve_edges(self, stage: str, edges: Sequence[str]) -> None:
        """Start agents that record nothing and stay: they take what is rolled out.

        Args:
            stage: Names the logs.
            edges: Their names.
        """
        for edge in edges:
            arguments = ["edge", "run", "--name", edge, "--state-dir", str(self.folder / edge)]
            self._edges[f"{edge}-{stage}"] = self._spawn(f"{edge}-{stage}", arguments)

    def stop_edges(self) -> None:
        """End all agents, gently first."""
        self._stop(list(self._edges.values()))
        self._edges.clear()

    def wait_for_edges(self, tick: Callable[[], None]) -> None:
        """Wait until every agent has left.

        Args:
            tick: Called while they work.

        Raises:
            EmbridgeError: One failed, or the cloud process ended; the message holds its last words.
        """
        while self.check_edges():
            tick()
            time.sleep(_POLL_S)
        self._edges.clear()

    def check_edges(self) -> bool:
        """Whether agents are at work.

        Raises:
            EmbridgeError: One failed, or the cloud process ended.
        """
        if self._cloud is not None and self._cloud.poll() is not None:
            raise EmbridgeError(f"the cloud process ended: {self._last_words('cloud')}")
        for name, process in self._edges.items():
            if process.poll() not in (None, 0):
                raise EmbridgeError(f"{name} ended with {process.returncode}: {self._last_words(name)}")
        return any(p.poll() is None for p in self._edges.values())

    def wait_until(self, reached: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for something that is under way.

        Raises:
            EmbridgeError: TIMEOUT: it did not come.
        """
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                raise EmbridgeError(f"{what} took longer than {seconds:.0f} s", reason=Reason.TIMEOUT)
            time.sleep(_POLL_S)

    def get(self, path: str) -> Any:
        """Ask the cloud's HTTP interface.

        Raises:
            EmbridgeError: It refused or cannot be reached.
        """
        return self._cloud_api().get(path)

    def post(self, path: str, body: bytes = b"") -> Any:
        """Tell the cloud's HTTP interface; raises as `get`."""
        return self._cloud_api().post(path, body)

    def _cloud_api(self) -> CloudApi:
        if self._api is None:
            raise EmbridgeError("the cloud process was not started", hint="Start it first.")
        return self._api

    def digests(self) -> list[dict[str, Any]]:
        """What the edges wrote about their sessions."""
        return [json.loads(p.read_bytes()) for p in sorted(self.folder.glob("edge-*/digests/*.json"))]

    def stop(self) -> None:
        """End every process, gently first."""
        self._stop(self._children)

    def _stop(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _spawn(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "logs" / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "embridge_cloud.demo.child", str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
            )
        self._children.append(process)
        return process

    def _last_words(self, name: str) -> str:
        log = self.folder / "logs" / f"{name}.log"
        lines = log.read_text(errors="replace").splitlines()
        return f"{' / '.join(lines[-3:]) or 'no words'} (log: {log})"


@contextlib.contextmanager
def open_site(folder: Path, chunk_s: float) -> Iterator[Site]:
    """A site with its cloud process running; all of it is stopped at the end."""
    site = Site(folder, chunk_s)
    try:
        site.start_cloud()
        yield site
    finally:
        site.stop()
