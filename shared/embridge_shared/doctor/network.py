"""Checks of what this machine speaks to: the broker, its certificates, the cloud's HTTP interface."""

from __future__ import annotations

import email.utils
import json
import ssl
from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from embridge_shared import broker_visit, tls
from embridge_shared.cloud_client import CloudApi, connect
from embridge_shared.doctor.machine import known
from embridge_shared.doctor.model import Check, Finding, Part, Situation
from embridge_shared.errors import EmbridgeError, NetworkError, Reason

_WARN_DAYS: Final = 14
_SKEW_WARN_S: Final = 2.0
_RENEW: Final = "Renew it: `embridge site renew` for broker and cloud, `embridge site edge NAME --renew` for an edge."


def broker(situation: Situation) -> Iterator[Finding]:
    """The broker is there, and is who it should be."""
    settings = known(situation).mqtt
    where = f"{settings.host}:{settings.port}"
    with broker_visit.link(settings, situation.timeout_s) as connection:
        if not isinstance(connection, ssl.SSLSocket):
            if tls.is_loopback(settings.host):
                yield Finding.ok(f"{where} answers, without TLS, on this machine alone")
            else:
                yield Finding.warn(
                    f"{where} is spoken to in clear", "Set mqtt.ca_file; `embridge site` makes the files."
                )
            return
        certificate: Any = connection.getpeercert() or {}
        ends_ns = int(ssl.cert_time_to_seconds(certificate["notAfter"])) * 10**9
        yield Finding.ok(f"{where} answers with {connection.version()} and a certificate of its site")
    yield from _expiry("the broker's certificate", ends_ns, situation)


def certificate(situation: Situation) -> Iterator[Finding]:
    """What this machine shows to the broker is good and stays so."""
    loaded = known(situation)
    settings = loaded.mqtt
    if settings.ca_file is None:
        yield Finding.ok("none is set: mqtt.ca_file is empty")
        return
    tls.tls_context(settings)
    if settings.cert_file is None:
        yield Finding.ok("the broker's is checked; none is shown to it")
        return
    name = tls.common_name(settings.cert_file)
    if Part.EDGE in situation.parts and Part.CLOUD not in situation.parts and name != loaded.edge.name:
        yield Finding.fail(
            f"this edge is {loaded.edge.name!r} and its certificate names {name!r}",
            "Set edge.name to the certificate's, or install the right bundle: `embridge edge install`.",
        )
    yield from _expiry(f"the certificate of {name}", tls.expiry_ns(settings), situation)


def _expiry(what: str, ends_ns: int, situation: Situation) -> Iterator[Finding]:
    days = (ends_ns - situation.clock.wall_ns()) / 86_400e9
    if days <= 0:
        yield Finding.fail(f"{what} ended {-days:.0f} days ago", _RENEW)
    elif days <= _WARN_DAYS:
        yield Finding.warn(f"{what} ends in {days:.0f} days", _RENEW)
    else:
        yield Finding.ok(f"{what} is good for {days:.0f} days")


def api(situation: Situation) -> Iterator[Finding]:
    """The cloud's HTTP interface answers, takes the token, and is of this version and time."""
    loaded = known(situation)
    cloud = connect(settings=loaded, timeout_s=situation.timeout_s)
    here = Part.CLOUD in situation.parts
    if not here and not loaded.api.url:
        yield Finding.ok("api.url is not set: commands of this machine ask no cloud")
        return
    try:
        cloud.get("/health")
    except NetworkError as error:
        if error.reason is Reason.UNREACHABLE and here:
            yield Finding.warn(error.message, "Start it: `systemctl start embridge-cloud`, or `embridge cloud run`.")
            return
        raise
    yield Finding.ok(f"{cloud.address} answers")
    yield from _ready(cloud)
    yield from _token(cloud)
    yield from _time_of(cloud, situation)


def _ready(cloud: CloudApi) -> Iterator[Finding]:
    told: Any = json.loads(cloud.read("/ready", also=503))
    wrong = [name for name, good in told.get("checks", {}).items() if not good]
    if wrong:
        yield Finding.fail(f"it does not ingest ({told.get('state')}): {', '.join(wrong)}",
                           "Its log tells why; `GET /ready` with a token has the details.")  # fmt: skip


def _token(cloud: CloudApi) -> Iterator[Finding]:
    if not cloud.token:
        yield Finding.warn("there is no token to show it", "Set api.token_file; `embridge token create` makes one.")
        return
    try:
        who = cloud.get("/api/whoami")
    except EmbridgeError as error:
        yield Finding.fail(f"it does not take the token: {error.message}", error.hint or "`embridge token create`.")
        return
    yield Finding.ok(f"it takes the token of {who['name']}, role {who['role']}")


def _time_of(cloud: CloudApi, situation: Situation) -> Iterator[Finding]:
    """How far this machine's clock is from the cloud's, to the second; and its version, where it tells."""
    date = server_time(cloud)
    if date is not None:
        off_s = situation.clock.wall_ns() * 1e-9 - date
        if abs(off_s) > _SKEW_WARN_S:
            yield Finding.warn(
                f"this machine's clock is {off_s:+.0f} s from the cloud's", "See the check of the clock."
            )
    theirs, ours = version_of(cloud), metadata.version("embridge")
    if theirs and theirs.split(".")[:2] != ours.split(".")[:2]:
        yield Finding.warn(f"the cloud runs {theirs}, this machine {ours}", "Bring both to the same version.")


def server_time(cloud: CloudApi) -> float | None:
    """The cloud's Unix time, s, to half a second; None where it does not tell."""
    opener = build_opener(HTTPSHandler(context=cloud.tls), ProxyHandler({}))
    try:
        with opener.open(Request(f"{cloud.address}/health"), timeout=cloud.timeout_s) as answer:  # noqa: S310
            date = answer.headers.get("Date")
    except OSError:
        return None
    # The header has whole seconds, cut off.
    return email.utils.parsedate_to_datetime(date).timestamp() + 0.5 if date else None


def version_of(cloud: CloudApi) -> str:
    """The version that the cloud runs; empty where the token does not let it be seen."""
    try:
        told: Any = cloud.get("/api/openapi.json")
    except EmbridgeError:
        return ""
    return str(told.get("info", {}).get("version", ""))


CHECKS: Final = (
    Check("broker", Part.MACHINE, broker),
    Check("certificate", Part.MACHINE, certificate),
    Check("cloud api", Part.MACHINE, api),
)
