from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from embridge_cloud.session_cli import app
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealing import Sealer
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.wire import codec
from support.sessions import T0, emg_spec, pose_spec, record, session_of


@pytest.fixture
def folder(tmp_path):
    with HotStore(tmp_path / "hot.duckdb") as store:
        sealer = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0)
        for number in (1, 2):
            r = record(session_of(emg_spec(), pose_spec(), number=number, started_ns=T0 + number), number)
            store.commit(
                Batch(
                    chunks=[ChunkRow.of(c, codec.encode(c), T0) for run in r.chunks for c in run],
                    events=[EventRow(r.session.id, i, e, T0) for i, e in enumerate(r.events)],
                )
            )
            sealer.seal(r.session.id)
    return tmp_path / "sealed"


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_list(folder):
    rows = json.loads(run("list", "--dir", folder, "--json"))
    assert [r["session"][-1] for r in rows] == ["1", "2"]
    assert rows[0]["streams"] == ["emg", "pose"]
    assert (rows[0]["accepted"], rows[0]["rejected"], rows[0]["ended"]) == (1, 1, "complete")
    assert rows[0]["started_at"] == "2025-10-09T08:53:20Z"
    people = run("list", "--dir", folder)
    assert len(people.splitlines()) == 2
    assert "p01" in people


def test_show_takes_a_unique_prefix(folder):
    (first, _) = json.loads(run("list", "--dir", folder, "--json"))
    body = json.loads(run("show", first["session"], "--dir", folder, "--json"))
    assert body["manifest"]["streams"][0]["name"] == "emg"
    assert [r["status"] for r in body["repetitions"]] == ["accepted", "rejected"]
    text = run("show", first["session"], "--dir", folder)
    assert "moved too early" in text
    assert first["content_hash"] in text
    with pytest.raises(OperatorError, match="2 sessions"):
        run("show", "e3b0", "--dir", folder)
    with pytest.raises(DataError) as caught:
        run("show", "00000000-0000-0000-0000-000000000001", "--dir", folder)
    assert caught.value.reason is Reason.NOT_FOUND


def test_verify_fails_on_damage(folder):
    assert [r["ok"] for r in json.loads(run("verify", "--dir", folder, "--json"))] == [True, True]
    (first, _) = json.loads(run("list", "--dir", folder, "--json"))
    (folder / first["session"] / "emg.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 2"):
        run("verify", "--dir", folder)
    run("verify", json.loads(run("list", "--dir", folder, "--json"))[1]["session"], "--dir", folder)


def test_listing_needs_no_database(folder):
    code = (
        "import sys; from embridge_cloud.session_cli import app\n"
        "app(['list', '--dir', sys.argv[1], '--json'], standalone_mode=False)\n"
        "print(sorted({'duckdb', 'torch', 'aiomqtt', 'polars'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert len(json.loads(done.stdout)) == 2
