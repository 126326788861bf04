"""`embridge learn`: training runs, their evaluation, the benchmark and its report.

Only a command that trains imports torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_cloud.study.cli import benchmark
from embridge_cloud.study.report_cli import report
from embridge_shared.errors import OperatorError

if TYPE_CHECKING:
    from embridge_cloud.learn.optim import Progress, ProgressCallback
    from embridge_cloud.runs.spec import RunSpec

app = typer.Typer(
    help="Learn to decode gestures: pre-train, align, evaluate, benchmark.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Preset(StrEnum):
    """Where a configuration starts from."""

    QUICK = "quick"
    PRODUCT = "product"
    FAITHFUL = "faithful"


Data = Annotated[str, typer.Option(help='Recordings: "ninapro:FOLDER", "emg2pose:FOLDER", or "windows:FOLDER".')]
Config = Annotated[Path | None, typer.Option(help="TOML file; `embridge learn config` prints one.")]
Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, with the same result.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Test = Annotated[str, typer.Option(help='Participants nothing is taken from, as in "3,7,11".')]
Unseen = Annotated[str, typer.Option(help='Gestures whose EMG nobody shows: a fold, as in "A", or names or numbers.')]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; 0 leaves them as they are.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def config(
    preset: Annotated[Preset, typer.Option(help="Where it starts from.")] = Preset.QUICK,
    bare: Annotated[bool, typer.Option("--bare", help="Leave the comments out.")] = False,
) -> None:
    """Print a complete configuration with comments, to be edited and given to --config."""
    from embridge_cloud.runs.spec import default_spec, to_toml

    typer.echo(to_toml(default_spec(preset.value), comments=not bare), nl=False)


@app.command()
def cut(
    out: Annotated[Path, typer.Option(help="Folder of the windows.")],
    data: Data = "",
    config: Config = None,
    unseen: Unseen = "",
    as_json: Json = False,
) -> None:
    """Cut a data set into windows on disk, for sets that no memory holds; train with --data windows:FOLDER."""
    from embridge_cloud.runs.sets import cut_store

    made = cut_store(_spec(config, data=data, unseen=unseen), out)
    answer = {"folder": str(out), "windows": len(made), "participants": len(made.participants), "digest": made.digest()}
    typer.echo(json.dumps(answer) if as_json else f"{len(made)} windows of {len(made.participants)} participants")


@app.command()
def pretrain(
    out: Out,
    data: Data = "",
    config: Config = None,
    resume: Resume = False,
    seed: Seed = None,
    test_participants: Test = "",
    unseen: Unseen = "",
    device: Device = "",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Pre-train both encoders by masked reconstruction."""
    spec = _told(
        out,
        config,
        resume,
        data=data,
        seed=seed,
        test=test_participants,
        unseen=unseen,
        device=device,
        threads=threads,
    )
    from embridge_cloud.runs import commands

    with _bars() as progress:
        result = commands.pretrain(commands.Asked(spec, out, progress, resume))
    _answer(result, as_json)


@app.command()
def align(
    out: Out,
    data: Data = "",
    config: Config = None,
    pretrained: Annotated[Path | None, typer.Option(help="Folder of a first stage; without it, one is run.")] = None,
    resume: Resume = False,
    seed: Seed = None,
    test_participants: Test = "",
    unseen: Unseen = "",
    device: Device = "",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Align EMG with the space of poses; the folder then holds a model."""
    spec = _told(
        out,
        config,
        resume,
        data=data,
        seed=seed,
        test=test_participants,
        unseen=unseen,
        device=device,
        threads=threads,
        pretrained=pretrained,
    )
    from embridge_cloud.runs import commands

    with _bars() as progress:
        result = commands.align(commands.Asked(spec, out, progress, resume))
    _answer(result, as_json)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an alignment.")],
    data: Data = "",
    test_participants: Test = "",
    unseen: Unseen = "",
    probes: Annotated[bool, typer.Option("--probes", help="Also linear probes and few-shot rows.")] = False,
    as_json: Json = False,
) -> None:
    """Decode gestures of participants a model never saw: seen ones, unseen ones, and all together."""
    from embridge_cloud.runs import commands

    rows = commands.evaluate(
        model, lambda spec: _changed(spec, data=data, test=test_participants, unseen=unseen), probes=probes
    )
    if as_json:
        typer.echo(json.dumps({"rows": rows}, indent=1))
        return
    typer.echo(f"{'protocol':<18} {'balanced accuracy':>17}  {'95 % interval':>13}  {'chance':>6}")
    for row in rows:
        interval = "{:.3f}..{:.3f}".format(*row["ci95"])
        typer.echo(f"{row['protocol']:<18} {row['balanced_accuracy']:>17.3f}  {interval:>13}  {row['chance']:>6.3f}")


app.command()(benchmark)
app.command()(benchmark)
app.command()(report)


def _told(out: Path, config: Path | None, resume: bool, **over: Any) -> RunSpec:
    """What the command line and the file say; of a run that goes on, what its folder says."""
    from embridge_cloud.runs.folder import CONFIG, read_run

    if resume and config is None and (out / CONFIG).exists():
        return _changed(read_run(out), **over)
    return _spec(config, **over)


def _spec(config: Path | None, **over: Any) -> RunSpec:
    from embridge_cloud.runs.spec import default_spec, read_spec

    return _changed(default_spec("quick") if config is None else read_spec(config), **over)


def _changed(
    spec: RunSpec,
    *,
    data: str = "",
    seed: int | None = None,
    test: str = "",
    unseen: str = "",
    device: str = "",
    threads: int | None = None,
    pretrained: Path | None = None,
) -> RunSpec:
    """A run with what was typed in place of what was written."""
    import msgspec

    change = msgspec.structs.replace
    split, learn = spec.split, spec.learn
    if test:
        split = change(split, test=_words(test))
    if unseen:
        split = change(split, unseen=_words(unseen))
    if device:
        if device not in ("auto", "cpu", "cuda"):
            raise OperatorError(f"there is no device {device!r}", hint="Choose auto, cpu or cuda.")
        learn = change(learn, device=device)
    if pretrained is not None:
        spec = change(spec, pretrained=str(pretrained.resolve()))
    if threads is not None:
        learn = change(learn, threads=threads)
    return change(spec, split=split, learn=learn, data=data or spec.data, seed=spec.seed if seed is None else seed)


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(",") if w.strip())


@contextmanager
def _bars() -> Iterator[ProgressCallback]:
    """A bar a stage on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda p: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, TextColumn("loss {task.fields[loss]:.4f}"), console=Console(stderr=True)) as bars:
        yield _teller(bars.add_task, bars.update)


def _teller(add: Callable[..., Any], update: Callable[..., None]) -> ProgressCallback:
    tasks: dict[str, Any] = {}

    def tell(p: Progress) -> None:
        if p.stage not in tasks:
            tasks[p.stage] = add(p.stage, total=p.total, loss=p.loss)
        update(tasks[p.stage], completed=p.step, loss=p.loss)

    return tell


def _answer(result: dict[str, Any], as_json: bool) -> None:
    """What came of a training."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    steps = ", ".join(f"{n} steps of {name}" for name, n in result["steps"].items())
    people = len(result["participants"])
    typer.echo(f"{result['folder']}: {steps} on {result['windows']} windows of {people} participants")
    for name in ("emg_mae", "pose_mae", "align", "val_zs"):
        if name in result["last"]:
            typer.echo(f"{name:<9} {result['last'][name]:.4f}")
