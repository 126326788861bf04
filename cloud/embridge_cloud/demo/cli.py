"""`embridge demo`: the whole loop on this machine."""

from __future__ import annotations

import shutil
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_shared.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from embridge_cloud.demo.console import Console
    from embridge_cloud.demo.loop import Outcome

    Runner: TypeAlias = Callable[[Path, Console, Path], tuple[Outcome, dict[str, Any] | None]]

app = typer.Typer(rich_markup_mode=None)

_NEEDS = ("aiomqtt", "amqtt", "duckdb", "faiss", "fastapi", "matplotlib", "onnxruntime", "onnxscript", "torch", "tuf")


@app.command()
def demo(
    data: Annotated[
        str, typer.Option(help='Recordings instead of synthetic wearers: "ninapro:FOLDER" (NinaPro DB1, exercise 1).')
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("build/demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep store, spools and logs beside the report.")] = False,
    continual: Annotated[
        bool,
        typer.Option("--continual", help="Let data arrive in three drops, one of them spoilt, and the fleet learn on."),
    ] = False,
) -> None:
    """Run the whole loop: record, ingest, train, sign, roll out, and decode gestures nobody recorded EMG of.

    Every part is a process of the product: a cloud with an embedded broker, and two edge agents; four with --continual.
    """
    _check_installed()
    from embridge_cloud.demo.console import Console

    began = time.monotonic()
    run = _drops(data, seed) if continual else _once(data, seed)
    out.mkdir(parents=True, exist_ok=True)
    site = Path(tempfile.mkdtemp(prefix="site-", dir=out))
    try:
        with Console() as console:
            outcome, drops = run(site, console, out)
            console.stage("report", "figures and pictures")
            from embridge_cloud.demo.report import REPORT, write_report

            report = write_report(outcome, out, began, continual=drops)
        if as_json:
            typer.echo((out / REPORT).read_text(encoding="utf-8"))
        else:
            console.table(report, out)
    finally:
        if not keep:
            shutil.rmtree(site, ignore_errors=True)
    if not sound(report):
        raise typer.Exit(ExitCode.REJECTED)


def sound(report: dict[str, Any]) -> bool:
    """Whether the loop kept its promises: nothing lost or doubled, and the edges run what the registry published."""
    chunks, release = report["chunks"], report["release"]
    return not (chunks["lost"] or chunks["duplicated"] or chunks["samples_twice"]) and (
        release["edge"] == release["registry"]
    )


def _check_installed() -> None:
    """Miss a package now, not minutes later in a child process."""
    for name in _NEEDS:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _once(data: str, seed: int) -> Runner:
    """The loop with all data at once."""
    from embridge_cloud.demo import worlds
    from embridge_cloud.demo.loop import run_loop

    folder = _folder(data)
    world = worlds.synthetic(seed=seed) if folder is None else worlds.ninapro(folder, seed=seed)
    return lambda site, console, _: (run_loop(world, site, console), None)


def _drops(data: str, seed: int) -> Runner:
    """The loop with data that arrive in drops."""
    from embridge_cloud.demo.continual import run_continual
    from embridge_cloud.demo.drops import ninapro_drops, synthetic_drops

    folder = _folder(data)
    arrivals = synthetic_drops(seed=seed) if folder is None else ninapro_drops(folder, seed=seed)

    def run(site: Path, console: Console, out: Path) -> tuple[Outcome, dict[str, Any] | None]:
        from embridge_cloud.demo.continual_report import continual_figures

        outcome, steps = run_continual(arrivals, site, console)
        console.stage("judge", "every release on the held-out wearers of every drop")
        return outcome, continual_figures(arrivals, steps, site / "cloud" / "sealed", out)

    return run


def _folder(data: str) -> Path | None:
    """Folder of the recordings; None for simulated wearers."""
    if not data:
        return None
    kind, _, folder = data.partition(":")
    if kind != "ninapro" or not folder:
        raise ConfigError(f"--data {data!r} names no data base", hint='Write "ninapro:FOLDER".')
    return Path(folder)
