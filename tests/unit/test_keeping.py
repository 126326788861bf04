"""Retention, views, and the commands over both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import msgspec
import pytest
from typer.testing import CliRunner

from embridge_cloud import audit_cli, participant_cli, snapshot, store_cli
from embridge_cloud.datasets.store import StoreDataset
from embridge_cloud.demo import worlds
from embridge_cloud.keeper import Body, Keeper
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.consent import Scope, shared_name
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.people import People
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.store.views import view_name
from embridge_shared import settings as settings_module
from embridge_shared.clock import SystemClock
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.session import Participant, Purpose
from embridge_shared.settings import CloudSettings, Settings, StoreSettings
from support.intake import take
from support.sessions import T0, emg_spec, pose_spec, record, session_of

DAY_NS = 86_400 * 10**9


class At(SystemClock):
    """A clock that stands still."""

    def __init__(self, days: float) -> None:
        self._now = T0 + round(days * DAY_NS)

    def wall_ns(self) -> int:
        return self._now


def session(number: int, participant: str = "p01", purpose: Purpose = Purpose.TRAINING):
    found = session_of(emg_spec(), pose_spec(), number=number)
    found = msgspec.structs.replace(found, participant=Participant(id=participant), purpose=purpose, source="")
    return record(found, number, n_chunks=8)


def configured(tmp_path: Path, **store) -> Settings:
    return Settings(cloud=CloudSettings(state_dir=tmp_path / "cloud"), store=StoreSettings(**store))


@pytest.fixture
def hot(tmp_path):
    with HotStore(tmp_path / "cloud" / "hot" / "ingest-0-255.duckdb") as store:
        yield store


def seal(store: HotStore, tmp_path: Path, *recordings) -> None:
    sealer = Sealer(store, tmp_path / "cloud" / "sealed", wall_ns=lambda: T0)
    for recording in recordings:
        take(store, recording.messages())
        sealer.seal(recording.session.id)


def test_retention_deletes_what_is_past_its_term_and_backed_up_and_nothing_else(tmp_path, hot):
    old, kept, open_one = session(1), session(2, purpose=Purpose.CALIBRATION), session(3)
    seal(hot, tmp_path, old, kept)
    take(hot, open_one.messages()[:-1])
    settings = configured(tmp_path, retain_days={"training": 10}, backup_dir=tmp_path / "backups")
    assert Keeper(hot, settings, At(9)).retention.plan(At(9).wall_ns()) == []
    keeper = Keeper(hot, settings, At(11))
    (verdict,) = keeper.do("retention", Body(), actor="cli:me")["sessions"]
    assert (verdict["session"], verdict["kept"]) == (str(old.session.id), "no backup holds it")
    keeper.do("retention", Body(apply=True), actor="cli:me")
    assert len(Catalogue(tmp_path / "cloud" / "sealed").ids()) == 2
    keeper.do("backup", Body(), actor="cli:me")
    (verdict,) = keeper.do("retention", Body(), actor="cli:me")["sessions"]
    assert verdict["kept"] == ""
    assert len(Catalogue(tmp_path / "cloud" / "sealed").ids()) == 2  # asking deletes nothing
    keeper.do("retention", Body(apply=True), actor="cli:me")
    assert Catalogue(tmp_path / "cloud" / "sealed").ids() == [kept.session.id]
    assert {r[0] for r in hot.read.rows("SELECT session FROM sessions")} == {kept.session.id, open_one.session.id}
    assert [e.action for e in AuditLog(hot).entries()] == ["store.backup", "session.retire"]
    # It does not come back from the edge.
    ((_, report),) = take(hot, old.messages()[:2])
    assert {r.reason for r in report.refused} == {Reason.ERASED}


def test_sessions_of_who_withdrew_go_without_a_backup(tmp_path, hot):
    seal(hot, tmp_path, session(1, "stays"), session(2, "leaves"))
    settings = configured(tmp_path, retain_withdrawn_days=2)
    keeper = Keeper(hot, settings, At(1))
    for name in ("stays", "leaves"):
        keeper.people.add(name, version="v1", scopes=list(Scope), actor="cli:me", wall_ns=T0)
    keeper.do("participant-withdraw", Body(participant="leaves"), actor="cli:me")
    assert Keeper(hot, settings, At(2)).retention.plan(At(2).wall_ns()) == []
    late = Keeper(hot, settings, At(4))
    assert len(late.do("retention", Body(apply=True), actor="retention")["sessions"]) == 1
    assert hot.read.rows("SELECT DISTINCT participant FROM sessions") == [("stays",)]


_PLAIN = """
import json, sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
print(json.dumps([[str(v) for v in row] for row in connection.execute(sys.argv[2]).fetchall()]))
assert not [name for name in sys.modules if name.startswith("embridge")]
"""


def plain(path: Path, sql: str):
    """What a process with nothing but DuckDB is answered."""
    done = subprocess.run([sys.executable, "-c", _PLAIN, path, sql], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_views_answer_plain_duckdb_while_the_store_is_open(tmp_path, hot):
    first, second = session(1), session(2, "p02")
    seal(hot, tmp_path, first)
    take(hot, second.messages()[:3])
    keeper = Keeper(hot, configured(tmp_path), At(0))
    path = keeper.refresh_views()
    rows = plain(path, "SELECT participant, state, samples FROM sessions ORDER BY participant")
    assert [r[:2] for r in rows] == [["p01", "sealed"], ["p02", "open"]]
    assert rows[0][2] == str(sum(len(s) for s in first.samples))
    assert plain(path, "SELECT session, count(*), sum(e0::BIGINT) FROM samples_emg GROUP BY 1") == [
        [str(first.session.id), str(len(first.samples[0])), str(int(first.samples[0][:, 0].sum()))]
    ]
    with duckdb.connect(str(path), read_only=True) as old:
        take(hot, second.messages()[3:])
        Sealer(hot, tmp_path / "cloud" / "sealed", wall_ns=lambda: T0).seal(second.session.id)
        keeper.refresh_views()
        assert old.execute("SELECT count(*) FROM sessions WHERE state = 'open'").fetchall() == [(1,)]
        gesture, number, length = old.execute(
            "SELECT gesture, count(*), min(end_ns - start_ns) FROM windows GROUP BY 1"
        ).fetchall()[0]
        assert (gesture, length) == ("fist", 10**9)
        assert number == 15  # of 1 s every 0.2 s in 4 s less 20 ns
        assert old.execute("SELECT count(*) FROM windows_of(2.0, 1.0)").fetchall() == [(2,)]
    assert plain(path, "SELECT count(*) FROM sessions WHERE state = 'sealed'") == [["2"]]
    names = {r[0] for r in plain(path, "SHOW TABLES")}
    assert {"sessions", "streams", "windows", "cues", "repetitions", "gaps", "quality", "clock", "edges"} <= names
    gaps = plain(path, "SELECT stream, sum(n) FROM gaps GROUP BY 1 ORDER BY 1")
    lost = {
        e.name: sum(b - a for a, b in e.gaps)
        for s in Catalogue(tmp_path / "cloud" / "sealed").sessions()
        for e in s.manifest.streams
    }
    assert {g[0] for g in gaps} <= set(lost)
    held = plain(path, "SELECT count(*) FROM clock")[0][0]
    assert int(held) == sum(len(c.arrivals) for r in (first, second) for run in r.chunks for c in run)
    assert view_name("EMG left/2") == "samples_emg_left_2"


def test_training_leaves_out_who_did_not_agree_to_it(tmp_path, hot, caplog, monkeypatch):
    seal(hot, tmp_path, session(1, "agreed"), session(2, "not"))
    keeper = Keeper(hot, configured(tmp_path), At(0))
    keeper.people.add("agreed", version="v1", scopes=[Scope.TRAIN], actor="cli:me", wall_ns=T0)
    keeper.people.add("not", version="v1", scopes=[Scope.COLLECT], actor="cli:me", wall_ns=T0)
    found = StoreDataset(tmp_path / "cloud")
    assert found.participants() == ("agreed",)
    assert "its participant agreed to collect (version v1), not to train" in caplog.text
    # Training pairs nothing of who did not agree.
    recipe, asked = worlds.synthetic().recipe, []

    def pair(sealed, *_, **__):
        asked.append(sealed.session.participant.id)
        raise InterruptedError

    monkeypatch.setattr(snapshot, "pair", pair)
    with pytest.raises(InterruptedError):
        snapshot.take_snapshot(Catalogue(tmp_path / "cloud" / "sealed"), recipe, lambda _: None)
    assert asked == ["agreed"]
    keeper.people.withdraw("agreed", actor="cli:me", wall_ns=T0 + 1)
    with pytest.raises(DataError) as caught:
        StoreDataset(tmp_path / "cloud")
    assert caught.value.reason is Reason.CONSENT
    # Where several clouds share a folder the latest word counts, whoever heard it.
    people = People(hot, also=tmp_path / "cloud" / "sealed" / shared_name(tmp_path))
    people.consent("agreed", version="v2", scopes=[Scope.TRAIN], actor="cli:me", wall_ns=T0 + 2)
    assert StoreDataset(tmp_path / "cloud").participants() == ("agreed",)


def test_commands_work_where_no_cloud_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embridge.toml").write_text(
        f'[cloud]\nstate_dir = "{tmp_path}/cloud"\n[store]\nbackup_dir = "backups"\n'
    )
    monkeypatch.setattr(settings_module, "config_files", lambda: [tmp_path / "embridge.toml"])

    def run(app, *arguments):
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    with pytest.raises(OperatorError, match="there is no store"):
        run(participant_cli.app, "list")
    run(participant_cli.app, "add", "P07", "--consent-version", "v2", "--scope", "collect", "--scope", "train")
    run(participant_cli.app, "consent", "P07", "--consent-version", "v3", "--scope", "collect")
    (row,) = json.loads(run(participant_cli.app, "list", "--json"))
    assert row["consent"]["version"] == "v3"
    assert row["consent"]["scopes"] == ["collect"]
    with pytest.raises(OperatorError, match="registered already"):
        run(participant_cli.app, "add", "P07", "--consent-version", "v2")
    for name in ("Anna Maier", "../P08", ".P08", "P08\x1b[2J", "P" * 65, ""):
        with pytest.raises(OperatorError, match="cannot name a participant"):
            run(participant_cli.app, "add", name, "--consent-version", "v2")
    assert len(json.loads(run(participant_cli.app, "list", "--json"))) == 1
    made = run(store_cli.app, "backup").strip()
    assert made in run(store_cli.app, "backups", "--verify")
    run(store_cli.app, "views")
    assert "sessions" in run(store_cli.app, "query", "SHOW TABLES")
    with pytest.raises(OperatorError, match="query failed"):
        run(store_cli.app, "query", "SELECT nothing FROM nowhere")
    run(store_cli.app, "retention")
    found = json.loads(run(participant_cli.app, "erase", "P07", "--yes", "--json"))
    assert (found["stage"], found["waiting"]) == ("edges", [])
    assert json.loads(run(participant_cli.app, "list", "--json")) == []
    assert "P07" not in run(audit_cli.app, "list", "--json")
    assert "unbroken" in run(audit_cli.app, "verify")
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"P07" in p.read_bytes()]
    run(store_cli.app, "restore", made, "--state-dir", str(tmp_path / "elsewhere"))
