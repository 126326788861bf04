"""The security matrix, against a real Mosquitto under TLS: who and what is refused, and that good traffic passes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import resource
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import aiomqtt
import msgspec
import numpy as np
import pytest
import zstandard

from conftest import take_free_port
from embridge_cloud.certificates import Certificates
from embridge_cloud.server import serve
from embridge_cloud.site.site import Site, make
from embridge_edge.identity import Credentials
from embridge_edge.plan import SessionPlan, SyntheticSource
from embridge_edge.provision import install
from embridge_shared import broker_visit
from embridge_shared.broker_visit import connect_packet, greet, knock
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_shared.fleet import UpdateState
from embridge_shared.session import CueShown, Marker, Participant, SessionOpened
from embridge_shared.settings import CloudSettings, EdgeSettings, MqttSettings, Settings
from embridge_shared.signal import Chunk
from embridge_shared.wire import codec, topics
from embridge_shared.wire.messages import EdgeState, EventMessage, pack
from embridge_shared.wire.topics import chunk_topic, commit_topic, desired_topic, event_topic, live_topic, state_topic
from support.loop import Loop, assert_recorded, rehearse
from support.sessions import Recording, assert_sealed_equals, emg_spec, record, session_of
from support.sites import RealSite, heard, plan

DAY_NS = 86_400_000_000_000


class Earlier:
    """A clock some days ago."""

    def __init__(self, days: float) -> None:
        self._days = days

    def wall_ns(self) -> int:
        return SystemClock().wall_ns() - round(self._days * DAY_NS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealSite]:
    """A site with edges e1 and e2 whose broker runs."""
    site = RealSite(tmp_path_factory.mktemp("site"), take_free_port())
    site.edge("e1")
    site.edge("e2")
    site.start()
    yield site
    site.stop()


def installed(site: RealSite, name: str) -> Path:
    return site.folder / "edges" / name


def settings_of(site: RealSite, folder: Path, name: str = "e1", **mqtt) -> Settings:
    given = {"port": site.port, "ca_file": folder / "ca.crt", "cert_file": folder / "client.pem"} | mqtt
    return Settings(mqtt=MqttSettings(**given), edge=EdgeSettings(name=name))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker on this machine says at once what it has to say."""
    monkeypatch.setattr(broker_visit, "_QUIET_S", 0.3)


# who may connect


def expired(site: RealSite) -> Path:
    bundle = site.folder / "late.edge.tar"
    bundle.write_bytes(Site(site.site.folder, Earlier(10)).edge("late", root=None, days=2))
    return install(bundle, installed(site, "late"), now_ns=Earlier(10).wall_ns()).folder


def foreign(site: RealSite) -> Path:
    """An edge of another site that trusts this one's broker."""
    other = make(site.folder / "other", "test", plan(site.folder / "other", 8883), clock=site.clock)
    bundle = site.folder / "foreign.edge.tar"
    bundle.write_bytes(other.edge("e1", root=None))
    folder = install(bundle, installed(site, "foreign"), now_ns=site.clock.wall_ns()).folder
    (folder / "ca.crt").write_bytes((site.broker / "ca.crt").read_bytes())
    return folder


def ask_broker(settings: Settings) -> None:
    """Log in as an edge, and leave."""
    greet(settings.mqtt, f"edge-{settings.edge.name}")


def test_the_broker_takes_an_edge_of_the_site(site: RealSite):
    ask_broker(settings_of(site, installed(site, "e1")))
    knock(settings_of(site, installed(site, "e1")).mqtt)


def test_the_broker_refuses_who_has_no_certificate_of_the_site(site: RealSite):
    said = len(site.log)
    cases = {
        "shows no certificate": settings_of(site, installed(site, "e1"), cert_file=None),
        "of another site": settings_of(site, foreign(site)),
        "has ended": settings_of(site, expired(site), "late"),
    }
    for words, settings in cases.items():
        for visit in (ask_broker, lambda s: knock(s.mqtt)):
            with pytest.raises(ConfigError, match=words) as caught:
                visit(settings)
            assert caught.value.reason is Reason.UNAUTHENTICATED
    assert site.log[said:].count("OpenSSL Error") >= len(cases)
    ask_broker(settings_of(site, installed(site, "e1")))


