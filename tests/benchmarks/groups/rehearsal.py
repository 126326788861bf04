"""A release on its way to 100, 1 000 and 5 000 simulated edges: how long, how many messages, how many bytes.

Broker, cloud process, protocol and updater are the real ones (`embridge fleet rehearse`); the edges share this process,
one proof of each bundle, and a clock that runs twenty times as fast. Waves of 5, 25 and 100 %, each soaking for a
second of the cloud's clock; a minute of probation, three seconds of this machine's.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.framework import Row, row
from conftest import _mosquitto
from embridge_edge.fleet.rehearse import Rehearsal, Rehearsed, room_for
from embridge_edge.fleet.troubles import Trouble
from embridge_shared.fleet import RolloutPolicy, Trial, Wave
from support.rehearsals import Rehearsing

GROUP = "rehearsal"
FLEETS = (100, 1_000, 5_000)
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_WAVES = (
    Wave(name="canary", share=0.05, soak_s=1.0),
    Wave(name="early", share=0.25, soak_s=1.0),
    Wave(name="all", share=1.0, soak_s=0.0),
)
_POLICY = RolloutPolicy(waves=_WAVES, patience_s=300.0, trial=Trial(probation_s=60.0, min_windows=20))


def rows() -> list[Row]:
    room_for(max(FLEETS))
    found: list[Row] = []
    for edges in FLEETS:
        good, cloud_s, broker_s = _rehearsed(edges, {})
        bad, _, _ = _rehearsed(edges, {Trouble.CRASHING: 1.0})
        assert good.state == "done", good
        assert good.phases == {"committed": edges}, good
        assert bad.state == "aborted", bad
        name = f"{edges} edges"
        found += [
            row(GROUP, f"rollout completes, {name}", "s", [good.wall_s]),
            row(GROUP, f"messages out, each of {name}", "", [good.said]),
            row(GROUP, f"bytes out, each of {name}", "B", [good.said_bytes]),
            row(GROUP, f"bytes over HTTP, each of {name}", "B", [good.http_bytes]),
            row(GROUP, f"processor time of the cloud, each of {name}", "ms", [1e3 * cloud_s / edges]),
            row(GROUP, f"processor time of the broker, each of {name}", "ms", [1e3 * broker_s / edges]),
            row(GROUP, f"bad release: share of edges it ran on, {name}", "%", [100 * bad.ran / edges]),
            row(GROUP, f"bad release: all of them back, {name}", "s", [bad.wall_s]),
            row(GROUP, f"bad release: not back, {name}", "", [bad.ran - bad.back]),
        ]
    return found


def _rehearsed(edges: int, troubles: dict[Trouble, float]) -> tuple[Rehearsed, float, float]:
    """What became of it, and the processor time of cloud and broker over all of it, s."""
    with tempfile.TemporaryDirectory() as folder, contextmanager(_mosquitto)(Path(folder)) as broker:
        (Path(folder) / "site").mkdir()
        with closing(Rehearsing(Path(folder) / "site", broker.port)) as cloud:
            cloud.start()
            pids = cloud.loop.running["cloud"].pid, broker.process.pid
            before = [_cpu_s(pid) for pid in pids]
            asked = Rehearsal("embridge-2", _POLICY, before="embridge-1", troubles=troubles, patience_s=900)
            found = asyncio.run(cloud.rehearse(edges, asked))
            spent = [_cpu_s(pid) - then for pid, then in zip(pids, before, strict=True)]
    return found, *spent


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
