"""Wall time of the loop's stages, from a run of the demonstration."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.framework import Row, row

TIMEOUT_S = 1800


def rows() -> list[Row]:
    embridge = Path(sys.executable).with_name("embridge")
    with tempfile.TemporaryDirectory() as out:
        command = [embridge, "demo", "--json", "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise SystemExit(f"embridge demo ended with {done.returncode}:\n{done.stderr[-2000:]}")
    report = json.loads(done.stdout)
    stages = {name.removesuffix("_s"): took_s for name, took_s in report["stages"].items()}
    return [row("loop", name, "s", [took_s]) for name, took_s in {**stages, "all": report["wall_s"]}.items()]
