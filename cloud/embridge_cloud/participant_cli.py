"""`embridge participant`: who takes part, what they agreed to, and their right to be erased."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from embridge_cloud.store.consent import Scope

app = typer.Typer(
    no_args_is_help=True,
    help="Participants: consent, withdrawal, erasure.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[str, typer.Argument(help="Pseudonym: the code of the consent form, never a name.")]
Version = Annotated[str, typer.Option("--consent-version", help="Version of the text that was signed.")]
Scopes = Annotated[
    list[Scope] | None,
    typer.Option("--scope", help="What is agreed to; again for each. Nothing when left out."),
]


@app.command()
def add(participant: Who, consent_version: Version, scope: Scopes = None) -> None:
    """Register a participant and what they agreed to."""
    _tell(_ask("participant-add", participant=participant, version=consent_version, scopes=scope or []))


@app.command()
def consent(participant: Who, consent_version: Version, scope: Scopes = None) -> None:
    """Record what a participant agrees to from now on, in the place of what they agreed to before."""
    _tell(_ask("participant-consent", participant=participant, version=consent_version, scopes=scope or []))


@app.command()
def withdraw(participant: Who) -> None:
    """Record that a participant agrees to nothing any more; nothing of theirs is used, their data stay.

    `embridge participant erase` removes them.
    """
    _tell(_ask("participant-withdraw", participant=participant))


@app.command("list")
def list_people(as_json: Json = False) -> None:
    """List everybody who is registered or was recorded."""
    rows = _ask("participants")
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not rows:
        typer.echo("Nobody is registered or was recorded yet.", err=True)
    for row in rows:
        typer.echo(_line(row))


@app.command()
def show(participant: Who, as_json: Json = False) -> None:
    """Show one participant and their sessions."""
    row = _ask("participant", participant=participant)
    if as_json:
        typer.echo(json.dumps(row, ensure_ascii=False))
        return
    typer.echo(_line(row))
    for session in row["recorded"]:
        typer.echo(
            f"  {session['session']}  {session['purpose']:<11} {session['edge']:<12} {session['consent_version']}"
        )


@app.command()
def gestures(participant: Who, as_json: Json = False) -> None:
    """List what a participant enrolled, on whatever edges, and where each repetition is from.

    JSON holds the journal's entries too: `embridge enrol merge` takes them on another edge.
    """
    row = _ask("participant-gestures", participant=participant)
    if as_json:
        typer.echo(json.dumps(row, ensure_ascii=False))
        return
    if not row["gestures"]:
        typer.echo("Nothing was enrolled, or nothing has arrived yet.", err=True)
    for each in row["gestures"]:
        added = each["added"]
        from_where = "known gesture" if added is None else f"added, posture from {added['source']}"
        edges = ", ".join(sorted({r["edge"] for r in each["repetitions"]})) or "no edge"
        typer.echo(f"{each['label']:<20} {len(each['repetitions']):3d} repetitions  {edges:<16} {from_where}")


@app.command()
def erase(
    participant: Who,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove every trace of a participant, here and on every edge. Nothing brings it back.

    Rows, sealed sessions, jobs, exports on record, backups and the lake are cleared, and the database is written anew
    without its old pages. Edges are told until they have answered. Releases that were trained on the participant are
    listed: withdraw them and train again. A process that is killed meanwhile goes on when it starts again.
    """
    if not yes:
        typer.confirm(f"Erase {participant} for good?", abort=True, err=True)
    found = _ask("erase", participant=participant)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    _report(found)


@app.command()
def erasures(as_json: Json = False) -> None:
    """List erasures and the edges that have yet to answer."""
    rows = _ask("erasures")
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not rows:
        typer.echo("Nobody was erased.", err=True)
    for row in rows:
        at = datetime.fromtimestamp(row["issued_ns"] * 1e-9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        typer.echo(f"{row['id']}  {at}  {row['stage']:<8} {', '.join(row['waiting']) or 'no edge'} to answer")


def _report(found: dict[str, Any]) -> None:
    report = found["report"]
    typer.echo(
        f"erased {report['sessions']} sessions, {report['chunks']} chunks, {report['quarantined']} quarantined "
        f"messages, {report['folders']} folders and files"
    )
    for path in report["unreachable"]:
        typer.echo(f"not there: {path}; whoever holds it has to erase it")
    for edge in found["waiting"]:
        typer.echo(f"edge {edge} is told when it is online; `embridge participant erasures` shows whether it answered")
    for release in report["releases"]:
        where = f", on {', '.join(release['edges'])}" if release["edges"] else ""
        spelt = "; its manifest spells the pseudonym" if release["names"] else ""
        typer.echo(
            f"release {release['release']} was trained on them{where}{spelt}: train again without, then replace it"
        )


def _ask(name: str, **body: Any) -> Any:
    from embridge_cloud.keeping import ask

    return ask(name, **body)


def _tell(row: dict[str, Any]) -> None:
    typer.echo(_line(row), err=True)


def _line(row: dict[str, Any]) -> str:
    consent_given = row["consent"]
    if consent_given is None:
        said = f"no consent on record; sessions state {', '.join(row['stated']) or 'none'}"
    elif not consent_given["scopes"]:
        said = f"withdrawn (version {consent_given['version']})"
    else:
        said = f"{', '.join(consent_given['scopes'])} (version {consent_given['version']})"
    return f"{row['participant']:<16} {row['sessions']:4d} sessions  {said}"
