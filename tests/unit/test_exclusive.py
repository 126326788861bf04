from __future__ import annotations

import asyncio
from pathlib import Path

from embridge_cloud.ingest import Ingester
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealing import Sealer
from embridge_shared.clock import SystemClock
from embridge_shared.settings import CloudSettings
from support.sessions import T0


async def test_work_that_takes_sessions_away_waits_for_the_round_and_the_next_round_for_it(tmp_path: Path):
    class Nowhere:
        def connect(self, _):
            raise AssertionError

    with HotStore(tmp_path / "hot.duckdb") as store:
        sealer = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0)
        ingester = Ingester(store, CloudSettings(), transport=Nowhere(), sealer=sealer, clock=SystemClock())  # type: ignore[arg-type]
        order: list[str] = []

        async def a_round(*_):
            order.append("round begins")
            await asyncio.sleep(0.02)
            order.append("round ends")
            return len(order) < 4

        ingester._round = a_round  # type: ignore[method-assign]
        await ingester._sifted.put(None)
        pump = asyncio.create_task(ingester._pump())
        await asyncio.sleep(0.005)
        await ingester.exclusively(lambda: order.append("alone"))
        await pump
        assert order == ["round begins", "round ends", "alone", "round begins", "round ends"]
