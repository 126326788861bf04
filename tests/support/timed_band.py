"""A virtual band in a process of its own that says when its samples were taken; its wearer steps from rest to gestures.

    python -m support.timed_band WEARER REST_S HOLD_S GESTURE...

Prints its adapter first, and when sample 0 was taken (monotonic clock, s) once it streams; ends when its standard
input does.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys

import numpy as np

from embridge_edge.forearm import CONTROL_HZ, UV_PER_COUNT, Forearm, Wearer
from embridge_edge.virtual.air import Air
from embridge_edge.virtual.feed import LoopFeed
from embridge_edge.virtual.rig import Rig
from embridge_edge.virtual.traits import Traits
from embridge_shared.gestures import find

RATE_HZ = 2000.0


def steps(wearer: int, rest_s: float, hold_s: float, gestures: list[str]) -> LoopFeed:
    """Rest and each gesture in turn, without any way between: the muscles step, for what follows is to be timed."""
    person = Wearer.random(wearer)
    forearm = Forearm(person, seed=wearer)
    parts = []
    for gesture in find(gestures):
        for angles, seconds in ((person.rest, rest_s), (gesture.pose, hold_s)):
            held = np.repeat(np.asarray(angles)[None], round(seconds * CONTROL_HZ), axis=0)
            parts.append(forearm.emg(held)[: round(seconds * RATE_HZ)] * np.float32(UV_PER_COUNT))
    return LoopFeed(np.concatenate(parts), RATE_HZ)


async def serve(feed: LoopFeed) -> None:
    async with Rig(Air(jitter_ms=1.0)) as rig:
        band = await rig.add("open", feed, Traits(name="embridge-timed"))
        print(json.dumps({"adapter": f"tcp-client:127.0.0.1:{await rig.serve('127.0.0.1', 0)}"}), flush=True)
        while math.isnan(band.began_s) or not band.tally.packets:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        # Its clock stands still until the host listens.
        await asyncio.sleep(0.5)
        print(json.dumps({"began_s": band.began_s}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps({"dropped": band.tally.dropped_samples}), flush=True)


if __name__ == "__main__":
    _, who, rest, hold, *names = sys.argv
    asyncio.run(serve(steps(int(who), float(rest), float(hold), names)))
