"""What `embridge doctor` looks at on a cloud."""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata as packages
from pathlib import Path
from typing import Any, Final

import msgspec

from embridge_shared import tls
from embridge_shared.broker_visit import Visit
from embridge_shared.cloud_client import CloudApi, connect
from embridge_shared.doctor.machine import known
from embridge_shared.doctor.model import Check, Finding, Part, Situation
from embridge_shared.doctor.network import version_of
from embridge_shared.errors import EmbridgeError, NetworkError
from embridge_shared.wire import topics

_ROLES: Final = ("root", "targets", "snapshot", "timestamp")
_FRESH_DAYS: Final = {"root": 60, "targets": 14, "snapshot": 2, "timestamp": 2}
_BACKLOG: Final = 100_000


def _running(situation: Situation) -> CloudApi | None:
    """The interface of the process that runs here, or None."""
    try:
        cloud = connect(settings=known(situation), timeout_s=situation.timeout_s)
        cloud.get("/health")
    except NetworkError:
        return None
    return cloud


def ports(situation: Situation) -> Iterator[Finding]:
    """The ports that the process listens on are free, or its own."""
    settings = known(situation)
    if _running(situation) is not None:
        yield Finding.ok("the process runs and has its ports")
        return
    wanted = [("cloud.http_port", settings.cloud.http_host, settings.cloud.http_port)]
    if settings.cloud.embedded_broker:
        wanted.append(("mqtt.port", settings.mqtt.host, settings.mqtt.port))
    for key, host, port in wanted:
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            yield Finding.fail(f"nothing can listen on {host}:{port}: {os.strerror(error.errno or 0)}",
                               f"`ss -ltnp 'sport = :{port}'` tells who has it; or set {key}.")  # fmt: skip
        else:
            yield Finding.ok(f"{host}:{port} is free")


def exposure(situation: Situation) -> Iterator[Finding]:
    """What listens beyond this machine does so through TLS."""
    cloud = known(situation).cloud
    if tls.is_loopback(cloud.http_host):
        yield Finding.ok(f"the HTTP interface listens on {cloud.http_host} alone")
    elif cloud.http_cert_file is None:
        yield Finding.fail(f"the HTTP interface listens on {cloud.http_host} without TLS",
                           "Set cloud.http_cert_file; `embridge site init` makes it.")  # fmt: skip
    else:
        ends = tls.expires_at(cloud.http_cert_file)
        days = ends.timestamp() / 86_400 - situation.clock.wall_ns() / 86_400e9
        if days <= 0:
            yield Finding.fail(f"the HTTP interface's certificate ended {-days:.0f} days ago", "`embridge site renew`.")
        elif days < 14:
            yield Finding.warn(f"the HTTP interface's certificate ends in {days:.0f} days", "`embridge site renew`.")
        else:
            yield Finding.ok(f"the HTTP interface's certificate is good for {days:.0f} days")


def broker_rights(situation: Situation) -> Iterator[Finding]:
    """The broker lets the ingester log in, speak and hear."""
    settings = known(situation)
    if settings.cloud.embedded_broker:
        yield Finding.ok("the broker runs inside the process")
        return
    if _running(situation) is not None:
        yield Finding.ok("the process runs and holds its place at the broker")
        return
    cert = settings.mqtt.cert_file if settings.mqtt.ca_file is not None else None
    name = (tls.common_name(cert) if cert is not None else settings.mqtt.username) or "doctor"
    topic = f"{topics.ROOT}/check/{name}"
    try:
        with Visit(settings.mqtt, name, situation.timeout_s) as visit:
            heard = visit.hears_itself(topic, secrets.token_bytes(16))
    except NetworkError as error:
        yield Finding.warn(f"not tried: {error.message}", error.hint or "See the check of the broker.")
        return
    if heard:
        yield Finding.ok(f"the broker takes {name}, who may publish and read what is its own")
    else:
        yield Finding.fail(f"the broker takes {name}, but what it publishes on {topic} does not come back",
                           "Is the broker's access list that of `embridge site`?")  # fmt: skip


