"""The training child: `python -m embridge_cloud.realign_child STORE FOLDER`.

Reads FOLDER/config.json, writes the candidate beside it, and says how far it is as JSON lines on standard output.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from embridge_cloud.jobs import ProgressLine
from embridge_cloud.learn.optim import Progress
from embridge_cloud.offspring import die_with
from embridge_cloud.realign import realign
from embridge_cloud.recipe import Recipe
from embridge_shared import logs
from embridge_shared.clock import SystemClock
from embridge_shared.errors import EmbridgeError, ExitCode


def main(store: str, folder: str) -> int:
    """Run one realignment; the exit code."""
    logs.configure("WARNING")
    os.nice(5)  # capture and ingest go first

    def tell(p: Progress) -> None:
        line = ProgressLine(stage=p.stage, step=p.step, total=p.total, loss=p.loss)
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()

    try:
        config = msgspec.json.decode((Path(folder) / "config.json").read_bytes(), type=Recipe)
        realign(Path(store), config, Path(folder), SystemClock(), tell)
    except EmbridgeError as error:
        sys.stderr.write(f"embridge: error: {error}\n")
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    # A cloud process that is killed must not leave a training behind that the next one knows nothing of.
    die_with(os.getppid())
    sys.exit(main(*sys.argv[1:3]))
