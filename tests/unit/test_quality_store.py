"""Quality in the store: rows, views, sealed files, and the judgement of what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from fastapi import FastAPI, HTTPException
from typer.testing import CliRunner

from embridge_cloud.api import evidence
from embridge_cloud.api.roles import Role, access_of
from embridge_cloud.quality import recording, session_quality, wearing_quality
from embridge_cloud.session_cli import app
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealed import SealedSession
from embridge_cloud.store.sealing import Sealer
from embridge_edge.quality import seen
from embridge_shared.errors import ConfigError, DataError
from embridge_shared.quality import Grade, Metric, assess
from embridge_shared.session import BandChanged, BandState, QualityFinding, QualitySeen, SessionClosed, SessionOpened
from embridge_shared.signal import Chunk
from embridge_shared.wire import codec
from support.sessions import T0, session_of
from support.signal_faults import CHANNEL, SPEC, forearm, spoil

SESSION = session_of(SPEC)


@pytest.fixture(scope="module")
def hum() -> np.ndarray:
    return spoil(forearm(3), "hum", 2000.0, 32767.0).astype(np.int16)


def told(x: np.ndarray) -> list[QualitySeen]:
    return [seen(v, 0, T0 + v.first * 500_000) for v in assess(SPEC, [(0, x)])]


def batch(x: np.ndarray, quality: list[QualitySeen]) -> Batch:
    gap = slice(20000, 20400)
    chunks = [Chunk(SESSION.id, 0, 0, x[: gap.start], T0)]
    chunks.append(Chunk(SESSION.id, 0, gap.stop, x[gap.stop :], T0 + gap.stop * 500_000, gap_before=400))
    closing = SessionClosed(t_ns=T0 + len(x) * 500_000, totals=(len(x),))
    numbered = [SessionOpened(session=SESSION), *quality, closing]
    return Batch(
        chunks=[ChunkRow.of(c, codec.encode(c), T0) for c in chunks],
        events=[EventRow(SESSION.id, i, e, T0) for i, e in enumerate(numbered)],
    )


@pytest.fixture
def stored(tmp_path: Path, hum: np.ndarray) -> Any:
    with HotStore(tmp_path / "hot.duckdb") as store:
        store.commit(batch(hum, told(hum)))
        yield store


@pytest.fixture
def sealed(stored: HotStore, tmp_path: Path) -> SealedSession:
    sealer = Sealer(stored, tmp_path / "sealed", wall_ns=lambda: T0)
    sealer.prepare()
    return sealer.seal(SESSION.id)


def test_every_window_and_channel_is_a_row(stored, hum):
    events = told(hum)
    rows = stored.read.records("SELECT * FROM quality ORDER BY seq, channel")
    assert len(rows) == 16 * len(events)
    assert set(Metric) <= set(rows[0])
    (row,) = [r for r in rows if r["seq"] == 6 and r["channel"] == CHANNEL]
    assert row["mains_db"] == events[5].values[Metric.MAINS][CHANNEL]
    assert (row["first"], row["n"], row["t_ns"]) == (10000, 4000, T0 + 5_000_000_000)
    assert row["grade"] == "bad"
    assert "mains hum" in row["reasons"]
    before = stored.read.rows("SELECT * FROM quality")
    stored.commit(batch(hum, events))
    assert sorted(map(str, stored.read.rows("SELECT * FROM quality"))) == sorted(map(str, before))


def test_the_view_sums_up_before_and_after_sealing(stored, tmp_path):
    query = "SELECT * FROM v_quality ORDER BY channel"
    before = stored.read.records(query)
    assert [r["grade"] for r in before] == ["bad" if c == CHANNEL else "good" for c in range(16)]
    assert "mains hum" in before[CHANNEL]["reasons"]
    sealer = Sealer(stored, tmp_path / "sealed", wall_ns=lambda: T0)
    sealer.prepare()
    sealer.seal(SESSION.id)
    assert stored.read.rows("SELECT count(*) FROM quality") == [(0,)]
    assert stored.read.records(query) == before


def test_quality_is_sealed_into_a_file_of_its_own(sealed, hum):
    frame = sealed.quality().collect()
    assert frame.height == 16 * len(told(hum))
    assert frame.columns[:8] == ["seq", "stream", "channel", "first", "n", "t_ns", "grade", "loss"]
    assert frame["stream"].unique().to_list() == ["emg"]
    assert set(frame.filter(pl.col("grade") == "bad")["channel"]) == {f"e{CHANNEL}"}
    assert [type(e.event) for e in sealed.events()] == [SessionOpened, SessionClosed]
    sealed.verify()


def test_damage_to_the_quality_file_is_found(sealed):
    path = sealed.directory / sealed.manifest.quality.file
    rows = pl.read_parquet(path)
    rows.head(16).write_parquet(path)
    with pytest.raises(
        DataError,
        match=r"quality\.parquet has \d+ bytes, not \d+; events\.json an event is missing; "
        r"quality\.parquet holds 16 rows",
    ):
        sealed.verify()
    path.unlink()
    with pytest.raises(DataError, match=r"quality\.parquet is missing"):
        sealed.verify()


def test_quality_of_nothing_known_stays_an_event(stored, tmp_path, hum):
    strange = QualitySeen(stream=9, first=0, n=1, t_ns=T0, values={Metric.LOSS: (0.5,)})
    empty = QualitySeen(
        stream=0, first=0, n=1, t_ns=T0, values={},
        findings=(QualityFinding(channel=3, metric=Metric.LOSS, grade=Grade.BAD, reason="?"),),
    )  # fmt: skip
    with HotStore(tmp_path / "other.duckdb") as store:
        store.commit(batch(hum, [strange, empty]))
        sealer = Sealer(store, tmp_path / "else", wall_ns=lambda: T0)
        sealer.prepare()
        kept = sealer.seal(SESSION.id)
    assert kept.quality() is None
    assert [e.event for e in kept.events()][1:3] == [strange, empty]
    kept.verify()


def test_what_is_stored_is_judged_as_the_edge_did(sealed):
    summary = session_quality(sealed)["emg"]
    grades = {c.channel: c.grade for c in summary.channels()}
    assert grades.pop(f"e{CHANNEL}") is Grade.BAD
    losses = [m for m in summary.channels()[0].metrics if m.metric is Metric.LOSS]
    assert losses[0].extreme == pytest.approx(0.04)
    assert losses[0].bad in (5, 6)
    assert set(grades.values()) == {Grade.BAD}, "all channels lost the same samples"


def run(*arguments: Any) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_command_judges_sessions(sealed):
    folder = sealed.directory.parent
    (stream,) = json.loads(run("quality", SESSION.id, "--dir", folder, "--json"))
    assert stream["grade"] == "bad"
    metrics = {m["metric"] for m in stream["channels"][CHANNEL]["metrics"] if m["bad"]}
    assert "mains_db" in metrics
    text = run("quality", SESSION.id, "--dir", folder)
    assert "mains hum" in text
    assert "move away from chargers" in text
    rows = json.loads(run("quality", SESSION.id, "--dir", folder, "--live", "--json"))
    assert rows[0]["channel"] == "e0"
    assert f"e{CHANNEL}" in run("quality", SESSION.id, "--dir", folder, "--live")


def test_the_command_judges_files(tmp_path, hum):
    path = tmp_path / "recorded.parquet"
    columns = {f"emg_{i}": hum[:, i] for i in range(16)}
    session = np.where(np.arange(len(hum)) < 22000, "a", "b")
    pl.DataFrame({"session": session, **columns}).write_parquet(path)
    found = recording(path, rate_hz=2000.0)
    assert [w.name for w in found] == ["a", "b"]
    assert [len(w.pieces[0]) for w in found] == [22000, len(hum) - 22000]
    assert wearing_quality(found[0]).channels()[CHANNEL].grade is Grade.BAD
    body = json.loads(run("quality", path, "--rate-hz", "2000", "--json"))
    assert [s["stream"] for s in body] == ["a", "b"]
    assert "floor_uv" in body[0]["not_computed"]
    with pytest.raises(ConfigError, match="rate"):
        run("quality", path)
    with pytest.raises(DataError):
        run("quality", tmp_path / "no.mat")
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(DataError):
        run("quality", tmp_path / "x.parquet", "--rate-hz", "100")


@pytest.mark.real_data
def test_the_command_finds_the_bad_electrode(data_dir):
    path = data_dir / "three_dc" / "three_dc_Participant1.parquet"
    for stream in json.loads(run("quality", path, "--rate-hz", "1000", "--json")):
        assert [c["channel"] for c in stream["channels"] if c["grade"] != "good"] == ["emg_1"]


@pytest.mark.real_data
def test_a_recording_shorter_than_a_window_says_so(data_dir):
    path = data_dir / "emg2pose_fixture" / "test_data.hdf5"
    assert run("quality", path) == "test_data: too short to judge, a window is 2 s long\n"
    (stream,) = json.loads(run("quality", path, "--json"))
    assert (stream["windows"], stream["grade"], len(stream["channels"])) == (0, "unknown", 16)


@pytest.mark.real_data
def test_an_envelope_at_its_ceiling_is_told(data_dir):
    (stream,) = json.loads(run("quality", data_dir / "ninapro_db1" / "S20_A1_E1.mat", "--json"))
    assert {c["channel"] for c in stream["channels"] if c["bad"]} == {"emg_6"}
    assert len(stream["not_computed"]) == 11


# through the API


@pytest.fixture
def get(stored):
    app = FastAPI()
    evidence.add(app, SimpleNamespace(store=stored))
    routes = {r.path.removeprefix("/api/sessions/{session}/"): r.endpoint for r in app.routes if "{session}" in r.path}
    assert all(access_of(endpoint).role is Role.VIEWER for endpoint in routes.values())
    return lambda path, **asked: routes[path](SESSION.id, **asked)


def test_the_api_tells_what_channels_are_worth_before_and_after_the_seal(get, stored, tmp_path):
    def asked():
        return [get("quality"), get("quality/windows", grade=Grade.BAD), get("quality/windows", limit=20)]

    before = asked()
    channels, bad, some = before
    assert len(channels) == 16
    assert [c["grade"] for c in channels if c["channel"] == SPEC.channels[CHANNEL]] == ["bad"]
    assert {row["channel"] for row in bad} == {SPEC.channels[CHANNEL]}
    assert len(some) == 20
    sealer = Sealer(stored, tmp_path / "sealed", wall_ns=lambda: T0)
    sealer.prepare()
    sealer.seal(SESSION.id)
    after = asked()
    assert after[:2] == before[:2]
    assert len(after[2]) == 20


def test_the_api_tells_of_gaps_and_of_what_does_not_exist(get, stored):
    assert get("gaps") == [{"stream": "emg", "first": 20000, "n": 400, "seconds": 0.2, "inferred": False}]
    assert get("bands") == []
    with stored.transaction() as connection:
        connection.execute("DELETE FROM sessions")
    for path in ("quality", "quality/windows", "gaps", "bands"):
        with pytest.raises(HTTPException, match="never opened"):
            get(path)


def test_the_api_tells_what_bands_went_through(get, stored):
    states = [("streaming", "", ""), ("lost", "the band does not advertise", "Switch it on.")]
    for i, (phase, reason, action) in enumerate(states):
        band = BandState(stream="emg", kind="myo", phase=phase, reason=reason, action=action, battery=50 - i)
        event = BandChanged(t_ns=T0 + i * 10**9, band=band)
        stored.commit(Batch(events=[EventRow(SESSION.id, 1000 + i, event, T0)]))
    rows = get("bands")
    assert [(r["phase"], r["reason"], r["action"]) for r in rows] == states
    assert [(r["seconds"], r["stream"], r["battery"]) for r in rows] == [(0, "emg", 50), (1, "emg", 49)]
