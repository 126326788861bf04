"""`embridge learn benchmark`: every method under every protocol on one data set."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embridge_shared.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from embridge_cloud.runs.spec import RunSpec
    from embridge_cloud.study.results import Results
    from embridge_cloud.study.rows import Row
    from embridge_cloud.study.runner import Told


class Suite(StrEnum):
    """How much is run."""

    QUICK = "quick"
    FULL = "full"


def benchmark(
    data: Annotated[str, typer.Option(help='Recordings, as in "ninapro:FOLDER".')] = "",
    suite: Annotated[Suite, typer.Option(help="quick: main methods, one seed. full: all, three seeds.")] = Suite.QUICK,
    out: Annotated[Path, typer.Option(help="Folder of results; one that was begun goes on.")] = Path("build/benchmark"),
    methods: Annotated[str, typer.Option(help='Methods to run, as in "regression,embridge".')] = "",
    test_participants: Annotated[str, typer.Option(help='Held-out participants by hand, as in "3,7,11".')] = "",
    unseen: Annotated[str, typer.Option(help="Unseen gestures by hand, by name or number.")] = "",
    folds: Annotated[str, typer.Option(help='Folds of unseen gestures, as in "A,B".')] = "",
    seeds: Annotated[int, typer.Option(help="Number of seeds; 0 takes the suite's.", min=0)] = 0,
    jobs: Annotated[int, typer.Option(help="Processes at a time; 0 works in this one.", min=0)] = 2,
    preset: Annotated[str, typer.Option(help="Where the learning starts from; by default as the data ask for.")] = "",
    config: Annotated[Path | None, typer.Option(help="TOML file in place of a preset.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Compare every method on held-out people and unseen gestures, with intervals, controls and paired differences.

    A benchmark that was stopped goes on with the same command. A method that fails is reported; the others go on, and
    the exit code says so.
    """
    spec = _spec(data, preset, config)
    import msgspec

    from embridge_cloud.study.benchmark import Asked, run_benchmark

    asked = Asked(
        spec=spec,
        out=out,
        suite="full" if suite is Suite.FULL else "quick",
        methods=_words(methods),
        test_participants=_words(test_participants),
        unseen=_words(unseen),
        folds=_words(folds),
        seeds=seeds,
        jobs=jobs,
        command=shlex.join(["embridge", *sys.argv[1:]]),
    )
    with _bars(asked) as (tell, stage):
        results = run_benchmark(asked, tell=tell, stage=stage)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(results), indent=1).decode())
    else:
        _table(results, out)
    for what, where, why in results.failures:
        typer.echo(f"failed: {what} in {where}: {why}", err=True)
    if results.failures:
        raise typer.Exit(ExitCode.FAILED)


def _spec(data: str, preset: str, config: Path | None) -> RunSpec:
    import msgspec

    from embridge_cloud.learn.presets import preset as known
    from embridge_cloud.runs.spec import default_spec, read_spec

    if preset and config is not None:
        raise ConfigError("give a preset or a configuration, not both")
    name = preset or _usual(data)
    known(name)  # type: ignore[arg-type]
    spec = read_spec(config) if config is not None else default_spec(name)  # type: ignore[arg-type]
    return msgspec.structs.replace(spec, data=data or spec.data)


def _usual(data: str) -> str:
    """The preset for a data set: recorded envelopes have one of their own."""
    from embridge_cloud.datasets.base import EmgKind
    from embridge_cloud.datasets.registry import open_dataset

    return "envelope" if data and open_dataset(data).facts.emg_kind is EmgKind.ENVELOPE else "quick"


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(",") if w.strip())


@contextmanager
def _bars(asked: object) -> Iterator[tuple[Callable[[Told], None], Callable[[str], None]]]:
    """One bar for all jobs and a line for each run at work, on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield (lambda told: None), (lambda name: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from embridge_cloud.study.benchmark import Asked, plan_benchmark
    from embridge_cloud.study.runner import basis_of, pending

    assert isinstance(asked, Asked)
    study = plan_benchmark(asked).study
    left = sum(len(u.jobs) for u in pending(study, basis_of(study)))
    total = sum(len(u.jobs) for u in study.units)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        whole = bars.add_task(f"{len(study.units)} runs", total=total, completed=total - left)
        lines: dict[str, TaskID] = {}

        def tell(told: Told) -> None:
            if told.run not in lines:
                lines[told.run] = bars.add_task("", total=None)
            line = lines[told.run]
            if told.done:
                bars.advance(whole)
                bars.update(line, visible=False)
            else:
                bars.update(line, description=f"{told.run} {told.job}", visible=True,
                            completed=told.step, total=told.total or None)  # fmt: skip

        def stage(name: str) -> None:
            bars.update(whole, description=name)

        yield tell, stage


def _table(results: Results, out: Path) -> None:
    """Methods by protocols, new wearers first; then differences, the scan and the choice."""
    from rich.console import Console
    from rich.table import Table

    from embridge_cloud.study.results import RESULTS

    console = Console(width=None if sys.stdout.isatty() else 160)
    wide = console.width >= 140
    shown = ["zs-seen", "zs-unseen", "gzs-harmonic", "lp-seen", "supervised"]
    shown += ["zs-seen-trial", "zs-unseen-trial", "lp-unseen", "few-shot-1", "few-shot-5"] if wide else []
    whole = [r for r in results.rows if r.share == 1]
    for regime, pose_regime in dict.fromkeys((r.regime, r.pose_regime) for r in whole):
        rows = [r for r in whole if (r.regime, r.pose_regime) == (regime, pose_regime)]
        columns = [p for p in shown if any(r.protocol == p for r in rows)]
        table = Table(title=f"{regime}, {pose_regime} poses: balanced accuracy, 95 % interval over participants")
        table.add_column("method", overflow="fold")
        for name in columns:
            table.add_column(name, justify="right")
        for name in dict.fromkeys(r.method for r in rows):
            found = {r.protocol: r for r in rows if r.method == name}
            table.add_row(name, *(_cell(found.get(p)) for p in columns))
        console.print(table)
    for s in results.scan:
        console.print(
            f"{s.method} over all {len(s.values)} sets of unseen gestures: {s.mean:.3f}, sd {s.sd:.3f}, "
            f"5–95 % {s.quantiles['0.05']:.3f}–{s.quantiles['0.95']:.3f}, chance {s.chance:.3f}"
        )
    if results.choice is not None:
        console.print(results.choice.reason, soft_wrap=True)
    console.print(f"{out / RESULTS}; `embridge learn report {out}` makes a page of it", soft_wrap=True)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    low, high = row.ci95
    # one person alone has no interval
    return f"{row.balanced_accuracy:.3f}" + (f"\n{low:.2f}–{high:.2f}" if low < high else "")
