"""What lies in deploy/: judged by the tools it is for where they are installed, and by its own rules everywhere.

`make deploy-tools` installs the tools.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embridge_shared import settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/embridge.json").read_text())
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
RECIPES = sorted((DEPLOY / "images").glob("*.Dockerfile"))
SCRIPTS = sorted(DEPLOY.rglob("*.sh"))
COMPOSE = DEPLOY / "compose/compose.yaml"


def tool(name: str, *arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program of the system; skip where it is missing."""
    path = shutil.which(name) or shutil.which(name, path=f"/usr/sbin:/sbin:{Path(sys.executable).parent}")
    if path is None:
        pytest.skip(f"{name} is not installed; `make deploy-tools` installs it")
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=60)


# metrics


def documented() -> set[str]:
    """Metrics the cloud has, with the series that histograms bring."""
    page = (ROOT / "docs/metrics.md").read_text()
    found: set[str] = set()
    for name, kind in re.findall(r"^\| `(embridge_\w+)` \| (\w+) ", page, re.MULTILINE):
        found |= {f"{name}_{s}" for s in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return found | {f"process_{n}" for n in ("resident_memory_bytes", "cpu_seconds_total", "open_fds",
                                             "start_time_seconds")}  # fmt: skip


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:embridge|process)_\w+", re.sub(r'"[^"]*"', '""', expression)))


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard with the panel it stands in."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for each in DASHBOARD["annotations"]["list"]:
        yield each["name"], each["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def test_every_query_asks_for_what_the_cloud_has():
    known = documented()
    assert len(known) > 40
    for title, query in queries():
        assert metrics_of(query), title
        assert metrics_of(query) <= known, title
    rules = (DEPLOY / "prometheus/rules.yml").read_text()
    assert metrics_of(re.sub(r"- name:.*|job=\S+|`[^`]*`", "", rules)) <= known


def test_the_dashboard_shows_every_part():
    asked = set().union(*(metrics_of(q) for _, q in queries()))
    for part in ("ingest_samples", "ingest_backlog", "edge_spool", "edge_channels", "releases", "jobs", "sessions"):
        assert any(part in name for name in asked), part


def test_the_dashboard_is_well_formed():
    panels = DASHBOARD["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}
        assert len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])


def test_prometheus_takes_its_files():
    folder = DEPLOY / "prometheus"
    for arguments in (("check", "config", "--syntax-only", "prometheus.yml"), ("check", "rules", "rules.yml"),
                      ("test", "rules", "rules_test.yml")):  # fmt: skip
        done = tool("promtool", *arguments, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_can_parse_every_query(tmp_path):
    rules = [{"record": f"q:{i}", "expr": _filled(q)} for i, (_, q) in enumerate(queries()) if "label_values" not in q]
    (tmp_path / "q.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = tool("promtool", "check", "rules", tmp_path / "q.json")
    assert done.returncode == 0, done.stdout + done.stderr


def _filled(query: str) -> str:
    return query.replace("$__rate_interval", "1m").replace("$edge", ".*")


# units


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.stem)
def test_systemd_takes_the_units(unit, tmp_path):
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    done = tool("systemd-analyze", "verify", "--man=no", copy)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.stem)
def test_the_units_expose_little(unit):
    done = tool("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", unit)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.stem)
def test_the_units_run_what_there_is(unit, monkeypatch):
    lines = [line for line in unit.read_text().splitlines() if "=" in line]
    got: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("=")
        got.setdefault(key, []).append(value)
    (start,) = got["ExecStart"]
    words = start.split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "embridge_shared.cli", *words, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert got["Type"] == ["notify"]
    assert got["Restart"] == ["always"]
    assert 10 <= int(got["WatchdogSec"][0]) <= 120
    for credential in got["LoadCredential"]:
        section, _, key = credential.partition(":")[0].partition(".")
        assert key in settings.sections()[section].model_fields
    for variable in (v.partition("=")[0] for v in got["Environment"]):
        section, _, key = variable.removeprefix("EMBRIDGE_").lower().partition("__")
        assert (
            key in settings.sections()[section].model_fields
            if key
            else variable in {"EMBRIDGE_CONFIG", "OMP_NUM_THREADS"}
        )


def test_accounts_and_folders(tmp_path):
    (tmp_path / "etc").mkdir()
    for name, program in (("sysusers", "systemd-sysusers"), ("tmpfiles", "systemd-tmpfiles")):
        arguments = ["--create"] if name == "tmpfiles" else ["--dry-run"]
        done = tool(program, *arguments, f"--root={tmp_path}", (DEPLOY / f"systemd/embridge.{name}").resolve())
        unknown_group = "Failed to resolve group 'embridge'" in done.stderr or "Unknown group" in done.stderr
        assert done.returncode == 0 or unknown_group, done.stderr


# images and compose


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_the_images_keep_their_rules(recipe):
    text = recipe.read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)
    assert len(stages) == 3
    final = stages[-1]
    assert "USER 10001:10001" in final
    assert "HEALTHCHECK" in final
    assert "pip install" not in final
    assert not re.search(r"build-essential|gcc|\bgit\b", final)
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert all("-c constraints.txt" in line for line in re.findall(r".*pip install (?!--no-deps).*", text))
    words = json.loads(re.findall(r"^CMD (.*)$", final, re.MULTILINE)[-1])
    assert words[0] in {"cloud", "edge"}
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / s).exists() for s in source.split())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_the_images_pass_the_linter(recipe):
    done = tool("hadolint", recipe)
    assert done.returncode == 0, done.stdout


