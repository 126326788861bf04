"""The benchmark on real recordings, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = "import sys; sys.argv[0] = 'embridge'; from embridge_shared.cli import main; main()"


def benchmark(data_dir: Path, out: Path, *arguments: str, timeout_s: float = 900) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "learn", "benchmark", "--data", f"ninapro:{data_dir / 'ninapro_db1'}",
         "--out", str(out), "--json", *arguments],
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def value(found: dict[str, Any], method: str, protocol: str, regime: str = "new-wearer") -> float:
    (row,) = [
        r
        for r in found["rows"]
        if (r["method"], r["protocol"], r["regime"], r["share"]) == (method, protocol, regime, 1.0)
    ]
    return row["balanced_accuracy"]


@pytest.mark.real_data
@pytest.mark.timeout(300)
def test_heads_on_chosen_participants_and_gestures(data_dir, tmp_path):
    asked = ("--methods", "regression", "--test-participants", "3,7", "--unseen", "1,6,8,10", "--jobs", "1")
    found = benchmark(data_dir, tmp_path, *asked)
    rows = {(r["regime"], r["protocol"]): r for r in found["rows"]}
    new = rows["new-wearer", "zs-unseen"]
    assert set(new["per_participant"]) == {"db1-s3", "db1-s7"}
    assert new["unseen_sets"] == [["index_flexion", "ring_extension", "pinky_extension", "thumb_abduction"]]
    assert new["seeds"] == [0]
    assert new["chance"] == 0.25
    assert rows["new-wearer", "zs-seen"]["balanced_accuracy"] > 0.3
    assert rows["calibrated-wearer", "zs-seen"]["balanced_accuracy"] > 0.5
    assert all(c["passed"] for c in found["controls"] if c["expected"] == "raises")
    assert len(found["scan"][0]["values"]) == 495
    assert 0.34 < found["scan"][0]["mean"] < 0.45
    began = time.monotonic()
    assert benchmark(data_dir, tmp_path, *asked)["rows"] == found["rows"]
    assert time.monotonic() - began < 120
    assert (tmp_path / "results.json").is_file()


@pytest.mark.real_data
@pytest.mark.learning
@pytest.mark.timeout(1800)
def test_the_quick_suite(data_dir, tmp_path):
    # development folds: reported ones are looked at by the full suite alone
    found = benchmark(data_dir, tmp_path, "--suite", "quick", "--folds", "P,Q,R", timeout_s=1500)
    assert not found["failures"]
    assert {"embridge", "cpep", "regression", "closed", "supervised", "shuffled-pairs"} <= {
        r["method"] for r in found["rows"]
    }
    assert value(found, "regression", "zs-seen") > 0.36
    assert value(found, "closed", "zs-seen") > 0.42
    assert value(found, "embridge", "zs-seen") > 0.34
    assert value(found, "supervised", "supervised") > 0.38
    assert value(found, "closed", "zs-seen", "calibrated-wearer") > 0.6
    assert value(found, "posture-ceiling", "zs-unseen") > 0.8
    for method in ("shuffled-pairs", "shuffled-regression", "shuffled-closed"):
        assert abs(value(found, method, "zs-seen") - 0.125) < 0.06
    assert found["choice"]["method"] in {"closed", "regression", "embridge", "cpep"}