def asked(settings: Settings, pem: Path, host: str = "127.0.0.1") -> None:
    """Ask a server that is not the broker and shows what is in a file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server((host, 0)) as listener:

        def answer() -> None:
            link, _ = listener.accept()
            with link, contextlib.suppress(OSError):
                context.wrap_socket(link, server_side=True).close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            mqtt = settings.mqtt.model_copy(update={"host": host, "port": listener.getsockname()[1]})
            ask_broker(settings.model_copy(update={"mqtt": mqtt}))
        finally:
            thread.join()


def test_a_server_that_is_not_the_broker_is_refused(site: RealSite):
    settings = settings_of(site, installed(site, "e1"))
    with pytest.raises(ConfigError, match=r"not who it should be.*mismatch"):
        asked(settings, site.broker / "server.pem", "127.0.0.2")
    with pytest.raises(ConfigError, match=r"not who it should be"):
        asked(settings, installed(site, "e2") / "client.pem")
    with pytest.raises(ConfigError, match="not who it should be"):
        ask_broker(settings_of(site, installed(site, "e1"), ca_file=foreign_authority(site)))
    with pytest.raises(NetworkError):
        ask_broker(settings_of(site, installed(site, "e1"), port=take_free_port()))


def foreign_authority(site: RealSite) -> Path:
    make(site.folder / "third", "test", plan(site.folder / "third", 8883), clock=site.clock)
    return site.folder / "third" / "ca" / "ca.crt"


def test_the_broker_answers_nobody_in_clear(site: RealSite):
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as link:
        link.sendall(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x14\x00\x02e1")
        with contextlib.suppress(ConnectionResetError):
            assert not link.recv(4).startswith(b"\x20")


async def test_a_revoked_edge_is_refused_and_an_open_connection_loses_its_rights(tmp_path: Path):
    site = RealSite(tmp_path, take_free_port())
    folder, other = site.edge("gone"), site.edge("stays")
    site.start()
    try:
        topic = state_topic("gone")
        async with site.client(folder, "gone") as client:
            assert await heard(site, ["#"], lambda: client.publish(topic, b"1", qos=1)) == [(topic, b"1")]
            site.site.revoke("gone", "stolen")
            site.reload()
            await asyncio.sleep(0.2)

            async def again() -> None:
                try:
                    await client.publish(topic, b"2", qos=1, timeout=1)
                except aiomqtt.MqttError:
                    return

            assert await heard(site, ["#"], again) == []
        with pytest.raises(ConfigError, match="was revoked"):
            ask_broker(settings_of(site, folder, "gone"))
        ask_broker(settings_of(site, other, "stays"))
        anew = tmp_path / "gone.edge.tar"
        anew.write_bytes(site.site.edge("gone", root=None))
        folder = install(anew, tmp_path / "anew", now_ns=site.clock.wall_ns()).folder
        site.reload()
        ask_broker(settings_of(site, folder, "gone"))
        async with site.client(folder, "gone") as client:
            assert await heard(site, ["#"], lambda: client.publish(topic, b"3", qos=1)) == [(topic, b"3")]
    finally:
        site.stop()


# what may be said and heard


async def test_an_edge_speaks_for_itself_only(site: RealSite):
    session = UUID(int=5)
    theirs = [
        chunk_topic("e1", session, "emg"), event_topic("e1", session), state_topic("e1"), commit_topic("e1"),
        desired_topic("e1"), desired_topic("e2"), state_topic("@cloud".removeprefix("@")), "embridge/v1/up/1/e1",
        f"embridge/v1/up/1/x/e2/{session}", "anything", "embridge/v1/state/e2/more", live_topic("e1"),
    ]  # fmt: skip
    mine = [chunk_topic("e2", session, "emg"), event_topic("e2", session), state_topic("e2"), live_topic("e2")]

    async def speak() -> None:
        # Some versions of the broker disconnect who is denied, others do not.
        for topic in [*theirs, *mine]:
            with contextlib.suppress(aiomqtt.MqttError):
                await send(site, "e2", topic, topic.encode())

    said = len(site.log)
    assert await heard(site, ["embridge/#"], speak) == [(topic, topic.encode()) for topic in mine]
    log = site.log[said:]
    assert all(f"Denied PUBLISH from e2 (d0, q1, r0, m1, '{topic}'" in log for topic in theirs)


async def test_an_edge_hears_what_is_meant_for_it_only(site: RealSite):
    async with site.client(installed(site, "e2")) as spy, site.client(installed(site, "e1")) as edge, site.cloud() as c:
        for name in ("#", "embridge/v1/down/+/commit", commit_topic("e1"), "embridge/v1/up/#", "$SYS/#"):
            await spy.subscribe(name, qos=1)
        await c.publish(commit_topic("e1"), b"e1", qos=1)
        await c.publish(desired_topic("e1"), b"e1", qos=1)
        await edge.publish(state_topic("e1"), b"e1", qos=1)
        await edge.publish(live_topic("e1"), b"e1", qos=1)
        await edge.publish(event_topic("e1", UUID(int=5)), b"e1", qos=1)
        await c.publish(commit_topic("e2"), b"e2", qos=1)
        async with asyncio.timeout(5):
            async for message in spy.messages:
                assert (message.topic.value, message.payload) == (commit_topic("e2"), b"e2")
                break


async def test_an_edge_cannot_take_anothers_place(site: RealSite):
    async with site.cloud() as cloud, site.client(installed(site, "e1"), "edge-e1") as edge:
        await cloud.subscribe("embridge/v1/state/+", qos=1)
        for identifier in ("@cloud", "e1", "edge-e1", "ingest-0-255"):
            async with site.client(installed(site, "e2"), identifier) as thief:
                await thief.publish(state_topic("e2"), identifier.encode(), qos=1)
        await edge.publish(state_topic("e1"), b"still here", qos=1)
        got = []
        async with asyncio.timeout(5):
            async for message in cloud.messages:
                got.append(message.payload)
                if message.payload == b"still here":
                    break
        assert len(got) == 5


# what the store takes


@asynccontextmanager
async def running(site: RealSite, state_dir: Path) -> AsyncIterator:
    mqtt = settings_of(site, site.cloud_settings.parent).mqtt
    cloud = CloudSettings(state_dir=state_dir, http_port=0, commit_s=0.05)
    async with serve(Settings(mqtt=mqtt, cloud=cloud)) as context:
        await settled(lambda: context.ingester.status.connected)
        yield context


def contents(context) -> dict[str, str]:
    """What every table but the quarantine and the states of edges holds."""
    tables = context.store.read.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE' ORDER BY 1"
    )
    found = {}
    for (table,) in tables:
        if table not in {"quarantine", "edges"}:
            rows = sorted(map(repr, context.store.read.rows(f"SELECT * FROM {table}")))
            found[table] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return found


def quarantined(context) -> int:
    return context.store.read.rows("SELECT count(*) FROM quarantine")[0][0]


async def settled(condition, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def send(site: RealSite, name: str, topic: str, payload: bytes) -> None:
    async with site.client(installed(site, name)) as client:
        await client.publish(topic, payload, qos=1)


async def deliver(site: RealSite, recording: Recording) -> None:
    """Hand a whole session in, and wait until it is sealed."""
    async with site.client(installed(site, recording.session.edge)) as client:
        for topic, payload in recording.messages():
            await client.publish(topic, payload, qos=1)


def forged(payload: bytes, *, n: int | None = None, channels: int | None = None, pairs: int | None = None,
           body: bytes | None = None, stream: int | None = None, first: int | None = None) -> bytes:  # fmt: skip
    """A chunk that says something else, with a length and a checksum that are right for it."""
    head = bytearray(payload[: codec.HEADER.size])
    rest = payload[codec.HEADER.size :] if body is None else body
    for offset, form, value in (
        (24, "<H", stream),
        (26, "<H", channels),
        (28, "<I", n),
        (32, "<Q", first),
        (52, "<I", pairs),
    ):
        if value is not None:
            struct.pack_into(form, head, offset, value)
    struct.pack_into("<I", head, 56, len(rest))
    struct.pack_into("<I", head, 60, zlib.crc32(rest, zlib.crc32(head[:60])))
    return bytes(head) + rest


def hostile(victim: Recording, edge: str) -> list[tuple[str, bytes]]:
    """What an edge with a certificate may try on the store, on topics the broker lets it use."""
    session = victim.session
    good = codec.encode(victim.chunks[0][0])
    mine = UUID(int=0xE2)
    up, events = chunk_topic(edge, session.id, "emg"), event_topic(edge, session.id)
    own, own_events = chunk_topic(edge, mine, "emg"), event_topic(edge, mine)
    zeros = np.zeros((500_000, 16), np.int16)
    bomb = codec.encode(Chunk(mine, 0, 0, zeros, 1))
    endless = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 << 20))
    lying = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    template = codec.encode(Chunk(mine, 0, 0, np.zeros((4, 4), np.int16), 1))

    def opening(**changes) -> bytes:
        opened = msgspec.structs.replace(session_of(emg_spec(), edge=edge), id=mine, **changes)
        return pack(EventMessage(session=mine, seq=0, event=SessionOpened(session=opened)))

    def named(stream: str) -> bytes:
        tree = msgspec.msgpack.decode(opening())
        tree["event"]["session"]["streams"][0]["name"] = stream
        return msgspec.msgpack.encode(tree)

    sql = "x'; DROP TABLE sessions; --"
    said = pack(EdgeState(edge=edge, online=True, update=UpdateState()))
    deep = b"\x91" * 100_000 + b"\xc0"
    return [
        # another edge's session under one's own name
        (up, good),
        (events, victim.event_message(1, victim.events[1])[1]),
        (events, victim.event_message(0, victim.events[0])[1]),
        # sizes
        (own, forged(bomb, n=1, channels=1)),
        (own, forged(template, n=0xFFFFFFFF, channels=0xFFFF)),
        (own, forged(template, n=0xFFFFFFFF, channels=1)),
        (own, forged(template, pairs=0xFFFFFFFF)),
        (own, forged(template, body=endless)),
        (own, forged(template, body=lying)),
        (own, forged(template, n=0)),
        (own, forged(template, channels=0)),
        (own, forged(template, first=2**64 - 1)),
        (own_events, bytes(2 << 20)),
        (own_events, b"\xdd\xff\xff\xff\xff"),
        (own_events, b"\xc6\xff\xff\xff\xff"),
        (own_events, deep),
        (own_events, b"\xc1"),
        (own_events, b""),
        # names
        (own_events, opening(participant=Participant(id=sql))),
        (own_events, opening(participant=Participant(id="../../etc/passwd"))),
        (own_events, opening(participant=Participant(id=".."))),
        (own_events, opening(participant=Participant(id="a/b"))),
        (own_events, opening(participant=Participant(id="a\0b"))),
        (own_events, opening(edge=sql)),
        (own_events, opening(protocol="\x1b]0;owned\x07")),
        (own_events, named("../session")),
        (own_events, named(sql)),
        (own_events, named("events")),
        # topics
        (f"embridge/v1/up/{topics.shard(edge)}/{edge}/..%2f../emg", good),
        (f"embridge/v1/up/{topics.shard(edge)}/{edge}/{{{mine}}}/emg", good),
        (f"embridge/v1/up/{topics.shard(edge)}/{edge}/{mine}/..", good),
        (f"embridge/v1/up/0{topics.shard(edge)}/{edge}/{mine}/emg", good),
        (f"embridge/v1/up/{(topics.shard(edge) + 1) % 256}/{edge}/{mine}/emg", good),
        # states
        (state_topic(edge), pack(EdgeState(edge="e1", online=True))),
        (state_topic(edge), pack(EdgeState(edge=edge, online=True, update=UpdateState(detail="\x1b[2J")))),
        (state_topic(edge), b"\x00" * 100),
        (state_topic(edge), said.replace(b"idle", b"\xff\xfe\x80\x81")),
        (own_events, opening(protocol="four").replace(b"four", b"\xff\xfe\x80\x81")),
    ]


async def test_nothing_hostile_is_stored_and_good_traffic_passes(site: RealSite, tmp_path: Path, caplog):
    victim = record(session_of(emg_spec(), edge="e1", number=1), 1)
    late = record(session_of(emg_spec(), edge="e1", number=2), 2)
    async with running(site, tmp_path) as context:
        whole = victim.messages()
        async with site.client(installed(site, "e1")) as client:
            for topic, payload in whole[:-1]:
                await client.publish(topic, payload, qos=1)
        await settled(lambda: context.ingester.counters.chunks == len(victim.chunks[0]))
        before = contents(context)
        attacks = hostile(victim, "e2")
        async with site.client(installed(site, "e2")) as client:
            for topic, payload in attacks:
                await client.publish(topic, payload, qos=1)
        await settled(lambda: quarantined(context) >= len(attacks))
        assert quarantined(context) == len(attacks)
        assert contents(context) == before
        reasons = {r for (r,) in context.store.read.rows("SELECT DISTINCT reason FROM quarantine")}
        assert reasons >= {"wrong_edge", "sample_count", "malformed", "foreign"}
        refused = {
            (e, r)
            for e, r in context.store.read.rows("SELECT edge, reason FROM quarantine WHERE reason = 'wrong_edge'")
        }
        assert refused == {("e2", "wrong_edge")}
        assert caplog.text.count("refused embridge/v1/") >= 3
        # replayed: by its edge it changes nothing
        async with site.client(installed(site, "e1")) as client:
            for topic, payload in whole[:-1] * 3:
                await client.publish(topic, payload, qos=1)
        await settled(lambda: context.ingester.counters.duplicates == 3 * (len(whole) - 1))
        assert contents(context) == before
        # and life goes on
        async with site.client(installed(site, "e1")) as client:
            await client.publish(*whole[-1], qos=1)
        await deliver(site, late)
        await settled(lambda: len(context.catalogue.ids()) == 2)
        for recording in (victim, late):
            assert_sealed_equals(context.catalogue.get(recording.session.id), recording)
        assert context.ingester.status.connections == 1


async def test_texts_with_sql_are_texts(site: RealSite, tmp_path: Path):
    """What may say anything is stored as it was said."""
    words = "'); DROP TABLE sessions; -- \" $1 ? {} %s"
    recording = record(session_of(emg_spec(), edge="e1", number=7), 3)
    recording.events[1] = CueShown(gesture=words, repetition=1, start_ns=1, end_ns=2)
    recording.events[3] = Marker(text=words, t_ns=3)
    async with running(site, tmp_path) as context:
        await deliver(site, recording)
        await settled(lambda: context.catalogue.ids())
        assert_sealed_equals(context.catalogue.get(recording.session.id), recording)
        assert context.store.read.rows("SELECT gesture FROM cues") == [(words,)]


async def test_a_payload_too_large_costs_its_sender_the_connection(site: RealSite, tmp_path: Path):
    recording = record(session_of(emg_spec(), edge="e1", number=8), 4)
    async with running(site, tmp_path) as context:
        before = contents(context)
        with pytest.raises(aiomqtt.MqttError):
            await send(site, "e2", chunk_topic("e2", UUID(int=9), "emg"), bytes(21 << 20))
        await deliver(site, recording)
        await settled(lambda: context.catalogue.ids())
        assert before != contents(context)
        assert context.ingester.counters.foreign == 0


async def test_chunks_that_unfold_a_thousandfold_do_not_fill_the_memory(site: RealSite, tmp_path: Path):
    """The largest chunk there can be, of nothing but zeros, many times in one round."""
    bomb = codec.encode(Chunk(UUID(int=0xB), 0, 0, np.zeros((524_288, 16), np.int16), 1))
    assert len(bomb) < (16 << 20) // 1000
    async with running(site, tmp_path) as context:
        start_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with site.client(installed(site, "e2")) as client:
            topic = chunk_topic("e2", UUID(int=0xB), "emg")
            await asyncio.gather(*(client.publish(topic, forged(bomb, first=i), qos=1) for i in range(100)))
        await settled(lambda: context.ingester.counters.messages >= 100, 60)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kib
        assert grown_kib < 400 << 10


def test_the_agent_does_not_start_with_credentials_that_cannot_work(site: RealSite):
    with pytest.raises(ConfigError, match="names 'e1'"):
        Credentials(settings_of(site, installed(site, "e1"), "e2"))
    with pytest.raises(ConfigError, match=r"mqtt\.insecure"):
        Credentials(Settings(mqtt=MqttSettings(host="broker.example")))


async def test_the_cloud_tells_when_certificates_end(site: RealSite, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    soon_ns = site.clock.wall_ns() + 3 * DAY_NS
    async with running(site, tmp_path) as context:
        state = EdgeState(edge="e1", online=True, certificate_ends_ns=soon_ns)
        await send(site, "e1", state_topic("e1"), pack(state))
        certificates = Certificates(context.settings, context.store, context.clock)
        await settled(certificates.edges)
        page = (await context.metrics.page()).decode()
        certificates.warn()
    assert certificates_of(page, "embridge_edge_certificate_end_timestamp_seconds", "edge") == {"e1": soon_ns * 1e-9}
    own = certificates_of(page, "embridge_certificate_end_timestamp_seconds", "certificate")
    assert own["broker"] == pytest.approx(site.clock.wall_ns() * 1e-9 + 365 * 86_400, abs=3600)
    assert "the certificate of e1 ends on" in caplog.text
    assert "in 3 days" in caplog.text


def certificates_of(page: str, metric: str, label: str) -> dict[str, float]:
    rows = re.findall(rf'^{metric}\{{{label}="(.+?)"\}} (\S+)$', page, re.MULTILINE)
    return {name: float(value) for name, value in rows}


def test_the_commands_work_under_tls(site: RealSite, tmp_path: Path):
    """Cloud and agent as processes, each with its certificate: what is recorded is sealed."""
    cloud = settings_of(site, site.cloud_settings.parent).mqtt
    edge = installed(site, "e1")
    source = SyntheticSource(wearer=1, performance=1, gestures=("fist",), repetitions=1, speed=8.0)
    loop = Loop(tmp_path, site.port, {"EMBRIDGE_MQTT__CA_FILE": str(cloud.ca_file)})
    try:
        loop.write_plan(plan_of := SessionPlan(name="tls", participant="p1", source=source))
        loop.settings["EMBRIDGE_MQTT__CERT_FILE"] = str(cloud.cert_file)
        loop.start_cloud()
        loop.start_edge("e1", EMBRIDGE_MQTT__CERT_FILE=str(edge / "client.pem"))
        loop.wait_edge("e1")
        (sealed,) = loop.sealed()
        assert_recorded(sealed, rehearse(plan_of))
        assert sealed.session.edge == "e1"
        refused = loop.run("edge", "run", "--name", "e2", EMBRIDGE_MQTT__CERT_FILE=str(edge / "client.pem"))
        assert (refused.returncode, "names 'e1'" in refused.stderr) == (2, True)
    finally:
        loop.close()


def test_a_revoked_certificate_is_not_taken_for_an_old_session_either(tmp_path: Path):
    """TLS remembers who it has met; a list of revocations must count all the same."""
    site = RealSite(tmp_path, take_free_port())
    folder = site.edge("gone")
    site.start()
    try:
        context = ssl.create_default_context(cafile=str(site.broker / "ca.crt"))
        context.load_cert_chain(folder / "client.pem")
        packet = connect_packet(settings_of(site, folder, "gone").mqtt, "edge-gone")
        met = spoken(context, site.port, packet)
        assert met[1] == b"\x20\x02\x00\x00"
        site.site.revoke("gone", "stolen")
        site.reload()
        with contextlib.suppress(OSError):
            assert spoken(context, site.port, packet, met[0])[1] != b"\x20\x02\x00\x00"
    finally:
        site.stop()


def spoken(context: ssl.SSLContext, port: int, packet: bytes, session: ssl.SSLSession | None = None):
    """Log in; the session to come back with, and the answer."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as link,
        context.wrap_socket(link, server_hostname="127.0.0.1", session=session) as secured,
    ):
        secured.sendall(packet)
        answer = secured.recv(4)
        return secured.session, answer
