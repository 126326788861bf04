"""Commands of operators: settings with their origin, bundle files, the edge's releases."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from embridge_cloud import release_cli
from embridge_edge import cli as edge_cli
from embridge_edge.lock import only_agent
from embridge_edge.spool import Spool
from embridge_edge.update.slots import Slots
from embridge_shared import config_cli, settings
from embridge_shared.errors import ConfigError, ModelError, NetworkError, OperatorError, Reason
from support.bundles import make_bundle


def run(app, *arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder, with no settings of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "config_files", lambda: [tmp_path / "user.toml", tmp_path / "embridge.toml"])
    for name in ("EMBRIDGE_CONFIG", "EMBRIDGE_MQTT__HOST", "EMBRIDGE_MQTT__PORT", "EMBRIDGE_MQTT__PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def shown():
    return {row["key"]: (row["value"], row["origin"]) for row in json.loads(run(config_cli.app, "show", "--json"))}


def test_the_strongest_origin_is_named(project, monkeypatch):
    (project / "user.toml").write_text('[mqtt]\nhost = "user"\nport = 1\nkeepalive_s = 5\n')
    (project / "embridge.toml").write_text('[mqtt]\nhost = "project"\nport = 2\n')
    monkeypatch.setenv("EMBRIDGE_MQTT__PORT", "3")
    found = shown()
    assert found["mqtt.port"] == (3, "environment EMBRIDGE_MQTT__PORT")
    assert found["mqtt.host"] == ("project", str(project / "embridge.toml"))
    assert found["mqtt.keepalive_s"] == (5, str(project / "user.toml"))
    assert found["edge.window"] == (64, "default")


def test_secrets_are_not_shown(project, monkeypatch):
    monkeypatch.setenv("EMBRIDGE_MQTT__PASSWORD", "correct horse")
    assert "correct horse" not in run(config_cli.app, "show") + json.dumps(shown())
    assert shown()["mqtt.password"][1] == "environment EMBRIDGE_MQTT__PASSWORD"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[mqtt]\nhots = "a"\n', ["mqtt.hots", "embridge.toml", "no such setting"]),
        ("[mqt]\n", ["mqt ", "no such setting"]),
        ("[mqtt]\nport = 99999\n", ["mqtt.port", "65535"]),
        ("x = [", ["embridge.toml", "TOML"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_place(project, text, words):
    (project / "embridge.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        run(config_cli.app, "validate")
    assert all(word in caught.value.message for word in words)
    assert caught.value.hint


def test_validate_loads_certificates(project):
    (project / "embridge.toml").write_text('[mqtt]\nca_file = "none.pem"\n')
    with pytest.raises(ConfigError, match="ca_file"):
        run(config_cli.app, "validate")
    (project / "embridge.toml").unlink()
    assert "valid" in run(config_cli.app, "validate")


def test_paths_are_absolute(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project / "me"))
    (project / "embridge.toml").write_text('[edge]\nstate_dir = "~/edge"\n[cloud]\nstate_dir = "cloud"\n')
    loaded = settings.load()
    assert loaded.edge.state_dir == project / "me" / "edge"
    assert loaded.cloud.state_dir == project / "cloud"


def test_schema_lists_every_key(project):
    text = run(config_cli.app, "schema")
    for section, model in settings.sections().items():
        part = f"\n{text}".partition(f"\n[{section}]")[2].partition("\n[")[0]
        assert all(f"\n  {name} = " in part for name in model.model_fields)
    assert json.loads(run(config_cli.app, "schema", "--json"))["properties"].keys() == settings.sections().keys()
    assert all(f.description for m in settings.sections().values() for f in m.model_fields.values())


def test_a_bundle_is_shown_and_verified(tmp_path):
    bundle = make_bundle(tmp_path)
    body = json.loads(run(release_cli.app, "show", bundle, "--json"))
    assert body["manifest"]["name"] == "embridge"
    assert body["size"] == bundle.stat().st_size
    assert body["digest"] in run(release_cli.app, "show", bundle)
    (row,) = json.loads(run(release_cli.app, "verify", bundle, "--digest", body["digest"].upper(), "--json"))
    assert (row["ok"], row["release"], row["digest"]) == (True, "embridge-1", body["digest"])


def test_a_damaged_bundle_is_refused(tmp_path):
    good, bad = make_bundle(tmp_path, 1), make_bundle(tmp_path, 2)
    data = bytearray(bad.read_bytes())
    data[data.index(b"A release for tests")] ^= 1
    bad.write_bytes(data)
    with pytest.raises(ModelError, match="1 of 2") as caught:
        run(release_cli.app, "verify", good, bad)
    assert caught.value.reason is Reason.HASH_MISMATCH
    with pytest.raises(ModelError, match="1 of 1"):
        run(release_cli.app, "verify", good, "--digest", "0" * 64)
    with pytest.raises(OperatorError, match="one bundle"):
        run(release_cli.app, "verify", good, bad, "--digest", "0" * 64)


@pytest.fixture
def answers():
    """A server that says what it is told to."""
    told = {"status": 200, "body": b"[]"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            told["path"] = self.path
            self.send_response(told["status"])
            self.end_headers()
            self.wfile.write(told["body"])

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield told, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_published_releases_are_listed(answers):
    told, url = answers
    told["body"] = json.dumps([{"name": "embridge-2", "digest": "ab" * 32, "size": 7, "min_agent": "0.1.0"}]).encode()
    assert "embridge-2" in run(release_cli.app, "list", "--url", url)
    assert told["path"] == "/api/releases"
    told["body"] = b"<html>"
    with pytest.raises(NetworkError, match="not what an EMBridge cloud answers"):
        run(release_cli.app, "list", "--url", url)
    told["status"] = 404
    with pytest.raises(NetworkError, match="404"):
        run(release_cli.app, "list", "--url", url)


@pytest.fixture
def edge(tmp_path):
    """A state directory whose edge runs release 2 and ran release 1."""
    Spool(tmp_path / "spool.db", 1 << 20).close()
    slots = Slots(tmp_path / "update")
    for version in (1, 2):
        bundle = make_bundle(tmp_path, version, seed=version)
        digest = json.loads(run(release_cli.app, "show", bundle, "--json"))["digest"]
        slots.activate(shutil.copy(bundle, slots.path(digest)))
    return tmp_path


def test_rollback(edge):
    assert json.loads(run(edge_cli.app, "status", "--state-dir", edge, "--json"))["release"] == {
        "current": "embridge-2",
        "previous": "embridge-1",
        "update": "idle",
    }
    assert "embridge-1" in run(edge_cli.app, "rollback", "--state-dir", edge, "--reason", "worse")
    assert Slots(edge / "update").current().name == "embridge-1"
    with pytest.raises(OperatorError, match="no previous"):
        run(edge_cli.app, "rollback", "--state-dir", edge, "--reason", "worse")


def test_an_agent_that_runs_and_does_not_answer_is_not_waited_for(edge):
    with only_agent(edge), pytest.raises(NetworkError, match="cannot be asked"):
        run(edge_cli.app, "rollback", "--state-dir", edge, "--reason", "worse")
    assert Slots(edge / "update").current().name == "embridge-2"
