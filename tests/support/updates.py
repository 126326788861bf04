"""An edge that takes releases, without a network and in a time that a test lets pass."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import DownloadHTTPError

from embridge_cloud.registry import Registry
from embridge_edge.releases import ReleaseKeeper
from embridge_edge.update.fetch import HttpFetcher, Progress
from embridge_edge.update.proving import Prover
from embridge_edge.update.updater import Updater
from embridge_shared.clock import SystemClock
from embridge_shared.errors import NetworkError, Reason
from embridge_shared.fleet import Trial, UpdatePhase, UpdateState
from embridge_shared.settings import EdgeSettings
from embridge_shared.wire.messages import Desired
from support.bundles import make_bundle

URL = "http://repository"
T = TypeVar("T")


class VirtualClock:
    """Time passes when a test says so; the wall starts at the machine's own, for signatures are dated by it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.wall_at_start_ns = SystemClock().wall_ns()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = 0

    def wall_ns(self) -> int:
        return self.wall_at_start_ns + self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number += 1
        heapq.heappush(self._sleepers, (self.now_ns + round(max(0.0, seconds) * 1e9), self._number, future))
        await future

    async def settle(self) -> None:
        """Let everything happen that happens at this moment."""
        for _ in range(30):
            await asyncio.sleep(0)

    async def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        await self.settle()
        until = self.now_ns + round(seconds * 1e9)
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self.now_ns = max(self.now_ns, at)
            future.set_result(None)
            await self.settle()
        self.now_ns = until
        await self.settle()


async def inline(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Runs what blocks here and now."""
    return function(*args, **kwargs)


class FolderFetcher(HttpFetcher):
    """Fetches from a repository on this disk.

    Attributes:
        down: Whether nobody answers.
        requests: What was asked for.
    """

    def __init__(self, repository: Path) -> None:
        super().__init__()
        self._repository = repository
        self.down = False
        self.requests: list[str] = []

    def _bytes(self, url: str) -> bytes:
        self.requests.append(url)
        if self.down:
            raise NetworkError(f"{url}: nobody answers.", reason=Reason.UNREACHABLE)
        path = self._repository / url.removeprefix(f"{URL}/")
        if not path.is_file():
            raise DownloadHTTPError(f"{url} answered 404", 404)
        return path.read_bytes()

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter([self._bytes(url)])

    def resume(self, url: str, part: Path, size: int, progress: Progress | None = None) -> None:
        held = part.stat().st_size if part.exists() else 0
        data = self._bytes(url)
        for at in range(held, size, 1024):
            with part.open("ab") as file:
                file.write(data[at : at + 1024])
            if progress is not None:
                progress(min(at + 1024, size), size)


class Edge:
    """An edge, its registry, and how often it was started."""

    def __init__(self, folder: Path, *, prover: Prover | None = None) -> None:
        self.folder = folder
        self.registry = Registry(folder / "registry", SystemClock())
        self.clock = VirtualClock()
        self.prover = prover
        self.fetcher = FolderFetcher(self.registry.repository)
        self.root = folder / "root.json"
        self.told: list[UpdateState] = []
        self.settings = EdgeSettings(
            state_dir=folder / "edge", update_root=self.root, release_wait_s=5, backoff_max_s=8, update_check_s=1000
        )

    def publish(self, version: int, **changes: Any) -> Desired:
        """Publish `embridge-{version}`; what asks an edge for it."""
        entry = self.registry.publish(make_bundle(self.folder / "made", version, seed=version, **changes))
        if not self.root.exists():
            self.root.write_bytes(self.registry.root_bytes())
        return Desired(release=entry.name, digest=entry.digest, url=URL)

    def updater(self, url: str = URL) -> Updater:
        return Updater(
            self.settings.state_dir,
            self.root.read_bytes(),
            url,
            prover=self.prover,
            fetcher=self.fetcher,
            now=lambda: datetime.fromtimestamp(self.clock.wall_ns() * 1e-9, UTC),
        )

    def keeper(self, **more: Any) -> ReleaseKeeper:
        """The keeper of a start of the agent."""

        def changed() -> None:
            if not self.told or self.told[-1] != keeper.progress:
                self.told.append(keeper.progress)

        keeper = ReleaseKeeper(
            self.settings,
            self.clock,
            **{
                "changed": changed,
                "prover": self.prover,
                "updater": self.updater,
                "call": inline,
                "rng": random.Random(0),
                **more,
            },
        )
        return keeper

    @property
    def phases(self) -> list[UpdatePhase]:
        """What was told, each once in a row."""
        found = [t.phase for t in self.told]
        return [p for i, p in enumerate(found) if i == 0 or p is not found[i - 1]]


TRIAL = Trial(probation_s=60.0)
