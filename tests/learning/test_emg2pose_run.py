"""The documented way to the published comparison on emg2pose, on a small folder of the same schema."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embridge_cloud.data_cli import app as data
from embridge_cloud.datasets.emg2pose_files import FAITHFUL_UNSEEN
from embridge_cloud.learn_cli import app as learn
from embridge_cloud.runs.spec import parse_spec
from embridge_shared.errors import LeakageError
from support.public_sets import write_emg2pose

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
SMALL = """
[split]
validation = ["val0"]
[learn.encoder]
width = 16
depth = 2
heads = 2
[learn.emg_mae]
steps = 2
batch = 16
[learn.pose_mae]
steps = 2
batch = 16
[learn.align]
steps = 2
batch = 16
min_participants = 2
"""


def run(app, *arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def documented() -> str:
    """The page's configuration."""
    return re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


def test_the_documented_configuration_takes_the_signal_as_published():
    spec = parse_spec(documented())
    assert tomllib.loads(documented())["preset"] == spec.preset == "faithful"
    assert (spec.cut.length, spec.cut.pose_length, spec.cut.emg_scale) == (4000, 200, None)
    assert (spec.cut.highpass_hz, spec.cut.lowpass_hz, spec.cut.notch_hz) == (None, None, ())
    assert spec.learn == parse_spec('preset = "faithful"').learn


def test_from_files_to_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    users = ("train0", "train1", "train2", "train3", "val0", "test0", "test1")
    write_emg2pose(tmp_path / "set", users=users, sides=("left",), seconds=4.5, failures=((2.1, 2.2),))
    Path("run.toml").write_text(documented() + SMALL)
    name = "emg2pose-faithful:set"
    assert json.loads(run(data, "check", name, "--json"))["usable"]
    tested = run(data, "splits", name, "--participants", "test/user_stage").strip()
    unseen = run(data, "splits", name, "--unseen", "faithful").strip()
    assert (tested, unseen) == ("test0,test1", ",".join(FAITHFUL_UNSEEN))
    common = ("--config", "run.toml", "--unseen", unseen)
    run(learn, "cut", *common, "--data", name, "--out", "windows")
    stored = (*common, "--data", "windows:windows", "--test-participants", tested)
    run(learn, "pretrain", *stored, "--out", "pre")
    run(learn, "align", *stored, "--pretrained", "pre", "--seed", 1, "--out", "align-1")
    rows = {r["protocol"]: r for r in json.loads(run(learn, "evaluate", "align-1", "--json"))["rows"]}
    for protocol in ("zs-seen", "zs-unseen"):
        row = rows[protocol]
        assert (row["regime"], row["pose_regime"], row["chance"]) == ("new-wearer", "strict", 0.25)
        assert row["unseen_sets"] == [list(FAITHFUL_UNSEEN)]
        assert set(row["per_participant"]) == {"test0", "test1"}
        assert 0 <= row["balanced_accuracy"] <= 1


def test_windows_cut_for_other_unseen_stages_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_emg2pose(tmp_path / "set", users=("train0", "train1", "test0"), sides=("left",), seconds=2.5, failures=())
    Path("run.toml").write_text(documented() + SMALL.replace('validation = ["val0"]', ""))
    common = ("--config", "run.toml", "--unseen")
    run(learn, "cut", *common, ",".join(FAITHFUL_UNSEEN), "--data", "emg2pose-faithful:set", "--out", "windows")
    other = "ShakaVulcanPeace,IndividualFingerPointingSnap"
    with pytest.raises(LeakageError, match="IndividualFingerPointingSnap"):
        run(
            learn, "pretrain", *common, other, "--data", "windows:windows", "--test-participants", "test0", "--out", "p"
        )
