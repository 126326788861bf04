"""Cost of taking a chunk in: 16 channels, 2 kHz, 0.5 s, 32 kB of samples.

python tests/benchmarks/bench_ingest.py            the core: sort, decode, commit
python tests/benchmarks/bench_ingest.py mosquitto  the whole process behind a real broker
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from scipy.signal import butter, sosfilt

from embridge_cloud.intake import Intake
from embridge_cloud.parcels import Incoming
from embridge_cloud.store.hot import HotStore
from embridge_shared.session import SessionOpened
from embridge_shared.signal import Arrivals, Chunk
from embridge_shared.wire import codec
from embridge_shared.wire.messages import EventMessage, pack
from embridge_shared.wire.topics import chunk_topic, event_topic
from support.sessions import T0, emg_spec, session_of

N, CHANNELS, RATE = 1000, 16, 2000.0


def messages(sessions: int, chunks: int) -> tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]:
    """Opening events, and chunks of `sessions` sessions in turn."""
    rng = np.random.default_rng(0)
    sos = butter(4, [25, 350], "bandpass", fs=RATE, output="sos")
    signal = sosfilt(sos, rng.normal(0, 250, (32 * N, CHANNELS)), axis=0).astype("<i2")
    opening, rest = [], []
    described = [session_of(emg_spec(CHANNELS, RATE), edge=f"edge-{i}", number=i) for i in range(sessions)]
    for s in described:
        event = EventMessage(session=s.id, seq=0, event=SessionOpened(session=s))
        opening.append((event_topic(s.edge, s.id), pack(event)))
    for k in range(chunks):
        part = signal[(k % 32) * N : (k % 32 + 1) * N]
        pairs = np.arange(k * N + 7, (k + 1) * N, 8, dtype=np.int64)
        for s in described:
            chunk = Chunk(s.id, 0, k * N, part, T0 + k * 500_000_000, 0, Arrivals(pairs, pairs * 500_000))
            rest.append((chunk_topic(s.edge, s.id, "emg"), codec.encode(chunk)))
    return opening, rest


def core(batch: int, total: int) -> dict[str, float]:
    """CPU of the core at one batch size."""
    opening, rest = messages(16, total // 16)
    with tempfile.TemporaryDirectory() as folder, HotStore(Path(folder) / "hot.duckdb") as store:
        intake = Intake(store.read)
        sort_s, commit_s, worst_s, began_s, wall_s = 0.0, 0.0, 0.0, time.process_time(), time.perf_counter()
        for at in [-1, *range(0, len(rest), batch)]:
            part = opening if at < 0 else rest[at : at + batch]
            a = time.process_time()
            taken = intake.take([Incoming(t, p, T0) for t, p in part])
            b = time.process_time()
            store.commit(taken.batch)
            c = time.process_time()
            intake.committed(taken)
            sort_s, commit_s, worst_s = sort_s + b - a, commit_s + c - b, max(worst_s, c - b)
        cpu_s, wall_s = time.process_time() - began_s, time.perf_counter() - wall_s
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
    n = len(rest)
    return {
        "batch": batch,
        "chunks": n,
        "cpu_us_a_chunk": round(cpu_s / n * 1e6, 1),
        "sort_us": round(sort_s / n * 1e6, 1),
        "commit_us": round(commit_s / n * 1e6, 1),
        "worst_commit_ms": round(worst_s * 1e3, 1),
        "chunks_a_second": round(n / wall_s),
        "payload_kb": round(sum(len(p) for _, p in rest) / n / 1e3, 1),
        "file_kb_a_chunk": round(size / n / 1e3, 1),
    }


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def mosquitto(total: int) -> dict[str, float]:
    """CPU of the whole cloud process behind Mosquitto, publishers in another process."""
    from conftest import _mosquitto
    from embridge_cloud.server import serve
    from embridge_shared.settings import CloudSettings, MqttSettings, Settings

    with tempfile.TemporaryDirectory() as folder:
        broker = next(brokers := _mosquitto(Path(folder)))
        settings = Settings(
            mqtt=MqttSettings(port=broker.port), cloud=CloudSettings(state_dir=Path(folder) / "cloud", http_port=0)
        )
        async with serve(settings) as cloud:
            status, counters = cloud.ingester.status, lambda: cloud.ingester.counters
            await until(lambda: status.connected)
            command = [sys.executable, __file__, "publish", str(broker.port), str(total)]
            publisher = await asyncio.create_subprocess_exec(*command)
            await until(lambda: counters().chunks)
            first, began_s, wall_s = counters().chunks, time.process_time(), time.perf_counter()
            await until(lambda: counters().chunks == total)
            cpu_s, wall_s, n = time.process_time() - began_s, time.perf_counter() - wall_s, total - first
            await publisher.wait()
        brokers.close()
    return {
        "chunks": n,
        "cpu_us_a_chunk": round(cpu_s / n * 1e6, 1),
        "chunks_a_second": round(n / wall_s),
        "commits": status.commits,
        "commit_ms_mean": round(status.commit_ms_total / status.commits, 1),
        "commit_ms_worst": round(status.commit_ms_worst, 1),
    }


async def publish(port: int, total: int) -> None:
    """Publish everything as fast as the broker takes it."""
    import aiomqtt

    opening, rest = messages(16, total // 16)
    async with aiomqtt.Client("127.0.0.1", port, max_inflight_messages=64) as client:
        client.pending_calls_threshold = 10_000
        for at in range(0, len(part := opening + rest), 64):
            await asyncio.gather(*(client.publish(t, p, qos=1) for t, p in part[at : at + 64]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["publish", port, total]:
            asyncio.run(publish(int(port), int(total)))
        case ["mosquitto"]:
            print(json.dumps(asyncio.run(mosquitto(4800))))
        case _:
            for batch, total in ((400, 8000), (200, 8000), (50, 3200), (10, 1600), (1, 320)):
                print(json.dumps(core(batch, total)))
