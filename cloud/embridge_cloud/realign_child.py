"""The training child: `python -m embridge_cloud.realign_child STORE FOLDER`.

Reads what FOLDER says it is to make, of which sessions and beside which champion, writes the candidate there, judges
it, and says how far it is as JSON lines on standard output. Killed at any moment and started again it goes on from its
latest checkpoint; a candidate that is whole is judged only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from embridge_cloud.frozen import read_frozen
from embridge_cloud.jobs.model import CONFIG, TASK, ProgressLine, Task
from embridge_cloud.offspring import die_with
from embridge_cloud.recipe import SUMMARY, Recipe
from embridge_shared import logs
from embridge_shared.clock import SystemClock
from embridge_shared.errors import EmbridgeError, ExitCode

Tell = Callable[[ProgressLine], None]


def main(store: str, folder: str) -> int:
    """Run one realignment; the exit code."""
    logs.configure("INFO")
    try:
        task = msgspec.json.decode((Path(folder) / TASK).read_bytes(), type=Task)
        os.nice(task.nice)  # capture and ingest go first
        work(Path(store), Path(folder), task, _say)
    except EmbridgeError as error:
        sys.stderr.write(f"embridge: error: {error}\n")
        return error.exit_code
    return ExitCode.OK


def work(store: Path, folder: Path, task: Task, tell: Tell) -> None:
    """Make the candidate where there is none yet, and judge it.

    Raises:
        EmbridgeError: It cannot be made or judged; as `realign` and `judge`.
    """
    from embridge_cloud.gates.verdict import judge
    from embridge_cloud.learn.optim import Progress
    from embridge_cloud.realign import realign
    from embridge_cloud.training import Desk

    def progress(p: Progress) -> None:
        tell(ProgressLine(stage=p.stage, step=p.step, total=p.total, loss=p.loss))

    if not (folder / SUMMARY).is_file():
        recipe = msgspec.json.decode((folder / CONFIG).read_bytes(), type=Recipe)
        desk = Desk(
            frozen=read_frozen(folder),
            trusted=task.trusted,
            champion=Path(task.model) if task.model else None,
            every=task.every,
        )
        realign(store, recipe, folder, SystemClock(), progress, desk=desk)
    progress(Progress("gates", 0, 1, 0.0))
    champion = Path(task.champion) if task.champion else None
    judge(folder, store, champion=champion, policy=task.policy, clock=SystemClock())
    progress(Progress("gates", 1, 1, 0.0))


def _say(line: ProgressLine) -> None:
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # A cloud process that is killed must not leave a training behind that the next one knows nothing of.
    die_with(os.getppid())
    sys.exit(main(*sys.argv[1:3]))
