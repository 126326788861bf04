"""The bus of events: order, memory, slow listeners, the end."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

from embridge_cloud.api.events import Event, EventBus, as_server_sent
from support.loop import Skipping


async def hear(bus: EventBus, count: int, last_id: str = "") -> list[Event]:
    found = []
    async with aclosing(bus.listen(last_id)) as heard:
        async for event in heard:
            found.append(event)
            if len(found) == count:
                break
    return found


async def listening(bus: EventBus, count: int, last_id: str = ""):
    task = asyncio.create_task(hear(bus, count, last_id))
    await asyncio.sleep(0)
    return task


async def test_everybody_hears_everything_in_order():
    bus = EventBus(Skipping())
    tasks = [await listening(bus, 3) for _ in range(2)]
    for number in range(3):
        bus.publish("job", f"realign-{number}", state="running")
    for task in tasks:
        heard = await task
        assert [e.subject for e in heard] == ["realign-0", "realign-1", "realign-2"]
        assert heard[0].data == {"state": "running"}
    assert bus.listeners == 0


async def test_who_comes_back_misses_nothing():
    bus = EventBus(Skipping(), remembered=4)
    events = [bus.publish("job", str(number)) for number in range(6)]
    heard = await hear(bus, 2, events[3].id)
    assert [e.subject for e in heard] == ["4", "5"]
    for unknown in (events[0].id, "another-3", "nonsense", f"{events[0].id}9"):
        (lost,) = await hear(bus, 1, unknown)
        assert lost.kind == "lost"


async def test_a_slow_listener_is_told_how_much_it_lost():
    bus = EventBus(Skipping(), queued=4)
    stream = bus.listen()
    first = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    bus.publish("job", "first")
    assert (await first).subject == "first"
    for number in range(10):
        bus.publish("job", str(number))
    heard = [await anext(stream) for _ in range(5)]
    assert (heard[0].kind, heard[0].data) == ("lost", {"events": 6})
    assert [e.subject for e in heard[1:]] == ["6", "7", "8", "9"]
    await stream.aclose()


async def test_the_end_of_the_process_ends_streams():
    bus = EventBus(Skipping())
    task = await listening(bus, 5)
    bus.close()
    assert await asyncio.wait_for(task, 5) == []


async def test_silence_is_broken(monkeypatch):
    monkeypatch.setattr("embridge_cloud.api.events.KEEP_ALIVE_S", 0.01)
    assert await hear(EventBus(Skipping()), 2) == [None, None]
    assert as_server_sent(None).startswith(b":")


def test_no_name_can_forge_an_event():
    bus = EventBus(Skipping())
    event = bus.publish("edge.online", "edge\n\nevent: job\ndata: {}", note="a\r\nid: 9\u2028")
    lines = as_server_sent(event).split(b"\n")
    assert [line.split(b":")[0] for line in lines] == [b"id", b"event", b"data", b"", b""]
    assert json.loads(lines[2].removeprefix(b"data: "))["subject"] == event.subject
