"""An agent that records and decodes a virtual band, and the memory it holds: `python -m benchmarks.agent_child FOLDER`.

The folder holds an installed release; nobody answers at the broker's address, so everything goes to the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from embridge_edge.agent import Agent
from embridge_edge.plan import Plan, SessionPlan, SyntheticSource
from embridge_shared import settings
from embridge_shared.clock import SystemClock
from embridge_shared.session import Purpose

SECONDS = 30.0
GESTURES = ("fist", "open", "point")


def session(name: str, purpose: Purpose, *, speed: float, decode: bool) -> SessionPlan:
    source = SyntheticSource(wearer=1, performance=1, gestures=GESTURES, repetitions=6, speed=speed)
    return SessionPlan(name=name, participant="p1", source=source, purpose=purpose, decode=decode, hop_s=0.05)


async def main(state: Path) -> None:
    """Run the agent until it decoded for a while; print its resident memory, MB."""
    config = settings.load(edge={"state_dir": state}, mqtt={"host": "127.0.0.1", "port": 9})
    plan = Plan(
        session=(
            session("calibration", Purpose.CALIBRATION, speed=0, decode=False),
            session("evaluation", Purpose.EVALUATION, speed=1, decode=True),
        )
    )
    agent = Agent(config, SystemClock(), plan)
    running = asyncio.create_task(agent.run())
    await asyncio.wait([running], timeout=SECONDS)
    live = agent._recorder._live if agent._recorder is not None else None
    hops = live.latencies_s if live is not None else []
    resident = resident_mb()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    print(json.dumps({"rss_mb": resident, "hops": len(hops)}))


def resident_mb() -> float:
    """Resident memory of this process, MB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmRSS"].split()[0]) / 1e3


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
