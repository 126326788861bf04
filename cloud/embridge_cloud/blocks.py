"""Blocks of the update repository over the broker, for edges with no other route to it.

What is handed out is what anybody may fetch over HTTP, so requests need no more rights than the broker's access list
asks for. They are bounded: so many wait, so many of one edge, and what is beyond that is let go; an edge asks again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Final, NoReturn, Protocol

from fastapi import FastAPI

from embridge_cloud.context import CloudContext
from embridge_cloud.waiting import first_of
from embridge_shared.errors import ConfigError, DataError, NetworkError
from embridge_shared.wire import topics
from embridge_shared.wire.blocks import WINDOW, BlockReply, BlockRequest, pack_block, unpack_block

logger = logging.getLogger(__name__)

_WAITING: Final = 256
_OF_AN_EDGE: Final = 2 * WINDOW
_AT_ONCE: Final = 8


class Outlet(Protocol):
    """The way to the edges."""

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publish; raises NetworkError."""
        ...


class BlockServer:
    """Hands out blocks.

    Args:
        repository: The update repository.
        outlet: The way to the edges.

    Attributes:
        sent: Blocks sent.
        sent_bytes: Bytes in them.
        dropped: Requests let go: malformed, or too many at once.
    """

    def __init__(self, repository: Path, outlet: Outlet) -> None:
        self._repository = repository
        self._outlet = outlet
        self._waiting: asyncio.Queue[tuple[str, BlockRequest]] = asyncio.Queue(_WAITING)
        self._of: Counter[str] = Counter()
        self.sent = 0
        self.sent_bytes = 0
        self.dropped = 0

    def take(self, edge: str, payload: bytes) -> None:
        """Note a request of an edge."""
        try:
            topics.check_edge(edge)
            request = unpack_block(payload, BlockRequest)
        except (DataError, ConfigError) as error:
            self.dropped += 1
            logger.warning("ignored a request for a block of edge %r: %s", edge, error)
            return
        if self._of[edge] >= _OF_AN_EDGE or self._waiting.full():
            self.dropped += 1
            return
        self._of[edge] += 1
        self._waiting.put_nowait((edge, request))

    async def run(self) -> NoReturn:
        """Answer, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(_AT_ONCE):
                tasks.create_task(self._answer(), name=f"blocks-{number}")
        raise AssertionError("none of them ends")

    async def _answer(self) -> NoReturn:
        while True:
            edge, request = await self._waiting.get()
            try:
                reply = await asyncio.to_thread(read_block, self._repository, request)
                await self._outlet.publish(topics.blocks_topic(edge), pack_block(reply))
                self.sent += 1
                self.sent_bytes += len(reply.data)
            except NetworkError as error:
                logger.debug("a block for %s was not sent: %s", edge, error)
            finally:
                self._of[edge] -= 1
                if not self._of[edge]:
                    del self._of[edge]


def read_block(repository: Path, request: BlockRequest) -> BlockReply:
    """What was asked for; a total of -1 where there is no such file.

    Args:
        repository: The update repository.
        request: As `unpack_block` let it pass.
    """
    try:
        with (repository / request.path).open("rb") as file:
            total = file.seek(0, 2)
            file.seek(min(request.offset, total))
            return BlockReply(request.id, total, file.read(request.size))
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("%s cannot be read: %s", request.path, error.strerror)
        return BlockReply(request.id, -1)


def add_blocks(app: FastAPI, context: CloudContext) -> None:
    """Let edges without HTTP fetch releases over the broker."""
    server = BlockServer(context.updates_dir, context.ingester)
    context.ingester.on_ask = server.take

    async def serve() -> None:
        await first_of(server.run(), context.stopping.wait())

    context.tasks.create_task(serve(), name="blocks")
