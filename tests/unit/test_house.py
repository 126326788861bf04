"""The house: what may import what, how errors look, what is pinned, what may lie in the tree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from embridge_edge.spool import Spool

ROOT = Path(__file__).parents[2]
PACKAGES = ("edge/embridge_edge", "cloud/embridge_cloud", "shared/embridge_shared", "tui/embridge_tui")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def fresh(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in an interpreter of its own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


# imports


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["embridge_edge.agent"], ["torch", "duckdb", "polars", "textual", "pyarrow", "faiss", "matplotlib"]),
        (["embridge_cloud.server", "embridge_cloud.fleet"], ["torch", "faiss", "matplotlib", "textual"]),
        (["embridge_shared.cli"], ["numpy", "rich", "pydantic_settings"]),
    ],
    ids=["agent", "cloud", "cli"],
)
def test_heavy_modules_stay_out(modules, absent):
    code = "import json, sys\nfor m in sys.argv[1:]: __import__(m)\nprint(json.dumps(sorted(sys.modules)))"
    done = fresh(code, *modules)
    assert done.returncode == 0, done.stderr
    loaded = {m.partition(".")[0] for m in json.loads(done.stdout)}
    assert not loaded & set(absent)
    assert {m.partition(".")[0] for m in modules} <= loaded


# an installation without extras

BARE = """
import importlib.abc, sys
blocked = set(sys.argv[1].split(","))
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv[0:] = ["embridge", *sys.argv[2:]]
from embridge_shared.cli import main
main()
"""


def modules_of_extras() -> list[str]:
    """Modules that only an extra brings."""
    extras = PROJECT["project"]["optional-dependencies"]
    names = {Requirement(r).name for extra in ("edge", "cloud", "tui") for r in extras[extra]}
    renamed = {"faiss-cpu": "faiss", "paho-mqtt": "paho"}
    return sorted({renamed.get(n, n) for n in names} | {"uvicorn", "starlette"})


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `embridge` where no extra is installed."""
    return fresh(BARE, ",".join(modules_of_extras()), *arguments)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["gesture", "list"], ["config", "show"], ["session", "list", "--help"]],
    ids=" ".join,
)
def test_commands_that_need_no_extra(arguments):
    done = bare(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_an_edge_is_looked_at_without_its_extra(tmp_path):
    Spool(tmp_path / "spool.db", 1 << 20).close()
    done = bare("edge", "status", "--state-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "release none" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["edge", "run"], "edge"),
        (["cloud", "run", "--mqtt-port", "0", "--embedded-broker"], "cloud"),
        (["demo"], "cloud"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else a,
)
def test_a_missing_extra_is_named(arguments, extra, tmp_path):
    done = bare(*arguments, *(["--out", str(tmp_path)] if arguments == ["demo"] else []))
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"embridge: error: `embridge {arguments[0]}` needs ")
    assert last.endswith(f'Install it with: pip install "embridge[{extra}]"')
    assert "Traceback" not in done.stderr


def test_a_missing_module_of_our_own_is_a_bug():
    done = fresh(BARE, "embridge_cloud", "session", "list")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["nonsense"], 2, "No such command"),
        (["gesture", "show"], 2, "Missing argument"),
        (["gesture", "show", "nonsense"], 2, "`embridge gesture list`"),
        (["edge", "run", "--plan", "/dev/null/plan.toml"], 2, "cannot be read"),
        (["release", "show", "/dev/null/x.embridge"], 5, "cannot be read"),
        (["release", "list", "--url", "http://127.0.0.1:9"], 3, "embridge cloud run"),
        (["session", "list", "--dir", "/dev/null/sealed"], 2, "there is no folder"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else None,
)
def test_errors_are_one_line(arguments, code, word):
    done = fresh("import sys; sys.argv[0] = 'embridge'; from embridge_shared.cli import main; main()", *arguments)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert line.startswith("embridge: error: ")
    assert word in line


def test_a_supervisors_stop_unwinds():
    code = """
import sys, time
from embridge_shared import cli, gestures
gestures.vocabulary = lambda: (print("under way", flush=True), time.sleep(60))
sys.argv = ["embridge", "gesture", "list"]
try:
    cli.main()
finally:
    print("cleaned up")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "under way\n"
    process.terminate()
    said, complained = process.communicate(timeout=30)
    assert (process.returncode, said, complained) == (130, "cleaned up\n", "")


# dependencies


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines if line and not line.startswith("#"))
    }


def requirements() -> Iterator[Requirement]:
    project = PROJECT["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    for line in (line for group in groups for line in group if isinstance(line, str)):
        if not line.startswith("embridge"):
            yield Requirement(line)


def test_constraints_pin_every_dependency_within_its_range():
    pinned = pins()
    for requirement in requirements():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_constraints_hold_the_cpu_torch_alone():
    pinned = pins()
    assert pinned["torch"] == "2.13.0"
    assert not [n for n in pinned if re.search("nvidia|cuda|triton|^nccl|^cudnn", n)]


# the tree


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_data_and_no_weights_are_tracked():
    kinds = {".mat", ".parquet", ".onnx", ".pt", ".pth", ".npz", ".npy", ".duckdb", ".safetensors", ".embridge", ".pkl"}
    assert not [p.name for p in tracked() if p.suffix in kinds or p.stat().st_size > 1_000_000]


def test_no_absolute_paths_of_a_machine():
    places = re.compile(r"(?<![\w.~/<>}-])/(?:work|home|root|Users)/")
    for path in tracked():
        if path.suffix not in {".png", ".svg"}:
            found = places.search(path.read_text(encoding="utf-8", errors="replace"))
            assert found is None or path == Path(__file__), f"{path.relative_to(ROOT)}: {found}"


def test_every_package_is_typed_and_has_no_stray_init():
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        assert not (ROOT / package).parent.joinpath("__init__.py").exists()


def test_wheel_holds_everything(tmp_path):
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    wheel = next(builder.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in PACKAGES:
        folder = ROOT / package
        wanted = {p.relative_to(folder.parent).as_posix() for s in ("*.py", "*.sql", "*.toml", "py.typed", "*.tcss")
                  for p in folder.rglob(s)}  # fmt: skip
        assert wanted <= names
    assert {n for n in names if n.endswith(".sql")}
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert {n.partition("/")[0] for n in names} == {Path(p).name for p in PACKAGES} | {"embridge-0.1.0.dist-info"}
