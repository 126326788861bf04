"""The documentation covers what there is, and its examples are true."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import msgspec
import typer

from embridge_edge import plan
from embridge_shared import settings
from embridge_shared.cli import GROUP
from embridge_shared.release import FILES, MANIFEST, Manifest
from embridge_shared.wire import codec
from embridge_shared.wire.messages import CommitReport, Desired, EdgeState, EventMessage, pack, unpack

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCS = ROOT / "docs"


def commands(command: typer.core.TyperCommand | typer.core.TyperGroup, path: str) -> Iterator[tuple[str, object]]:
    """Every command under one, by the words that call it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{path} {name}")


def tree() -> dict[str, object]:
    found: dict[str, object] = {}
    for entry in entry_points(group=GROUP):
        noun = entry.name.partition(".")[0]
        found |= dict(commands(typer.main.get_command(entry.load()), f"embridge {noun}"))
    return found


def test_every_noun_is_registered():
    wanted = set(PROJECT["project"]["entry-points"][GROUP])
    assert {e.name for e in entry_points(group=GROUP)} == wanted, "run `make setup` to register the commands"


def test_every_command_and_option_has_help():
    for path, command in tree().items():
        assert command.help, path
        for option in command.params:
            assert getattr(option, "help", None) or option.name in {"help", "install_completion"}, (path, option.name)


def test_every_command_and_option_is_documented():
    page = (DOCS / "cli.md").read_text()
    for path, command in tree().items():
        heading = re.search(rf"^#+ `{path}(?: [^`]+)?`$", page, re.MULTILINE)
        assert heading is not None, path
        section = page[heading.end() :].partition("\n#")[0]
        for option in command.params:
            for flag in option.opts:
                if flag.startswith("--") and flag not in {"--help", "--install-completion", "--show-completion"}:
                    assert f"`{flag}" in section, (path, flag)


def test_every_setting_is_documented_with_its_default():
    page = (DOCS / "settings.md").read_text()
    for section, model in settings.sections().items():
        part = page.partition(f"## [{section}]")[2].partition("\n## ")[0]
        rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", part, re.MULTILINE))
        assert set(rows) == set(model.model_fields), section
        for name, field in model.model_fields.items():
            if field.default_factory is None:
                shown = json.dumps(field.default) if isinstance(field.default, bool | str) else str(field.default)
                assert rows[name].strip("`") == {"None": "unset", '""': "empty", "": "empty"}.get(shown, shown), name


def test_links_between_pages_lead_somewhere():
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http://", "https://")) and not target.endswith(".png"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def blocks(page: str, language: str) -> list[str]:
    """Code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_chunk_in_the_documentation_is_one():
    rows = next(b for b in blocks("wire.md", "text") if b.startswith("45 4d")).splitlines()
    payload = bytes.fromhex("".join(row[:51].split("   ")[0] for row in rows))
    chunk = codec.decode(payload)
    assert codec.encode(chunk, codec.RAW) == payload
    assert (chunk.first, chunk.gap_before, chunk.samples.tolist()[3]) == (1000, 20, [8, -8])
    assert chunk.arrivals.index.tolist() == [1001, 1003]
    words = " ".join(f"{b:02x}" for b in codec.encode(chunk)[64 + 24 :])
    shown = re.search(r"`(28 b5 [0-9a-f ]+) …`", (DOCS / "wire.md").read_text())
    assert shown is not None
    assert words.startswith(shown[1])


def test_the_messages_in_the_documentation_are_valid():
    kinds = [EventMessage, EventMessage, CommitReport, Desired, EdgeState]
    for text, kind in zip(blocks("wire.md", "json"), kinds, strict=True):
        message = msgspec.json.decode(text, type=kind)
        assert unpack(pack(message), kind) == message


def test_the_plans_in_the_documentation_are_valid(tmp_path):
    example = plan.load(DOCS / "examples" / "record.toml")
    for page in ("quickstart.md", "edge.md"):
        (text,) = (b for b in blocks(page, "toml") if "[[session]]" in b)
        (tmp_path / "plan.toml").write_text(text)
        shown = plan.load(tmp_path / "plan.toml")
        assert page != "quickstart.md" or shown == example
    fields = {f for s in (plan.SyntheticSource, plan.ReplaySource) for f in s.__struct_fields__} - {"select"}
    assert all(f"| `{f}` |" in (DOCS / "edge.md").read_text() for f in fields)


def test_the_manifest_is_documented():
    page = (DOCS / "releases.md").read_text()
    assert all(f"`{name}`" in page for name in (*Manifest.__struct_fields__, MANIFEST, *FILES))


def test_every_table_and_view_is_documented():
    sql = "".join(p.read_text() for p in (ROOT / "cloud/embridge_cloud/store/migrations").glob("*.sql"))
    page = (DOCS / "data.md").read_text()
    for name in re.findall(r"^CREATE (?:TABLE|VIEW) (\w+)", sql, re.MULTILINE):
        assert f"`{name}`" in page, name


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert page.relative_to(DOCS).as_posix() in navigation
