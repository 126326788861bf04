"""`embridge config`: what is set, and where."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

app = typer.Typer(
    help="Settings: what is set, and where.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(as_json: Json = False) -> None:
    """Show every key with its value and where it was set."""
    from embridge_shared import settings

    found = settings.origins(settings.load())
    rows = [{"key": o.key, "value": _plain(o.value), "origin": o.origin} for o in found]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for row in rows:
        typer.echo(f"{row['key']:<28} {json.dumps(row['value'], ensure_ascii=False):<44} {row['origin']}")


@app.command()
def path(as_json: Json = False) -> None:
    """List the files that are read, the weakest first."""
    from embridge_shared import settings

    rows = [{"file": str(p), "exists": p.is_file()} for p in settings.config_files()]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for row in rows:
        typer.echo(f"{row['file']}  {'is read' if row['exists'] else 'does not exist'}")


@app.command()
def validate() -> None:
    """Check files and environment; ends with 2 where something is not known or not possible."""
    from embridge_shared import settings
    from embridge_shared.tls import tls_context

    loaded = settings.load()
    tls_context(loaded.mqtt)
    typer.echo("The settings are valid.")


@app.command()
def schema(as_json: Json = False) -> None:
    """List every key, what it takes and what it is for; with --json as JSON Schema."""
    from embridge_shared import settings

    if as_json:
        typer.echo(json.dumps(settings.Settings.model_json_schema(), ensure_ascii=False, indent=2))
        return
    for section, model in settings.sections().items():
        typer.echo(f"[{section}]  {(model.__doc__ or '').strip()}")
        for name, field in model.model_fields.items():
            default = json.dumps(_plain(field.get_default(call_default_factory=True)), ensure_ascii=False)
            typer.echo(f"  {name} = {default}  ({_kind(field)})  {field.description or ''}".rstrip())
        typer.echo()


def _plain(value: Any) -> Any:
    """A value as JSON has it; secrets stay hidden."""
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _kind(field: FieldInfo) -> str:
    """Type and bounds in a few words."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [f"{sign} {getattr(m, a)}" for m in field.metadata for a, sign in signs.items() if hasattr(m, a)]
    return ", ".join([_words(field.annotation), *bounds])


def _words(annotation: Any) -> str:
    """A type as people say it."""
    inner = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(inner)}"
    if get_origin(annotation) is tuple:
        return f"list of {_words(inner[0])}"
    if inner:
        return _words(inner[0])
    names = {
        "str": "text",
        "SecretStr": "secret",
        "Path": "path",
        "int": "integer",
        "float": "number",
        "bool": "switch",
    }
    return names[annotation.__name__]
