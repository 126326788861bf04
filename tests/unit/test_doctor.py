"""`embridge doctor`: every check says that what is right is right, and that what is wrong is wrong, and what to do."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embridge_cloud import doctor as cloud
from embridge_cloud.registry import Registry
from embridge_cloud.site.register import Layout
from embridge_cloud.site.site import make
from embridge_edge import doctor as edge
from embridge_edge.lock import only_agent
from embridge_edge.provision import install
from embridge_edge.spool import Item, Spool
from embridge_shared import broker_visit, settings
from embridge_shared.clock import SystemClock
from embridge_shared.doctor import cli, machine, network, ntp
from embridge_shared.doctor.model import Check, Finding, Level, Part, Situation, run_tool
from embridge_shared.doctor.runner import examine, known_checks, worst
from embridge_shared.errors import ConfigError, NetworkError, OperatorError, Reason
from embridge_shared.session import Participant, Placement, Purpose, Session
from embridge_shared.signal import Modality, SampleType, StreamSpec

DAY_NS = 86_400 * 10**9
BOTH = frozenset({Part.EDGE, Part.CLOUD})


class At:
    """A clock at a time a test names."""

    def __init__(self, ahead_days: float = 0.0) -> None:
        self._ahead_ns = round(ahead_days * DAY_NS)

    def wall_ns(self) -> int:
        return time.time_ns() + self._ahead_ns

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Situation]:
    """A situation with settings of its own, below a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("EMBRIDGE_") or n == "CREDENTIALS_DIRECTORY"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def situation(*, ahead_days: float = 0.0, parts: frozenset[Part] = BOTH, **given: Any) -> Situation:
        outside = {k: given.pop(k) for k in ("environ", "system", "tool", "free") if k in given}
        sections = {"edge": {"state_dir": tmp_path / "edge"}, "cloud": {"state_dir": tmp_path / "cloud"}}
        for section, values in given.items():
            sections[section] = sections.get(section, {}) | values
        loaded = settings.load(**sections)
        return replace(Situation(loaded, "", parts, At(ahead_days), {}, timeout_s=1.0), **outside)

    return situation


def told(findings: Iterable[Finding], level: Level, words: str) -> None:
    """Something of that level was found, with a next step where there is one to take."""
    found = list(findings)
    (match,) = [f for f in found if words in f.said] or [None]
    assert match is not None, found
    assert match.level is level, match
    assert bool(match.step) == (level is not Level.OK), match


# the runner


def check(look: Callable[[Situation], Any], part: Part = Part.MACHINE, **more: Any) -> Check:
    return Check("one", part, look, **more)


def test_checks_run_side_by_side_and_one_that_hangs_is_left_behind(at):
    never = threading.Event()
    checks = [check(lambda _: never.wait(20) or []), check(lambda _: [Finding.ok("fine")])]
    began = time.monotonic()
    hung, fine = examine(at(), checks, deadline_s=0.2)
    assert time.monotonic() - began < 5
    told(hung.findings, Level.FAIL, "no answer within 0.2 s")
    told(fine.findings, Level.OK, "fine")
    assert worst([hung, fine]) is Level.FAIL
    never.set()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NetworkError("it is away", hint="Start it."), "it is away"),
        (ConfigError("it is wrong"), "it is wrong"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (ZeroDivisionError("oops"), "the check itself failed: ZeroDivisionError: oops"),
    ],
)
def test_what_a_check_raises_is_a_failure_with_a_step(at, error, said):
    def look(_: Situation) -> list[Finding]:
        raise error

    (report,) = examine(at(), [check(look)])
    told(report.findings, Level.FAIL, said)


def test_only_what_concerns_the_machine_is_looked_at(at):
    checks = [check(lambda _: [], part) for part in Part]
    reports = examine(at(parts=frozenset({Part.EDGE})), checks)
    assert [r.check.part for r in reports] == [Part.MACHINE, Part.EDGE]


