"""A backlog of chunks from the broker into DuckDB, against a subscriber that only counts; and the intake alone.

Nothing is published while anything is timed: ingester and bare subscriber each drain the same number of chunks that the
broker kept for them, so that no publisher takes part in what is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import aiomqtt

from benchmarks import traffic
from benchmarks.framework import Row, compared, in_turn, row
from benchmarks.slow import AiomqttTransport, BareSubscriber
from benchmarks.traffic import messages
from conftest import MosquittoBroker, _mosquitto
from embridge_cloud.ingest import Ingester
from embridge_cloud.intake import Intake
from embridge_cloud.parcels import Incoming
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.transport import MqttTransport, Transport
from embridge_shared.clock import SystemClock
from embridge_shared.cloud_client import connect
from embridge_shared.settings import CloudSettings, MqttSettings, Settings
from embridge_shared.wire import codec, topics
from support.sessions import T0

GROUP = "ingest"
CHUNKS, REPEATS = 20_000, 2
CORE_CHUNKS = 2100
BACKLOG = 10_000
EDGES, HOUR_CHUNKS = 50, 50 * 3600 * 2
CLIENT_ID = "ingest-0-255"

Figures = tuple[float, float]
"""Chunks a second, µs of processor time a chunk."""


def rows() -> list[Row]:
    return [*asyncio.run(_through_a_broker()), *_core(), *asyncio.run(_backlogs())]


async def _through_a_broker() -> list[Row]:
    bare = "a bare paho subscriber in a thread, only counting"
    same, slow = "the ingester's connection, only counting", "aiomqtt, only counting"
    with _broker() as broker:
        async with _publisher(broker.port) as fill:
            ways = {
                "ours": partial(_ingested, lambda: MqttTransport(MqttSettings(port=broker.port), CLIENT_ID)),
                bare: partial(_bare, broker.port),
                same: partial(_counted, lambda: MqttTransport(MqttSettings(port=broker.port), CLIENT_ID)),
                "over aiomqtt": partial(_ingested, lambda: AiomqttTransport(broker.port, CLIENT_ID)),
                "aiomqtt, counting, acknowledged by hand": partial(
                    _counted, lambda: AiomqttTransport(broker.port, CLIENT_ID)
                ),
                slow: partial(_counted, lambda: AiomqttTransport(broker.port, CLIENT_ID, by_hand=False)),
            }
            found: dict[str, list[Figures]] = {way: [] for way in ways}
            for _ in range(REPEATS + 1):
                for way, measure in ways.items():
                    await _subscribed(broker.port)
                    await fill(CHUNKS)
                    found[way].append(await measure())
    values = {way: list(zip(*figures[1:], strict=True)) for way, figures in found.items()}
    rows = []
    for name, mine, peer in (
        ("", "ours", bare),
        (", beside its own connection", "ours", same),
        (", beside aiomqtt", "ours", slow),
        (" over aiomqtt", "over aiomqtt", "aiomqtt, counting, acknowledged by hand"),
    ):
        for k, (what, unit) in enumerate((("chunks_per_s", "chunks/s"), ("cpu_per_chunk", "µs"))):
            rows.append(compared(GROUP, f"{what}{name}", unit, values[mine][k], peer=peer, theirs=values[peer][k]))
    return rows


@contextlib.contextmanager
def _broker() -> Iterator[MosquittoBroker]:
    with tempfile.TemporaryDirectory() as folder, contextlib.contextmanager(_mosquitto)(Path(folder)) as broker:
        broker.kill()
        broker.options = "max_queued_bytes 4000000000\n"
        broker.start()
        yield broker


@contextlib.asynccontextmanager
async def _publisher(port: int) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Fills the broker with so many chunks of new sessions."""
    command, pipe = [sys.executable, traffic.__file__, str(port)], asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)

    async def fill(chunks: int) -> None:
        process.stdin.write(f"{chunks}\ngo\n".encode())
        for expected in (b"ready\n", b"sent\n"):
            assert await process.stdout.readline() == expected

    yield fill
    process.stdin.close()
    await process.wait()


async def _subscribed(port: int) -> None:
    """Let the broker keep for the subscriber what is published from now on, and nothing from before."""
    for clean in (True, False):
        async with aiomqtt.Client("127.0.0.1", port, identifier=CLIENT_ID, clean_session=clean) as client:
            if not clean:
                await client.subscribe([(f, 1) for f in topics.ingest_filters()])


