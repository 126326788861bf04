"""`embridge audit`: who did what when."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="The audit log: who did what when; people and sessions are codes in it.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_rows(
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 50,
    after: Annotated[int, typer.Option(min=0, help="Rows after this number; by default the newest.")] = 0,
    as_json: Json = False,
) -> None:
    """List rows of the log in order."""
    from embridge_cloud.keeping import ask

    rows = ask("audit", limit=limit, after=after)
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not rows:
        typer.echo("Nothing is in the audit log yet.", err=True)
    for row in rows:
        at = datetime.fromtimestamp(row["wall_ns"] * 1e-9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        detail = " ".join(f"{k}={v}" for k, v in row["detail"].items())
        typer.echo(f"{row['seq']:6d}  {at}  {row['actor']:<20} {row['action']:<24} {row['subject']}  {detail}".rstrip())


@app.command()
def verify(as_json: Json = False) -> None:
    """Recompute the chain of digests, and hold it against where backups say it was."""
    from embridge_cloud.keeping import ask

    head = ask("audit-verify")
    typer.echo(json.dumps(head) if as_json else f"{head['seq']} rows, unbroken; the last is {head['digest']}")
