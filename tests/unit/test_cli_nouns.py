"""A noun may have verbs from several packages."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from embridge_shared import cli
from embridge_shared.errors import ConfigError, Reason


def app_of(*verbs: str, doc: str = "") -> typer.Typer:
    app = typer.Typer(help=doc, no_args_is_help=True)

    @app.callback()
    def about() -> None:
        """Things."""

    for verb in verbs:
        app.command(verb, help=f"{verb} of {doc}")(lambda verb=verb: typer.echo(f"{verb} of {doc}"))
    return app


@pytest.fixture
def nouns(monkeypatch):
    """Entry points of the test: name -> Typer app, or the name of a package that is not there."""
    found: dict[str, EntryPoint] = {}

    def entry_points(group: str):
        assert group == cli.GROUP
        return list(found.values())

    def give(**parts: typer.Typer | str) -> None:
        for key, app in parts.items():
            name, module = key.replace("__", "."), f"embridge_test_{key}"
            if isinstance(app, str):
                found[name] = EntryPoint(name, f"{app}:app", cli.GROUP)
            else:
                made = ModuleType(module)
                made.app = app
                monkeypatch.setitem(sys.modules, module, made)
                found[name] = EntryPoint(name, f"{module}:app", cli.GROUP)

    monkeypatch.setattr(cli, "entry_points", entry_points)
    return give


def run(*arguments: str):
    return CliRunner().invoke(cli.app, arguments)


def test_verbs_of_several_packages_are_one_noun(nouns):
    nouns(fleet=app_of("list", "show", doc="cloud"), fleet__simulate=app_of("simulate", doc="edge"))
    assert run("fleet", "list").stdout == "list of cloud\n"
    assert run("fleet", "simulate").stdout == "simulate of edge\n"
    text = run("fleet", "--help").stdout
    assert all(verb in text for verb in ("list", "show", "simulate"))
    assert run("--help").stdout.count("fleet") == 1


def test_the_noun_s_own_package_decides_where_two_have_a_verb(nouns):
    nouns(fleet__other=app_of("list", doc="other"), fleet=app_of("list", doc="own"))
    assert run("fleet", "list").stdout == "list of own\n"


def test_one_package_alone_is_the_noun_even_under_a_longer_name(nouns):
    nouns(fleet__simulate=app_of("simulate", doc="edge"))
    assert run("fleet", "simulate").stdout == "simulate of edge\n"


def test_a_package_that_is_not_there_is_named_by_its_own_verb_only(nouns):
    nouns(fleet=app_of("list", doc="cloud"), fleet__simulate="no_such_package")
    assert run("fleet", "list").stdout == "list of cloud\n"
    failed = run("fleet", "simulate", "--edges", "3")
    assert isinstance(failed.exception, ConfigError)
    assert failed.exception.reason is Reason.MISSING_EXTRA
    assert "no_such_package" in str(failed.exception)