def test_without_settings_only_blind_checks_look(at):
    situation = replace(at(), settings=None, fault="mqtt.hots: there is no such setting")
    seeing, blind = examine(situation, [check(lambda _: [Finding.ok("x")]), check(machine.settings, blind=True)])
    told(seeing.findings, Level.WARN, "the settings cannot be read")
    told(blind.findings, Level.FAIL, "mqtt.hots")


def test_every_part_brings_its_checks():
    found = known_checks()
    assert {c.part for c in found} == set(Part)
    assert {c.name for c in found} >= {"python", "broker", "spool", "registry", "runtime", "bluetooth"}


# the machine


def test_python_and_packages(at, monkeypatch):
    told(machine.python(at()), Level.OK, "Python 3.")
    told(machine.packages(at()), Level.OK, "the extra edge is complete")
    monkeypatch.setattr(machine, "_installed", lambda name: name != "bleak")
    told(machine.packages(at()), Level.FAIL, "the extra edge lacks bleak")
    told(machine.packages(at()), Level.OK, "the extra cloud is complete")
    monkeypatch.setattr(machine.struct, "calcsize", lambda _: 4)
    told(machine.python(at()), Level.FAIL, "32 bit")


def test_settings(at, tmp_path):
    told(machine.settings(at()), Level.OK, "defaults alone")
    file = tmp_path / "embridge.toml"
    file.write_text('[mqtt]\npassword = "s"\n')
    file.chmod(0o600)
    told(machine.settings(at()), Level.OK, "embridge.toml")
    file.chmod(0o644)
    told(machine.settings(at()), Level.FAIL, "every user of this machine may read the secret")
    environ = {"EMBRIDGE_MQTT__HOST": "x", "EMBRIDGE_MQTT_HOST": "x", "CREDENTIALS_DIRECTORY": str(tmp_path / "no")}
    told(machine.settings(at(environ=environ)), Level.WARN, "nothing reads EMBRIDGE_MQTT_HOST")
    told(machine.settings(at(environ=environ)), Level.WARN, "which is no folder")


def test_folders(at, tmp_path, monkeypatch):
    (tmp_path / "edge").mkdir(mode=0o750)
    told(machine.folders(at()), Level.OK, "edge can be written")
    told(machine.folders(at()), Level.OK, "cloud is made at the first start")
    (tmp_path / "edge").chmod(0o755)
    told(machine.folders(at()), Level.WARN, "every user of this machine may look into")
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    assert [f.level for f in machine.folders(at())] == [Level.FAIL, Level.FAIL]


def test_disk(at):
    alone = frozenset({Part.CLOUD})
    for free, level in ((100 << 30, Level.OK), (2 << 30, Level.WARN), (1 << 20, Level.FAIL)):
        (found,) = machine.disk(at(parts=alone, free=lambda _, free=free: free))
        assert found.level is level
    spacious = at(parts=frozenset({Part.EDGE}), free=lambda _: 4 << 30, edge={"spool_max_bytes": 1 << 30})
    assert [f.level for f in machine.disk(spacious)] == [Level.OK]
    told(machine.disk(at(free=lambda _: 4 << 30)), Level.WARN, "the spool may grow to")


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        (ntp.ClockState(True, 0.0004, 0.02), Level.OK, "+0.40 ms off"),
        (ntp.ClockState(True, -0.3, 0.5), Level.WARN, "-300 ms off"),
        (ntp.ClockState(False, 0.0, 16.0), Level.WARN, "nothing keeps the clock right; no time service runs"),
        (None, Level.WARN, "the kernel does not tell"),
    ],
)
def test_clock(at, monkeypatch, state, level, words):
    monkeypatch.setattr(ntp, "read", lambda: state)
    told(machine.clock(at(tool=lambda *_: "no\n")), level, words)


def test_a_clock_of_another_age(at):
    told(machine.clock(at(ahead_days=-20_000)), Level.FAIL, "it is the year")


