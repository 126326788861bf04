"""Chunks from MQTT into DuckDB, against a subscriber that only receives them; and the intake without a broker."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import aiomqtt

from benchmarks import traffic
from benchmarks.framework import Row, compared, in_turn, row
from benchmarks.traffic import messages
from conftest import _mosquitto
from embridge_cloud.intake import Intake
from embridge_cloud.parcels import Incoming
from embridge_cloud.server import serve
from embridge_cloud.store.hot import HotStore
from embridge_shared.settings import CloudSettings, MqttSettings, Settings
from embridge_shared.wire import codec, topics
from support.sessions import T0

GROUP, PEER = "ingest", "aiomqtt, only receiving"
CHUNKS, REPEATS = 2400, 3
CORE_CHUNKS = 1600

Figures = tuple[float, float]
"""Chunks a second, µs of processor time a chunk."""


def rows() -> list[Row]:
    return [*asyncio.run(_through_a_broker()), *_core()]


async def _through_a_broker() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, contextlib.contextmanager(_mosquitto)(Path(folder)) as broker:
        command, pipe = [sys.executable, traffic.__file__, str(broker.port)], asyncio.subprocess.PIPE
        publisher = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        ours, theirs = [], []
        for turn in range(REPEATS + 1):
            ours.append(await _ingested(broker.port, Path(folder) / str(turn), publisher))
            theirs.append(await _received(broker.port, publisher))
        publisher.stdin.close()
        await publisher.wait()
    found = []
    for k, (name, unit) in enumerate((("sustained", "chunks/s"), ("processor time", "µs/chunk"))):
        values, peers = ([figures[k] for figures in side[1:]] for side in (ours, theirs))
        found.append(compared(GROUP, f"MQTT to DuckDB, {name}", unit, values, peer=PEER, theirs=peers))
    return found


async def _ingested(port: int, state_dir: Path, publisher: asyncio.subprocess.Process) -> Figures:
    settings = Settings(mqtt=MqttSettings(port=port), cloud=CloudSettings(state_dir=state_dir, http_port=0))
    async with serve(settings) as cloud:
        await _until(lambda: cloud.ingester.status.connected)
        figures = await _timed(publisher, lambda: cloud.ingester.counters.chunks)
    # The broker keeps the ingester's session; it would be sent what the peer receives.
    async with aiomqtt.Client("127.0.0.1", port, identifier="ingest-0-255", clean_session=True):
        return figures


async def _received(port: int, publisher: asyncio.subprocess.Process) -> Figures:
    received = 0

    async def receive(client: aiomqtt.Client) -> None:
        nonlocal received
        async for _ in client.messages:
            received += 1

    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe([(f, 1) for f in topics.ingest_filters() if "/up/" in f])
        async with _running(receive(client)):
            return await _timed(publisher, lambda: received)


async def _timed(publisher: asyncio.subprocess.Process, count: Callable[[], int]) -> Figures:
    publisher.stdin.write(f"{CHUNKS}\n".encode())
    await publisher.stdout.readline()
    publisher.stdin.write(b"go\n")
    await _until(count)
    before, wall_s, cpu_s = count(), time.perf_counter(), time.process_time()
    await _until(lambda: count() >= CHUNKS)
    done = CHUNKS - before
    return done / (time.perf_counter() - wall_s), (time.process_time() - cpu_s) / done * 1e6


async def _until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _running(work) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _core() -> list[Row]:
    opening, sent = messages(CORE_CHUNKS)
    found = []
    for batch in (400, 40):
        ours, theirs = in_turn(
            partial(_sorted_and_stored, opening, sent, batch), partial(_decoded, sent), repeats=REPEATS
        )
        name = f"intake and commit, batches of {batch}"
        found.append(compared(GROUP, name, "µs/chunk", ours, peer="decoding the chunks alone", theirs=theirs))
    size = [sum(len(p) for _, p in sent) / len(sent) / 1e3]
    return [*found, row(GROUP, "a chunk on the wire", "kB", size)]


def _sorted_and_stored(opening: list[traffic.Message], sent: list[traffic.Message], batch: int) -> float:
    with tempfile.TemporaryDirectory() as folder, HotStore(Path(folder) / "hot.duckdb") as store:
        intake = Intake(store.read)
        began = time.process_time()
        for part in (opening, *(sent[at : at + batch] for at in range(0, len(sent), batch))):
            taken = intake.take([Incoming(topic, payload, T0) for topic, payload in part])
            store.commit(taken.batch)
            intake.committed(taken)
        return (time.process_time() - began) / len(sent) * 1e6


def _decoded(sent: list[traffic.Message]) -> float:
    began = time.process_time()
    for _, payload in sent:
        codec.decode(payload)
    return (time.process_time() - began) / len(sent) * 1e6
