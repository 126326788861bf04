"""`embridge learn report`: one page about a benchmark."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Form(StrEnum):
    """What is written."""

    HTML = "html"
    MD = "md"
    BOTH = "both"


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `embridge learn benchmark` wrote.")],
    out: Annotated[Path | None, typer.Option(help="File to write; by default report.html in the folder.")] = None,
    form: Annotated[
        Form, typer.Option("--format", help="One self-contained HTML page, Markdown, or both.")
    ] = Form.BOTH,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Write the report of a benchmark: tables, bars, differences, confusions, maps, curves."""
    from embridge_cloud.study.report import write_report

    written = write_report(directory, out=out, form=form.value)
    if as_json:
        typer.echo(json.dumps({"files": [str(p) for p in written]}))
        return
    for path in written:
        typer.echo(str(path))
