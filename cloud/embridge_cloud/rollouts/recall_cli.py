"""`embridge release recall`: withdraw a release for good."""

from __future__ import annotations

import json
from typing import Annotated
from urllib.parse import quote

import typer


def recall(
    release: Annotated[str, typer.Argument(help='A published release, as in "embridge-3".')],
    reason: Annotated[str, typer.Option(help="Why; edges and people read it.", prompt=True)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Annotated[
        str | None, typer.Option(help="Address of the cloud's HTTP interface; by default the settings'.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Withdraw a release for good: edges that run it return to the one before, and it is never offered again."""
    from embridge_shared.cloud_client import connect
    from embridge_shared.errors import OperatorError

    if not yes:
        typed = typer.prompt(f"Every edge that runs it will leave it. Type {release} to go on", err=True)
        if typed.strip() != release:
            raise OperatorError("nothing was done: another name was typed.", hint=f"Type {release}, or give --yes.")
    found = connect(url).post(f"/api/releases/{quote(release, safe='')}/recall", {"reason": reason})
    typer.echo(json.dumps(found) if as_json else f"{found['name']} is recalled: {found['recalled']}")