def test_what_the_kernel_says_of_its_clock():
    assert ntp.state_of(0, 0x2001, 1500, 7000) == ntp.ClockState(True, 1500 * 1e-9, 7000 * 1e-6)
    assert ntp.state_of(0, 0x0001, 1500, 7000).offset_s == pytest.approx(1.5e-3)
    assert not ntp.state_of(0, 0x0040, 0, 16_000_000).synchronised
    assert not ntp.state_of(5, 0x0001, 0, 0).synchronised
    assert isinstance(ntp.read(), ntp.ClockState)


def unit(**more: str) -> Callable[..., str]:
    shown = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "NRestarts": "0",
             "UnitFileState": "enabled", "Result": "success", "StatusText": "recording"} | more  # fmt: skip
    return lambda *_: "".join(f"{k}={v}\n" for k, v in shown.items())


@pytest.mark.parametrize(
    ("tool", "level", "words"),
    [
        (unit(), Level.OK, "is active (running): recording"),
        (unit(LoadState="not-found"), Level.OK, "is not installed"),
        (unit(ActiveState="failed", Result="watchdog"), Level.FAIL, "watchdog"),
        (unit(StatusText="not fed: no sample of emg"), Level.FAIL, "not fed"),
        (unit(ActiveState="inactive", SubState="dead"), Level.WARN, "inactive (dead)"),
        (unit(UnitFileState="disabled"), Level.WARN, "not started at boot"),
        (unit(NRestarts="3"), Level.WARN, "started anew 3 times"),
        (lambda *_: None, Level.OK, "is not installed"),
    ],
)
def test_services(at, tmp_path, tool, level, words):
    parts = frozenset({Part.EDGE})
    told(machine.services(at(parts=parts, system=tmp_path, tool=tool)), Level.OK, "no systemd runs here")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    told(machine.services(at(parts=parts, system=tmp_path, tool=tool)), level, words)


def test_a_program_of_the_system():
    assert run_tool("echo", "hello") == "hello\n"
    assert run_tool("false") is None
    assert run_tool("sleep", "5", timeout_s=0.05) is None
    assert run_tool("no-such-program-here") is None


