"""`embridge edge`: run an agent, look at one."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_shared.errors import ExitCode

if TYPE_CHECKING:
    from embridge_edge.agent import Agent

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Run and inspect an edge agent.")


@app.command()
def run(
    plan: Annotated[Path | None, typer.Option(help="Sessions to record, as TOML.")] = None,
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
    from embridge_shared.wire.topics import check_edge

    given = {k: v for k, v in {"name": name, "state_dir": state_dir}.items() if v is not None}
    config = settings.load(**({"edge": given} if given else {}))
    check_edge(config.edge.name)
    logs.configure(config.log.level, config.log.json_file)
    agent = Agent(
        config,
        SystemClock(),
        plans.load(plan) if plan is not None else None,
        plan.parent if plan is not None else Path(),
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
    from embridge_shared.errors import OperatorError, Reason

    config = settings.load()
    path = (state_dir or config.edge.state_dir) / "spool.db"
    if not path.is_file():
        raise OperatorError(f"there is no spool at {path}", reason=Reason.NOT_FOUND, hint="Has an agent run here?")
    spool = Spool(path, config.edge.spool_max_bytes)
    backlog = spool.backlog()
    report: dict[str, Any] = {
        "waiting": {"items": backlog.items, "bytes": backlog.bytes},
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
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    typer.echo(f"{backlog.items} items, {backlog.bytes / 1e6:.1f} MB wait for the cloud")
    for session in report["sessions"]:
        state = "sealed" if session["sealed"] else "closed" if session["closed"] else "open"
        typer.echo(f"{session['session']}  {state:6}  {session['name']}")
    for item in report["refused"]:
        typer.echo(f"refused: {item['session']} stream {item['stream']} at {item['first']}: {item['detail']}")
