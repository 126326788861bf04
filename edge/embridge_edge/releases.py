"""Which release an edge runs: takes what the cloud offers, never while a session records."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from embridge_edge.decode.runtime import Decoder
from embridge_edge.memory import give_back
from embridge_edge.update.slots import FOLDER, Slots
from embridge_edge.update.updater import Updater
from embridge_shared.clock import Clock
from embridge_shared.errors import EmbridgeError, ModelError, OperatorError, Reason
from embridge_shared.fleet import UpdatePhase, UpdateState
from embridge_shared.settings import EdgeSettings
from embridge_shared.wire.messages import Desired

logger = logging.getLogger(__name__)

_RETRY_MIN_S = 1.0


class ReleaseKeeper:
    """Runs the updater and hands out the decoder of the release in force.

    Args:
        settings: State directory, root of trust.
        clock: Paces retries.
        changed: Called when what the edge runs, or how an update goes, has changed.
    """

    def __init__(self, settings: EdgeSettings, clock: Clock, *, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._desired: Desired | None = None
        self._wanted = asyncio.Event()
        self._active = asyncio.Event()
        self._lock = asyncio.Lock()
        self._decoder: Decoder | None = None
        self.progress = UpdateState()
        self._root = settings.update_root.read_bytes() if settings.update_root is not None else None
        self._slots = Slots(settings.state_dir / FOLDER)
        self.current = self._slots.current()
        if self.current is not None:
            self._active.set()

    async def desire(self, desired: Desired) -> None:
        """Note what the cloud wants this edge to run."""
        self._desired = desired
        self._wanted.set()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """No update is activated inside: a session keeps its release."""
        async with self._lock:
            yield

    async def decoder(self) -> Decoder:
        """The decoder of the release in force, waiting for the first one.

        Raises:
            OperatorError: No release came in time, or this edge has no root of trust.
            ModelError: The release in force is damaged.
        """
        if self._root is None and self.current is None:
            raise OperatorError(
                "this edge takes no releases", reason=Reason.NOT_FOUND, hint="Set edge.update_root to the signed root."
            )
        try:
            async with asyncio.timeout(self._settings.release_wait_s):
                await self._active.wait()
        except TimeoutError:
            raise OperatorError(
                f"no release came within {self._settings.release_wait_s:.0f} s ({self.progress})",
                reason=Reason.TIMEOUT,
                hint="Publish a release and roll it out, or wait longer with edge.release_wait_s.",
            ) from None
        async with self._lock:
            if self._decoder is None:
                bundle = await asyncio.to_thread(self._slots.load)
                assert bundle is not None
                self._decoder = await asyncio.to_thread(Decoder, bundle, int8=self._settings.int8)
                del bundle
                await asyncio.to_thread(give_back)
            return self._decoder

    async def run(self) -> NoReturn:
        """Carry out what is desired, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            desired = self._desired
            if desired is None or (self.current is not None and self.current.digest == desired.digest):
                continue
            if self._root is None:
                logger.warning("ignored release %s: this edge has no root of trust", desired.release)
                continue
            await self._pursue(self._root, desired)

    async def _pursue(self, root: bytes, desired: Desired) -> None:
        retry_s = _RETRY_MIN_S
        while not self._wanted.is_set():
            try:
                await self._update(root, desired)
                return
            except ModelError as error:
                self._tell(desired, UpdatePhase.REFUSED, error)
                logger.error("release %s is refused: %s", desired.release, error)
                return
            except EmbridgeError as error:
                self._tell(desired, UpdatePhase.FAILED, error)
                logger.warning("release %s: %s; again in %.0f s", desired.release, error, retry_s)
            await self._clock.sleep(retry_s)
            retry_s = min(2 * retry_s, self._settings.backoff_max_s)

    async def _update(self, root: bytes, desired: Desired) -> None:
        self._tell(desired, UpdatePhase.DOWNLOADING)
        authority = self._settings.update_ca_file
        tls = ssl.create_default_context(cafile=authority) if authority is not None else None
        updater = Updater(self._settings.state_dir, root, desired.url, int8=self._settings.int8, tls=tls)
        fetched = await asyncio.to_thread(updater.fetch, desired.release)
        async with self._lock:
            await asyncio.to_thread(updater.activate, fetched)
            self.current = self._slots.current()
            self._decoder = None
        assert self.current is not None
        self._active.set()
        logger.info("running release %s (%s)", self.current.name, self.current.digest[:12])
        self._tell(desired, UpdatePhase.COMMITTED)

    def _tell(self, desired: Desired, phase: UpdatePhase, error: EmbridgeError | None = None) -> None:
        self.progress = UpdateState(
            phase=phase,
            release=desired.release,
            digest=desired.digest,
            rollout=desired.rollout,
            reason="" if error is None else error.reason.value,
            detail="" if error is None else error.message,
            since_ns=self._clock.wall_ns(),
        )
        self._changed()
