"""The root of the `embridge` command: noun, then verb.

Nouns come from the entry-point group `embridge.commands`, so an installation without an extra still runs and a
missing noun answers with the line that installs it. stdout carries data, stderr speaks to people.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperCommand, TyperGroup

from embridge_shared.errors import ConfigError, EmbridgeError, ExitCode, Reason

GROUP = "embridge.commands"

# Typer keeps its copy of click private; this is its base of errors.
_ClickError = cast("type[Exception]", typer.BadParameter.__mro__[2])


def _extra_of(entry: EntryPoint) -> str:
    """The extra that brings the packages of a noun: edge, cloud or tui."""
    return entry.value.removeprefix("embridge_").split(".")[0]


class _Nouns(TyperGroup):
    """Loads a noun's module only when it is named."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *(e.name for e in entry_points(group=GROUP))})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for entry in entry_points(group=GROUP, name=cmd_name):
            try:
                app = entry.load()
            except ModuleNotFoundError as error:
                if error.name and error.name.startswith("embridge_"):
                    raise
                return _missing(cmd_name, _extra_of(entry), error.name or "a package")
            command = typer.main.get_command(app)
            command.name = cmd_name
            return command
        return super().get_command(ctx, cmd_name)


def _missing(noun: str, extra: str, package: str) -> TyperCommand:
    line = f'pip install "embridge[{extra}]"'

    def explain() -> NoReturn:
        raise ConfigError(
            f"`embridge {noun}` needs {package}, which is not installed.",
            reason=Reason.MISSING_EXTRA,
            hint=f"Install it with: {line}",
        )

    return TyperCommand(
        noun,
        callback=explain,
        help=f"Not installed: {line}",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


app = typer.Typer(
    cls=_Nouns,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 connection, 4 timeout, 5 rejected by a gate, 6 busy.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"embridge {version('embridge')}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Streaming edge-to-cloud surface EMG: gestures defined by hand pose, decoded on the wrist."""


def main() -> NoReturn:
    """Run the command and turn errors into one line and an exit code."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)
    except EmbridgeError as error:
        typer.echo(f"embridge: error: {error}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("embridge: interrupted", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except _ClickError as error:
        cast("Any", error).show()
        sys.exit(ExitCode.USAGE)


if __name__ == "__main__":
    main()