def registry(situation: Situation) -> Iterator[Finding]:
    """The keys of releases are there and private, and what was signed is fresh."""
    folder = known(situation).cloud.state_dir / "registry"
    metadata = folder / "repository" / "metadata"
    if not (metadata / "timestamp.json").is_file():
        yield Finding.ok("there is no registry yet: it is made with the first start")
        return
    missing = [role for role in _ROLES[1:] if not (folder / "keys" / f"{role}.pem").is_file()]
    if missing:
        yield Finding.fail(f"the keys of {', '.join(missing)} are missing", "Restore `registry/keys` from the backup.")
    open_keys = [p.name for p in (folder / "keys").glob("*.pem") if stat.S_IMODE(p.stat().st_mode) & 0o077]
    if open_keys:
        yield Finding.fail(f"others may read {', '.join(sorted(open_keys))}", f"`chmod 600 {folder}/keys/*.pem`.")
    for role in _ROLES:
        yield from _fresh(role, _newest(metadata, role), situation)


def _newest(metadata: Path, role: str) -> Path | None:
    if role == "timestamp":
        return metadata / "timestamp.json"
    numbered = [p for p in metadata.glob(f"*.{role}.json") if p.name.partition(".")[0].isdigit()]
    return max(numbered, key=lambda p: int(p.name.partition(".")[0]), default=None)


def _fresh(role: str, path: Path | None, situation: Situation) -> Iterator[Finding]:
    if path is None:
        yield Finding.fail(f"the registry has no {role} metadata", "Restore `registry/repository` from the backup.")
        return
    try:
        signed: dict[str, Any] = msgspec.json.decode(path.read_bytes())["signed"]
        ends = datetime.fromisoformat(str(signed["expires"]).replace("Z", "+00:00")).astimezone(UTC)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        yield Finding.fail(f"{path.name} is no metadata", "Restore `registry/repository` from the backup.")
        return
    days = ends.timestamp() / 86_400 - situation.clock.wall_ns() / 86_400e9
    if days <= 0:
        yield Finding.fail(f"{path.name} ended {-days:.1f} days ago: edges refuse the repository",
                           "Start the cloud, which signs it anew; check its clock.")  # fmt: skip
    elif days < _FRESH_DAYS[role]:
        hint = "The running cloud signs daily: see its log."
        if role == "root":
            hint = "Its keys are elsewhere? `embridge release key renew`, sign the draft there, apply it."
        yield Finding.warn(f"{path.name} ends in {days:.1f} days", hint)
    else:
        yield Finding.ok(f"{path.name} is good for {days:.0f} days")


def fleet(situation: Situation) -> Iterator[Finding]:
    """Edges are online, deliver what they hold, and run this version."""
    cloud = _running(situation)
    if cloud is None:
        yield Finding.ok("no process runs here to ask for its edges")
        return
    try:
        rows: list[dict[str, Any]] = cloud.get("/api/edges")
    except EmbridgeError as error:
        yield Finding.warn(f"the edges cannot be asked for: {error.message}", error.hint or "Set api.token_file.")
        return
    away = [row["edge"] for row in rows if not row["online"]]
    yield Finding.ok(f"{len(rows)} edges are known, {len(rows) - len(away)} are online")
    ours = version_of(cloud) or packages.version("embridge")
    other = sorted(f"{r['edge']} ({r['agent']})" for r in rows if r["agent"] and _minor(r["agent"]) != _minor(ours))
    if other:
        yield Finding.warn(f"not of version {ours}: {_some(other)}", "Update the agents, the cloud first.")
    stuck = sorted(r["edge"] for r in rows if r["online"] and (r["spooled"] or 0) > _BACKLOG)
    if stuck:
        yield Finding.warn(f"much waits on {_some(stuck)}", "See `GET /ready`, and the edges' own `embridge doctor`.")


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


CHECKS: Final = (
    Check("ports", Part.CLOUD, ports),
    Check("exposure", Part.CLOUD, exposure),
    Check("rights", Part.CLOUD, broker_rights),
    Check("registry", Part.CLOUD, registry),
    Check("edges", Part.CLOUD, fleet),
)
