"""A simulated fleet against a cloud process of its own: what an edge costs, how soon it is told, how an outage ends.

Every edge records 16 channels at 2 kHz in chunks of half a second, a cue and a repetition every four seconds, through
its own spool and connection (`embridge fleet simulate`). Edges a core are edges over the share of a core that the cloud
process takes while they record, its fixed work included; "and sealed" counts what sealing the sessions then takes too.
Both extrapolate from so few edges, they are no run of so many.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.framework import Row, row
from conftest import _mosquitto
from support.shards import Ingesters

GROUP = "fleet"
REPEATS = 3
EDGES, SECONDS = 300, 16.0
OUTAGE_EDGES, OUTAGE_S = 50, 30.0
_LOOK_S = 1.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, contextmanager(_mosquitto)(Path(folder)) as broker:
        found = [_steady(Path(folder) / str(turn), broker.port) for turn in range(REPEATS)]
        told, drained = _after_an_outage(Path(folder) / "outage", broker.port)
    per_core, sealed, p50, p99, lost = (list(values) for values in zip(*found, strict=True))
    gathered = f"{OUTAGE_EDGES} edges without a network for {OUTAGE_S:.0f} s"
    steady = f"{EDGES} edges"
    return [
        row(GROUP, f"edges_per_core, from {steady}", "edges", per_core),
        row(GROUP, f"edges_per_core, received and sealed, from {steady}", "edges", sealed),
        row(GROUP, f"commit, median, {steady}", "ms", p50),
        row(GROUP, f"commit, 99 %, {steady}", "ms", p99),
        row(GROUP, f"messages lost, {steady} and after the outage", "", [sum(lost) + told["lost"]]),
        row(GROUP, f"drain_s: {gathered}", "s", [drained]),
        row(GROUP, f"messages sent again: {gathered}", "", [told["resent"]]),
    ]


def _steady(folder: Path, port: int) -> tuple[float, float, float, float, float]:
    """Edges a core while they record, the same with sealing, waits for a commit, messages lost."""
    with _cloud(folder, port) as cloud, ThreadPoolExecutor(1) as beside:
        api, pid = cloud.api(0, 255), cloud.pid(0, 255)
        began_s = _cpu_s(pid)
        telling = beside.submit(_fleet, cloud, EDGES, SECONDS)
        seen = []
        while (counts := api.get("/api/ingest"))["sealed"] < EDGES:
            seen.append((time.perf_counter(), _cpu_s(pid), counts["chunks"]))
            time.sleep(_LOOK_S)
        all_s = _cpu_s(pid) - began_s
        told = telling.result()
    total = seen[-1][2]
    recording = [(t, cpu) for t, cpu, chunks in seen if 0.2 * total < chunks < 0.9 * total]
    (t0, cpu0), (t1, cpu1) = recording[0], recording[-1]
    per_core = EDGES * (t1 - t0) / (cpu1 - cpu0)
    return per_core, EDGES * SECONDS / all_s, told["commit_ms_p50"], told["commit_ms_p99"], told["lost"]


def _after_an_outage(folder: Path, port: int) -> tuple[dict[str, float], float]:
    with _cloud(folder, port) as cloud:
        url = cloud.url(0, 255)
        told = _fleet(cloud, OUTAGE_EDGES, 1.5 * OUTAGE_S + 15, "--outage", str(OUTAGE_S), "--verify", url)
    return told, told["drain_s"]


@contextmanager
def _cloud(folder: Path, port: int) -> Iterator[Ingesters]:
    folder.mkdir(parents=True)
    ingesters = Ingesters(folder, port, commit_s=0.25)
    try:
        ingesters.start(0, 255)
        yield ingesters
    finally:
        ingesters.close()


def _fleet(cloud: Ingesters, edges: int, seconds: float, *more: str) -> dict[str, float]:
    done = cloud.embridge("fleet", "simulate", "--edges", str(edges), "--seconds", str(seconds), "--json", *more)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
