"""`embridge token`: who may call the HTTP interface."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embridge_cloud.api.roles import Role

if TYPE_CHECKING:
    from embridge_shared.cloud_client import CloudApi
    from embridge_shared.settings import Settings

app = typer.Typer(
    help="Tokens: who may call the HTTP interface, and in which role.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Url = Annotated[
    str | None, typer.Option(help="Address of the cloud's HTTP interface; by default that of this machine's process.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="Who has it, as in ana or prometheus.")]


@app.command()
def create(
    name: Name,
    role: Annotated[Role, typer.Option(help="What it allows; each role allows what those before it do.")],
    days: Annotated[float | None, typer.Option(min=0.01, max=3650, help="Its term; without end by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write it to this file, 0600, instead of printing it.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a token; it is shown this once, and only a digest of it is kept."""
    api, settings = _way(url)
    if api is not None:
        text = api.post("/api/tokens", {"name": name, "role": role.value, "days": days})["token"]
    else:
        text = _tokens(settings).create(name, role, now_ns=time.time_ns(), days=days)
        _note(settings, "token.create", name, {"role": role.value, "days": days or 0})
    if out is not None:
        from embridge_shared.archive import write_atomically

        write_atomically(out, f"{text}\n".encode(), mode=0o600)
        typer.echo(f"The token of {name}, {role.value}, is in {out}.", err=True)
    elif not as_json:
        typer.echo(text)
        typer.echo("Keep it secret; it cannot be shown again. Clients take it as EMBRIDGE_API__TOKEN.", err=True)
    if as_json:
        typer.echo(json.dumps({"name": name, "role": role.value, "token": text if out is None else None}))


@app.command("list")
def list_tokens(url: Url = None, as_json: Json = False) -> None:
    """List the tokens there are, by name."""
    api, settings = _way(url)
    rows = api.get("/api/tokens") if api is not None else [_row(t) for t in _tokens(settings).known()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("There is no token yet.", err=True)
    for row in rows:
        term = f"{'ended' if row['expired'] else 'until'} {row['expires_at'][:10]}" if row["expires_at"] else "no end"
        typer.echo(f"{row['name']:<24} {row['role']:<9} made {row['created_at'][:10]}  {term}")


@app.command()
def revoke(name: Name, url: Url = None) -> None:
    """Take a token's right away, at once."""
    api, settings = _way(url)
    if api is not None:
        from urllib.parse import quote

        api.delete(f"/api/tokens/{quote(name, safe='')}")
    else:
        _tokens(settings).revoke(name)
        _note(settings, "token.revoke", name, {})
    typer.echo(f"The token of {name} is worth nothing any more.", err=True)


def _way(url: str | None) -> tuple[CloudApi | None, Settings]:
    """The interface to ask, or None where this machine's process is not running: then its files are changed."""
    from embridge_shared import settings
    from embridge_shared.cloud_client import LOCAL_URL, connect
    from embridge_shared.errors import NetworkError, Reason

    found = settings.load()
    if url or found.api.url:
        return connect(url, settings=found), found
    if not (found.cloud.state_dir / LOCAL_URL).exists():
        return None, found
    api = connect(settings=found)
    try:
        api.get("/health")
    except NetworkError as error:
        if error.reason is not Reason.UNREACHABLE:
            raise
        return None, found
    return api, found


def _tokens(settings: Settings) -> Any:
    from embridge_cloud.api.tokens import TokenFile

    return TokenFile(settings.cloud.state_dir)


def _row(token: Any) -> dict[str, Any]:
    def moment(wall_ns: int) -> str:
        return datetime.fromtimestamp(wall_ns // 10**9, UTC).isoformat().replace("+00:00", "Z")

    return {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "created_at": moment(token.created_ns),
        "expires_at": moment(token.expires_ns) if token.expires_ns else None,
        "expired": token.expired(time.time_ns()),
    }


def _note(settings: Settings, action: str, name: str, detail: dict[str, str | int | float]) -> None:
    """Put a change into the audit log of the process that is not running; a store not made yet has none."""
    import getpass

    from embridge_cloud.context import CloudPaths
    from embridge_cloud.store.audit import AuditLog
    from embridge_cloud.store.hot import HotStore
    from embridge_shared.errors import EmbridgeError

    path = CloudPaths.of(settings).hot
    if not path.exists():
        return
    try:
        with HotStore(path) as store:
            AuditLog(store).record(f"cli:{getpass.getuser()}", action, f"token:{name}", detail, time.time_ns())
    except EmbridgeError as error:
        typer.echo(f"This is not in the audit log: {error}", err=True)
