from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file

from embridge_cloud.datasets.config import CutConfig
from embridge_cloud.learn.window_store import write_windows
from embridge_cloud.runs.folder import read_run
from embridge_cloud.runs.spec import RunSpec, SplitConfig, default_spec, parse_spec, read_spec, to_toml
from embridge_shared.cli import app
from embridge_shared.errors import ConfigError, EmbridgeError, LeakageError
from support.learn_runs import small
from support.learn_world import paired

RUN = "import sys; sys.argv[0] = 'embridge'; from embridge_shared.cli import main; main()"


def embridge(*words: str, code: int = 0, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `embridge`, alone or under a launcher."""
    head = [sys.executable, *launcher, "-m", "embridge_shared.cli"] if launcher else [sys.executable, "-c", RUN]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*head, *words], capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == code, done.stderr
    return done


def answer(*words: str, **more: Any) -> Any:
    return json.loads(embridge(*words, "--json", **more).stdout)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Windows on disk, and a configuration that trains on them in a second."""
    folder = tmp_path_factory.mktemp("site")
    cut = CutConfig(window_s=1.6, stride_s=0.6)
    about = {"data": "synthetic", "hidden": ["g6", "g7"], "cut": msgspec.to_builtins(cut)}
    world = paired(windows=384, people=6)
    write_windows(folder / "windows", [world], rates_hz={"emg": 100.0, "pose": 100.0}, about=about)
    spec = RunSpec(
        data=f"windows:{folder / 'windows'}",
        checkpoint_every=2,
        split=SplitConfig(unseen=("g6", "g7"), test=("4", "p5"), validation=("3",)),
        cut=cut,
        learn=small(),
    )
    (folder / "run.toml").write_text(to_toml(spec))
    return folder


@pytest.fixture(scope="module")
def model(site: Path) -> Path:
    config = str(site / "run.toml")
    answer("learn", "pretrain", "--config", config, "--out", str(site / "first"))
    found = answer(
        "learn", "align", "--config", config, "--pretrained", str(site / "first"), "--out", str(site / "model")
    )
    assert found["steps"] == {"emg_mae": 6, "pose_mae": 6, "align": 6}
    assert found["test_participants"] == ["p4", "p5"]
    assert found["participants"] == ["p0", "p1", "p2"]
    return site / "model"


def test_a_run_leaves_everything_to_know_about_it(site, model):
    assert {p.name for p in model.iterdir()} == {
        "config.toml", "environment.json", "metrics.jsonl", "model.json", "model.safetensors", "result.json",
        "checkpoints",
    }  # fmt: skip
    told = msgspec.structs.replace(read_spec(site / "run.toml"), pretrained=str(site / "first"))
    assert read_run(model) == told
    environment = json.loads((model / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert (environment["device"], environment["threads"], environment["processes"]) == ("cpu", 1, 1)
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lines if "nce" in row] == [1, 2, 3, 4, 5, 6]
    lineage = json.loads((model / "model.json").read_text())["lineage"]
    assert lineage["participants"] == ["p0", "p1", "p2"]


def test_a_model_is_evaluated_on_strangers(site, model):
    rows = answer("learn", "evaluate", str(model))["rows"]
    by_protocol = {row["protocol"]: row for row in rows}
    assert {"zs-seen", "zs-unseen", "gzs-seen", "gzs-unseen", "gzs-harmonic"} <= by_protocol.keys()
    assert by_protocol["zs-unseen"]["chance"] == 0.5
    assert set(by_protocol["zs-seen"]["per_participant"]) == {"p4", "p5"}
    assert by_protocol["zs-seen"]["unseen_sets"] == [["g6", "g7"]]
    with pytest.raises(LeakageError, match="p0"):
        app(["learn", "evaluate", str(model), "--test-participants", "0"], standalone_mode=False)


def test_the_same_run_without_a_first_stage_of_its_own_is_the_same(site, model, tmp_path):
    answer("learn", "align", "--config", str(site / "run.toml"), "--out", str(tmp_path / "whole"))
    a, b = (load_file(f / "model.safetensors") for f in (model, tmp_path / "whole"))
    assert all(bool((a[k] == b[k]).all()) for k in a)


def test_mistakes_are_told_in_one_line(site, model, tmp_path):
    config, out = str(site / "run.toml"), str(tmp_path / "out")
    for words, part, code in (
        (["align", "--config", config, "--out", str(model)], "--resume", 2),
        (["align", "--out", str(model), "--resume", "--seed", "7"], "seed = 7", 2),
        (["align", "--out", out], "--data", 2),
        (["align", "--out", out, "--data", "windows:nowhere"], "embridge learn cut", 1),
        (["align", "--config", config, "--out", out, "--unseen", "g1,g2"], "was scaled with EMG of g1, g2", 5),
        (["align", "--config", config, "--out", out, "--test-participants", "77"], "there is no participant '77'", 2),
        (["align", "--config", config, "--out", out, "--test-participants", "3"], "both watch", 2),
        (["align", "--config", config, "--out", out, "--pretrained", str(tmp_path)], "no model in", 5),
        (["align", "--config", str(tmp_path / "no.toml"), "--out", out], "embridge learn config", 2),
        (["evaluate", str(tmp_path)], "holds no run", 2),
    ):
        with pytest.raises(EmbridgeError) as told:
            app(["learn", *words], standalone_mode=False)
        assert told.value.exit_code == code, words
        assert part in str(told.value), words
        assert not (tmp_path / "out").exists()
    assert answer("learn", "align", "--out", str(model), "--resume")["steps"]["align"] == 6


@pytest.mark.learning
def test_processes_of_a_launcher_share_a_run(site, model, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    words = ("learn", "align", "--config", str(site / "run.toml"), "--out", str(tmp_path / "two"))
    embridge(*words, launcher=launcher)
    one, two = (json.loads((f / "result.json").read_text()) for f in (model, tmp_path / "two"))
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2
    assert two["last"]["align"] == pytest.approx(one["last"]["align"], abs=1e-4)


def test_configurations_are_read_back_as_they_were_written():
    for name in ("quick", "product", "faithful"):
        spec = default_spec(name)
        assert parse_spec(to_toml(spec)) == spec
    printed = embridge("learn", "config", "--preset", "faithful").stdout
    assert parse_spec(printed) == default_spec("faithful")
    assert "# Steps between validations" in printed
    changed = parse_spec('preset = "quick"\n[learn.align]\nsteps = 7\n[cut]\nhighpass_hz = "none"')
    assert changed.learn.align.steps == 7
    assert changed.learn.align.batch == default_spec("quick").learn.align.batch
    assert changed.cut.highpass_hz is None
    for text, part in (
        ("sed = 1", "sed"),
        ("seed = 'x'", "seed"),
        ("[learn.align]\nstep = 7", "step"),
        ("=", "line 1"),
    ):
        with pytest.raises(ConfigError, match=part):
            parse_spec(text)


def test_importing_the_commands_imports_no_torch():
    code = "import sys, embridge_cloud.learn_cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
