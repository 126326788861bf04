"""`embridge tui`: look at a running cloud in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def tui(
    url: Annotated[
        str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of the settings.")
    ] = None,
) -> None:
    """Look at sessions, edges, releases and training of a running cloud; changes nothing there."""
    import sys

    from embridge_shared.cloud_client import connect
    from embridge_shared.errors import OperatorError
    from embridge_tui.app import EmbridgeApp
    from embridge_tui.client import HttpClient

    client = HttpClient(connect(url))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise OperatorError(
            "`embridge tui` needs a terminal.", hint="`embridge session list` and `embridge release list` do not."
        )
    EmbridgeApp(client).run()
