"""`embridge session record`: a prompted session in lines, as the terminal interface leads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embridge_shared.session import Side, Split

if TYPE_CHECKING:
    from embridge_edge.collect.setup import Journal
    from embridge_edge.collect.station import Station

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def session() -> None:
    """Sessions: record, look at, send, export."""


@app.command()
def record(
    protocol: Annotated[str, typer.Option("--protocol", help="A built-in one, or a file that ends in .toml.")] = "",
    participant: Annotated[str, typer.Option("--participant", help="Pseudonym: the code of the consent form.")] = "",
    band: Annotated[
        str,
        typer.Option(
            "--band", help="virtual[:WEARER], a KIND or KIND@ADDRESS, or a plan that ends in .toml and names the band."
        ),
    ] = "",
    consent: Annotated[str, typer.Option("--consent-version", help="Version of the text they signed.")] = "",
    side: Annotated[Side, typer.Option("--side", help="Which arm.")] = Side.RIGHT,
    position: Annotated[str, typer.Option("--position", help="Where on the arm.")] = "forearm",
    rotation: Annotated[
        float | None,
        typer.Option("--rotation", help="Angle of electrode 0 from the ulna, seen from the hand, degrees."),
    ] = None,
    donning: Annotated[int, typer.Option("--placement", min=1, help="Which time the band is put on.")] = 1,
    split: Annotated[Split | None, typer.Option("--split", help="By default what the protocol says.")] = None,
    name: Annotated[str, typer.Option("--name", help="Of the session; by default the next free one.")] = "",
    resume: Annotated[str, typer.Option("--resume", help="Go on with an interrupted session of this name.")] = "",
    reason: Annotated[
        str, typer.Option("--reason", help="Why it is recorded although the preflight warns; kept in the session.")
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing: begin at once, leave out what stays bad, end when it is done.")
    ] = False,
    speed: Annotated[float, typer.Option("--speed", min=0.0, help="Of a virtual band; 0 is as fast as it goes.")] = 1.0,
    state_dir: Annotated[Path | None, typer.Option("--state-dir", help="Spool of this edge.")] = None,
    wait_s: Annotated[float, typer.Option("--wait", min=0.0, help="Seconds the cloud may take to hold it.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="What became of it, as one JSON document.")] = False,
) -> None:
    """Lead a participant through a protocol and record it: prompts as lines, everything checked before and meanwhile.

    On a terminal: enter starts, pauses and accepts; r does it again, s skips, m marks, n TEXT notes, e ends.
    """
    import asyncio

    from embridge_edge.collect.headless import Asked, lead
    from embridge_edge.collect.station import Station
    from embridge_shared import logs, settings
    from embridge_shared.clock import SystemClock

    config = settings.load(**({"edge": {"state_dir": state_dir}} if state_dir is not None else {}))
    logs.configure_for(config)
    asked = Asked(yes=yes, reason=reason, wait_s=wait_s, as_json=as_json)
    station = Station(config, SystemClock())
    given = (protocol, participant, band, consent, position, name)

    async def journal() -> Journal:
        if resume:
            return await _resumed(station, resume)
        return await _new(station, given, side=side, rotation=rotation, donning=donning, split=split, speed=speed)

    asyncio.run(lead(station, journal, asked))


@app.command()
def finish(
    name: Annotated[str, typer.Argument(help="Of an interrupted session; `--list` shows them.")] = "",
    listing: Annotated[bool, typer.Option("--list", help="Show the interrupted sessions.")] = False,
    state_dir: Annotated[Path | None, typer.Option("--state-dir", help="Spool of this edge.")] = None,
) -> None:
    """End an interrupted session with what was recorded of it, instead of going on with it."""
    import asyncio

    from embridge_edge.collect.headless import end_interrupted
    from embridge_edge.collect.station import Station
    from embridge_shared import settings
    from embridge_shared.clock import SystemClock
    from embridge_shared.errors import OperatorError, Reason

    config = settings.load(**({"edge": {"state_dir": state_dir}} if state_dir is not None else {}))
    if not name and not listing:
        raise OperatorError("name a session, or give --list.", reason=Reason.INVALID)
    asyncio.run(end_interrupted(Station(config, SystemClock()), "" if listing else name))


async def _resumed(station: Station, name: str) -> Journal:
    from embridge_shared.errors import OperatorError, Reason

    for found in await station.interrupted():
        if found.name == name:
            return found.journal
    raise OperatorError(
        f"there is no interrupted session {name!r}",
        reason=Reason.NOT_FOUND,
        hint="`embridge session finish --list` shows them.",
    )


async def _new(
    station: Station,
    given: tuple[str, str, str, str, str, str],
    *,
    side: Side,
    rotation: float | None,
    donning: int,
    split: Split | None,
    speed: float,
) -> Journal:
    import msgspec

    from embridge_edge.collect.protocol import load
    from embridge_edge.collect.protocol_cli import known_here
    from embridge_edge.collect.setup import UNSTATED, Journal, Setup, source_of
    from embridge_edge.collect.virtual import VirtualSource
    from embridge_shared.errors import OperatorError
    from embridge_shared.session import Placement

    word, participant, band, consent, position, name = given
    if not (word and participant and band):
        raise OperatorError(
            "say what, who and with which band.",
            hint="As in --protocol first-look --participant p07 --band virtual, or --resume NAME.",
        )
    asked = load(word, known_here())
    source, pose, base = source_of(band, adapter=station.settings.edge.adapter)
    if isinstance(source, VirtualSource):
        source = msgspec.structs.replace(source, speed=speed)
    placement = Placement(side=side, position=position, rotation_deg=rotation, donning=donning)
    return Journal(
        setup=Setup(
            name=name or await station.free_name(participant, placement),
            participant=participant,
            protocol=asked,
            source=source,
            pose=pose,
            placement=placement,
            consent_version=consent or UNSTATED,
            split=asked.split if split is None else split,
            base=base,
        )
    )
