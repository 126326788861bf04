"""What drawing costs in a real terminal: the scope beside ready widgets, with a band streaming in the same process.

Each is a Textual application of its own in a tmux pane of 160 x 50, asked for 30 frames a second of 16 channels at
2 kHz. Processor time is net of the same application that draws nothing.

    pip install --group bench-tui
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.framework import Row, compared, row

GROUP = "tui"
SECONDS, REPEATS = 6.0, 3
_COLUMNS, _LINES = 160, 50
_PATIENCE_S = 40.0
_TESTS = Path(__file__).parents[2]
LIMITS = {"ms": 6.0, "fps": 25.0, "lag": 20.0}


def in_pane(what: str, folder: Path) -> dict[str, float]:
    """Run the child in a pane; what it measured."""
    out, socket = folder / f"{what}-{time.monotonic_ns()}.json", f"embridge-bench-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "benchmarks.tui_child", what, str(SECONDS), str(out)]
    size = ["-x", str(_COLUMNS), "-y", str(_LINES)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "OMP_NUM_THREADS": "1"}
    tmux = ["tmux", "-L", socket, "-f", os.devnull]
    subprocess.run([*tmux, "new-session", "-d", *size, shlex.join(command)], check=True, cwd=_TESTS, env=environment)
    try:
        until = time.monotonic() + _PATIENCE_S
        while not out.exists():
            if time.monotonic() > until:
                raise TimeoutError(f"{what} measured nothing in {_PATIENCE_S:g} s")
            time.sleep(0.2)
        found: dict[str, float] = json.loads(out.read_text())
        return found
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)


def rows() -> list[Row]:
    """Let them take turns."""
    names = ["idle", "scope", *(["plotext"] if find_spec("textual_plotext") else []), "sparkline", "hand", "prompt"]
    with tempfile.TemporaryDirectory() as folder:
        turns = [{name: in_pane(name, Path(folder)) for name in names} for _ in range(REPEATS)]
    cost = {
        name: [1e3 * (t[name]["cpu"] - t["idle"]["cpu"]) / max(t[name]["fps"], 0.1) for t in turns]
        for name in names[1:]
    }
    fps = {name: [t[name]["fps"] for t in turns] for name in names[1:]}
    lag = {name: [t[name]["lag_p99_ms"] for t in turns] for name in names}
    peers = [n for n in ("plotext", "sparkline") if n in cost]
    out = [compared(GROUP, "scope: processor time a frame", "ms", cost["scope"], peer=p, theirs=cost[p]) for p in peers]
    out += [compared(GROUP, "scope: frames a second of 30", "fps", fps["scope"], peer=p, theirs=fps[p]) for p in peers]
    out += [compared(GROUP, "scope: loop lag p99", "ms", lag["scope"], peer=p, theirs=lag[p]) for p in peers]
    limits = ((cost, "processor time a frame", "ms", "ms"), (fps, "frames a second of 30", "fps", "fps"))
    limits += ((lag, "loop lag p99", "ms", "lag"),)
    out += [
        compared(GROUP, f"scope: {what}", unit, values["scope"], peer="goal", theirs=[LIMITS[key]] * REPEATS)
        for values, what, unit, key in limits
    ]
    for name in ("hand", "prompt"):
        out.append(row(GROUP, f"{name}: processor time a frame", "ms", cost[name]))
        out.append(row(GROUP, f"{name}: frames a second of 30", "fps", fps[name]))
    out.append(row(GROUP, "nothing drawn: processor time, band included", "%", [100 * t["idle"]["cpu"] for t in turns]))
    out.append(row(GROUP, "nothing drawn: loop lag p99", "ms", lag["idle"]))
    return out