async def _ingested(transport: Callable[[], Transport]) -> Figures:
    with tempfile.TemporaryDirectory() as folder, HotStore(Path(folder) / "hot.duckdb") as store:
        sealer = Sealer(store, Path(folder) / "sealed", wall_ns=lambda: T0)
        ingester = Ingester(store, CloudSettings(), transport=transport(), sealer=sealer, clock=SystemClock())
        running = asyncio.create_task(ingester.run())
        figures = await _timed(lambda: ingester.counters.chunks)
        ingester.stop()
        await running
        assert store.read.rows("SELECT count(*) FROM chunks") == [(CHUNKS,)]
        return figures


async def _counted(transport: Callable[[], Transport]) -> Figures:
    counted = 0

    async def count() -> None:
        nonlocal counted
        async with transport().connect(topics.ingest_filters()) as connection:
            async for deliveries in connection.deliveries():
                counted += sum("/up/" in d.topic for d in deliveries)
                connection.acknowledge(deliveries)

    running = asyncio.create_task(count())
    figures = await _timed(lambda: counted)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return figures


async def _bare(port: int) -> Figures:
    subscriber = BareSubscriber(port, CLIENT_ID, topics.ingest_filters())
    figures = await _timed(lambda: subscriber.chunks)
    await asyncio.to_thread(subscriber.close)
    return figures


async def _timed(count: Callable[[], int]) -> Figures:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    while count() < CHUNKS:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return CHUNKS / (time.perf_counter() - wall_s), (time.process_time() - cpu_s) / CHUNKS * 1e6


def _core() -> list[Row]:
    opening, sent = messages(CORE_CHUNKS)
    found = []
    for batch in (2100, 400, 40):
        ours, theirs = in_turn(
            partial(_sorted_and_stored, opening, sent, batch), partial(_checked, sent), repeats=REPEATS
        )
        name = f"intake and commit, batches of {batch}"
        found.append(compared(GROUP, name, "µs/chunk", ours, peer="checking the chunks alone", theirs=theirs))
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


def _checked(sent: list[traffic.Message]) -> float:
    began = time.process_time()
    for _, payload in sent:
        codec.check(payload)
    return (time.process_time() - began) / len(sent) * 1e6


async def _backlogs() -> list[Row]:
    """A cloud process of its own meets a backlog, and one of ten times the size."""
    peaks, drains = {}, {}
    for factor in (1, 10):
        with _broker() as broker, tempfile.TemporaryDirectory() as folder:
            await _subscribed(broker.port)
            async with _publisher(broker.port) as fill:
                await fill(BACKLOG * factor)
            peaks[factor], drains[factor] = await _drained(broker.port, Path(folder), BACKLOG * factor)
    per_chunk_s = drains[10] / (10 * BACKLOG)
    share = 10 * BACKLOG / HOUR_CHUNKS
    return [
        compared(
            GROUP, "backlog_memory_ratio: peak of the process, backlog of 100 000 chunks", "MiB", [peaks[10]],
            peer="of 10 000", theirs=[peaks[1]],
        ),
        row(GROUP, f"drain_s: {share:.3f} of an hour of {EDGES} edges", "s", [drains[10]]),
        row(GROUP, f"drain_s: the hour of {EDGES} edges, extrapolated", "s", [per_chunk_s * HOUR_CHUNKS]),
    ]  # fmt: skip


async def _drained(port: int, folder: Path, chunks: int) -> tuple[float, float]:
    """Peak memory, MiB, and seconds from ready until all is committed."""
    ready = folder / "ready.json"
    code = "import sys; from embridge_cloud.cli import app; app(sys.argv[1:], standalone_mode=False)"
    command = [sys.executable, "-c", code, "run", "--state-dir", str(folder / "cloud"), "--mqtt-port", str(port)]
    process = await asyncio.create_subprocess_exec(*command, "--http-port", "0", "--ready-file", str(ready))
    began = time.perf_counter()
    try:
        while not ready.exists():
            began = time.perf_counter()
            await asyncio.sleep(0.01)
        url = json.loads(ready.read_text())["http_url"]
        cloud = connect(url, settings=Settings(cloud=CloudSettings(state_dir=folder / "cloud")))
        while (await asyncio.to_thread(cloud.get, "/api/ingest"))["chunks"] < chunks:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        took_s = time.perf_counter() - began
        return _peak_mib(process.pid), took_s
    finally:
        process.terminate()
        await process.wait()


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024
