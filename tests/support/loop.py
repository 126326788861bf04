"""The real commands around a real broker: start, kill, restart, look inside, compare with what the sources deliver."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.store.sealed import Catalogue, SealedSession
from embridge_edge.plan import Plan, SessionPlan
from embridge_edge.takes import open_take
from embridge_shared.cloud_client import CloudApi
from embridge_shared.session import CueShown, Repetition, SessionClosed, SessionOpened

EMBRIDGE = Path(sys.executable).with_name("embridge")


class Skipping:
    """A clock on which every wait is over at once."""

    def __init__(self) -> None:
        self.now_ns = 0

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.now_ns += round(max(0.0, seconds) * 1e9)


@dataclass(frozen=True)
class Expected:
    """What the sources of a planned session deliver: index and raw samples of each stream, annotations, arrivals."""

    index: dict[str, NDArray[np.int64]]
    values: dict[str, NDArray[Any]]
    annotations: tuple[CueShown | Repetition, ...]

    @property
    def samples(self) -> int:
        return sum(len(i) for i in self.index.values())

    @property
    def span(self) -> int:
        """Indices of all streams together, lost ones included."""
        return sum(int(i[-1]) + 1 for i in self.index.values())


def rehearse(plan: SessionPlan, base: Path = Path()) -> Expected:
    """Play a planned session in this process, without waiting."""

    async def play() -> Expected:
        take = open_take(plan, base, Skipping())
        index, values = {}, {}
        for source in take.sources:
            await source.open(0)
            packets = [p async for p in source.packets()]
            index[source.spec.name] = np.concatenate([np.arange(p.first, p.first + len(p.samples)) for p in packets])
            values[source.spec.name] = np.concatenate([p.samples for p in packets])
            await source.close()
        return Expected(index, values, take.annotations)

    return asyncio.run(play())


def assert_recorded(sealed: SealedSession, expected: Expected) -> None:
    """Every sample and event is sealed, once, at its place; nothing else is."""
    sealed.verify()
    assert {s.name for s in sealed.session.streams} == set(expected.index)
    for name, index in expected.index.items():
        found = sealed.samples(name)
        np.testing.assert_array_equal(found.index, index)
        np.testing.assert_array_equal(found.values, expected.values[name])
    events = sealed.events()
    # What was seen of the signal is numbered among them and kept apart.
    numbers = [e.seq for e in events]
    assert numbers == sorted(set(numbers))
    assert len(events) == len(expected.annotations) + 2
    assert events[0].event == SessionOpened(session=sealed.session)
    assert isinstance(events[-1].event, SessionClosed)
    assert events[-1].event.reason == "complete"
    began = sealed.session.started_ns
    moved = [
        msgspec.structs.replace(a, start_ns=a.start_ns + began, end_ns=a.end_ns + began) for a in expected.annotations
    ]
    assert [e.event for e in events[1:-1]] == moved


def until(condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "") -> Any:
    """Wait for something true and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(what or getattr(condition, "__name__", "condition"))
        time.sleep(0.05)
    return found


@dataclass
class Loop:
    """Edges and a cloud process beside a broker, each with a state of its own under `folder`."""

    folder: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    url: str = ""
    launch: dict[str, tuple[str | Path, ...]] = field(default_factory=dict)
    api: CloudApi | None = None

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("EMBRIDGE_")}
        ours = {
            "XDG_CONFIG_HOME": str(self.folder),
            "EMBRIDGE_MQTT__PORT": str(self.port),
            "EMBRIDGE_EDGE__RESEND_S": "1",
            "EMBRIDGE_EDGE__BACKOFF_MAX_S": "1",
            "EMBRIDGE_CLOUD__COMMIT_S": "0.1",
        }
        return {**kept, **ours, **self.settings, **more}

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def start(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.launch.get(name, (EMBRIDGE,)), *arguments],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(**environment),
            )
        self.running[name] = process
        return process

    def run(self, *arguments: str, timeout_s: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [EMBRIDGE, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment(**environment),
            timeout=timeout_s,
            check=False,
        )

    def start_cloud(self, *, wait: bool = True, **environment: str) -> subprocess.Popen[bytes]:
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        process = self.start(
            "cloud",
            "cloud",
            "run",
            "--state-dir",
            "cloud",
            "--http-port",
            "0",
            "--ready-file",
            str(ready),
            **environment,
        )
        if wait:
            self.wait_cloud()
        return process

    def wait_cloud(self) -> None:
        ready, process = self.folder / "ready.json", self.running["cloud"]
        until(lambda: ready.exists() or process.poll() is not None, what="the cloud process to be ready")
        assert process.poll() is None, self.log("cloud")
        found = json.loads(ready.read_text())
        self.url = found["http_url"]
        self.api = CloudApi(self.url, Path(found["token_file"]).read_text().strip())

    def write_plan(self, *sessions: SessionPlan) -> Path:
        path = self.folder / "plan.json"
        path.write_bytes(msgspec.json.encode(Plan(session=sessions)))
        return path

    def start_edge(self, name: str = "edge-1", plan: str = "plan.json", **environment: str) -> subprocess.Popen[bytes]:
        arguments = ("edge", "run", "--plan", plan, "--name", name, "--state-dir", name, "--until-done")
        return self.start(name, *arguments, **environment)

    def wait_edge(self, name: str = "edge-1", timeout_s: float = 60.0) -> None:
        """Wait until an edge is done, without an error."""
        code = self.running[name].wait(timeout_s)
        assert code == 0, self.log(name)

    def kill(self, name: str) -> None:
        """SIGKILL a process that runs."""
        process = self.running.pop(name)
        assert process.poll() is None, self.log(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> int:
        """SIGTERM a process that runs, and return its exit code."""
        process = self.running.pop(name)
        assert process.poll() is None, self.log(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(20)

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def get(self, path: str) -> Any:
        assert self.api is not None
        return self.api.get(path)

    def committed(self) -> int:
        """Index the cloud's database has reached, all streams of all sessions together."""
        sessions = self.get("/api/sessions")
        streams = [s for row in sessions for s in self.get(f"/api/sessions/{row['session']}")["streams"]]
        return sum(s["until"] for s in streams)

    def spooled(self, name: str = "edge-1") -> dict[str, int]:
        """What an edge's spool says of itself: recorded samples, waiting items, refusals, sessions closed."""
        counts = {
            "recorded": "SELECT coalesce(sum(until), 0) FROM progress WHERE stream >= 0",
            "waiting": "SELECT count(*) FROM items",
            "refused": "SELECT count(*) FROM refused",
            "closed": "SELECT coalesce(sum(closed), 0) FROM sessions",
        }
        path = self.folder / name / "spool.db"
        if not path.exists():
            return dict.fromkeys(counts, 0)
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        try:
            # An agent that has just started may not have got to its tables.
            made = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
            if not made.issuperset({"progress", "items", "refused", "sessions"}):
                return dict.fromkeys(counts, 0)
            return {key: db.execute(sql).fetchone()[0] for key, sql in counts.items()}
        finally:
            db.close()

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.folder / "cloud" / "sealed")

    def sealed(self, count: int = 1, timeout_s: float = 30.0) -> list[SealedSession]:
        """The sealed sessions, once there are `count`."""
        until(lambda: len(self.catalogue.ids()) >= count, timeout_s, f"{count} sealed sessions")
        found = self.catalogue.sessions()
        assert len(found) == count
        return found
