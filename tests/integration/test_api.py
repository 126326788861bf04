"""The HTTP interface of a running cloud process: roles, limits, headers, changes on record, events, metrics, TLS."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import ssl
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route
from typer.testing import CliRunner

from embridge_cloud import release_cli
from embridge_cloud.api import gate, health, token_cli
from embridge_cloud.api.roles import Role, access, access_of
from embridge_cloud.http_server import listen, tls_context
from embridge_cloud.server import serve
from embridge_shared import cloud_client
from embridge_shared.clock import SystemClock
from embridge_shared.cloud_client import CloudApi, connect
from embridge_shared.errors import ConfigError, NetworkError, OperatorError, Reason
from embridge_shared.settings import ApiSettings, CloudSettings, Settings
from embridge_shared.wire.messages import EdgeState, pack
from support.operator import Office, office, office_settings
from support.publisher import TestEdge
from support.sessions import T0, emg_spec, pose_spec, record, session_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Shifted(SystemClock):
    """The machine's clock, which a test may set forward."""

    def __init__(self) -> None:
        self.by_ns = 0

    def wall_ns(self) -> int:
        return super().wall_ns() + self.by_ns

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.by_ns


@pytest.fixture
def recording():
    return record(session_of(emg_spec(8, 500.0), pose_spec()), 3, n_chunks=4)


def routes_of(app) -> list[Route]:
    return [route for route in app.routes if isinstance(route, Route)]


async def test_every_route_asks_for_its_role(tmp_path):
    """Made from the application: a route nobody thought of here is tried too."""
    async with office(tmp_path, http_rate=10_000) as found:
        app, tried = found.app, 0
        for route in routes_of(app):
            needed = access_of(route.endpoint)
            assert needed is not None, route.path
            path = re.sub(r"{\w+}", "00000000-0000-0000-0000-000000000001", route.path)
            if needed.stream:
                continue
            for method in sorted(route.methods - {"HEAD"}):
                assert method == "GET" or needed.role in (Role.OPERATOR, Role.ADMIN)
                for token in (None, *Role):
                    reply = await found.ask(path, method=method, token=token, body=b"{" if method == "POST" else None)
                    where = f"{method} {route.path} as {token}: {reply.body!r}"
                    tried += 1
                    if needed.role is not None and token is None:
                        assert reply.status == 401, where
                        assert reply.json()["reason"] == "unauthenticated"
                    elif needed.role is not None and not token.allows(needed.role):
                        assert reply.status == 403, where
                        assert reply.json()["reason"] == "forbidden"
                    else:
                        assert reply.status not in (401, 403, 500), where
        assert tried > 100
        public = {r.path for r in routes_of(app) if access_of(r.endpoint).role is None}
        assert public == {"/health", "/ready"}


async def test_a_process_with_a_careless_extension_does_not_start(tmp_path):
    def extend(app, _) -> None:
        @app.get("/api/careless")
        async def careless() -> int:
            return 1

    with pytest.raises(BaseExceptionGroup) as caught:
        async with office(tmp_path, extensions=[extend]):
            pass
    assert caught.group_contains(ConfigError, match="/api/careless does not say who may call it")


async def test_the_event_stream_asks_for_its_role(tmp_path):
    async with office(tmp_path) as found:
        assert (await found.ask("/api/events")).status == 401
        assert (await found.ask("/api/events", token=Role.METRICS)).status == 403


async def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(tmp_path, caplog):
    clock = Shifted()
    async with office(tmp_path, clock=clock) as found:
        wrong = found.tokens[Role.VIEWER][:-1] + ("A" if found.tokens[Role.VIEWER][-1] != "A" else "B")
        replies = [await found.ask("/api/sessions", token=wrong) for _ in range(30)]
        assert [r.status for r in replies[:10]] == [401] * 10
        assert {r.status for r in replies[12:]} == {429}
        assert int(replies[-1].headers["retry-after"]) >= 1
        assert (await found.ask("/api/sessions", token=Role.VIEWER)).status == 200
        clock.by_ns += 60 * 10**9
        assert (await found.ask("/api/sessions", token=wrong)).status == 401
    told = [r for r in caplog.records if "not valid was shown" in r.getMessage()]
    assert 10 <= len(told) <= 13
    assert wrong.split("_")[2] not in caplog.text


