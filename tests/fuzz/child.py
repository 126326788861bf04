"""Fuzzes one target with atheris: `python -m fuzz.child NAME RUNS CORPUS`. The last line of stdout tells the memory.

A crash ends the process with the input in the corpus folder and a traceback on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["embridge_shared", "embridge_edge", "embridge_cloud.parcels"]):
    from support.fuzzing import TARGETS

_PAGE = os.sysconf("SC_PAGE_SIZE")
_WARM = 0.2  # share of the inputs after which memory is looked at first


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def main(name: str, runs: int, corpus: str) -> None:
    target = TARGETS[name]
    state = {"runs": 0, "warm": 0}

    def one(data: bytes) -> None:
        target(data)
        state["runs"] += 1
        if state["runs"] == round(runs * _WARM):
            state["warm"] = resident_bytes()
        # The corpus is run before the counted inputs; libFuzzer ends the process itself.
        if state["runs"] == runs - 1:
            print(json.dumps(state | {"end": resident_bytes()}), flush=True)

    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(target.seeds):
        (folder / f"seed-{i}").write_bytes(seed)
    arguments = [f"-runs={runs}", "-max_len=8192", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=0",
                 "-verbosity=0", f"-artifact_prefix={folder}/crash-", "-seed=1"]  # fmt: skip
    atheris.Setup([sys.argv[0], *arguments, str(folder)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
