"""The cloud tells its service manager: ready once it ingests, alive while the pump moves."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from embridge_cloud.status import IngestState, IngestStatus
from embridge_cloud.vigil import STUCK_S, keep_vigil


class Heard:
    """A notifier that remembers."""

    watchdog_s = 0.04

    def __init__(self) -> None:
        self.said: list[str] = []
        self.news = asyncio.Event()

    def _hear(self, word: str) -> None:
        self.said.append(word)
        self.news.set()

    def ready(self, status: str) -> None:
        self._hear(f"ready {status}")

    def status(self, status: str) -> None:
        self._hear(status)

    def watchdog(self) -> None:
        self._hear("fed")

    def stopping(self, status: str) -> None:
        self._hear(f"stopping {status}")

    def close(self) -> None:
        self._hear("closed")


class Ticks:
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


@pytest.fixture
def context() -> Any:
    ingester = SimpleNamespace(status=IngestStatus(), backlog=(3, 5 << 20), stuck_s=0.0)
    return SimpleNamespace(ingester=ingester, stopping=asyncio.Event(), clock=Ticks())


async def hears(notifier: Heard, word: str) -> None:
    async with asyncio.timeout(5):
        while not any(word in s for s in notifier.said):
            notifier.news.clear()
            await notifier.news.wait()


async def test_ready_comes_with_the_broker_and_the_end_is_told(context):
    notifier = Heard()
    task = asyncio.create_task(keep_vigil(context, notifier))
    await hears(notifier, "starting")
    assert not any(s.startswith(("ready", "fed")) for s in notifier.said)
    context.ingester.status.connected = True
    context.ingester.status.state = IngestState.READY
    await hears(notifier, "ready ready; 0 commits, 3 messages, 5 MiB wait")
    context.stopping.set()
    async with asyncio.timeout(5):
        await task
    assert notifier.said[-2:] == ["stopping a last commit", "closed"]


async def test_a_pump_that_does_not_move_starves_the_watchdog(context, caplog):
    notifier = Heard()
    context.ingester.status.connected = True
    task = asyncio.create_task(keep_vigil(context, notifier))
    await hears(notifier, "fed")
    context.ingester.stuck_s = STUCK_S + 1
    await hears(notifier, "not fed: the pump has not moved for 61 s")
    fed = notifier.said.count("fed")
    await asyncio.sleep(0.05)
    assert notifier.said.count("fed") == fed
    assert len([r for r in caplog.records if "not fed" in r.message]) == 1
    context.ingester.stuck_s = 0.0
    notifier.said.clear()
    await hears(notifier, "fed")
    context.stopping.set()
    await task


async def test_a_store_that_refuses_is_told_and_fed(context):
    notifier = Heard()
    status = context.ingester.status
    status.connected, status.state, status.last_error = True, IngestState.STORE_FAILING, "the disk is full"
    task = asyncio.create_task(keep_vigil(context, notifier))
    await hears(notifier, "store failing; 0 commits, 3 messages, 5 MiB wait; the disk is full")
    await hears(notifier, "fed")
    context.stopping.set()
    await task
