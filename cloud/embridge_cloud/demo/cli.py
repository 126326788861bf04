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
    from embridge_cloud.demo.worlds import World

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
) -> None:
    """Run the whole loop: record, ingest, train, sign, roll out, and decode gestures nobody recorded EMG of.

    Every part is a process of the product: a cloud with an embedded broker, and two edge agents.
    """
    _check_installed()
    from embridge_cloud.demo.console import Console
    from embridge_cloud.demo.loop import run_loop

    began = time.monotonic()
    world = _world(data, seed)
    out.mkdir(parents=True, exist_ok=True)
    site = Path(tempfile.mkdtemp(prefix="site-", dir=out))
    try:
        with Console() as console:
            outcome = run_loop(world, site, console)
            console.stage("report", "figures and pictures")
            from embridge_cloud.demo.report import REPORT, write_report

            report = write_report(outcome, out, began)
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


def _world(data: str, seed: int) -> World:
    from embridge_cloud.demo import worlds

    if not data:
        return worlds.synthetic(seed=seed)
    kind, _, folder = data.partition(":")
    if kind != "ninapro" or not folder:
        raise ConfigError(f"--data {data!r} names no data base", hint='Write "ninapro:FOLDER".')
    return worlds.ninapro(Path(folder), seed=seed)
