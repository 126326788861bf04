"""The MQTT client of the edge."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Self, TypeVar

import aiomqtt

T = TypeVar("T")


class Client(aiomqtt.Client):
    """aiomqtt's client, stopped by every cancellation.

    The original waits with `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that meets the answer
    it waits for: a task stopped at that moment would never end.
    """

    async def __aenter__(self) -> Self:
        try:
            return await super().__aenter__()
        except asyncio.CancelledError:
            # paho closes its socket when it is collected; by then the loop its hooks speak to may be gone
            for hook in ("on_socket_open", "on_socket_close", "on_socket_register_write", "on_socket_unregister_write"):
                setattr(self._client, hook, None)
            raise

    async def _wait_for(self, fut: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109
        seconds = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                return await fut
        except TimeoutError:
            raise aiomqtt.MqttError("the broker did not answer in time") from None