async def test_a_token_that_asks_too_much_waits(tmp_path):
    clock = Shifted()
    async with office(tmp_path, clock=clock, http_rate=1.0) as found:
        replies = [await found.ask("/health", token=Role.VIEWER) for _ in range(9)]
        assert [r.status for r in replies[:4]] == [200] * 4
        assert replies[-1].status == 429
        assert (await found.ask("/health", token=Role.ADMIN)).status == 200
        assert (await found.ask("/health")).status == 200
        clock.by_ns += 5 * 10**9
        assert (await found.ask("/health", token=Role.VIEWER)).status == 200


async def test_nobody_can_make_up_an_address_to_be_counted_under(tmp_path):
    async with office(tmp_path) as found:
        replies = [
            await found.ask("/api/sessions", token="wrong", headers={"X-Forwarded-For": f"10.0.0.{n}"})
            for n in range(20)
        ]
        assert replies[-1].status == 429


async def test_a_term_ends_and_a_right_is_taken_at_once(tmp_path):
    clock = Shifted()
    async with office(tmp_path, clock=clock) as found:
        body = {"name": "ana", "role": "operator", "days": 1}
        made = (await found.ask("/api/tokens", method="POST", token=Role.ADMIN, body=body)).json()
        assert (await found.ask("/api/whoami", token=made["token"])).json() == {"name": "ana", "role": "operator"}
        listed = (await found.ask("/api/tokens", token=Role.ADMIN)).json()
        assert "ana" in [row["name"] for row in listed]
        assert "token" not in listed[0]
        clock.by_ns += 86_400 * 10**9
        assert (await found.ask("/api/whoami", token=made["token"])).status == 401
        clock.by_ns = 0
        assert (await found.ask("/api/whoami", token=made["token"])).status == 200
        assert (await found.ask("/api/tokens/ana", method="DELETE", token=Role.ADMIN)).status == 200
        assert (await found.ask("/api/whoami", token=made["token"])).status == 401
        rows = (await found.ask("/api/audit", token=Role.ADMIN)).json()
        assert [(r["actor"], r["action"], r["subject"]) for r in rows] == [
            ("token:a-admin", "token.create", "token:ana"),
            ("token:a-admin", "token.revoke", "token:ana"),
        ]
        assert made["token"] not in json.dumps(rows)
        found.cloud.audit.verify()


async def test_changes_go_on_record_whether_they_succeed_or_not(tmp_path):
    async with office(tmp_path) as found:
        reply = await found.ask("/api/jobs/realign-9", method="DELETE", token=Role.OPERATOR)
        assert reply.status == 404
        await found.ask("/api/jobs/realign-9", method="DELETE", token=Role.VIEWER)
        body = {"reason": "it lies"}
        await found.ask("/api/releases/none-1/recall", method="POST", token=Role.OPERATOR, body=body)
        await found.ask("/api/jobs", method="GET", token=Role.OPERATOR)
        entries = found.cloud.audit.entries()
        assert [(e.actor, e.action, e.subject, e.detail["status"]) for e in entries] == [
            ("token:a-operator", "job.cancel", "job:realign-9", 404),
            ("token:a-operator", "release.recall", "release:none-1", 404),
        ]
        assert entries[0].detail["request"] == reply.headers["x-request-id"]


