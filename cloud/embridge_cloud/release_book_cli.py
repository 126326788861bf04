"""`embridge release lineage`, `card` and `diff`: where a release comes from, what it is worth, what it changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from embridge_shared.manifest import Manifest

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[
    str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of the settings.")
]


def lineage(
    release: Annotated[str, typer.Argument(help="A published release, as in embridge-3.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Tell what a release was made of: its parents, and the snapshot, sessions and participants of each."""
    rows = fetched(release, url)["lineage"]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for depth, row in enumerate(rows):
        typer.echo(("" if depth == 0 else "\nwhich continues\n") + ancestor(row))


def card(
    release: Annotated[str, typer.Argument(help="A published release, as in embridge-3.")],
    out: Annotated[Path | None, typer.Option(help="Save the page with its pictures here, HTML.")] = None,
    url: Url = None,
) -> None:
    """Print the model card of a release: what it was judged on, what was decided, and why."""
    from embridge_shared.cloud_client import connect

    path = f"/api/releases/{quote(release, safe='')}/card"
    if out is None:
        typer.echo(connect(url).read(path).decode())
        return
    out.write_bytes(connect(url).read(f"{path}?form=html"))
    typer.echo(f"saved as {out}", err=True)


def diff(
    first: Annotated[str, typer.Argument(help="A published release, or a bundle file.")],
    second: Annotated[str, typer.Argument(help="What it is compared with.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Tell what changed from one release to another: gestures, head, preprocessing, data, figures."""
    import msgspec

    from embridge_cloud.differences import differences

    changes = differences(*(_manifest(name, url) for name in (first, second)))
    if as_json:
        typer.echo(msgspec.json.encode(changes).decode())
        return
    if not changes:
        typer.echo("They say the same of themselves.", err=True)
    width = max((len(c.what) for c in changes), default=0)
    for change in changes:
        typer.echo(f"{change.what:<{width}}  {change.before}  →  {change.after}")


def fetched(release: str, url: str | None) -> dict[str, Any]:
    """What a cloud knows of a published release."""
    from embridge_shared.cloud_client import connect

    found: dict[str, Any] = connect(url).get(f"/api/releases/{quote(release, safe='')}")
    return found


def told(found: dict[str, Any]) -> str:
    """A published release in a few lines, and how it was judged."""
    entry, gate, manifest = found["published"], found["gate"], found["manifest"]
    made = manifest["lineage"]
    lines = [
        f"release  {entry['name']}" + (f"   RECALLED: {found['recalled']}" if found["recalled"] else ""),
        f"digest   {entry['digest']}",
        f"size     {entry['size']} bytes",
        f"made     {_when(manifest['created_ns'])}",
        f"head     {manifest['head']}",
        f"from     {len(made['sessions'])} sessions of {len(made['participants'])} people",
    ]
    if gate is None:
        return "\n".join([*lines, "gate     not judged here"])
    beside = f", beside {gate['champion']}" if gate["champion"] else ""
    lines.append(f"gate     {'accepted' if gate['accepted'] else 'refused'} on {gate['participants']} people{beside}")
    if gate["forced_by"]:
        lines.append(f"forced   by {gate['forced_by']}: {gate['forced_why']}")
    lines.append("")
    for check in gate["checks"]:
        mark = "ok" if check["passed"] else "NO" if check["required"] else "no"
        lines.append(f"  {mark:<2}  {check['title']}: {check['why']}")
    return "\n".join(lines)


def _manifest(name: str, url: str | None) -> Manifest:
    """Of a bundle file, or of a published release."""
    import msgspec

    from embridge_shared.manifest import Manifest
    from embridge_shared.release import read_bundle

    if Path(name).is_file():
        return read_bundle(Path(name)).manifest
    return msgspec.convert(fetched(name, url)["manifest"], Manifest)


def ancestor(row: dict[str, Any]) -> str:
    """One release of a lineage in lines."""
    if not row["release"]:
        return f"{row['digest']}, which is not here"
    people = ", ".join(row["participants"]) or "nobody who is still known here"
    gone = f", and {row['forgotten']} nobody here knows any more" if row["forgotten"] else ""
    lines = [
        f"{row['release']}  {row['digest']}",
        f"  made          {_when(row['created_ns'])}, code {row['code']}, head {row['head']}, seed {row['seed']}"
        + (f", job {row['job']}" if row["job"] else ""),
        f"  snapshot      {row['snapshot']}",
        f"  recipe        {row['recipe']}",
        f"  participants  {people}{gone}",
    ]
    for session in row["sessions"]:
        owner = session["participant"] or "no longer here"
        lines.append(f"  session       {session['session']}  {owner}")
    return "\n".join(lines)


def _when(created_ns: int) -> str:
    return f"{datetime.fromtimestamp(created_ns * 1e-9, UTC):%Y-%m-%dT%H:%M:%SZ}"
