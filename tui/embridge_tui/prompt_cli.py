"""`embridge prompt`: what the participant is to do, on a screen of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embridge_tui import PORT

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def prompt(
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Of the edge that records; by default that of the settings.")
    ] = None,
    browser: Annotated[bool, typer.Option("--serve", help="Give it to a browser on this machine.")] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="On loopback, with --serve.")] = PORT,
) -> None:
    """Show what the participant is to do, in large letters and without figures; it follows the session that records.

    It runs beside `embridge tui` or `embridge session record`, in a second terminal or, with --serve, in a browser; a
    tablet gets to it through an SSH tunnel.
    """
    import sys

    from embridge_shared import settings
    from embridge_shared.errors import OperatorError

    folder = state_dir or settings.load().edge.state_dir
    if browser:
        from embridge_tui.serving import serve

        command = [sys.executable, "-m", "embridge_shared.cli", "prompt", "--state-dir", str(folder.resolve())]
        serve(command, port=port, title="EMBridge: what to do")
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise OperatorError("`embridge prompt` needs a terminal.", hint="Give --serve for a browser.")
    from embridge_tui.prompter import Prompter

    Prompter(folder).run()
