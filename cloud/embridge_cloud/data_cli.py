"""`embridge data`: what recordings there are, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_shared.errors import DataError, OperatorError, Reason

if TYPE_CHECKING:
    from embridge_cloud.datasets.base import Dataset, DatasetPlugin, Progress, Split
    from embridge_cloud.datasets.check import Report

app = typer.Typer(
    no_args_is_help=True,
    help="Recordings to learn from: public data bases and the own store.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Where = Annotated[
    str, typer.Argument(help='A folder, or NAME:FOLDER where the folder does not tell, as in "ninapro-db7:FOLDER".')
]

_MARKS = {"error": "red", "warning": "yellow", "note": "cyan"}


@app.command("list")
def list_kinds(as_json: AsJson = False) -> None:
    """List the kinds of data sets that can be opened."""
    from embridge_cloud.datasets.registry import plugins

    rows = [_kind(p) for p in plugins().values()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['spec']:<16} {row['title']}")
        if row["variants"]:
            typer.echo(f"{'':<16} or by name: {', '.join(row['variants'])}")
    typer.echo("\n`embridge data check PATH` says what a folder holds.", err=True)


@app.command()
def check(path: Where, as_json: AsJson = False) -> None:
    """Say what a folder holds, what is wrong with it, and how to learn from it.

    Everything is read. Ends with 1 where nothing can be learnt from the folder as it lies.
    """
    from embridge_cloud.datasets.registry import locate

    plugin, variant, folder = locate(path)
    with _progress(quiet=as_json) as progress:
        report = plugin.check(folder, variant, progress)
    if as_json:
        typer.echo(json.dumps(_document(plugin, str(folder), report)))
    else:
        _show(str(folder), report)
    if not report.usable:
        raise DataError(
            f"{folder} cannot be learnt from as it lies",
            reason=Reason.MALFORMED,
            hint=next((f"{f.where or 'First'}: {f.hint}" for f in report.findings if f.severity == "error"), ""),
        )


@app.command()
def splits(
    path: Where,
    participants: Annotated[str, typer.Option(help="Print the participants of this split, for a command line.")] = "",
    unseen: Annotated[str, typer.Option(help="Print the unseen gestures of this task, for a command line.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show the published splits of a data set, and the gestures that results are published for.

    No sample is read.
    """
    from embridge_cloud.datasets.registry import open_dataset

    dataset = open_dataset(path)
    if participants:
        names = {x.name: sorted(x.participants or ()) for x in dataset.splits()}
        typer.echo(",".join(_members(dataset, participants, names)))
    elif unseen:
        typer.echo(",".join(_members(dataset, unseen, {t.name: t.unseen for t in dataset.tasks()})))
    elif as_json:
        tasks = [{"name": t.name, "seen": list(t.seen), "unseen": list(t.unseen)} for t in dataset.tasks()]
        body = {"dataset": dataset.name, "splits": [_split(x) for x in dataset.splits()], "tasks": tasks}
        typer.echo(json.dumps(body))
    else:
        for line in _lines(dataset):
            typer.echo(line)


def _members(dataset: Dataset, name: str, known: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if not known.get(name):
        raise OperatorError(
            f"{dataset.name} has no {name!r} that names any",
            reason=Reason.NOT_FOUND,
            hint=f"It has {', '.join(known) or 'none'}.",
        )
    return known[name]


def _lines(dataset: Dataset) -> Iterator[str]:
    for split in (_split(x) for x in dataset.splits()):
        shown = [f"{len(split[k])} {k}" for k in ("participants", "sessions") if split[k] is not None]
        if split["repetitions"] is not None:
            shown.append(f"repetitions {', '.join(map(str, split['repetitions']))}")
        yield f"{split['name']:<18} {', '.join(shown)}"
    for task in dataset.tasks():
        unseen = ", ".join(task.unseen) or "none"
        yield f"task {task.name:<13} seen {', '.join(task.seen)}; unseen {unseen}"


def _split(split: Split) -> dict[str, Any]:
    parts = {k: getattr(split, k) for k in ("participants", "sessions", "repetitions")}
    return {"name": split.name} | {k: None if v is None else sorted(v) for k, v in parts.items()}


def _kind(plugin: DatasetPlugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "spec": f"{plugin.name}:PATH",
        "title": plugin.title,
        "variants": [f"{plugin.name}-{v}:PATH" for v in plugin.variants],
    }


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Progress]:
    """A bar on standard error while files are read."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        def told(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield told


def _document(plugin: DatasetPlugin, folder: str, report: Report) -> dict[str, Any]:
    facts = report.facts
    return {
        "usable": report.usable,
        "kind": plugin.name,
        "folder": folder,
        "spec": report.spec,
        "title": facts.title if facts else "",
        "licence": facts.licence if facts else "",
        "citation": facts.citation if facts else "",
        "url": facts.url if facts else "",
        "notes": list(facts.notes) if facts else [],
        "files": report.files,
        "hours": round(report.hours, 4),
        "participants": {name: round(s, 3) for name, s in report.seconds.items()},
        "emg": {"rates_hz": sorted(report.rates_hz), "channels": sorted(report.channels)},
        "pose": {
            "kind": facts.pose_kind if facts else None,
            "rates_hz": sorted(report.pose_rates_hz),
            "channels": sorted(report.pose_channels),
            "invalid_s": round(report.invalid_pose_s, 3),
        },
        "gestures": {
            g: {"repetitions": n, "seconds": round(report.movement_s[g], 3)} for g, n in report.repetitions.items()
        },
        "details": report.details,
        "findings": [
            {"severity": f.severity.value, "where": f.where, "what": f.what, "hint": f.hint} for f in report.findings
        ],
    }


def _show(folder: str, report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in _facts(folder, report):
        facts.add_row(key, value)
    console.print(facts)
    if report.repetitions:
        table = Table("gesture", box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("repetitions", justify="right")
        table.add_column("minutes", justify="right")
        for gesture, n in report.repetitions.items():
            table.add_row(gesture, str(n), f"{report.movement_s[gesture] / 60:.1f}")
        console.print()
        console.print(table)
    if report.findings:
        table = Table("", "where", "what", "what to do", box=None, padding=(0, 2, 0, 0), header_style="bold")
        for severity, where, what, hint in report.gathered():
            table.add_row(f"[{_MARKS[severity]}]{severity}[/]", where, what, hint)
        console.print()
        console.print(table)
    if report.usable:
        console.print(f"\nLearn from it: embridge learn benchmark --data {report.spec}", soft_wrap=True)


def _facts(folder: str, report: Report) -> Iterator[tuple[str, str]]:
    yield "folder", folder
    if report.facts is not None:
        yield "data set", f"{report.facts.title}  {report.facts.url}"
        yield "licence", report.facts.licence
        yield "cite", report.facts.citation or "–"
    yield "participants", f"{len(report.seconds)}: {', '.join(report.seconds)}" if report.seconds else "0"
    yield "recorded", f"{report.hours:.2f} h in {report.files} files"
    yield "EMG", _streams(report.channels, report.rates_hz)
    if report.facts is not None:
        yield "pose", f"{_streams(report.pose_channels, report.pose_rates_hz)}; {report.facts.pose}"
    if report.invalid_pose_s:
        yield "without a pose", f"{report.invalid_pose_s:.1f} s"
    yield from report.details.items()
    for note in report.facts.notes if report.facts else ():
        yield "mind", note


def _streams(channels: set[int], rates_hz: set[float]) -> str:
    if not channels:
        return "none"
    return f"{' or '.join(map(str, sorted(channels)))} × {' or '.join(f'{r:g}' for r in sorted(rates_hz))} Hz"
