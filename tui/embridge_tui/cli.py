"""`embridge tui`: what field people live in."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embridge_tui import PORT
from embridge_tui.rooms import NAMES

if TYPE_CHECKING:
    from embridge_shared.settings import Settings
    from embridge_tui.part import EdgePart

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def tui(
    url: Annotated[str | None, typer.Option(help="Address of the cloud; by default that of the settings.")] = None,
    band: Annotated[str, typer.Option("--band", help="Band for Enrol and Live: virtual[:WEARER], KIND, …")] = "",
    room: Annotated[str, typer.Option("--room", help=f"To begin in: {', '.join(NAMES)}.")] = "",
    edge: Annotated[bool, typer.Option("--edge/--no-edge", help="Record at this machine, or look at a cloud.")] = True,
    demo: Annotated[
        bool, typer.Option("--demo", help="On an empty machine: a cloud, a broker and a virtual band.")
    ] = False,
    folder: Annotated[Path | None, typer.Option("--dir", help="For --demo; a temporary one by default.")] = None,
    browser: Annotated[bool, typer.Option("--serve", help="Give it to a browser on this machine.")] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="On loopback, with --serve.")] = PORT,
) -> None:
    """Record sessions, look after bands and edges, enrol gestures, watch them decoded, roll releases out.

    Everything it does, a command can do; `?` shows the keys. It ends in good order: what is recorded lies in the spool.
    """
    import sys

    import textual  # noqa: F401  # without it the command says at once what brings it

    from embridge_shared.cloud_client import CloudApi
    from embridge_shared.errors import OperatorError

    if url is not None:
        CloudApi(url)
    if room and room not in NAMES:
        raise OperatorError(f"there is no room {room!r}.", hint=f"There are {', '.join(NAMES)}.")
    if browser:
        from embridge_tui.serving import serve

        serve([sys.executable, "-m", "embridge_shared.cli", *_again(sys.argv)], port=port, title="EMBridge")
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise OperatorError(
            "`embridge tui` needs a terminal.",
            hint="Give --serve for a browser; `embridge session list` and the like do without.",
        )
    from embridge_shared.settings import load

    with contextlib.ExitStack() as stack:
        _run(load(), url, stack if demo else None, band=band, room=room, edge=edge, folder=folder)


def _run(
    settings: Settings,
    url: str | None,
    demo: contextlib.ExitStack | None,
    *,
    band: str,
    room: str,
    edge: bool,
    folder: Path | None,
) -> None:
    from embridge_tui.app import EmbridgeApp, Ground

    def ready() -> Settings:
        """Import what is slow to import, and start the demonstration; in a thread."""
        found = settings
        if demo is not None:
            from embridge_tui.demonstration import demonstration

            found = demo.enter_context(demonstration(folder))
        if band:
            found = found.model_copy(update={"tui": found.tui.model_copy(update={"band": band})})
        if edge or demo is not None:
            with contextlib.suppress(ImportError):
                import embridge_tui.part
                import embridge_tui.screens.collect  # noqa: F401
        return found

    async def prepare() -> Ground:
        from embridge_shared.cloud_client import connect
        from embridge_tui.app import NO_EDGE
        from embridge_tui.client import HttpClient
        from embridge_tui.logbook import open_logbook

        found = await asyncio.to_thread(ready)
        book = open_logbook(found, found.edge.state_dir)
        part, missing = _part(found) if edge or demo is not None else (None, "")
        client = HttpClient(connect(None if demo is not None else url, settings=found))
        return Ground(client, part, missing or NO_EDGE, book)

    words = "starting a broker, a cloud and a virtual band …" if demo is not None else "starting …"
    app = EmbridgeApp(settings=settings.tui, room=room, prepare=prepare, starting=words)
    app.run()
    if app.failure is not None:
        raise app.failure


def _part(settings: Settings) -> tuple[EdgePart | None, str]:
    """The edge of this machine; or why there is none, and how to get one."""
    from embridge_shared.errors import EmbridgeError

    try:
        from embridge_tui.part import EdgePart

        return EdgePart(settings), ""
    except ImportError as error:
        return None, f'no edge here: {error.name} is not installed. `pip install "embridge[edge]"` brings it.'
    except EmbridgeError as error:
        return None, str(error)


def _again(arguments: list[str]) -> list[str]:
    """What was typed, without what serves it."""
    kept, skip = [], False
    for word in arguments[1:]:
        if not skip and word != "--serve" and not word.startswith("--port="):
            if word == "--port":
                skip = True
                continue
            kept.append(word)
        skip = False
    return kept
