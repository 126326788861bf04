"""`embridge store`: backups, retention, views for people, the lake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from embridge_shared.errors import OperatorError, Reason

app = typer.Typer(
    no_args_is_help=True,
    help="The store: backup and restore, retention, views for plain DuckDB, the lake.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
lake_app = typer.Typer(no_args_is_help=True, help="The lake: one catalogue of sealed sessions on PostgreSQL.")
app.add_typer(lake_app, name="lake")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def backup(
    directory: Annotated[Path | None, typer.Argument(help="Place of backups; store.backup_dir by default.")] = None,
    keys: Annotated[bool, typer.Option("--keys", help="Take the registry's private keys along.")] = False,
    as_json: Json = False,
) -> None:
    """Make a backup, while the cloud process runs or not; a later one in the same place links what has not changed."""
    path = str(directory.expanduser().absolute()) if directory is not None else ""
    made = _ask("backup", path=path, keys=keys)
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(made["path"])
    typer.echo(
        f"{made['sessions']} sealed sessions, {made['files']} files, {made['bytes'] / 1e6:.1f} MB, "
        f"{made['copied'] / 1e6:.1f} MB of it new; verified",
        err=True,
    )


@app.command("backups")
def list_backups(
    directory: Annotated[Path | None, typer.Argument(help="Place of backups; store.backup_dir by default.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read everything and compare it with its digests.")] = False,
) -> None:
    """List backups, the oldest first."""
    from embridge_cloud.store.backup import list_backups as find
    from embridge_cloud.store.backup import read_head, verify_backup
    from embridge_shared.settings import load

    place = directory or load().store.backup_dir
    if place is None:
        raise OperatorError("no place for backups is named.", hint="Name a folder, or set store.backup_dir.")
    for path in find(place):
        head = verify_backup(path) if verify else read_head(path)
        size = sum(f.bytes for f in head.files.values())
        keys = ", with private keys" if head.keys else ""
        typer.echo(f"{path}  {len(head.sessions)} sealed sessions, {size / 1e6:.1f} MB{keys}")


@app.command()
def restore(
    backup_path: Annotated[Path, typer.Argument(metavar="BACKUP", help="One backup's folder.")],
    state_dir: Annotated[Path | None, typer.Option(help="Where to; cloud.state_dir by default.")] = None,
) -> None:
    """Put a backup into an empty state folder; nothing is overwritten."""
    from embridge_cloud.store.restore import restore as put_back
    from embridge_shared.settings import load

    target = state_dir or load().cloud.state_dir
    head = put_back(backup_path, target)
    typer.echo(f"restored {len(head.sessions)} sealed sessions and {head.hot} to {target}", err=True)
    if not head.keys:
        typer.echo(
            "The backup holds no private keys: put registry/keys back before the cloud process starts.", err=True
        )


@app.command()
def retention(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; by default only what would be done is told.")] = False,
    as_json: Json = False,
) -> None:
    """Tell which sealed sessions are past their term, and delete them with --apply."""
    found = _ask("retention", apply=apply)
    if as_json:
        typer.echo(json.dumps(found))
        return
    verb = "deleted" if apply else "would be deleted"
    for row in found["sessions"]:
        said = f"kept: {row['kept']}" if row["kept"] else verb
        typer.echo(f"{row['session']}  {row['age_days']:8.1f} days  {row['why']}  {said}")
    if found["quarantined"]:
        typer.echo(f"{found['quarantined']} quarantined messages {verb}")
    if not found["sessions"]:
        typer.echo("No sealed session is past its term.", err=True)


@app.command()
def views() -> None:
    """Make `views.duckdb` anew and print its path; a running cloud process does so by itself.

    Open it with any DuckDB of version 1.5 or later: duckdb -readonly PATH
    """
    typer.echo(_ask("views")["path"])


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over the views: sessions, streams, windows, cues, …")],
    as_json: Json = False,
) -> None:
    """Ask `views.duckdb`, as it is, without the cloud process."""
    import duckdb

    try:
        with _open_views() as connection:
            result = connection.execute(sql)
            names = [d[0] for d in result.description or ()]
            rows = result.fetchall()
    except duckdb.Error as error:
        raise OperatorError(
            f"the query failed: {error}", hint="`embridge store query 'SHOW TABLES'` lists what is there."
        ) from None
    if as_json:
        typer.echo(json.dumps([dict(zip(names, map(_plain, row), strict=True)) for row in rows], ensure_ascii=False))
        return
    for row in [names, *rows]:
        typer.echo("\t".join("" if value is None else str(value) for value in row))


@lake_app.command("init")
def lake_init() -> None:
    """Make the lake's tables and folder; harmless when they are there."""
    from embridge_cloud.store.lake import Lake
    from embridge_shared.settings import load

    lake = Lake.of(load())
    if lake is None:
        raise OperatorError("no lake is set.", hint="Set store.lake and store.lake_data.")
    lake.init()
    typer.echo(f"the lake is ready; its files go to {lake.data}", err=True)


@lake_app.command("status")
def lake_status(as_json: Json = False) -> None:
    """Show what the lake holds, and how many sealed sessions here are not in it."""
    found = _ask("lake-status")
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"{found['sessions']} sessions, {found['streams']} streams, {found['files']} files, "
        f"{found['bytes'] / 1e6:.1f} MB, snapshot {found['snapshot']}; {found['waiting']} sessions wait"
    )


@lake_app.command("sync")
def lake_sync() -> None:
    """Bring every sealed session into the lake that is not there; a running cloud process does so by itself."""
    for session in _ask("lake-sync")["brought"]:
        typer.echo(session)


@lake_app.command("verify")
def lake_verify(
    sessions: Annotated[list[str] | None, typer.Argument(help="Sessions; by default all.")] = None,
) -> None:
    """Read samples through the catalogue and recompute the content hashes."""
    from uuid import UUID

    from embridge_cloud.store.lake import Lake
    from embridge_shared.settings import load

    lake = Lake.of(load())
    if lake is None:
        raise OperatorError("no lake is set.", hint="Set store.lake and store.lake_data.")
    for session in map(UUID, sessions) if sessions else lake.ids():
        typer.echo(f"{session}  {lake.verify(session)}")


def _open_views() -> Any:
    import duckdb

    from embridge_cloud.store.views import NAME
    from embridge_shared.settings import load

    path = load().cloud.state_dir / NAME
    if not path.is_file():
        raise OperatorError(
            f"there are no views at {path}.", reason=Reason.NOT_FOUND, hint="`embridge store views` makes them."
        )
    return duckdb.connect(str(path), read_only=True)


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | type(None)) else str(value)


def _ask(name: str, **body: Any) -> Any:
    from embridge_cloud.keeping import ask

    return ask(name, **body)
