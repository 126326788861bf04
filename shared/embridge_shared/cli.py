"""The root of the `embridge` command: noun, then verb.

Nouns come from the entry-point group `embridge.commands`, so an installation without an extra still runs and a
missing noun answers with the line that installs it. A noun may have verbs from several packages: `fleet` and
`fleet.simulate` are both of the noun `fleet`, and what comes after the dot names what is missing without its package.
stdout carries data, stderr speaks to people.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, NoReturn, cast

import typer
from typer.core import TyperCommand, TyperGroup

from embridge_shared.errors import ConfigError, EmbridgeError, ExitCode, OperatorError, Reason

GROUP = "embridge.commands"

_FULL = (errno.ENOSPC, errno.EDQUOT)

_COMPLETION = ("install_completion", "show_completion")  # of the root alone

# Typer keeps its copy of click private; this is its base of errors.
_ClickError = cast("type[Exception]", typer.BadParameter.__mro__[2])


def _install_line(entry: EntryPoint) -> str:
    """What brings the packages of a noun: the extra named like its package, or the distribution itself."""
    extra = entry.value.removeprefix("embridge_").partition(".")[0]
    return "pip install embridge" if extra == "shared" else f'pip install "embridge[{extra}]"'


class _Nouns(TyperGroup):
    """Loads a noun's module only when it is named."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *(_noun(e) for e in entry_points(group=GROUP))})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        parts = {}
        for entry in _entries(cmd_name):
            try:
                parts[entry.name] = _loaded(cmd_name, entry)
            except ModuleNotFoundError as error:
                parts[entry.name] = _missing(cmd_name, _install_line(entry), _foreign(error))
        if len(parts) > 1:
            return _merged(cmd_name, parts)
        return next(iter(parts.values()), None) or super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            noun = ctx.invoked_subcommand
            lines = sorted({_install_line(entry) for entry in _entries(noun)})
            raise _needs(noun, " or ".join(lines), _foreign(error)) from error


def _noun(entry: EntryPoint) -> str:
    return entry.name.partition(".")[0]


def _entries(noun: str) -> list[EntryPoint]:
    """What brings verbs of a noun; the noun's own entry first."""
    return sorted((e for e in entry_points(group=GROUP) if _noun(e) == noun), key=lambda e: e.name)


def _loaded(noun: str, entry: EntryPoint) -> Any:
    command = typer.main.get_command(entry.load())
    command.name = noun
    command.params = [p for p in command.params if p.name not in _COMPLETION]
    return command


def _merged(noun: str, parts: dict[str, Any]) -> TyperGroup:
    """One noun of several packages' verbs; of two verbs of a name the first one's package counts."""
    verbs: dict[str, Any] = {}
    for name, part in parts.items():
        found = part.commands if isinstance(part, TyperGroup) else {name.partition(".")[2] or noun: part}
        verbs = {**found, **verbs}
    about = next((p.help for p in parts.values() if isinstance(p, TyperGroup) and p.help), None)
    return TyperGroup(name=noun, commands=verbs, help=about, no_args_is_help=True, rich_markup_mode=None)


def _foreign(error: ModuleNotFoundError) -> str:
    """The package somebody else makes that is missing; an error of our own is raised on."""
    package = (error.name or "").partition(".")[0]
    if not package or package.startswith("embridge_"):
        raise error
    return package


def _needs(noun: str, line: str, package: str) -> ConfigError:
    return ConfigError(
        f"`embridge {noun}` needs {package}, which is not installed.",
        reason=Reason.MISSING_EXTRA,
        hint=f"Install it with: {line}",
    )


def _missing(noun: str, line: str, package: str) -> TyperCommand:
    def explain() -> NoReturn:
        raise _needs(noun, line, package)

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
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Streaming edge-to-cloud surface EMG: gestures defined by hand pose, decoded on the wrist."""


def main() -> NoReturn:
    """Run the command and turn errors into one line and an exit code."""
    # A supervisor's stop unwinds like Ctrl-C, so that what was begun is cleaned up and children are ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)
    except EmbridgeError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("embridge: interrupted", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except _ClickError as error:
        _explain_usage(error)
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain of it again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except OSError as error:
        if error.errno in _FULL:
            _fail(f"{error.filename or 'a disk'}: {error.strerror}. Make room and start again.", ExitCode.FAILED)
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}. Check the path and its permissions.", ExitCode.FAILED)


def _fail(text: str, code: ExitCode) -> NoReturn:
    typer.echo(f"embridge: error: {' '.join(text.split())}", err=True)
    sys.exit(code)


def _explain_usage(error: Any) -> NoReturn:
    ctx = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(ExitCode.USAGE)
    hint = f"`{ctx.command_path} --help` explains." if ctx is not None else ""
    _fail(str(OperatorError(error.format_message(), hint=hint)), ExitCode.USAGE)


if __name__ == "__main__":
    main()
