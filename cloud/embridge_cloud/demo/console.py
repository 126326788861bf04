"""What a person sees of the demonstration: progress on stderr, the result as a table on stdout."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

import rich.console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

_ROWS = (
    ("EMG in training", "seen"),
    ("EMG never recorded", "unseen"),
    ("all gestures", "all"),
    ("control, broken pairs", "shuffled_pairs"),
)


class Console:
    """Live bars on a terminal; one line a stage elsewhere."""

    def __init__(self) -> None:
        self._err = rich.console.Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.fields[stage]:8}"),
            BarColumn(28),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._err,
            disable=not self._err.is_terminal,
        )
        self._task: TaskID | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Console:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._complete()
        self._bars.stop()

    def stage(self, name: str, text: str) -> None:
        """A stage begins; the one before is done."""
        self._complete()
        self._task = self._bars.add_task(text, stage=name, total=None)
        if not self._err.is_terminal:
            self._err.print(f"{time.monotonic() - self._began:5.0f} s  {name}: {text}", markup=False, soft_wrap=True)

    def progress(self, done: float, total: float, text: str) -> None:
        """How far the stage is."""
        if self._task is not None:
            # A full bar counts as finished for good, and a stage has several parts.
            self._bars.update(self._task, completed=min(done, 0.999 * total), total=total, description=text)

    def _complete(self) -> None:
        if self._task is not None:
            task = next(t for t in self._bars.tasks if t.id == self._task)
            total = task.total or 1
            self._bars.update(self._task, completed=total, total=total)

    def table(self, report: dict[str, Any], out: Path) -> None:
        """Print the result."""
        table = Table(title=f"Decoded live on the edge, balanced accuracy ({report['world']})", title_justify="left")
        table.add_column("new wearers", no_wrap=True)
        for name in ("accuracy", "chance", "95 %", "by repetition"):
            table.add_column(name, justify="right", no_wrap=True)
        for text, key in _ROWS:
            row = report["zero_shot"][key]
            interval = "{:.2f}–{:.2f}".format(*row["ci95"]) if "ci95" in row else ""
            trials = f"{row['trial_balanced_accuracy']:.2f}" if "trial_balanced_accuracy" in row else ""
            table.add_row(text, f"{row['balanced_accuracy']:.3f}", f"{row['chance']:.3f}", interval, trials)
        console = rich.console.Console()
        chunks, decode, release = report["chunks"], report["decode"], report["release"]
        console.print(table)
        console.print(
            f"{chunks['sent']} chunks sent, {chunks['stored']} stored, {chunks['lost']} lost, "
            f"{chunks['duplicated']} stored twice; {chunks['samples_stored']:,} samples."
        )
        console.print(
            f"Decode latency {decode['latency_ms']['p50']:.2f} ms median, {decode['latency_ms']['p99']:.2f} ms p99, "
            f"every {decode['hop_ms']:.0f} ms. Release {release['name']} {release['registry'][:12]} on "
            f"{len(release['edges'])} edges."
        )
        console.print(f"Head: {release['head']}. {release['head_reason']}")
        console.print(f"{report['wall_s']:.0f} s in all. Report: {out / 'index.html'}", soft_wrap=True)
