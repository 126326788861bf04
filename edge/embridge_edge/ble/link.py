"""What a driver may do with a connected band while it sets it up."""

from __future__ import annotations

import asyncio

from bleak import BleakClient
from bleak.exc import BleakError

_ANSWER_S = 5.0


class Link:
    """A connection, as a driver sees it.

    Args:
        client: Connected.
        answer_s: Longest wait for an answer.
    """

    def __init__(self, client: BleakClient, answer_s: float = _ANSWER_S) -> None:
        self._client = client
        self._answer_s = answer_s

    def has(self, uuid: str) -> bool:
        """Whether the band has a characteristic."""
        return self._client.services.get_characteristic(uuid) is not None

    async def read(self, uuid: str) -> bytes:
        """Read a characteristic.

        Raises:
            TimeoutError: No answer.
            BleakError: It cannot be read.
        """
        async with asyncio.timeout(self._answer_s):
            return bytes(await self._client.read_gatt_char(uuid))

    async def read_if_there(self, uuid: str) -> bytes | None:
        """Read a characteristic that not every band has; None where it is missing or refuses."""
        if not self.has(uuid):
            return None
        try:
            return await self.read(uuid)
        except (BleakError, TimeoutError):
            return None

    async def write(self, uuid: str, data: bytes, *, response: bool = True) -> None:
        """Write a characteristic.

        Raises:
            TimeoutError: No answer.
            BleakError: It is refused.
        """
        async with asyncio.timeout(self._answer_s):
            await self._client.write_gatt_char(uuid, data, response=response)

    async def listen(self, uuid: str) -> asyncio.Queue[bytes]:
        """Subscribe to answers; they come into the queue.

        Raises:
            BleakError: It does not notify.
        """
        answers: asyncio.Queue[bytes] = asyncio.Queue(64)

        def take(_: object, data: bytearray) -> None:
            if not answers.full():
                answers.put_nowait(bytes(data))

        async with asyncio.timeout(self._answer_s):
            await self._client.start_notify(uuid, take)
        return answers

    async def answer(self, answers: asyncio.Queue[bytes]) -> bytes:
        """The next answer.

        Raises:
            TimeoutError: None came.
        """
        async with asyncio.timeout(self._answer_s):
            return await answers.get()
