"""`embridge edge`: run an agent, look at one."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_edge import don_cli, provision_cli
from embridge_shared.errors import ExitCode

if TYPE_CHECKING:
    from embridge_edge.agent import Agent

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Run and inspect an edge agent.")
app.command()(provision_cli.install)
app.command()(provision_cli.check)
app.command()(don_cli.don)


@app.command()
def run(
    plan: Annotated[Path | None, typer.Option(help="Sessions to record, as TOML; overrides the settings.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of this edge; overrides the settings.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where spool and releases live.")] = None,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="Stop when the plan is recorded and the cloud has all of it.")
    ] = False,
) -> None:
    """Record, deliver, decode and update until stopped."""
    from embridge_edge import plan as plans
    from embridge_edge.agent import Agent
    from embridge_shared import logs, settings
    from embridge_shared.clock import SystemClock
    from embridge_shared.service import Notifier
    from embridge_shared.wire.topics import check_edge

    given = {k: v for k, v in {"name": name, "state_dir": state_dir}.items() if v is not None}
    config = settings.load(**({"edge": given} if given else {}))
    check_edge(config.edge.name)
    logs.configure_for(config, edge=config.edge.name)
    # A watchdog that bites leaves in the log where every thread stood.
    faulthandler.enable()
    plan = plan or config.edge.plan
    agent = Agent(
        config,
        SystemClock(),
        plans.load(plan) if plan is not None else None,
        plan.parent if plan is not None else Path(),
        notifier=Notifier.from_environment(),
    )
    if asyncio.run(_supervise(agent, until_done=until_done)):
        raise typer.Exit(ExitCode.INTERRUPTED)


async def _supervise(agent: Agent, *, until_done: bool) -> bool:
    """Run the agent; True when a signal stopped it before it was done."""
    task = asyncio.ensure_future(agent.run(until_done=until_done))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return until_done
    return False


@app.command()
def status(
    state_dir: Annotated[Path | None, typer.Option(help="State directory of the agent.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what an edge holds: sessions, what waits for the cloud, what the cloud refused."""
    from embridge_edge.spool import Spool
    from embridge_shared import settings
    from embridge_shared.disk import level, mib
    from embridge_shared.errors import OperatorError, Reason

    config = settings.load()
    path = (state_dir or config.edge.state_dir) / "spool.db"
    if not path.is_file():
        raise OperatorError(f"there is no spool at {path}", reason=Reason.NOT_FOUND, hint="Has an agent run here?")
    spool = Spool(path, config.edge.spool_max_bytes)
    backlog, room = spool.backlog(), spool.room
    report: dict[str, Any] = {
        "waiting": {"items": backlog.items, "bytes": backlog.bytes},
        "disk": {"level": level(room, config.edge.reserve_bytes).value, "free_bytes": room},
        "sessions": [
            {"name": s.name, "session": str(s.session), "closed": s.closed, "sealed": s.sealed}
            for s in spool.sessions()
        ],
        "refused": [
            {"session": str(s), "stream": stream, "first": first, "reason": reason, "detail": detail}
            for s, stream, first, reason, detail in spool.refused()
        ],
    }
    spool.close()
    report["release"] = _release(path.parent)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    typer.echo(f"release {report['release']['current'] or 'none'}, before it {report['release']['previous'] or 'none'}")
    if report["release"]["update"] != "idle":
        typer.echo(f"update {report['release']['update']}")
    typer.echo(f"{backlog.items} items, {backlog.bytes / 1e6:.1f} MB wait for the cloud")
    typer.echo(f"disk {report['disk']['level']}: {mib(max(0, room - config.edge.reserve_bytes))} can still be recorded")
    for session in report["sessions"]:
        state = "sealed" if session["sealed"] else "closed" if session["closed"] else "open"
        typer.echo(f"{session['session']}  {state:6}  {session['name']}")
    for item in report["refused"]:
        typer.echo(f"refused: {item['session']} stream {item['stream']} at {item['first']}: {item['detail']}")


def _release(state_dir: Path) -> dict[str, str]:
    """Names of the release in force and of the one before it, empty for none; and how the last update went."""
    from embridge_edge.update.slots import FOLDER, Slots

    if not (state_dir / FOLDER).is_dir():
        return {"current": "", "previous": "", "update": "idle"}
    held = Slots(state_dir / FOLDER).pointer()
    current, previous = (slot.name if slot is not None else "" for slot in (held.current, held.previous))
    about = f"{held.told.release} " if held.told.release else ""
    return {"current": current, "previous": previous, "update": f"{about}{held.told}"}


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept with the release that is given up.")],
    state_dir: Annotated[Path | None, typer.Option(help="State directory of the agent, running or not.")] = None,
) -> None:
    """Return to the previous release; the one given up is not taken again."""
    from embridge_edge.control import Request, ask
    from embridge_edge.lock import is_running, only_agent
    from embridge_edge.update.slots import FOLDER, Slots
    from embridge_shared import settings

    folder = state_dir or settings.load().edge.state_dir
    if is_running(folder):
        typer.echo(ask(folder, Request(do="rollback", reason=reason)))
        return
    with only_agent(folder):
        slot = Slots(folder / FOLDER).rollback(reason)
    typer.echo(f"{slot.name} runs from the next start of the agent on.")


@app.command()
def forget(
    participant: Annotated[str, typer.Argument(help="Pseudonym.")],
    state_dir: Annotated[Path | None, typer.Option(help="State directory of the agent, which must not run.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a participant from this edge: spool, calibrations, digests and what they enrolled.

    An edge with a root of trust does so by itself when the cloud's `embridge participant erase` tells it to.
    """
    from embridge_edge.erasures import erase
    from embridge_edge.lock import only_agent
    from embridge_edge.spool import Spool
    from embridge_shared import settings

    config = settings.load()
    folder = state_dir or config.edge.state_dir
    if not yes:
        typer.confirm(
            f"Erase all that {folder} holds of this participant, unsent samples included?", abort=True, err=True
        )
    with only_agent(folder):
        spool = Spool(folder / "spool.db", config.edge.spool_max_bytes)
        try:
            found = erase(spool, folder, lambda name: name == participant)
        finally:
            spool.close()
    typer.echo(f"erased {found} sessions and files")
