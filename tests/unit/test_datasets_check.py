"""`embridge data`: what a newcomer is told of a folder, and plugins that others bring."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from typer.testing import CliRunner

from embridge_cloud.data_cli import app
from embridge_cloud.datasets import registry
from embridge_cloud.datasets.base import Facts
from embridge_cloud.datasets.check import Report, Severity
from embridge_cloud.datasets.emg2pose_files import METADATA
from embridge_cloud.datasets.ninapro import NinaproPlugin
from embridge_shared.errors import ConfigError, DataError, OperatorError
from support.public_sets import write_emg2pose, write_ninapro

SMALL = {"subjects": (1, 2), "repetitions": 2, "movements": 2}


def run(*arguments, fails=False):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        if not fails:
            raise result.exception
        return result.stdout, result.exception
    assert not fails
    return result.stdout


def document(folder, *, fails=False):
    if fails:
        text, error = run("check", folder, "--json", fails=True)
        assert isinstance(error, DataError)
        assert error.exit_code == 1
        return json.loads(text)
    return json.loads(run("check", folder, "--json"))


def said(body, severity=None):
    return [f["what"] for f in body["findings"] if severity in (None, f["severity"])]


def altered(path, **changes):
    mat = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    savemat(path, {k: v for k, v in (mat | changes).items() if v is not None})


def test_a_healthy_folder(tmp_path):
    write_ninapro(tmp_path, base="db1", exercises=(1, 2, 3), **SMALL | {"repetitions": 10})
    body = document(tmp_path)
    assert body["usable"]
    assert (body["title"], body["files"], body["findings"]) == ("NinaPro DB1", 6, [])
    assert body["spec"] == f"ninapro-db1:{tmp_path}"
    assert list(body["participants"]) == ["db1-s1", "db1-s2"]
    assert body["hours"] == pytest.approx(sum(body["participants"].values()) / 3600, abs=1e-4)
    assert body["emg"] == {"rates_hz": [100.0], "channels": [10]}
    assert body["pose"] == {"kind": "glove", "rates_hz": [100.0], "channels": [22], "invalid_s": 0.0}
    assert body["gestures"]["b01_thumb_up"]["repetitions"] == 20
    assert 2 < body["gestures"]["b01_thumb_up"]["seconds"] / 20 < 3
    assert "Atzori" in body["citation"]
    assert "registration" in body["licence"]
    text = run("check", tmp_path)
    for word in ("NinaPro DB1", "Atzori", "db1-s2", "index_flexion", "benchmark --data ninapro-db1:"):
        assert word in text
    assert registry.open_dataset(body["spec"]).participants() == ("db1-s1", "db1-s2")


def test_every_fault_of_a_ninapro_folder_is_named_with_its_remedy(tmp_path):
    paths = write_ninapro(tmp_path, exercises=(1, 2), **SMALL | {"subjects": (1, 2, 3, 4)})
    emg = loadmat(paths[0])["emg"]
    emg[:, 4] = 1.5
    altered(paths[0], emg=emg)
    glove = loadmat(paths[1])["glove"]
    glove[:7, 3] = np.nan
    altered(paths[1], glove=glove, subject=np.uint8([[9]]))
    altered(paths[2], glove=loadmat(paths[2])["glove"][:-50])
    altered(paths[3], glove=None)
    paths[4].rename(tmp_path / "first try.mat")
    paths[7].write_bytes(paths[7].read_bytes()[:4000])
    body = document(f"ninapro-db1:{tmp_path}", fails=True)
    assert not body["usable"]
    warned, errors = "\n".join(said(body, "warning")), "\n".join(said(body, "error"))
    for word in ("channels 4 are constant", "not numbers", "participant 9", "no pose", "left out", "E1_A1 missing"):
        assert word in warned
    assert "arrays differ in length" in "\n".join(said(body, "note"))
    assert "damaged" in errors
    assert all(f["hint"] for f in body["findings"] if f["severity"] != "note")
    assert {f["where"] for f in body["findings"]} >= {paths[0].stem, paths[7].name, "first try.mat", "S3"}
    text, error = run("check", f"ninapro-db1:{tmp_path}", fails=True)
    assert "damaged" in text
    assert "cannot be learnt from" in str(error)
    assert "benchmark" not in text


def test_a_folder_of_which_the_base_cannot_be_told(tmp_path):
    write_ninapro(tmp_path, base="db2", extra=False, **SMALL | {"repetitions": 1})
    body = document(tmp_path, fails=True)
    assert "db2 or db7" in said(body, "error")[0]
    assert document(f"ninapro-db7:{tmp_path}")["usable"]


def test_too_few_repetitions_and_other_numbers_of_electrodes(tmp_path):
    write_ninapro(tmp_path, **SMALL | {"subjects": (1,)})
    body = document(tmp_path)
    assert any("has 2 repetitions, not 10" in s for s in said(body, "note"))
    assert any("exercise 1 only" in s for s in said(body, "note"))
    (path,) = write_ninapro(tmp_path, **SMALL | {"subjects": (2,)})
    altered(path, emg=loadmat(path)["emg"][:, :7])
    assert any("7 electrodes" in s for s in said(document(f"ninapro-db1:{tmp_path}", fails=True), "error"))


def test_an_emg2pose_folder(tmp_path):
    write_emg2pose(tmp_path, users=("train0", "test0"), sides=("left",), seconds=3.0)
    body = document(tmp_path)
    assert (body["usable"], body["title"], body["files"], body["findings"]) == (True, "emg2pose", 16, [])
    assert body["pose"]["invalid_s"] == pytest.approx(16 * 0.2)
    assert body["details"]["splits"] == "test/stage 4, test/user 4, test/user_stage 4, train 4"
    assert "faithful (4 seen, 4 unseen)" in body["details"]["tasks"]
    assert "ShakaVulcanPeace" in body["details"]["held-out stages"]
    assert body["gestures"]["ShakaVulcanPeace"]["repetitions"] == 2


def test_faults_of_an_emg2pose_folder(tmp_path):
    paths = write_emg2pose(tmp_path, users=("train0",), sides=("left",), seconds=3.0)
    paths[0].write_bytes(b"nothing")
    paths[1].rename(paths[1].with_name("stranger.hdf5"))
    body = document(tmp_path, fails=True)
    assert "damaged" in said(body, "error")[0]
    assert any("1 files are not in metadata.csv: stranger.hdf5" in s for s in said(body, "warning"))
    assert any("1 of the 8 files in metadata.csv are not here" in s for s in said(body, "note"))
    paths[0].unlink()
    (tmp_path / METADATA).unlink()
    body = document(tmp_path)
    assert any("there is no metadata.csv" in s for s in said(body, "warning"))
    assert body["details"]["splits"] == "none 7"


def test_poses_that_never_were(tmp_path):
    write_emg2pose(tmp_path, users=("train0",), sides=("left",), seconds=2.0, failures=((0, 2.0),))
    assert any("failed throughout" in s for s in said(document(tmp_path), "warning"))


def test_folders_and_names_that_are_not(tmp_path):
    for arguments, error, says in (
        ([tmp_path / "nowhere"], OperatorError, "no folder"),
        ([f"ninapro:{tmp_path / 'nowhere'}"], OperatorError, "no folder"),
        ([tmp_path], DataError, "no data set that is known"),
        ([f"ninapo:{tmp_path}"], OperatorError, "no data set is called 'ninapo'"),
        (["ninapro:"], OperatorError, "no folder"),
    ):
        _, raised = run("check", *arguments, fails=True)
        assert isinstance(raised, error)
        assert says in raised.message
        assert raised.hint
    body = document(f"ninapro:{tmp_path}", fails=True)
    assert "no .mat file" in said(body)[0]


def test_a_folder_of_two_kinds_must_be_named(tmp_path):
    write_ninapro(tmp_path, **SMALL)
    write_emg2pose(tmp_path, users=("train0",), sides=("left",), seconds=2.0)
    with pytest.raises(DataError, match="emg2pose and ninapro"):
        registry.locate(str(tmp_path))
    assert registry.open_dataset(f"ninapro:{tmp_path}").participants() == ("db1-s1", "db1-s2")


def test_list_names_every_kind_and_variant():
    rows = {r["name"]: r for r in json.loads(run("list", "--json"))}
    assert {"ninapro", "emg2pose", "store"} <= set(rows)
    assert "ninapro-db7:PATH" in rows["ninapro"]["variants"]
    text = run("list")
    assert "ninapro-db8:PATH" in text
    assert "emg2pose:PATH" in text


def test_splits_and_tasks_without_reading_a_sample(tmp_path):
    for path in write_emg2pose(tmp_path, users=("train0", "test1", "test0"), sides=("left",), seconds=0.5):
        path.write_bytes(b"")
    body = json.loads(run("splits", f"emg2pose:{tmp_path}", "--json"))
    parts = {s["name"]: s for s in body["splits"]}
    assert parts["train"]["participants"] == ["train0"]
    assert len(parts["test/user"]["sessions"]) == 8
    assert [t["name"] for t in body["tasks"]] == ["faithful", "all"]
    assert run("splits", tmp_path, "--participants", "test/user_stage") == "test0,test1\n"
    assert run("splits", tmp_path, "--unseen", "faithful").startswith("ShakaVulcanPeace,HookEm")
    text = run("splits", tmp_path)
    assert "2 participants, 8 sessions" in text
    assert "task faithful" in text
    for option, name in (("--participants", "nobody"), ("--unseen", "nothing")):
        _, error = run("splits", tmp_path, option, name, fails=True)
        assert isinstance(error, OperatorError)
        assert "It has" in error.hint
    write_ninapro(tmp_path / "n", **SMALL)
    assert "repetitions 2, 5, 10" in run("splits", tmp_path / "n")
    with pytest.raises(OperatorError, match="names any"):
        raise run("splits", tmp_path / "n", "--participants", "train", fails=True)[1]


def test_findings_that_say_the_same_are_told_once():
    report = Report()
    for i in range(5):
        report.note(f"f{i}", "odd", "shrug")
    report.error("g", "bad", "mend")
    assert report.gathered() == [
        (Severity.ERROR, "g", "bad", "mend"),
        (Severity.NOTE, "f0, f1, f2 and 2 more", "odd", "shrug"),
    ]


class Lab:
    """A plugin of a third party."""

    name = "lab"
    title = "Recordings of a lab"
    variants = ("pilot",)

    def recognises(self, folder):
        return (folder / "lab.txt").exists()

    def open(self, folder, variant=""):
        made = NinaproPlugin().open(folder, "db1")
        made.name = f"lab-{variant}"
        return made

    def check(self, folder, variant="", progress=None):
        progress(0, 1, "lab.txt")
        report = Report(spec=f"lab:{folder}", facts=Facts("Lab", "ours", "", "", 1.0, 1, "raw", None, 0.5))
        report.seconds["p"] = 1.0
        return report


@pytest.fixture
def third_party(monkeypatch):
    def install(value):
        ours = registry.entry_points(group=registry.GROUP)
        theirs = EntryPoint("lab", value, registry.GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [*ours, theirs])
        registry.plugin.cache_clear()

    yield install
    registry.plugin.cache_clear()


def test_a_third_party_brings_a_data_set(tmp_path, third_party):
    third_party(f"{Lab.__module__}:Lab")
    write_ninapro(tmp_path, **SMALL)
    (tmp_path / "lab.txt").touch()
    assert registry.open_dataset(f"lab-pilot:{tmp_path}").name == "lab-pilot"
    assert document(f"lab:{tmp_path}")["usable"]
    assert "lab-pilot:PATH" in run("list")
    with pytest.raises(DataError, match="lab and ninapro"):
        registry.locate(str(tmp_path))


@pytest.mark.parametrize("value", ["nothing_of_the_kind:Lab", "embridge_cloud.datasets:Nothing", "os:sep"])
def test_a_plugin_that_does_not_load_is_named(third_party, value):
    third_party(value)
    with pytest.raises(ConfigError, match="plugin 'lab'"):
        registry.plugins()


@pytest.mark.real_data
def test_the_recordings_in_hand_have_nothing_wrong(data_dir):
    body = document(data_dir / "ninapro_db1")
    assert body["usable"]
    assert len(body["participants"]) == 18
    assert body["hours"] == pytest.approx(5.05, abs=0.01)
    assert {g["repetitions"] for g in body["gestures"].values()} == {180}
    assert said(body) == ["exercise 1 only; DB1 has 3"]
