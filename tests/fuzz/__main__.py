"""Fuzz everything that takes bytes from elsewhere: `python -m tests.fuzz [--inputs N] [--only NAME …]`.

Each target runs in a process of its own, guided by coverage (atheris). The exit status is 1 when one raised what it
does not document, hung, or kept memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The targets use what the tests use.
sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fuzzing import TARGETS

TESTS = Path(__file__).parents[1]
GROWTH_BYTES = 64 << 20  # Python and libFuzzer's corpus grow a little


def run(name: str, inputs: int, folder: Path) -> tuple[str, bool]:
    """Fuzz one target; a line about it, and whether it held."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.child", name, str(inputs), str(folder / name)],
        env={**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    took_s = time.monotonic() - began
    told = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not told:
        return f"{name:<13} FAILED, input in {folder / name}\n{done.stderr[-4000:]}", False
    state = json.loads(told[-1])
    grown = state["end"] - state["warm"]
    held = grown <= GROWTH_BYTES
    line = f"{name:<13} {state['runs'] + 1:>8} inputs {took_s:6.1f} s  memory {grown / 2**20:+6.1f} MiB"
    return line + ("" if held else "  GROWS"), held


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="for each target")
    parser.add_argument("--only", nargs="*", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--keep", type=Path, help="folder of the inputs found; by default a temporary one")
    chosen = parser.parse_args()
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="embridge-fuzz-"))
    held = True
    for name in chosen.only:
        line, good = run(name, chosen.inputs, folder)
        print(line, flush=True)
        held &= good
    print(f"{len(chosen.only) * chosen.inputs} inputs; what they found is in {folder}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
