"""One edge of a rehearsal: the real uplink and the real updater, with everything that only costs time shared.

Bundles are verified, tested and loaded once for all edges of the process, and their files are one file. Windows are
not decoded: how long they take and how sure they are is what a trouble says.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final, NoReturn, TypeVar

from embridge_edge.courier import Courier
from embridge_edge.decode.runtime import Decoder
from embridge_edge.fleet.pace import ScaledClock
from embridge_edge.fleet.troubles import SICK, Trouble
from embridge_edge.releases import ReleaseKeeper
from embridge_edge.spool import Item
from embridge_edge.update.fetch import Progress
from embridge_edge.update.proving import SharedProver
from embridge_edge.update.slots import FOLDER, Slots
from embridge_edge.update.updater import Updater
from embridge_edge.uplink import LinkState, Uplink
from embridge_shared.clock import SystemClock
from embridge_shared.errors import EmbridgeError
from embridge_shared.release import Bundle
from embridge_shared.settings import Settings
from embridge_shared.wire.messages import CommitReport, Desired, EdgeState, pack

T = TypeVar("T")

_LOOK_S: Final = 2.0
_WINDOWS: Final = 20
_HOP_S: Final = 0.1
_RATE_HZ: Final = 1000.0
_STALE_S: Final = 400 * 86_400.0
_UP_S, _DOWN_S = 4.0, 1.5
_BLOCK_S: Final = 0.02
_THREADS: Final = 8


class SimulatedCrashError(Exception):
    """The agent ends without a word."""


class NothingSpooled(Courier):
    """The courier of an edge that records nothing: no file, no thread."""

    def __init__(self) -> None:
        pass

    async def pending(self, after: int, limit: int) -> list[Item]:
        """Nothing."""
        return []

    async def fetch(self, ids: list[int]) -> list[Item]:
        """Nothing."""
        return []

    async def settle(self, report: CommitReport) -> list[int]:
        """Nothing."""
        return []

    async def close(self) -> None:
        """Nothing to close."""


@dataclass
class Traffic:
    """What a fleet said and heard.

    Attributes:
        said: Messages to the broker.
        said_bytes: Their payloads.
        heard: Messages from it.
        heard_bytes: Their payloads.
        http_bytes: Bodies fetched, metadata included.
    """

    said: int = 0
    said_bytes: int = 0
    heard: int = 0
    heard_bytes: int = 0
    http_bytes: int = 0


@dataclass
class Means:
    """What all edges of a rehearsal share.

    Attributes:
        root: Root metadata that the edges were provisioned with.
        clock: The virtual clock.
        release: The release under which troubles of health show.
        mirror: Where edges with the trouble of that name fetch from.
    """

    root: bytes
    clock: ScaledClock
    release: str = ""
    mirror: str = ""
    traffic: Traffic = field(default_factory=Traffic)
    prover: SharedProver = field(default_factory=SharedProver)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "rehearsal"))
    _decoders: dict[str, Decoder] = field(default_factory=dict)
    _files: dict[str, Path] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    async def call(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """Run what blocks in one of a few threads."""
        work = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def open(self, bundle: Bundle) -> Decoder:
        """Load a bundle once for all."""
        with self._lock:
            if bundle.digest not in self._decoders:
                self._decoders[bundle.digest] = Decoder(bundle)
            return self._decoders[bundle.digest]

    def share(self, path: Path) -> None:
        """Let equal files be one file."""
        with self._lock:
            known = self._files.setdefault(path.stem, path)
        with contextlib.suppress(OSError):  # another release may have taken its place meanwhile
            if known != path and not path.samefile(known):
                twin = path.with_suffix(".twin")
                os.link(known, twin)
                twin.replace(path)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Counted(Updater):
    """An updater whose bytes are counted.

    Args:
        traffic: Where.
        crawls: Downloads slowly.
        how: As `Updater` takes it.
    """

    def __init__(self, *args: Any, traffic: Traffic, crawls: bool, **how: Any) -> None:
        super().__init__(*args, **how)
        self._traffic = traffic
        self._crawls = crawls

    def recalls(self) -> dict[str, str]:
        """As `Updater.recalls`."""
        before = self.received
        try:
            return super().recalls()
        finally:
            self._traffic.http_bytes += self.received - before

    def fetch(self, release: str, *, progress: Progress | None = None, **how: Any) -> Path:
        """As `Updater.fetch`."""
        before = self.received

        def crawl(done: int, size: int) -> None:
            if self._crawls:
                time.sleep(_BLOCK_S)
            if progress is not None:
                progress(done, size)

        try:
            return super().fetch(release, progress=crawl, **how)
        finally:
            self._traffic.http_bytes += self.received - before


class UpdatingEdge:
    """Takes releases, reports, and falls ill as its trouble says.

    Args:
        settings: Broker and name; of this edge.
        means: What it shares with the others.
        trouble: What is wrong with it, if anything is.
        seed: Of its jitter.

    Attributes:
        ran: Releases that ever ran here.
        crashes: Times it crashed.
        fault: An error that ended it; nothing of the kind should.
    """

    def __init__(self, settings: Settings, means: Means, trouble: Trouble | None = None, *, seed: int = 0) -> None:
        self.name = settings.edge.name
        self.trouble = trouble
        self._settings, self._means = settings, means
        self._rng = random.Random(seed)  # noqa: S311
        ahead_s = _STALE_S if trouble is Trouble.STALE_CLOCK else 0.0
        self._wall = means.clock if not ahead_s else ScaledClock(1.0, ahead_s=ahead_s)
        self.ran: set[str] = set()
        self.crashes = 0
        self.fault = ""
        self._flipped = False
        self._keeper = self._made()
        self._uplink = Uplink(
            settings,
            NothingSpooled(),
            SystemClock(),
            state=self._state,
            on_desired=self._desired,
            rng=random.Random(seed),  # noqa: S311
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def keeper(self) -> ReleaseKeeper:
        """What takes releases."""
        return self._keeper

    @property
    def running(self) -> str:
        """The release in force, or empty."""
        return self._keeper.current.name if self._keeper.current is not None else ""

    @property
    def link(self) -> LinkState:
        """Where the link to the broker stands."""
        return self._uplink.link

    def start(self) -> None:
        """Connect and follow what is desired."""
        self._tasks = [
            asyncio.create_task(self._linked(), name=f"link-{self.name}"),
            asyncio.create_task(self._living(), name=f"edge-{self.name}"),
        ]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _linked(self) -> None:
        if self.trouble is not Trouble.FLAPPING:
            await self._uplink.run()
        while True:
            link = asyncio.create_task(self._uplink.run())
            try:
                await asyncio.sleep(_UP_S * self._rng.uniform(0.5, 1.5))
            finally:
                link.cancel()
                await asyncio.gather(link, return_exceptions=True)
            await asyncio.sleep(_DOWN_S * self._rng.uniform(0.5, 1.5))

    async def _living(self) -> None:
        while not self.fault:
            try:
                await self._life()
            except* SimulatedCrashError:
                self.crashes += 1
                self._keeper = self._made()
            except* EmbridgeError as group:
                self.fault = str(group.exceptions[0])

    async def _life(self) -> None:
        async with self._keeper.running(), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keeper.run())
            tasks.create_task(self._decoding())

    async def _decoding(self) -> NoReturn:
        """Decode as a session would, and tell how it goes."""
        while True:
            await self._means.clock.sleep(_LOOK_S * self._rng.uniform(0.5, 1.5))
            if self._keeper.current is None:
                continue
            async with self._keeper.leased():
                vitals = self._keeper.vitals
            if vitals is None:
                continue
            ill = self.trouble if self.trouble in SICK and vitals.release == self._means.release else None
            if ill is Trouble.CRASHING:
                raise SimulatedCrashError
            vitals.begin(rate_hz=_RATE_HZ, window_s=_HOP_S, hop_s=_HOP_S)
            samples = round(_WINDOWS * _HOP_S * _RATE_HZ)
            vitals.fed(0, samples, 0.0)
            for _ in range(_WINDOWS // 4 if ill is Trouble.STARVED else _WINDOWS):
                vitals.decoded(1.0 if ill is Trouble.SLUGGISH else self._rng.uniform(0.004, 0.02), 0.8)
            if ill is Trouble.BROKEN:
                vitals.broke()

    # what the keeper is made of

    def _made(self) -> ReleaseKeeper:
        means = self._means
        return ReleaseKeeper(
            self._settings.edge,
            self._wall,
            changed=self._changed,
            prover=means.prover,
            updater=self._updater,
            load=means.open,
            call=means.call,
            rng=self._rng,
        )

    def _updater(self, url: str) -> Updater:
        means = self._means
        return _Counted(
            self._settings.edge.state_dir,
            means.root,
            means.mirror if self.trouble is Trouble.MIRROR else url,
            prover=means.prover,
            now=lambda: datetime.fromtimestamp(self._wall.wall_ns() * 1e-9, UTC),
            traffic=means.traffic,
            crawls=self.trouble is Trouble.SLOW,
        )

    def _changed(self) -> None:
        current = self._keeper.current if hasattr(self, "_keeper") else None
        if current is not None and current.name not in self.ran:
            self.ran.add(current.name)
            self._arrived(Slots(self._settings.edge.state_dir / FOLDER).path(current.digest), current.name)
        self._uplink.state_changed()

    def _arrived(self, path: Path, release: str) -> None:
        """A release runs here for the first time."""
        if self.trouble is Trouble.CORRUPT_DISK and release == self._means.release and not self._flipped:
            self._flipped = True
            data = bytearray(path.read_bytes())
            data[len(data) // 3] ^= 0x10
            path.write_bytes(data)
        else:
            self._means.share(path)

    async def _desired(self, desired: Desired) -> None:
        self._means.traffic.heard += 1
        self._means.traffic.heard_bytes += len(pack(desired))
        await self._keeper.desire(desired)

    def _state(self) -> EdgeState:
        current = self._keeper.current
        state = EdgeState(
            edge=self.name,
            online=True,
            agent="fleet rehearse",
            release=current.name if current is not None else "",
            digest=current.digest if current is not None else "",
            update=self._keeper.progress,
            health=self._keeper.health,
            t_ns=time.time_ns(),
        )
        self._means.traffic.said += 1
        self._means.traffic.said_bytes += len(pack(state))
        return state
