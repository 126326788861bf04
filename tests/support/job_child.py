"""A child of a job that learns nothing: it does, attempt by attempt, what `script.json` beside its job says.

Each attempt is a list of words: "step N" goes on to step N of 10 from the last checkpoint, "die" is killed, "fail" ends
with an error, "sleep" says so and stays until it is ended, "stay" stays, "grow" takes memory,
"accept" and "refuse" leave a candidate.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

SUMMARY = {
    "release": "line-1", "digest": "d" * 64, "bundle": "line-1.embridge", "snapshot": "s" * 64, "sessions": ["a", "b"],
    "participants": ["p"], "windows": 5, "head": "closed", "head_reason": "", "metrics": {}, "history": {},
}  # fmt: skip


def say(stage: str, step: int, total: int) -> None:
    print(json.dumps({"stage": stage, "step": step, "total": total, "loss": 0.5}), flush=True)


def main(folder: Path) -> int:
    attempts = folder / "attempts.json"
    done = json.loads(attempts.read_text()) if attempts.exists() else []
    words = json.loads((folder.parent / "script.json").read_text())[len(done)]
    checkpoint = folder / "checkpoint"
    begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
    attempts.write_text(json.dumps([*done, {"from": begin, "threads": os.environ.get("OMP_NUM_THREADS")}]))
    print(f"attempt {len(done) + 1}", file=sys.stderr, flush=True)
    for word in words:
        name, _, number = word.partition(" ")
        if name == "step":
            for step in range(begin + 1, int(number) + 1):
                checkpoint.write_text(str(step))
                say("align", step, 10)
            begin = int(number)
        elif name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif name == "fail":
            print("embridge: error: training diverged", file=sys.stderr, flush=True)
            return 5
        elif name in ("sleep", "stay"):
            if name == "sleep":
                say("sleeping", 0, 1)
            time.sleep(60)
        elif name == "grow":
            say("growing", 0, 1)
            held = bytearray(b"x" * (200 << 20))
            time.sleep(60)
            del held
        else:
            report = {"candidate": "line-1", "accepted": name == "accept", "reason": f"It was {name.rstrip('e')}ed."}
            (folder / "summary.json").write_text(json.dumps(SUMMARY))
            (folder / "gate.json").write_text(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[2])))