# the broker


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server that gives these answers, one to each thing it hears; its port."""

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as link, suppress(OSError):
            for answer in answers:
                if not link.recv(4096):
                    return
                link.sendall(answer)
            link.settimeout(3)
            while link.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


CONNACK, SUBACK = b"\x20\x02\0\0", b"\x90\x03\0\x01\0"


def test_a_plain_broker_and_none(at, free_port):
    with answering() as port:
        told(network.broker(at(mqtt={"port": port})), Level.OK, "without TLS")
    (report,) = examine(at(mqtt={"port": free_port}), [check(network.broker)])
    told(report.findings, Level.FAIL, "Connection refused")
    (report,) = examine(at(mqtt={"host": "no-such-host.invalid", "insecure": True}), [check(network.broker)])
    told(report.findings, Level.FAIL, "there is no no-such-host.invalid")


@pytest.mark.parametrize(
    ("answers", "reason", "words"),
    [
        ((b"\x20\x02\0\x05",), Reason.UNAUTHENTICATED, "it is not authorised"),
        ((b"HTTP/1.1 400",), Reason.FOREIGN, "does not speak MQTT"),
        ((b"",), Reason.TIMEOUT, "does not answer"),
    ],
)
def test_a_broker_that_does_not_take_us(at, answers, reason, words):
    with answering(*answers) as port, pytest.raises((ConfigError, NetworkError), match=words) as caught:
        broker_visit.Visit(settings.load(mqtt={"port": port}).mqtt, "e1", 0.3)
    assert caught.value.reason is reason


def test_rights_at_a_broker_that_keeps_silent(at):
    with answering(CONNACK, SUBACK) as port:
        told(edge.broker_rights(at(mqtt={"port": port})), Level.FAIL, "does not come back")
    with answering(CONNACK, b"\x90\x03\0\x01\x80") as port:
        told(edge.broker_rights(at(mqtt={"port": port})), Level.FAIL, "does not come back")


def test_rights_at_a_broker_without_an_access_list(at, mosquitto):
    there = {"host": mosquitto.host, "port": mosquitto.port}
    found = list(edge.broker_rights(at(mqtt=there)))
    told(found, Level.OK, "the broker takes edge-1")
    told(found, Level.WARN, "the topics of others")
    told(cloud.broker_rights(at(mqtt=there)), Level.OK, "may publish and read what is its own")


def test_rights_without_a_broker(at, free_port):
    told(edge.broker_rights(at(mqtt={"port": free_port})), Level.WARN, "not tried")
    told(cloud.broker_rights(at(mqtt={"port": free_port})), Level.WARN, "not tried")
    told(cloud.broker_rights(at(cloud={"embedded_broker": True})), Level.OK, "inside the process")


def test_an_agent_that_runs_keeps_its_place(at, mosquitto, tmp_path):
    with only_agent(tmp_path / "edge"):
        told(edge.broker_rights(at(mqtt={"port": mosquitto.port})), Level.OK, "the agent runs")


# certificates


@pytest.fixture
def provisioned(tmp_path: Path) -> Path:
    """A folder with an edge's certificate, good for 40 days."""
    layout = Layout(broker_hosts=("127.0.0.1",), broker_port=8883, bind="127.0.0.1", broker_folder="/b",
                    max_connections=10, cloud_hosts=("127.0.0.1",), http_port=8470,
                    cloud_folder=str(tmp_path / "site/cloud"), days=40)  # fmt: skip
    site = make(tmp_path / "site", "lab", layout, clock=SystemClock(), ca=None, ca_days=3650)
    (tmp_path / "e1.edge.tar").write_bytes(site.edge("e1", root=None))
    return install(tmp_path / "e1.edge.tar", tmp_path / "etc", now_ns=time.time_ns()).folder


def test_certificates(at, provisioned):
    files = {"ca_file": provisioned / "ca.crt", "cert_file": provisioned / "client.pem"}
    parts = frozenset({Part.EDGE})
    good = {"parts": parts, "mqtt": files, "edge": {"name": "e1"}}
    told(network.certificate(at()), Level.OK, "none is set")
    told(network.certificate(at(mqtt={"ca_file": files["ca_file"]})), Level.OK, "none is shown")
    told(network.certificate(at(**good)), Level.OK, "the certificate of e1 is good for")
    told(network.certificate(at(**good, ahead_days=30)), Level.WARN, "ends in 10 days")
    told(network.certificate(at(**good, ahead_days=41)), Level.FAIL, "ended 1 days ago")
    told(network.certificate(at(parts=parts, mqtt=files)), Level.FAIL, "its certificate names 'e1'")
    (provisioned / "client.pem").chmod(0o644)
    (report,) = examine(at(**good), [check(network.certificate)])
    told(report.findings, Level.FAIL, "every user of this machine may read")


def test_exposure(at, provisioned):
    told(cloud.exposure(at()), Level.OK, "127.0.0.1 alone")
    told(cloud.exposure(at(cloud={"http_host": "0.0.0.0"})), Level.FAIL, "without TLS")
    tls = {"http_host": "0.0.0.0", "http_cert_file": provisioned / "client.pem"}
    told(cloud.exposure(at(cloud=tls)), Level.OK, "good for")
    told(cloud.exposure(at(cloud=tls, ahead_days=35)), Level.WARN, "ends in 5 days")
    told(cloud.exposure(at(cloud=tls, ahead_days=42)), Level.FAIL, "ended")


# the cloud


