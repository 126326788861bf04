"""The dashboard and the alert rules ask for what a running cloud process really exposes; the doctor finds it well."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from embridge_shared.cloud_client import connect
from embridge_shared.settings import load

ROOT = Path(__file__).parents[2]
EMBRIDGE = Path(sys.executable).with_name("embridge")
# Series that come with the first edge, the first message in quarantine and the first request.
LATER = {"embridge_http_refused_total", "embridge_quarantine_messages"}


def asked() -> set[str]:
    """Metrics that dashboard and rules name."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/embridge.json").read_text())
    queries = [t["expr"] for p in dashboard["panels"] for t in p.get("targets", ())]
    rules = re.findall(r"^ +expr: (.*)$", (ROOT / "deploy/prometheus/rules.yml").read_text(), re.MULTILINE)
    text = re.sub(r'"[^"]*"', '""', "\n".join([*queries, *rules]))
    return set(re.findall(r"\b(?:embridge|process)_\w+", text))


def test_a_running_cloud_has_what_is_asked_for(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    state = tmp_path / "cloud"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EMBRIDGE_")} | {"HOME": str(tmp_path)}
    command = [EMBRIDGE, "cloud", "run", "--embedded-broker", "--mqtt-port", "0", "--http-port", "0",
               "--state-dir", state, "--ready-file", ready]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + 60
        while not ready.is_file() and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert ready.is_file(), (tmp_path / "log").read_text()
        api = connect(settings=load(cloud={"state_dir": state}))
        api.get("/api/whoami")
        page = api.read("/metrics").decode()
        exposed = set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
        exposed |= set(re.findall(r"^(\w+)", page, re.MULTILINE))
        missing = {name for name in asked() - exposed if not name.startswith("embridge_edge_")}
        assert missing <= LATER
        port = str(json.loads(ready.read_text())["mqtt_port"])
        environment |= {"EMBRIDGE_CLOUD__STATE_DIR": str(state), "EMBRIDGE_MQTT__PORT": port}
        environment |= {"EMBRIDGE_CLOUD__EMBEDDED_BROKER": "true"}
        probe = [sys.executable, ROOT / "deploy/images/healthcheck.py", "cloud"]
        assert subprocess.run(probe, env=environment).returncode == 0
        doctor = [EMBRIDGE, "doctor", "--cloud", "--json"]
        done = subprocess.run(doctor, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout
        found = {c["name"]: c["level"] for c in json.loads(done.stdout)["checks"]}
        assert found["cloud api"] == found["registry"] == found["edges"] == "ok"
    finally:
        process.terminate()
        process.wait(30)
