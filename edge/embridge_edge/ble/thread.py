"""A thread with an event loop of its own for all Bluetooth work, so that nothing else can hold it up."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from embridge_edge.ble.adapter import Adapter, make_adapter
from embridge_shared.errors import DeviceError, Reason

logger = logging.getLogger(__name__)

T = TypeVar("T")

OpenAdapter = Callable[[], Awaitable[Adapter]]

_STOP_S = 10.0


class BleThread:
    """Runs an adapter and whatever uses it.

    Args:
        open_adapter: Makes the adapter, already open, within the thread's event loop.

    Attributes:
        claims: Addresses of bands that are taken; read and written within the thread.
    """

    def __init__(self, open_adapter: OpenAdapter) -> None:
        self._open_adapter = open_adapter
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="bluetooth", daemon=True)
        self._adapter: Adapter | None = None
        self._opening: asyncio.Task[Adapter] | None = None
        self.claims: set[str] = set()

    @classmethod
    def on(cls, spec: str) -> BleThread:
        """A thread around the adapter that `spec` names (see `make_adapter`).

        Raises:
            ConfigError: It names nothing.
        """
        adapter = make_adapter(spec)

        async def opened() -> Adapter:
            await adapter.open()
            return adapter

        return cls(opened)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def start(self) -> None:
        """Start the thread; safe to call twice."""
        if not self._thread.is_alive():
            self._thread.start()

    async def adapter(self) -> Adapter:
        """The adapter, opened on first use; call it within the thread.

        Raises:
            DeviceError: It cannot be reached; the next call tries again.
        """
        if self._adapter is None:
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._open_adapter())
            try:
                self._adapter = await asyncio.shield(self._opening)
            finally:
                if self._opening is not None and self._opening.done():
                    self._opening = None
        return self._adapter

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a coroutine in the thread."""
        self.start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread and wait for it in the caller's loop."""
        return await asyncio.wrap_future(self.spawn(coroutine))

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in the thread; nothing happens once the thread is over."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """End every task, close the adapter, end the thread; safe to call twice.

        Raises:
            DeviceError: The thread does not end.
        """
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).add_done_callback(
                lambda _: self._loop.call_soon_threadsafe(self._loop.stop)
            )
            self._thread.join(_STOP_S)
            if self._thread.is_alive():
                raise DeviceError("the Bluetooth thread does not end", reason=Reason.TIMEOUT)
        self._loop.close()

    async def _end(self) -> None:
        others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        adapter, self._adapter = self._adapter, None
        if adapter is not None:
            try:
                await adapter.close()
            except (DeviceError, OSError) as error:
                logger.warning("the Bluetooth adapter did not close: %s", error)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Radios:
    """The Bluetooth threads of a process: one an adapter, shared by all bands on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[BleThread, int]] = {}

    def acquire(self, spec: str) -> BleThread:
        """The thread of an adapter; give it back with `release`.

        Raises:
            ConfigError: The adapter is unknown.
        """
        with self._lock:
            thread, users = self._held.get(spec) or (BleThread.on(spec), 0)
            self._held[spec] = (thread, users + 1)
        return thread

    def release(self, spec: str) -> None:
        """Give a thread back; the last one closes it."""
        with self._lock:
            thread, users = self._held.pop(spec)
            if users > 1:
                self._held[spec] = (thread, users - 1)
                return
        thread.close()


RADIOS = Radios()
"""Of this process."""
