"""`embridge release`: releases that are published, and bundle files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_cloud import release_book_cli
from embridge_cloud.release_key_cli import app as keys
from embridge_cloud.rollouts.recall_cli import recall

if TYPE_CHECKING:
    from embridge_shared.decision import DecisionConfig
    from embridge_shared.release import Bundle

app = typer.Typer(
    help="Releases: what is published, and what a bundle holds.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(keys, name="key")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

for _verb in (release_book_cli.lineage, release_book_cli.card, release_book_cli.diff, recall):
    app.command()(_verb)


@app.command("list")
def list_releases(
    url: Annotated[
        str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of the settings.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what a cloud process has published, oldest version first."""
    from embridge_shared.cloud_client import connect

    rows = connect(url).get("/api/releases")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("Nothing is published yet.", err=True)
    for row in rows:
        gone = f"  RECALLED: {row['recalled']}" if row.get("recalled") else ""
        typer.echo(
            f"{row['name']:<20} {row['digest']}  {row['size']:>10} bytes  agent {row['min_agent']} or later{gone}"
        )


@app.command()
def show(
    release: Annotated[str, typer.Argument(help="A bundle file, or a published release, as in embridge-3.")],
    url: Annotated[
        str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of the settings.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a bundle holds and how it decides, after checking it; or a published release and how it was judged."""
    import msgspec

    from embridge_shared.release import CARD, SUFFIX, read_bundle

    if not Path(release).exists() and not release.endswith(SUFFIX):
        known = release_book_cli.fetched(release, url)
        typer.echo(json.dumps(known, ensure_ascii=False, indent=2) if as_json else release_book_cli.told(known))
        return
    found = read_bundle(Path(release))
    if as_json:
        body = {"digest": found.digest, "size": found.size, "manifest": msgspec.to_builtins(found.manifest)}
        typer.echo(json.dumps(body, ensure_ascii=False, indent=2))
        return
    typer.echo(_head(found))
    for name, decision in (("scores", found.manifest.decision), ("wearer's model", found.manifest.wearer_decision)):
        typer.echo(_thresholds(name, decision))
    typer.echo(found.files[CARD].decode("utf-8", "replace"))


@app.command()
def verify(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle files.")],
    digest: Annotated[str, typer.Option(help="The sha256 it must have; for one bundle.")] = "",
    as_json: Json = False,
) -> None:
    """Recompute every digest of bundles; ends with 5 where one is damaged."""
    from embridge_shared.errors import ModelError, OperatorError, Reason
    from embridge_shared.release import read_bundle

    if digest and len(bundles) > 1:
        raise OperatorError("--digest is that of one bundle.", hint="Check the bundles one at a time.")
    rows: list[dict[str, Any]] = []
    for path in bundles:
        try:
            found = read_bundle(path, digest=digest.lower())
        except ModelError as error:
            rows.append({"bundle": str(path), "ok": False, "fault": error.message, "reason": error.reason.value})
        else:
            rows.append({"bundle": str(path), "ok": True, "release": found.manifest.release, "digest": found.digest})
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        for row in rows:
            typer.echo(f"{row['bundle']}  {row['release'] + ' ' + row['digest'] if row['ok'] else row['fault']}")
    damaged = [row for row in rows if not row["ok"]]
    if damaged:
        raise ModelError(
            f"{len(damaged)} of {len(rows)} bundles are refused.",
            reason=Reason(damaged[0]["reason"]),
            hint="Do not publish or run them; copy them again from where they were made.",
        )


def _thresholds(name: str, decision: DecisionConfig | None) -> str:
    """How something decides, a line a target of false activations."""
    if decision is None:
        return f"decisions of the {name}: none\n"
    lines = [
        f"decisions of the {name}: temperature {decision.temperature:.3g}, floor {decision.floor:.3g}"
        + ("" if decision.novelty is None else f", unknown beyond {decision.novelty:.2f}")
        + f"; onset {decision.onset_s:g} s, release {decision.release_s:g} s, hold {decision.hold_s:g} s"
    ]
    for point in decision.points or (decision,):
        chosen = "*" if point.target_per_hour == decision.target_per_hour else " "
        own = "".join(f", {label} {least:.3f}" for label, least in sorted(point.accept.items()))
        lines.append(
            f"  {chosen} {point.target_per_hour:>4g} false an hour: rest below {point.rest_below:.3f}, "
            f"moving above {point.rest_above:.3f}, accepted from {point.otherwise:.3f}{own}"
        )
    return "\n".join(lines) + "\n"


def _head(bundle: Bundle) -> str:
    made = datetime.fromtimestamp(bundle.manifest.created_ns * 1e-9, UTC)
    return f"digest   {bundle.digest}\nsize     {bundle.size} bytes\nmade     {made:%Y-%m-%dT%H:%M:%SZ}\n"
