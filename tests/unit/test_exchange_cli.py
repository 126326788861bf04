"""`embridge session export`, `import` and `verify`, as their users meet them."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from embridge_cloud.context import CloudPaths
from embridge_cloud.exchange import outgoing
from embridge_cloud.exchange.commands import _In, _Out, _Purpose
from embridge_cloud.exchange.incoming import ImportFormat
from embridge_cloud.session_cli import app
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.consent import Consent, Scope, write_consents
from embridge_cloud.store.exports import ExportIndex
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.session import Purpose
from support.exchange import cloud_settings, rich_recording, seal


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """State of a cloud with sessions of two participants."""
    folder = tmp_path_factory.mktemp("template")
    for number, person in ((1, "p-01"), (2, "p-02"), (3, "p-02")):
        seal(cloud_settings(folder), rich_recording(number=number, seed=number, participant=person, n_chunks=4))
    return folder


@pytest.fixture
def cloud(template, tmp_path, monkeypatch):
    """That cloud, as the commands find it."""
    shutil.copytree(template, tmp_path / "cloud")
    monkeypatch.setenv("EMBRIDGE_CLOUD__STATE_DIR", str(tmp_path / "cloud"))
    return cloud_settings(tmp_path / "cloud")


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def agreed(settings, **scopes):
    people = {
        name.replace("_", "-"): Consent(version="v2", scopes=tuple(given), given_ns=1) for name, given in scopes.items()
    }
    write_consents(CloudPaths.of(settings).sealed, people)


def test_choices_are_those_of_the_rooms_behind():
    assert [f.value for f in _Out] == [f.value for f in outgoing.ExportFormat]
    assert [f.value for f in _In] == [f.value for f in ImportFormat]
    assert [p.value for p in _Purpose] == [p.value for p in Purpose]


@pytest.mark.parametrize("format", ["bids", "parquet"])
def test_out_and_in_again(cloud, tmp_path, monkeypatch, format):
    told = json.loads(run("export", "--participant", "p-02", "--format", format, "--out", tmp_path / "out", "--json"))
    assert {s["participant"] for s in told["sessions"]} == {"p-02"}
    assert len(told["sessions"]) == 2
    monkeypatch.setenv("EMBRIDGE_CLOUD__STATE_DIR", str(tmp_path / "other"))
    rows = json.loads(run("import", tmp_path / "out", "--format", format, "--json"))
    assert [r["arrival"] for r in rows] == ["stored", "stored"]
    assert {r["content_hash"] for r in rows} == {s["content_hash"] for s in told["sessions"]}
    again = json.loads(run("import", tmp_path / "out", "--format", format, "--json"))
    assert [r["arrival"] for r in again] == ["already there", "already there"]
    assert [r["ok"] for r in json.loads(run("verify", "--all", "--json"))] == [True, True]


def test_a_dry_run_stores_nothing(cloud, tmp_path, monkeypatch):
    run("export", "--protocol", "fingers-12", "--format", "parquet", "--out", tmp_path / "out")
    monkeypatch.setenv("EMBRIDGE_CLOUD__STATE_DIR", str(tmp_path / "other"))
    assert len(json.loads(run("import", tmp_path / "out", "--format", "parquet", "--dry-run", "--json"))) == 3
    assert not (tmp_path / "other").exists()


def test_an_export_is_on_record_before_it_is_written(cloud, tmp_path, monkeypatch):
    seen = []
    written = outgoing._write

    def watched(sessions, folder, format, title):
        with HotStore(CloudPaths.of(cloud).hot) as store:
            seen.extend(ExportIndex(store).of("p-01"))
        written(sessions, folder, format, title)

    monkeypatch.setattr(outgoing, "_write", watched)
    run("export", "--participant", "p-01", "--format", "bids", "--out", tmp_path / "out")
    (noted,) = seen
    assert (noted.format, noted.path, noted.participants) == ("bids", tmp_path / "out", ("p-01",))
    with HotStore(CloudPaths.of(cloud).hot) as store:
        assert [e.action for e in AuditLog(store).entries()] == ["session.export"]
        AuditLog(store).verify()
    assert not (tmp_path / "out" / ".part").exists()


def test_nobody_is_handed_on_who_did_not_agree(cloud, tmp_path):
    agreed(cloud, p_01=[Scope.COLLECT, Scope.SHARE], p_02=[Scope.COLLECT, Scope.TRAIN])
    with pytest.raises(OperatorError, match=r"2 of 3 sessions may not be handed on: .*'p-02'") as caught:
        run("export", "--protocol", "fingers-12/1", "--format", "bids", "--out", tmp_path / "out")
    assert caught.value.reason is Reason.CONSENT
    assert not (tmp_path / "out").exists()
    with HotStore(CloudPaths.of(cloud).hot) as store:
        assert not ExportIndex(store).of()
    run("export", "--participant", "p-01", "--format", "bids", "--out", tmp_path / "out")
    agreed(cloud, p_01=[])
    with pytest.raises(OperatorError, match="withdrawn"):
        run("export", "--participant", "p-01", "--format", "bids", "--out", tmp_path / "two")


def test_damage_is_not_handed_on(cloud, tmp_path):
    session = Catalogue(CloudPaths.of(cloud).sealed).ids()[0]
    path = CloudPaths.of(cloud).sealed / str(session) / "emg.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"emg\.parquet"):
        run("export", session, "--format", "parquet", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_and_a_failed_export_leaves_nothing(cloud, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("!")
    with pytest.raises(OperatorError, match="not empty"):
        run("export", "--participant", "p-01", "--format", "bids", "--out", out)
    with pytest.raises(OperatorError, match="does not fit emg2pose"):
        run("export", "--participant", "p-01", "--format", "emg2pose", "--out", tmp_path / "two")
    assert not (tmp_path / "two").exists()
    with HotStore(CloudPaths.of(cloud).hot) as store:
        assert not ExportIndex(store).of()
    monkeypatch.setattr(outgoing, "_write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OperatorError, match="No space left on device") as caught:
        run("export", "--participant", "p-01", "--format", "parquet", "--out", tmp_path / "two")
    assert caught.value.reason is Reason.DISK_FULL
    monkeypatch.undo()
    monkeypatch.setenv("EMBRIDGE_CLOUD__STATE_DIR", str(tmp_path / "cloud"))
    assert not any((tmp_path / "two").iterdir())
    (tmp_path / "two" / ".part").mkdir()
    run("export", "--participant", "p-01", "--format", "parquet", "--out", tmp_path / "two")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "bids"],
        ["e3b0", "--format", "bids"],
        ["00000000-0000-0000-0000-000000000009", "--format", "bids"],
        ["--participant", "nobody", "--format", "bids"],
        ["../../etc", "--format", "bids"],
    ],
)
def test_what_means_no_session_is_refused(cloud, tmp_path, arguments):
    with pytest.raises((OperatorError, DataError)):
        run("export", *arguments, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_verify_names_every_fault(cloud):
    sealed = CloudPaths.of(cloud).sealed
    one, two, three = Catalogue(sealed).ids()
    data = bytearray((sealed / str(one) / "pose.parquet").read_bytes())
    data[40] ^= 1
    (sealed / str(one) / "pose.parquet").write_bytes(data)
    (sealed / str(two) / "session.json").unlink()
    result = CliRunner().invoke(app, ["verify", "--all", "--json"])
    assert isinstance(result.exception, DataError)
    assert result.exception.exit_code == 1
    rows = {r["session"]: r for r in json.loads(result.stdout)}
    changed = {"kind": "changed_file", "where": "pose.parquet", "what": "is not the file that was sealed"}
    assert changed in rows[str(one)]["faults"]
    assert rows[str(two)]["faults"] == [{"kind": "missing_file", "where": "session.json", "what": "is missing"}]
    assert rows[str(three)]["ok"]
    people = CliRunner().invoke(app, ["verify", str(one)]).stdout
    assert "changed_file" in people
    run("verify", three)


def test_verify_compares_with_the_stores_record(cloud):
    sealed = CloudPaths.of(cloud).sealed
    one, two, _ = Catalogue(sealed).ids()
    shutil.rmtree(sealed / str(one))
    with HotStore(CloudPaths.of(cloud).hot) as store, store.transaction() as connection:
        connection.execute("UPDATE sealed_sessions SET content_hash = 'x' WHERE session = ?", [two])
    rows = {r["session"]: r["faults"] for r in json.loads(CliRunner().invoke(app, ["verify", "--json"]).stdout)}
    assert [f["kind"] for f in rows[str(one)]] == ["missing_file"]
    assert [f["kind"] for f in rows[str(two)]] == ["record"]
    assert len(rows) == 3
    alone = CliRunner().invoke(app, ["verify", "--dir", str(sealed), "--json"])
    assert [r["ok"] for r in json.loads(alone.stdout)] == [True, True]


def test_sessions_of_another_folder_are_on_nobodys_record(cloud, tmp_path):
    copy = shutil.copytree(CloudPaths.of(cloud).sealed, tmp_path / "copy")
    run("export", "--participant", "p-01", "--format", "parquet", "--out", tmp_path / "out", "--dir", copy)
    with HotStore(CloudPaths.of(cloud).hot) as store:
        assert not ExportIndex(store).of()
