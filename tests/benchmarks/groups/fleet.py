"""A simulated fleet against a cloud process of its own: what an edge costs, how soon it is told, how an outage ends.

Every edge records 16 channels at 2 kHz in chunks of half a second, a cue and a repetition every four seconds, through
its own spool and connection (`embridge fleet simulate`). Edges a core are edges over the share of a core that the cloud
process took while they recorded, its fixed work included: an extrapolation from so few, not a run of so many.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.framework import Row, row
from conftest import _mosquitto
from support.shards import Ingesters

GROUP = "fleet"
REPEATS = 3
EDGES, SECONDS = 120, 15.0
OUTAGE_EDGES, OUTAGE_S = 50, 30.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, contextmanager(_mosquitto)(Path(folder)) as broker:
        found = [_steady(Path(folder) / str(turn), broker.port) for turn in range(REPEATS)]
        told, drained = _after_an_outage(Path(folder) / "outage", broker.port)
    per_core, p50, p99, lost = (list(values) for values in zip(*found, strict=True))
    gathered = f"{OUTAGE_EDGES} edges without a network for {OUTAGE_S:.0f} s"
    steady = f"{EDGES} edges"
    return [
        row(GROUP, f"edges_per_core, from {steady}", "edges", per_core),
        row(GROUP, f"commit, median, {steady}", "ms", p50),
        row(GROUP, f"commit, 99 %, {steady}", "ms", p99),
        row(GROUP, f"messages lost, {steady} and after the outage", "", [sum(lost) + told["lost"]]),
        row(GROUP, f"drain_s: {gathered}", "s", [drained]),
        row(GROUP, f"messages sent again: {gathered}", "", [told["resent"]]),
    ]


def _steady(folder: Path, port: int) -> tuple[float, float, float, float]:
    with _cloud(folder, port) as cloud:
        before_s, began_s = _cpu_s(cloud.pid(0, 255)), time.perf_counter()
        told = _fleet(cloud, EDGES, SECONDS)
        share = (_cpu_s(cloud.pid(0, 255)) - before_s) / (time.perf_counter() - began_s - told["setup_s"])
    return EDGES / share, told["commit_ms_p50"], told["commit_ms_p99"], told["lost"]


def _after_an_outage(folder: Path, port: int) -> tuple[dict[str, float], float]:
    with _cloud(folder, port) as cloud:
        told = _fleet(cloud, OUTAGE_EDGES, 1.5 * OUTAGE_S + 15, "--outage", str(OUTAGE_S))
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
    began_s = time.perf_counter()
    done = cloud.embridge(
        "fleet", "simulate", "--edges", str(edges), "--seconds", str(seconds), "--json",
        "--verify", cloud.url(0, 255), *more,
    )  # fmt: skip
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, "embridge fleet simulate", done.stdout, done.stderr)
    # Interpreter, signal and spools come before the recording and are not part of it.
    return json.loads(done.stdout) | {"setup_s": max(0.0, time.perf_counter() - began_s - seconds)}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