class Api:
    """A cloud's interface with canned answers."""

    address, token, tls, timeout_s = "http://127.0.0.1:1", "t", None, 1.0

    def __init__(self, **answers: Any) -> None:
        self.answers = {"health": {}, "ready": {"checks": {}}, "whoami": {"name": "ana", "role": "viewer"},
                        "openapi": {"info": {"version": "0.1.0"}}, "edges": []} | answers  # fmt: skip

    def get(self, path: str) -> Any:
        answer = self.answers[path.rsplit("/", 1)[1].removesuffix(".json")]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def read(self, path: str, *, also: int) -> bytes:
        return json.dumps(self.get(path)).encode()


def asked(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> Api:
    api = Api(**answers)
    for module in (network, cloud):
        monkeypatch.setattr(module, "connect", lambda **_: api)
    return api


def test_the_api(at, monkeypatch):
    monkeypatch.setattr(network, "server_time", lambda _: time.time())
    asked(monkeypatch)
    assert [f.level for f in network.api(at())] == [Level.OK, Level.OK]
    told(network.api(at(parts=frozenset({Part.EDGE}))), Level.OK, "api.url is not set")
    asked(monkeypatch, ready={"checks": {"disk": False, "loop": True}, "state": "disk full"})
    told(network.api(at()), Level.FAIL, "it does not ingest (disk full): disk")
    asked(monkeypatch, whoami=OperatorError("the token has ended", reason=Reason.UNAUTHENTICATED))
    told(network.api(at()), Level.FAIL, "it does not take the token: the token has ended")
    asked(monkeypatch).token = ""
    told(network.api(at()), Level.WARN, "there is no token")
    asked(monkeypatch, openapi={"info": {"version": "0.9.0"}})
    told(network.api(at()), Level.WARN, "the cloud runs 0.9.0")
    asked(monkeypatch, openapi=OperatorError("not for you"))
    assert worst([]) is Level.OK
    monkeypatch.setattr(network, "server_time", lambda _: time.time() - 90)
    told(network.api(at()), Level.WARN, "clock is +90 s from the cloud's")


def test_a_cloud_that_is_away(at, monkeypatch):
    asked(monkeypatch, health=NetworkError("no cloud answers", reason=Reason.UNREACHABLE))
    told(network.api(at()), Level.WARN, "no cloud answers")
    remote = at(parts=frozenset({Part.EDGE}), api={"url": "https://cloud.example"})
    (report,) = examine(remote, [check(network.api)])
    told(report.findings, Level.FAIL, "no cloud answers")
    told(cloud.fleet(at()), Level.OK, "no process runs here")


def test_ports(at, free_port, monkeypatch):
    told(cloud.ports(at(cloud={"http_port": free_port})), Level.OK, "is free")
    with socket.create_server(("127.0.0.1", free_port)):
        told(cloud.ports(at(cloud={"http_port": free_port})), Level.FAIL, "Address already in use")
    asked(monkeypatch)
    told(cloud.ports(at()), Level.OK, "has its ports")


def test_the_registry(at, tmp_path):
    told(cloud.registry(at()), Level.OK, "there is no registry yet")
    Registry(tmp_path / "cloud" / "registry", SystemClock())
    assert {f.level for f in cloud.registry(at())} == {Level.OK}
    told(cloud.registry(at(ahead_days=6)), Level.WARN, "timestamp.json ends in")
    told(cloud.registry(at(ahead_days=8)), Level.FAIL, "timestamp.json ended")
    keys = tmp_path / "cloud" / "registry" / "keys"
    (keys / "root-1.pem").chmod(0o640)
    told(cloud.registry(at()), Level.FAIL, "others may read root-1.pem")
    (keys / "targets.pem").unlink()
    told(cloud.registry(at()), Level.FAIL, "the keys of targets are missing")
    (tmp_path / "cloud/registry/repository/metadata/1.root.json").write_text("{}")
    told(cloud.registry(at()), Level.FAIL, "1.root.json is no metadata")


def test_the_edges_of_a_cloud(at, monkeypatch):
    row = {"edge": "e1", "online": True, "agent": "0.1.7", "spooled": 3}
    asked(monkeypatch, edges=[row, row | {"edge": "e2", "online": False}])
    (found,) = cloud.fleet(at())
    assert (found.level, found.said) == (Level.OK, "2 edges are known, 1 are online")
    asked(monkeypatch, edges=[row | {"agent": "0.3.0"}])
    told(cloud.fleet(at()), Level.WARN, "not of version 0.1.0: e1 (0.3.0)")
    asked(monkeypatch, edges=[row | {"spooled": 200_000}])
    told(cloud.fleet(at()), Level.WARN, "much waits on e1")
    asked(monkeypatch, edges=OperatorError("not for you"))
    told(cloud.fleet(at()), Level.WARN, "cannot be asked for")


# the edge


def spooled(folder: Path, *, began_ns: int) -> None:
    """A spool with one item of a session that began then."""
    spec = StreamSpec(name="emg", modality=Modality.EMG, channels=("e0",), rate_hz=100.0, dtype=SampleType.INT16)
    session = Session(
        id=uuid.uuid4(), edge="edge-1", participant=Participant(id="p1", consent_version="1"), placement=Placement(),
        purpose=Purpose.TRAINING, protocol="", streams=(spec,), started_ns=began_ns, host_ns=0, source="", release="",
    )  # fmt: skip
    from embridge_shared.session import SessionOpened
    from embridge_shared.wire.messages import EventMessage, pack

    payload = pack(EventMessage(session=session.id, seq=0, event=SessionOpened(session=session)))
    spool = Spool(folder / "spool.db", 1 << 20)
    spool.begin(session.id, "one", msgspec.msgpack.encode(session), Item(session.id, -1, 0, 1, "t", payload))
    spool.close()


def test_the_spool(at, tmp_path):
    told(edge.spool(at()), Level.OK, "there is none yet")
    spooled(tmp_path / "edge", began_ns=time.time_ns())
    told(edge.spool(at()), Level.OK, "1 items")
    told(edge.spool(at(ahead_days=1)), Level.WARN, "the oldest for 24.0 h")
    small = at()
    tiny = small.settings.edge.model_copy(update={"spool_max_bytes": 100})
    small = replace(small, settings=small.settings.model_copy(update={"edge": tiny}))
    told(edge.spool(small), Level.FAIL, "of what it may hold")
    (tmp_path / "edge" / "spool.db").write_bytes(b"x" * 4096)
    (report,) = examine(at(), [check(edge.spool)])
    told(report.findings, Level.FAIL, "cannot be read")


def test_updates(at, tmp_path):
    told(edge.updates(at()), Level.WARN, "edge.update_root is not set")
    registry = Registry(tmp_path / "registry", SystemClock())
    metadata = registry.repository / "metadata"
    good = {"update_root": metadata / "1.root.json"}
    told(edge.updates(at(edge=good)), Level.OK, "the root of trust is good for")
    told(edge.updates(at(edge=good)), Level.OK, "no release was fetched yet")
    seen = tmp_path / "edge/update/trusted"
    seen.mkdir(parents=True)
    (seen / "timestamp.json").write_bytes((metadata / "timestamp.json").read_bytes())
    told(edge.updates(at(edge=good)), Level.OK, "what the repository last said is good")
    told(edge.updates(at(edge=good, ahead_days=9)), Level.WARN, "what the repository last said ended")
    (tmp_path / "x.json").write_text("[]")
    told(edge.updates(at(edge={"update_root": metadata / "timestamp.json"})), Level.FAIL, "is no root metadata")


def test_no_release_and_the_runtime(at, monkeypatch):
    told(edge.release(at()), Level.OK, "no release is in force")
    told(edge.runtime(at()), Level.OK, "computes")
    monkeypatch.setattr(edge, "_TWICE", edge._TWICE.replace(b"Add", b"Mul"))
    told(edge.runtime(at()), Level.FAIL, "says 1.5 + 1.5 is 2.25")


MYO = '[[session]]\nname = "a"\nparticipant = "p1"\n[session.source]\nkind = "myo"\n'


def test_the_plan(at, tmp_path):
    told(edge.plan(at()), Level.OK, "edge.plan is not set")
    (tmp_path / "plan.toml").write_text(MYO)
    told(edge.plan(at(edge={"plan": tmp_path / "plan.toml"})), Level.OK, "asks for 1 sessions")
    (tmp_path / "plan.toml").write_text("[[session]]\nnaem = 1\n")
    (report,) = examine(at(edge={"plan": tmp_path / "plan.toml"}), [check(edge.plan)])
    assert report.level is Level.FAIL


def test_bluetooth(at, tmp_path, monkeypatch):
    (tmp_path / "plan.toml").write_text(MYO)
    system = tmp_path / "root"
    wanted = {"edge": {"plan": tmp_path / "plan.toml"}, "system": system}
    told(edge.bluetooth(at(system=system)), Level.OK, "the plan asks for none")
    told(edge.bluetooth(at(**wanted)), Level.FAIL, "there is no Bluetooth adapter, and the plan records myo")
    (system / "sys/class/bluetooth/hci0").mkdir(parents=True)
    told(edge.bluetooth(at(**wanted)), Level.OK, "adapters: hci0")
    told(edge.bluetooth(at(**wanted)), Level.FAIL, "there is no system bus")
    (system / "run/dbus").mkdir(parents=True)
    (system / "run/dbus/system_bus_socket").touch()
    assert [f.level for f in edge.bluetooth(at(**wanted))] == [Level.OK]
    switch = system / "sys/class/rfkill/rfkill0"
    switch.mkdir(parents=True)
    (switch / "type").write_text("bluetooth\n")
    (switch / "soft").write_text("0\n")
    assert [f.level for f in edge.bluetooth(at(**wanted))] == [Level.OK]
    (switch / "soft").write_text("1\n")
    told(edge.bluetooth(at(**wanted)), Level.FAIL, "rfkill")
    told(edge.bluetooth(at(system=system)), Level.WARN, "rfkill")
    (switch / "soft").write_text("0\n")
    monkeypatch.setattr(edge.os, "access", lambda *_: False)
    told(edge.bluetooth(at(**wanted)), Level.FAIL, "may not speak to the system bus")


def test_lsl(at, monkeypatch):
    told(edge.lsl(at()), Level.OK, "its clock is")
    monkeypatch.setattr(edge, "find_spec", lambda _: None)
    told(edge.lsl(at()), Level.OK, "not asked for")
    told(edge.lsl(at(edge={"lsl_out": True})), Level.FAIL, "pylsl is not installed")


# the command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    import typer

    code = typer.main.get_command(cli.app)(list(arguments), standalone_mode=False)
    return code or 0, capsys.readouterr().out


def test_the_command(at, tmp_path, monkeypatch, capsys):
    at()
    monkeypatch.setattr("embridge_shared.doctor.runner.known_checks", lambda: [check(lambda _: [Finding.ok("fine")])])
    assert run(capsys) == (0, "ok    one          fine\n")
    warning = Finding.warn("soon", "Do it.")
    monkeypatch.setattr("embridge_shared.doctor.runner.known_checks", lambda: [check(lambda _: [warning])])
    assert run(capsys)[1].splitlines() == ["WARN  one          soon", f"{'':19}-> Do it."]
    code, out = run(capsys, "--json", "--strict")
    assert code == 1
    assert json.loads(out)["checks"][0]["findings"] == [{"level": "warn", "said": "soon", "step": "Do it."}]
    (tmp_path / "embridge.toml").write_text("[mqtt]\nhots = 1\n")
    monkeypatch.setattr("embridge_shared.doctor.runner.known_checks", lambda: [check(machine.settings, blind=True)])
    code, out = run(capsys)
    assert code == 1
    assert "mqtt.hots" in out
