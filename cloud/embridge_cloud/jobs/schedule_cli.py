"""`embridge job schedule`: when realignments begin by themselves."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Schedule: when the newest release is continued without anybody's asking.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of the settings.")
]


@app.command()
def show(url: Url = None, as_json: Json = False) -> None:
    """Show the schedule, what waits for the next realignment, and why it has not begun."""
    from embridge_shared.cloud_client import connect

    _tell(connect(url).get("/api/schedule"), as_json)


@app.command("set")
def change(
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Begin by itself, or not.")] = None,
    line: Annotated[str | None, typer.Option(help="Line of releases to continue.")] = None,
    sessions: Annotated[int | None, typer.Option(min=0, help="Begin at so many new sessions; 0 for never.")] = None,
    participants: Annotated[int | None, typer.Option(min=0, help="Or so many new people.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Or minutes of new EMG with hand pose.")] = None,
    settle: Annotated[str | None, typer.Option(help='Wait for quiet after the last session, as in "10min".')] = None,
    timetable: Annotated[
        str | None, typer.Option(help='Also at these times, cron, as in "0 2 * * *"; "" none.')
    ] = None,
    timezone: Annotated[str | None, typer.Option(help='Of times, as in "Europe/Zurich".')] = None,
    quiet: Annotated[list[str] | None, typer.Option(help='Begin nothing in these hours, as in "08:00-18:00".')] = None,
    min_interval: Annotated[str | None, typer.Option(help='Least time between two, as in "6h".')] = None,
    rollout: Annotated[bool | None, typer.Option("--rollout/--no-rollout", help="Roll out what is accepted.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="First return everything to the settings.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change the schedule; it is kept, and outlives the process."""
    from embridge_shared.cloud_client import connect
    from embridge_shared.durations import seconds

    given: dict[str, Any] = {
        "enabled": enabled,
        "line": line,
        "sessions": sessions,
        "participants": participants,
        "minutes": minutes,
        "settle_s": None if settle is None else seconds(settle),
        "timetable": timetable,
        "timezone": timezone,
        "quiet": None if quiet is None else [span for span in quiet if span],
        "min_interval_s": None if min_interval is None else seconds(min_interval),
        "rollout": rollout,
    }
    api = connect(url)
    body: dict[str, Any] = {}
    if reset:
        body = dict.fromkeys(api.get("/api/schedule")["schedule"])
    body |= {key: value for key, value in given.items() if value is not None}
    _tell(api.put("/api/schedule", body), as_json)


def _tell(standing: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(standing, ensure_ascii=False, indent=2))
        return
    from embridge_shared.durations import spoken

    plan, waiting = standing["schedule"], standing["waiting"]
    counts = [
        f"{plan[what]:g} {words}"
        for what, words in (("sessions", "sessions"), ("participants", "people"), ("minutes", "minutes"))
        if plan[what]
    ]
    rows = [
        ("schedule", f"{'on' if plan['enabled'] else 'off'}, line {plan['line']}"),
        ("begins at", " or ".join([*counts, *([f"cron {plan['timetable']!r}"] if plan["timetable"] else [])])),
        ("not in", ", ".join(plan["quiet"])),
        ("at most", f"every {spoken(plan['min_interval_s'])}"),
        ("then", "rolls out what is accepted" if plan["rollout"] else "waits for somebody to roll it out"),
        ("waiting", f"{waiting['sessions']} sessions, {waiting['participants']} people, {waiting['minutes']:.0f} min"),
        ("decided", standing["why"]),
        ("next time", _time(standing["next_ns"])),
        ("last begun", _time(standing["begun_ns"])),
        ("failed", standing["failed"]),
    ]
    for name, text in rows:
        if text:
            typer.echo(f"{name:<11} {text}")


def _time(when_ns: int) -> str:
    return f"{datetime.fromtimestamp(when_ns * 1e-9, UTC):%Y-%m-%dT%H:%M:%SZ}" if when_ns else ""
