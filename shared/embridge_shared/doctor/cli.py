"""`embridge doctor`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_shared.errors import ExitCode

if TYPE_CHECKING:
    from embridge_shared.doctor.model import Part, Situation
    from embridge_shared.doctor.runner import Report
    from embridge_shared.settings import Settings

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    edge: Annotated[bool, typer.Option("--edge", help="This machine is an edge, whatever lies here.")] = False,
    cloud: Annotated[bool, typer.Option("--cloud", help="This machine is a cloud, whatever lies here.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as failures.")] = False,
) -> None:
    """Find what is wrong with this installation and say what to do; ends with 1 where something does not work.

    What the machine is for is seen from its state folders and the packages that are installed. Nothing is changed, and
    the place of a running agent or cloud process at the broker is not taken.
    """
    from embridge_shared.doctor.model import Level
    from embridge_shared.doctor.runner import examine, known_checks, worst

    reports = examine(_situation(edge=edge, cloud=cloud), known_checks())
    level = worst(reports)
    if as_json:
        typer.echo(json.dumps(_document(reports, level), ensure_ascii=False, indent=2))
    else:
        _tell(reports)
    bad = level is Level.FAIL or (strict and level is Level.WARN)
    if bad:
        raise typer.Exit(ExitCode.FAILED)


def _situation(*, edge: bool, cloud: bool) -> Situation:
    from embridge_shared import settings
    from embridge_shared.clock import SystemClock
    from embridge_shared.doctor.model import Part, Situation
    from embridge_shared.errors import ConfigError

    loaded: Settings | None = None
    fault = ""
    try:
        loaded = settings.load()
    except ConfigError as error:
        fault = error.message
    named = {part for part, yes in ((Part.EDGE, edge), (Part.CLOUD, cloud)) if yes}
    return Situation(loaded, fault, frozenset(named or _parts(loaded)), SystemClock(), dict(os.environ))


def _parts(settings: Settings | None) -> set[Part]:
    """What this machine is for: what has a state folder, else what is installed."""
    from importlib.util import find_spec

    from embridge_shared.doctor.model import Part

    if settings is not None:
        found = {part for part, folder in ((Part.EDGE, settings.edge.state_dir), (Part.CLOUD, settings.cloud.state_dir))
                 if folder.is_dir()}  # fmt: skip
        if settings.edge.plan is not None or settings.edge.update_root is not None:
            found.add(Part.EDGE)
        if found:
            return found
    brings = {Part.EDGE: "bleak", Part.CLOUD: "duckdb"}
    return {part for part, package in brings.items() if find_spec(package) is not None}


def _document(reports: list[Report], level: str) -> dict[str, Any]:
    return {
        "level": level,
        "checks": [
            {
                "name": report.check.name,
                "part": report.check.part.value,
                "level": report.level.value,
                "took_ms": round(report.took_s * 1e3),
                "findings": [{"level": f.level.value, "said": f.said, "step": f.step} for f in report.findings],
            }
            for report in reports
        ],
    }


def _tell(reports: list[Report]) -> None:
    for report in reports:
        for finding in report.findings:
            typer.echo(f"{_MARKS[finding.level.value]}  {report.check.name:<12} {finding.said}")
            if finding.step:
                typer.echo(f"{'':19}-> {finding.step}")
    counts = [sum(r.level == level for r in reports) for level in _MARKS]
    typer.echo(f"{counts[0]} checks are well, {counts[1]} warn, {counts[2]} fail", err=True)
