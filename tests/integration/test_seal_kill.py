from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_shared.wire import codec
from support.sessions import T0, assert_sealed_equals, emg_spec, pose_spec, record, session_of

_CHILD = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from support.sessions import *
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealing import Sealer
store = HotStore(Path(sys.argv[1]) / "hot.duckdb").open()
sealer = Sealer(store, Path(sys.argv[1]) / "sealed", wall_ns=lambda: T0)
sealer.prepare()
print("ready", flush=True)
sealer.seal(session_of(emg_spec(8, 1000.0), pose_spec()).id)
print("done", flush=True)
"""


def test_sigkill_while_sealing_loses_nothing(tmp_path):
    recording = record(session_of(emg_spec(8, 1000.0), pose_spec()), 2, n_chunks=60)
    with HotStore(tmp_path / "hot.duckdb") as store:
        store.commit(
            Batch(
                chunks=[ChunkRow.of(c, codec.encode(c), T0) for run in recording.chunks for c in run],
                events=[EventRow(recording.session.id, i, e, T0) for i, e in enumerate(recording.events)],
            )
        )
    for delay_s in (0.0, 0.02, 0.05, 0.1):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with HotStore(tmp_path / "hot.duckdb") as store:
            sealed = Catalogue(tmp_path / "sealed").sessions()
            assert store.read.rows("SELECT count(*) FROM chunks") == [(120,)] or sealed
            for found in sealed:
                assert_sealed_equals(found, recording)
    with HotStore(tmp_path / "hot.duckdb") as store:
        again = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0)
        again.prepare()
        assert_sealed_equals(again.seal(recording.session.id), recording)
