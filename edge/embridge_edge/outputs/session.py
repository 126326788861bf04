"""Outputs beside a session that is recorded: the recording goes on, whatever becomes of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from embridge_edge.decode.decision import Sinks
from embridge_edge.outputs.base import Output, Outputs
from embridge_edge.outputs.catalogue import Means, open_outputs
from embridge_edge.outputs.messages import Notice
from embridge_edge.outputs.notices import Watcher
from embridge_shared.errors import EmbridgeError

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0


@asynccontextmanager
async def telling(
    words: Sequence[str], means: Means, sinks: Sinks, look: Callable[[Watcher], list[Notice]]
) -> AsyncIterator[None]:
    """Tell applications what is decided inside.

    An output that cannot be opened is told of in the log and left out.

    Args:
        words: Which outputs; none does nothing.
        means: What they are made with.
        sinks: Who is told of decisions.
        look: What the wearer should know now.
    """
    found = [output for word in words if (output := _opened(word, means)) is not None]
    if not found:
        yield
        return
    async with Outputs(found, clock=means.clock, lenient=True) as outputs:
        sinks.add(outputs)
        noticing = asyncio.create_task(_notice(outputs, means, look), name="notices")
        try:
            yield
        finally:
            noticing.cancel()
            sinks.remove(outputs)
            await asyncio.gather(noticing, return_exceptions=True)


def _opened(word: str, means: Means) -> Output | None:
    try:
        return open_outputs([word], means)[0]
    except EmbridgeError as error:
        logger.error("output %s is left out: %s", word, error)
        return None


async def _notice(outputs: Outputs, means: Means, look: Callable[[Watcher], list[Notice]]) -> None:
    watcher = Watcher()
    while True:
        for notice in look(watcher):
            outputs.notice(notice)
        await means.clock.sleep(_LOOK_S)
