"""An hour of recording in a few minutes: memory stays flat, the screen does not stall, no sample is lost."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import numpy as np
import pytest

from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.protocol import Protocol, Timing
from embridge_edge.collect.setup import Journal
from embridge_edge.collect.steps import State
from embridge_edge.collect.virtual import VirtualSource
from embridge_edge.spool import Spool
from embridge_edge.update.proving import resident_bytes
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from embridge_tui.app import EmbridgeApp
from embridge_tui.part import EdgePart
from embridge_tui.screens.collect import CollectScreen
from embridge_tui.widgets.scope import Scope
from support.collect import setup
from support.tui_world import ScriptedCloud

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

HOUR_S = 3600.0
SPEED = 24.0
STALL_S = 0.2
FLAT_MB_PER_H = 40.0
TIMING = Timing(prepare_s=2.0, hold_s=2.0, rest_s=2.0)
LONG = Protocol(
    name="long", version=1, gestures=("fist", "open", "point", "pinch_index"), repetitions=200, timing=TIMING
)


async def test_an_hour_of_recording(tmp_path: Path) -> None:
    settings = Settings(
        mqtt=MqttSettings(host="127.0.0.1", port=1),
        edge=EdgeSettings(name="edge-1", state_dir=tmp_path, reserve_bytes=0, spool_max_bytes=8 << 30),
    )
    part = EdgePart(settings)
    app = EmbridgeApp(ScriptedCloud(), part, settings=settings.tui)
    memory: list[tuple[float, int]] = []
    stalls: list[float] = []
    async with app.run_test(size=(160, 50)) as pilot:
        await pilot.pause(0.5)
        room = app.screen
        assert isinstance(room, CollectScreen)
        room._begin_run(Journal(setup=setup(protocol=LONG, source=VirtualSource(wearer=3, speed=SPEED))), ())
        async with asyncio.timeout(30):
            while (leader := part.station.leader) is None or leader.recorder is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        watch = asyncio.create_task(_stalls(stalls))
        while leader.now_s < HOUR_S and part.station.leader is leader:
            if leader.conductor.state in (State.READY, State.PAUSED):
                await leader.act(Conductor.start)
            await asyncio.sleep(2.0)
            gc.collect()
            memory.append((leader.now_s, resident_bytes()))
        watch.cancel()
        lasted_s, drawn = leader.now_s, room.query_one("#scope", Scope)
        assert drawn.display
        await leader.act(Conductor.end)
        await leader.act(Conductor.accept)
        async with asyncio.timeout(60):
            while part.station.leader is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert lasted_s >= HOUR_S, "the session ended early"
    assert _whole(tmp_path) >= HOUR_S * 2000
    # The first quarter fills rings and pools.
    at, held = np.array(memory[len(memory) // 4 :]).T
    slope = np.polyfit(at / HOUR_S, held / 2**20, 1)[0]
    late = np.sort(stalls)[::-1]
    print(f"{len(stalls)} looks, longest {late[:5]}, p99 {np.quantile(stalls, 0.99):.3f} s; {slope:.1f} MB an hour")
    assert slope < FLAT_MB_PER_H
    assert late[0] < STALL_S


def _whole(folder: Path) -> int:
    """Samples in the spool, one after the other without a hole."""
    spool, until = Spool(folder / "spool.db", 8 << 30), 0
    try:
        known = spool.session("p07_001_R_d1")
        assert known is not None
        for item in spool.of_stream(known.session, 0):
            assert item.first == until
            until += item.n
    finally:
        spool.close()
    return until


async def _stalls(found: list[float]) -> None:
    """How long the loop does not come round, s."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.02)
        found.append(time.monotonic() - before - 0.02)