def test_what_an_image_installs():
    script = DEPLOY / "images/requirements.py"
    done = subprocess.run([sys.executable, str(script), "edge"], cwd=ROOT, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["edge"]
    assert done.stdout.splitlines() == wanted
    assert not [w for w in wanted if w.startswith("torch")]


def test_the_context_holds_what_the_recipes_copy_and_no_more():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for recipe in RECIPES:
        for source in re.findall(r"^COPY (?!--from)(.+) \S+$", recipe.read_text(), re.MULTILINE):
            copied |= {re.sub(r"^deploy/images/.*", "deploy/images/*.py", s) for s in source.split()}
    assert kept == copied


def health(part: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = DEPLOY / "images/healthcheck.py"
    environment = os.environ | {f"EMBRIDGE_{part.upper()}__STATE_DIR": str(folder)}
    return subprocess.run([sys.executable, str(script), part], env=environment, capture_output=True, text=True)


def test_the_health_of_an_edge(tmp_path):
    from embridge_edge.lock import only_agent
    from embridge_edge.spool import Spool

    assert health("edge", tmp_path / "none").returncode == 1
    Spool(tmp_path / "spool.db", 1 << 20).close()
    assert "no agent runs" in health("edge", tmp_path).stderr or health("edge", tmp_path).returncode == 1
    with only_agent(tmp_path):
        assert health("edge", tmp_path).returncode == 0


def test_the_health_of_a_cloud(tmp_path, free_port):
    (tmp_path / "api").mkdir()
    (tmp_path / "api/local.url").write_text(f"http://127.0.0.1:{free_port}")
    assert health("cloud", tmp_path).returncode == 1


def test_compose_takes_the_file(tmp_path):
    # Compose 1 of Debian 12 does not know the project's name.
    text = COMPOSE.read_text().replace("name: embridge\n", "", 1)
    (tmp_path / "compose.yaml").write_text(text)
    (tmp_path / "env").write_text("SITE_UID=1000\nSITE_GID=1000\n")
    done = tool("docker-compose", "--project-directory", COMPOSE.parent, "--env-file", tmp_path / "env",
                "-f", tmp_path / "compose.yaml", "config", "-q")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_compose_without_preparation_says_what_to_do(tmp_path):
    (tmp_path / "compose.yaml").write_text(COMPOSE.read_text().replace("name: embridge\n", "", 1))
    (tmp_path / "env").write_text("")
    done = tool("docker-compose", "--project-directory", tmp_path, "--env-file", tmp_path / "env",
                "-f", tmp_path / "compose.yaml", "config", "-q")  # fmt: skip
    assert done.returncode != 0
    assert "run ./prepare.sh" in done.stderr


def services() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    return dict(yaml.safe_load(COMPOSE.read_text())["services"])


def test_every_container_is_confined_and_watched():
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["user"] != "root", name
        assert "healthcheck" in service or name == "cloud", name
        assert "mem_limit" in service, name
        tag = service["image"].rpartition(":")[2].rstrip("}")
        assert re.search(r"\d", tag), f"{name} is not pinned"
        assert not any(k == "POSTGRES_PASSWORD" for k in service.get("environment", {})), name


def test_what_compose_mounts_is_there():
    made = {"./site/broker", "./site/cloud", "./site/cloud/ca.crt"}
    for name, service in services().items():
        for source in (v.partition(":")[0] for v in service.get("volumes", ())):
            assert not source.startswith(".") or source in made or (COMPOSE.parent / source).exists(), (name, source)


# scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_the_scripts_pass_the_linter(script):
    done = tool("shellcheck", script)
    assert done.returncode == 0, done.stdout
    assert os.access(script, os.X_OK)


def test_compose_is_prepared_twice_with_the_same_result(tmp_path):
    script = tmp_path / "prepare.sh"
    script.write_text((DEPLOY / "compose/prepare.sh").read_text())
    embridge = Path(sys.executable).with_name("embridge")
    environment = os.environ | {"EMBRIDGE": str(embridge)}

    def prepare() -> dict[str, bytes]:
        done = subprocess.run(["sh", str(script), "127.0.0.1"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    first = prepare()
    assert {".env", "site/broker/mosquitto.conf", "site/cloud/embridge.toml", "secrets/grafana.password",
            "secrets/objects.json"} <= set(first)  # fmt: skip
    assert b"/mosquitto/site/acl" in first["site/broker/mosquitto.conf"]
    assert json.loads(first["secrets/objects.json"])["identities"]
    assert prepare() == first


@pytest.mark.parametrize("arguments", [[], ["edge"], ["--source"], ["nonsense", "x"]], ids=" ".join)
def test_provisioning_explains_itself(arguments):
    done = subprocess.run(["sh", str(DEPLOY / "provision.sh"), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert "provision.sh edge BUNDLE.edge.tar" in done.stderr


def test_the_broker_runs_with_what_a_site_makes(tmp_path, free_port):
    """The configuration of a site, by the broker itself."""
    embridge = Path(sys.executable).with_name("embridge")
    subprocess.run([embridge, "site", "init", tmp_path / "s", "--broker-port", str(free_port)], check=True,
                   capture_output=True)  # fmt: skip
    path = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if path is None:
        pytest.skip("no mosquitto is installed")
    # Started by root it would give itself away to a user who may not read the files.
    conf = tmp_path / "m.conf"
    conf.write_text((tmp_path / "s/broker/mosquitto.conf").read_text() + "\nuser root\n")
    process = subprocess.Popen([path, "-c", str(conf)], stderr=subprocess.PIPE, text=True)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    finally:
        process.kill()
        process.communicate()
