"""A task that is told to stop stops, whatever the broker answers at that moment."""

from __future__ import annotations

import asyncio

import aiomqtt
import pytest

from embridge_edge.mqtt import Client


async def test_a_cancellation_that_meets_the_answer_is_not_lost() -> None:
    answer = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(Client("127.0.0.1")._wait_for(answer, 10))
    await asyncio.sleep(0)
    answer.set_result("yes")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_answer_that_does_not_come_is_an_error() -> None:
    with pytest.raises(aiomqtt.MqttError, match="in time"):
        await Client("127.0.0.1", timeout=0.01)._wait_for(asyncio.Event().wait(), None)
    assert await Client("127.0.0.1")._wait_for(asyncio.sleep(0, 5), 1) == 5