async def test_headers_on_every_answer(tmp_path):
    async with office(tmp_path) as found:
        for path, status in (("/health", 200), ("/api/sessions", 401), ("/nothing", 401), ("/updates/x", 404)):
            reply = await found.ask(path)
            assert reply.status == status
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            assert re.fullmatch("[0-9a-f]{16}", reply.headers["x-request-id"])
            assert "access-control-allow-origin" not in reply.headers
            assert "server" not in reply.headers
        given = await found.ask("/health", headers={"X-Request-ID": "abc-1"})
        assert given.headers["x-request-id"] == "abc-1"
        forged = await found.ask("/health", headers={"X-Request-ID": "abc; level=ERROR"})
        assert re.fullmatch("[0-9a-f]{16}", forged.headers["x-request-id"])
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await found.ask(path, token=Role.ADMIN)).status == 404


async def test_a_page_in_a_browser_gets_nothing_unless_it_is_named(tmp_path):
    asks = {"Origin": "https://panel.example", "Access-Control-Request-Method": "GET"}
    async with office(tmp_path / "closed") as found:
        reply = await found.ask("/api/sessions", method="OPTIONS", headers=asks)
        assert "access-control-allow-origin" not in reply.headers
    async with office(tmp_path / "open", http_origins=("https://panel.example",)) as found:
        reply = await found.ask("/api/sessions", method="OPTIONS", headers=asks)
        assert reply.headers["access-control-allow-origin"] == "https://panel.example"
        other = await found.ask("/health", headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_names_that_are_not_ours_are_refused(tmp_path):
    async with office(tmp_path, http_hosts=("cloud.example",), public_url="https://edge.example:8443") as found:
        allowed = ("127.0.0.1", "localhost:80", "[::1]:8470", "cloud.example", "CLOUD.example:9", "edge.example")
        assert [(await found.ask("/health", headers={"Host": h})).status for h in allowed] == [200] * len(allowed)
        refused = ("evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "cloud.example.evil")
        assert [(await found.ask("/health", headers={"Host": h})).status for h in refused] == [421] * len(refused)


async def test_a_body_has_a_size(tmp_path):
    async with office(tmp_path, http_max_body_bytes=2048) as found:
        reply = await found.ask("/api/jobs", method="POST", token=Role.OPERATOR, body=b"x" * 4096)
        assert (reply.status, reply.json()["reason"]) == (413, "too_large")
        assert (await found.ask("/api/jobs", method="POST", token=Role.OPERATOR, body=b"x" * 2048)).status == 400
        head = "POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer "
        head += f"{found.tokens[Role.OPERATOR]}\r\n\r\n"
        said = await say(
            found, head.encode() + b"400\r\n" + b"x" * 1024 + b"\r\n" + 3 * (b"400\r\n" + b"x" * 1024 + b"\r\n")
        )
        assert said.startswith(b"HTTP/1.1 413 ")


async def say(found: Office, data: bytes, timeout_s: float = 5.0) -> bytes:
    """Bytes over a connection of its own; returns the first that come back."""
    port = int(found.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(timeout_s):
            return await reader.read(65536)
    finally:
        writer.close()


async def test_who_takes_too_long_to_ask_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr("embridge_cloud.http_server.HEAD_S", 0.2)
    async with office(tmp_path) as found:
        assert await say(found, b"") == b""
        assert await say(found, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ") == b""
        port = int(found.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        for _ in range(2):
            writer.write(whole)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        writer.write(whole[:20])
        async with asyncio.timeout(5):
            assert await reader.read(65536) == b""
        writer.close()


async def test_an_answer_has_a_time(tmp_path):
    def extend(app, _) -> None:
        @app.get("/api/slow")
        @access(Role.VIEWER)
        async def slow() -> int:
            await asyncio.sleep(30)
            return 1

        @app.get("/api/broken")
        @access(Role.VIEWER)
        async def broken() -> int:
            raise RuntimeError("secret inside")

    async with office(tmp_path, extensions=[extend], http_timeout_s=0.2) as found:
        reply = await found.ask("/api/slow", token=Role.VIEWER)
        assert (reply.status, reply.json()["reason"]) == (504, "timeout")
        reply = await found.ask("/api/broken", token=Role.VIEWER)
        assert (reply.status, reply.json()["reason"]) == (500, "internal")
        assert b"secret" not in reply.body


async def test_another_kind_of_authorization_is_explained(tmp_path):
    async with office(tmp_path) as found:
        for value in ("Basic YTpi", "Bearer", "Bearer ", "bearer\tx", "Digest x"):
            reply = await found.ask("/api/sessions", headers={"Authorization": value})
            assert reply.status in (400, 401)
            assert reply.json()["hint"]


async def test_a_line_cannot_be_forged_by_what_is_asked(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, "embridge_cloud.api"):
        async with office(tmp_path) as found:
            await found.ask("/api/x%0a12:00:00%20ERROR%20forged%1b[2J", token=Role.ADMIN)
            await found.ask(f"/health?token={found.tokens[Role.ADMIN]}")
    from embridge_shared.logs import TextFormatter

    lines = [TextFormatter().format(r) for r in caplog.records]
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert any("\\n12:00:00 ERROR forged\\x1b" in line for line in lines)
    assert not any(found.tokens[Role.ADMIN] in line for line in lines)


async def test_lists_come_in_pages_and_are_not_sent_twice(tmp_path, recording):
    async with office(tmp_path) as found:
        broker = found.cloud.broker
        sessions = [
            record(session_of(emg_spec(2, 500.0), number=n, started_ns=T0 + n // 2), n, n_chunks=1) for n in range(5)
        ]
        for one in sessions:
            await TestEdge("edge-1", one.messages()).deliver(broker.host, broker.port, one.session.id)
        path, seen = "/api/sessions?limit=1", []
        for _ in range(5):
            reply = await found.ask(path, token=Role.VIEWER)
            seen += [row["session"] for row in reply.json()]
            if "link" not in reply.headers:
                break
            path = re.fullmatch(r'<(.*)>; rel="next"', reply.headers["link"])[1]
        assert sorted(seen) == sorted(str(s.session.id) for s in sessions)
        again = await found.ask("/api/sessions", token=Role.VIEWER)
        tag = again.headers["etag"]
        same = await found.ask("/api/sessions", token=Role.VIEWER, headers={"If-None-Match": tag})
        assert (same.status, same.body, same.headers["etag"]) == (304, b"", tag)
        assert (await found.ask("/api/sessions", token=Role.VIEWER, headers={"If-None-Match": '"x"'})).status == 200
        for bad in ("limit=0", "limit=1001", "cursor=x", "cursor=9999999999999999999_x", "state=nonsense"):
            assert (await found.ask(f"/api/sessions?{bad}", token=Role.VIEWER)).status in (400, 422)


async def test_what_happens_is_told_as_it_happens(tmp_path, recording):
    async with office(tmp_path) as found:
        kinds: list[tuple[str, str]] = []
        ids: list[str] = []

        def listen_to(last_id: str = "") -> None:
            api = CloudApi(found.cloud.url, found.tokens[Role.VIEWER])
            for line in api.lines("/api/events"):
                if line.startswith("id: "):
                    ids.append(line[4:])
                elif line.startswith("data: "):
                    event = json.loads(line[6:])
                    kinds.append((event["kind"], event["subject"]))
                    if event["kind"] == "session.sealed":
                        return

        listening = asyncio.create_task(asyncio.to_thread(listen_to))
        async with asyncio.timeout(10):
            while not found.cloud.events.listeners:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await found.cloud.ingester.publish(
            "embridge/v1/state/edge-1", pack(EdgeState(edge="edge-1", online=True)), retain=True
        )
        edge = TestEdge("edge-1", recording.messages())
        await edge.deliver(found.cloud.broker.host, found.cloud.broker.port, recording.session.id)
        await asyncio.wait_for(listening, 20)
        session = str(recording.session.id)
        told = [kind for kind, subject in kinds if subject == session]
        assert told == ["session.opened", "session.ended", "session.sealed"]
        assert ("edge.online", "edge-1") in kinds
        async with asyncio.timeout(10):
            while found.cloud.events.listeners:
                found.cloud.events.publish("job", "wake")
                await asyncio.sleep(0.05)
        heads = {"Last-Event-ID": ids[-2]}
        text = await say(
            found,
            f"GET /api/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {heads['Last-Event-ID']}\r\n"
            f"Authorization: Bearer {found.tokens[Role.VIEWER]}\r\n\r\n".encode(),
        )
        assert b"text/event-stream" in text


async def test_a_stream_ends_with_the_right_to_it(tmp_path):
    async with office(tmp_path) as found:
        api = CloudApi(found.cloud.url, found.tokens[Role.VIEWER])
        listening = asyncio.create_task(asyncio.to_thread(lambda: list(api.lines("/api/events"))))
        async with asyncio.timeout(10):
            while not found.cloud.events.listeners:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        found.cloud.tokens.revoke("a-viewer")
        found.cloud.events.publish("job", "after")
        lines = await asyncio.wait_for(listening, 10)
        assert not any("after" in line for line in lines)


async def test_an_open_stream_does_not_hold_up_the_end(tmp_path):
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(office(tmp_path))
        api = CloudApi(found.cloud.url, found.tokens[Role.VIEWER])
        listening = asyncio.create_task(asyncio.to_thread(lambda: list(api.lines("/api/events"))))
        async with asyncio.timeout(10):
            while not found.cloud.events.listeners:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        began = asyncio.get_running_loop().time()
        await stack.aclose()
        assert asyncio.get_running_loop().time() - began < 4
        await asyncio.wait_for(asyncio.gather(listening, return_exceptions=True), 5)


async def test_the_page_of_metrics_holds_what_its_documentation_says(tmp_path, recording):
    async with office(tmp_path) as found:
        edge = TestEdge("edge-1", recording.messages())
        await edge.deliver(found.cloud.broker.host, found.cloud.broker.port, recording.session.id)
        state = EdgeState(edge="edge-1", online=True, spooled=7, spooled_bytes=70, t_ns=found.cloud.clock.wall_ns())
        await found.cloud.ingester.publish("embridge/v1/state/edge-1", pack(state), retain=True)
        async with asyncio.timeout(10):
            while found.cloud.store.read.rows("SELECT spooled FROM edges") != [(7,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        reply = await found.ask("/metrics", token=Role.METRICS)
        again = await found.ask("/metrics", token=Role.METRICS)
    assert reply.headers["content-type"].startswith("text/plain")
    families = {f.name: f for f in text_string_to_metric_families(again.body.decode())}
    samples = {(s.name, *s.labels.values()): s.value for f in families.values() for s in f.samples}
    page = (DOCS / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(embridge_\w+)`", page, re.MULTILINE))
    given = {f.name + ("_total" if f.type == "counter" else "") for f in families.values()}
    ours = {name for name in given if name.startswith("embridge_")}
    assert ours <= documented
    assert documented - ours <= {"embridge_quarantine_messages", "embridge_edge_channels"}
    n = sum(len(chunks) for chunks in recording.chunks)
    assert samples["embridge_ingest_chunks_total",] == n
    assert samples["embridge_sessions", "sealed"] == 1
    assert samples["embridge_edge_spool_items", "edge-1"] == 7
    assert 0 <= samples["embridge_edge_clock_offset_seconds", "edge-1"] < 5
    assert samples["embridge_ingest_commit_seconds_count",] >= 1
    assert samples["embridge_ready",] == 1
    assert samples["embridge_http_requests_total", "GET", "/metrics", "200"] == 1
    assert samples["embridge_ingest_state", "ready"] == 1


async def test_readiness_means_what_it_says(tmp_path, monkeypatch):
    async with office(tmp_path) as found:
        reply = await found.ask("/ready")
        assert (reply.status, set(reply.json())) == (200, {"ready", "state", "checks"} | set(reply.json()))
        assert set(reply.json()["checks"].values()) == {True}
        assert not reply.json().get("details")
        assert (await found.ask("/ready", token=Role.VIEWER)).json()["details"]["broker"] == "connected"
        monkeypatch.setattr(health, "_FRESH_NS", -1)
        monkeypatch.setattr(found.cloud.health, "_free", lambda _: 5)
        assert await unready(found) == {"disk"}
        monkeypatch.undo()
        monkeypatch.setattr(health, "_FRESH_NS", -1)
        monkeypatch.setattr(health, "LAG_MAX_S", -1.0)
        assert await unready(found) == {"loop"}
        monkeypatch.undo()
        monkeypatch.setattr(health, "_FRESH_NS", -1)
        monkeypatch.setattr(health.Health, "_query", lambda _: (_ for _ in ()).throw(OSError("gone")))
        assert await unready(found) == {"database"}


async def unready(found: Office) -> set[str]:
    reply = await found.ask("/ready")
    assert reply.status == 503
    return {name for name, ok in reply.json()["checks"].items() if not ok}


async def test_a_request_that_cannot_be_recorded_is_counted(tmp_path, monkeypatch):
    async with office(tmp_path) as found:

        def fail(*_):
            raise OperatorError("no room")

        monkeypatch.setattr(type(found.cloud.audit), "record", fail)
        body = {"name": "ana", "role": "viewer"}
        assert (await found.ask("/api/tokens", method="POST", token=Role.ADMIN, body=body)).status == 201
        page = (await found.ask("/metrics", token=Role.METRICS)).body.decode()
        assert "embridge_audit_failures_total 1.0" in page


async def test_the_document_says_who_may_and_what_comes_back(tmp_path):
    async with office(tmp_path) as found:
        document = (await found.ask("/api/openapi.json", token=Role.VIEWER)).json()
    for route in found.app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            operation = document["paths"][route.path_format][next(iter(route.methods)).lower()]
            needed = access_of(route.endpoint).role
            assert operation.get("x-role") == (needed and needed.value)
            assert ("security" in operation) == (needed is not None)
            assert operation["summary"]
            assert operation["description"]
    page = (DOCS / "api.md").read_text()
    for route in routes_of(found.app):
        word = re.sub(r"{\w+}", "", route.path).rstrip("/").rpartition("/")[2]
        assert word in page, f"{route.path} is not in docs/api.md"
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["components"]["schemas"]["Session"]["properties"]["missing"]["description"]


# where it listens


def test_beyond_this_machine_only_with_tls():
    for host in ("0.0.0.0", "::", "192.0.2.1", ""):
        with pytest.raises(ConfigError, match="without TLS") as caught, listen(CloudSettings(http_host=host)):
            pass
        assert "cloud.http_insecure" in caught.value.hint
    with listen(CloudSettings(http_host="0.0.0.0", http_port=0, http_insecure=True)) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "1", "-subj", "/CN=cloud.example", "-addext", "subjectAltName=DNS:cloud.example",
            "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
        ],
        capture_output=True,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder / "cert.pem", folder / "key.pem"


async def test_tls_end_to_end(tmp_path, certificate):
    cert, key = certificate
    given = office_settings(tmp_path, http_cert_file=cert, http_key_file=key, http_host="0.0.0.0")
    async with serve(given, broker_port=0) as cloud:
        assert cloud.url.startswith("https://127.0.0.1:")
        ours = connect(settings=given)
        assert ours.address == cloud.url
        assert (await asyncio.to_thread(ours.get, "/api/whoami"))["name"] == "local"
        stranger = CloudApi(cloud.url, "", ssl.create_default_context())
        with pytest.raises(NetworkError, match="is not trusted"):
            await asyncio.to_thread(stranger.get, "/health")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        reply = await asyncio.to_thread(CloudApi(cloud.url, "", old).read, "/health")
        assert b"state" in reply
        plain = cloud.url.replace("https", "http")
        with pytest.raises(NetworkError):
            await asyncio.to_thread(CloudApi(plain, "").get, "/health")


def test_a_key_that_does_not_fit_is_named(certificate, tmp_path):
    cert, _ = certificate
    for key in (tmp_path / "none.pem", cert):
        with pytest.raises(ConfigError, match="cannot be used"):
            tls_context(CloudSettings(http_cert_file=cert, http_key_file=key))


# commands


async def test_commands_on_this_machine_need_no_setup(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBRIDGE_CLOUD__STATE_DIR", str(tmp_path / "cloud"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    async def run(app, *arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments, catch_exceptions=True)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    async with office(tmp_path) as found:
        made = (await run(token_cli.app, "create", "ana", "--role", "viewer", "--days", "3")).strip()
        assert (await found.ask("/api/whoami", token=made)).json()["name"] == "ana"
        listed = json.loads(await run(token_cli.app, "list", "--json"))
        assert {row["name"] for row in listed} >= {"ana", "local"}
        assert await run(release_cli.app, "list", "--json") == "[]\n"
        await run(token_cli.app, "revoke", "ana")
        assert (await found.ask("/api/whoami", token=made)).status == 401
        with pytest.raises(OperatorError, match="no token 'ana'"):
            await run(token_cli.app, "revoke", "ana")
        assert [e.actor for e in found.cloud.audit.entries()] == ["token:local"] * 3
        with monkeypatch.context() as less:
            less.setenv("EMBRIDGE_API__TOKEN", found.tokens[Role.VIEWER])
            with pytest.raises(OperatorError, match="the role viewer does not allow this") as caught:
                await run(token_cli.app, "list")
            assert caught.value.reason is Reason.FORBIDDEN
    assert await run(token_cli.app, "create", "ben", "--role", "admin", "--out", str(tmp_path / "ben")) == ""
    assert (tmp_path / "ben").stat().st_mode & 0o777 == 0o600
    async with office(tmp_path) as found:
        assert (await found.ask("/api/whoami", token=(tmp_path / "ben").read_text().strip())).status == 200
        entry = found.cloud.audit.entries()[-1]
        assert (entry.actor[:4], entry.action, entry.subject) == ("cli:", "token.create", "token:ben")


async def test_the_local_token_goes_nowhere_else(tmp_path):
    async with office(tmp_path) as found:
        given = found.cloud.settings
        assert connect(settings=given).token == found.local
        assert connect(found.cloud.url, settings=given).token == found.local
        for elsewhere in ("http://127.0.0.1:9", "https://cloud.example", "http://localhost:8470"):
            assert connect(elsewhere, settings=given).token == ""
    assert Path("api/local.token") == cloud_client.LOCAL_TOKEN


def test_a_token_crosses_no_network_in_clear():
    with pytest.raises(ConfigError, match="unencrypted"):
        CloudApi("http://cloud.example:8470", "emb_x")
    assert CloudApi("http://cloud.example:8470", "emb_x", insecure=True).token == "emb_x"
    assert CloudApi("http://[::1]:8470/", "emb_x").address == "http://[::1]:8470"
    assert "emb_x" not in repr(CloudApi("https://cloud.example", "emb_x"))
    for bad in ("ftp://x", "cloud.example", "http://", "http://u:p@cloud.example"):
        with pytest.raises(ConfigError, match="no address"):
            CloudApi(bad)
    named = Settings(api=ApiSettings(url="https://cloud.example", token_file=Path("nowhere")))
    with pytest.raises(ConfigError, match=r"api\.token_file"):
        connect(settings=named)


async def test_a_redirect_is_not_followed(tmp_path):
    def extend(app, _) -> None:
        from fastapi.responses import RedirectResponse

        @app.get("/api/elsewhere")
        @access(Role.VIEWER)
        async def elsewhere() -> RedirectResponse:
            return RedirectResponse("http://127.0.0.1:9/stolen")

    async with office(tmp_path, extensions=[extend]) as found:
        with pytest.raises(NetworkError, match="answered 307") as caught:
            await asyncio.to_thread(CloudApi(found.cloud.url, found.local).get, "/api/elsewhere")
        assert caught.value.reason is Reason.FOREIGN


def test_the_gate_knows_what_the_router_would_choose():
    assert gate.check_routes([]) is None
