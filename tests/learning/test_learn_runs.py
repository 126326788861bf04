from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).parents[1]


def child(folder: Path, *launcher: str) -> subprocess.Popen[str]:
    """A training process, or several under a launcher."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "support.learn_child", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(child(folder))
    return folder


def test_a_killed_run_goes_on_with_the_same_result(whole, tmp_path):
    stops = ["emg_mae 3", "pose_mae 5", "align 3"]
    for stop in stops:
        process = child(tmp_path)
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line.strip())
            if line.strip() == stop:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
        assert process.returncode == -signal.SIGKILL, seen
        assert not (tmp_path / "history.json").exists()
    finish(child(tmp_path))
    a, b = (load_file(f / "weights.safetensors") for f in (whole, tmp_path))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert (whole / "history.json").read_text() == (tmp_path / "history.json").read_text()


def test_two_processes_learn_what_one_does(whole, tmp_path):
    finish(child(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))
    one, two = (json.loads((f / "history.json").read_text()) for f in (whole, tmp_path))
    assert one.keys() == two.keys()
    assert {"emg_mae", "pose_mae", "align", "nce", "cascle", "mprl"} <= one.keys()
    for name, curve in one.items():
        np.testing.assert_allclose(two[name], curve, rtol=1e-4, atol=1e-4, err_msg=name)
    a, b = (load_file(f / "weights.safetensors") for f in (whole, tmp_path))
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-3, atol=1e-3, msg=name)
