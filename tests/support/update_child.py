"""An edge that takes one release: `python -m support.update_child FOLDER WISH SECONDS [--deadly RELEASE] [--down]`.

Real files and threads, a repository on this disk, and a time in which SECONDS pass at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

import msgspec

from embridge_edge.decode.runtime import Decoder
from embridge_shared.release import Bundle
from embridge_shared.wire.messages import Desired
from support.updates import Edge


async def run(edge: Edge, wish: Desired, seconds: float, deadly: str) -> None:
    """Start, take the release, decode with whatever is in force, and end in good order."""

    def load(bundle: Bundle) -> Decoder:
        if bundle.manifest.release == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return Decoder(bundle)

    keeper = edge.keeper(load=load, call=asyncio.to_thread)
    async with keeper.running():
        task = asyncio.create_task(keeper.run())
        await keeper.desire(wish)
        print("asked", flush=True)
        for _ in range(40):
            await asyncio.sleep(0.01)
            await edge.clock.pass_s(0)
        async with keeper.leased():
            await edge.clock.pass_s(seconds)
            await asyncio.sleep(0.05)
        await edge.clock.pass_s(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("wish")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--deadly", default="")
    parser.add_argument("--down", action="store_true")
    given = parser.parse_args()
    edge = Edge(given.folder)
    edge.fetcher.down = given.down
    wish = msgspec.msgpack.decode((given.folder / given.wish).read_bytes(), type=Desired)
    asyncio.run(run(edge, wish, given.seconds, given.deadly))
