"""A cloud with releases, and idle agents that trust it."""

from __future__ import annotations

import json
from typing import Any

from conftest import MosquittoBroker
from embridge_cloud.registry import Registry
from embridge_shared.clock import SystemClock
from support.bundles import make_bundle
from support.loop import Loop, until

ROLLOUT = {
    "EMBRIDGE_ROLLOUT__WAVES": "[0.4, 1.0]",
    "EMBRIDGE_ROLLOUT__SOAK_S": "0.5",
    "EMBRIDGE_ROLLOUT__PROBATION_S": "0.3",
    "EMBRIDGE_ROLLOUT__SHADOW_WINDOWS": "0",
}


class Fleet:
    """A cloud with releases, and idle agents that trust it."""

    def __init__(self, loop: Loop, broker: MosquittoBroker, edges: int) -> None:
        self.loop = loop
        self.broker = broker
        self.edges = [f"edge-{n}" for n in range(1, edges + 1)]
        self.registry = Registry(loop.folder / "cloud" / "registry", SystemClock())
        (loop.folder / "root.json").write_bytes(self.registry.root_bytes())
        loop.settings |= ROLLOUT | {"EMBRIDGE_EDGE__UPDATE_ROOT": str(loop.folder / "root.json")}

    def publish(self, version: int, **changes: Any) -> None:
        self.registry.publish(make_bundle(self.loop.folder, version, seed=version, **changes))

    def begin(self) -> None:
        self.loop.start_cloud(EMBRIDGE_CLOUD__HTTP_PORT="0")
        for name in self.edges:
            self.loop.start(name, "edge", "run", "--name", name, "--state-dir", name)
        until(lambda: len(self.loop.get("/api/fleet")) == len(self.edges), 30, "the edges to be known")

    def command(self, *arguments: str) -> Any:
        done = self.loop.run(*arguments, "--url", self.loop.url, "--json", EMBRIDGE_CLOUD__STATE_DIR="cloud")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def over(self, name: str) -> dict[str, Any]:
        def ended() -> Any:
            found = self.loop.get(f"/api/rollouts/{name}")
            return found if found["ended_ns"] else None

        return until(ended, 60, f"{name} to be over: {self.loop.get(f'/api/rollouts/{name}')}")

    def running(self) -> dict[str, str]:
        return {row["edge"]: (row["reported"] or {}).get("release", "") for row in self.loop.get("/api/fleet")}

    def all_run(self, release: str) -> None:
        until(lambda: set(self.running().values()) == {release}, 30, f"all to run {release}: {self.running()}")
