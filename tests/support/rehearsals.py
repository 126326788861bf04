"""A cloud process with two published releases, and a simulated fleet that takes the second."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from conftest import take_free_port
from embridge_cloud.registry import Registry
from embridge_edge.fleet.rehearse import Rehearsal, Rehearsed, rehearse, settings_in
from embridge_shared.clock import SystemClock
from embridge_shared.cloud_client import CloudApi
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from support.bundles import make_bundle
from support.loop import Loop

SHM = Path("/dev/shm")


class Rehearsing:
    """A cloud process on a port of its own that keeps it when it is killed and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.loop = Loop(folder, port, {"EMBRIDGE_CLOUD__COMMIT_S": "0.2"})
        self._http = take_free_port()
        registry = Registry(folder / "cloud" / "registry", SystemClock())
        for version in (1, 2):
            registry.publish(make_bundle(folder, version, seed=version))
        root = folder / "cloud" / "registry" / "repository" / "metadata" / "1.root.json"
        self.settings = Settings(
            mqtt=MqttSettings(port=port), edge=EdgeSettings(backoff_max_s=4.0, update_root=root, release_wait_s=5.0)
        )

    def start(self) -> CloudApi:
        """Start the cloud process; its interface."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        arguments = ("--state-dir", "cloud", "--http-port", str(self._http), "--ready-file", str(ready))
        self.loop.start("cloud", "cloud", "run", *arguments)
        self.loop.wait_cloud()
        assert self.loop.api is not None
        return self.loop.api

    async def rehearse(
        self,
        edges: int,
        asked: Rehearsal,
        *,
        speed: float = 20.0,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> Rehearsed:
        """Let a fleet take a release, its state on a disk of memory, while something else happens."""
        api = self.loop.api or self.start()
        with tempfile.TemporaryDirectory(dir=_memory(self.folder)) as states:
            fleet = settings_in(self.settings, [f"sim-{i:05d}" for i in range(edges)], Path(states))
            beside = None if meanwhile is None else asyncio.create_task(_run(meanwhile))
            try:
                return await rehearse(fleet, api, asked, speed=speed)
            finally:
                if beside is not None:
                    await beside

    def close(self) -> None:
        """End the cloud process."""
        self.loop.close()


def _memory(otherwise: Path) -> Path:
    return SHM if SHM.is_dir() else otherwise


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
