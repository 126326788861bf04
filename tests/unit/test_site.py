from __future__ import annotations

import contextlib
import io
import logging
import stat
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_cloud.broker import embedded_broker
from embridge_cloud.site import authority, mosquitto
from embridge_cloud.site import register as registers
from embridge_cloud.site.register import Role, Standing
from embridge_cloud.site.site import Site, make, update_root
from embridge_edge.identity import Credentials
from embridge_edge.provision import install, strangers
from embridge_edge.spool import Item, Spool
from embridge_shared import provision, tls
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.settings import EdgeSettings, MqttSettings, Settings
from support.sessions import emg_spec, session_of
from support.sites import plan

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY_NS = 86_400_000_000_000


class At:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now_ns = round(NOW.timestamp()) * 1_000_000_000

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def clock() -> At:
    return At()


@pytest.fixture
def site(tmp_path: Path, clock: At) -> Site:
    return make(tmp_path / "site", "acme", plan(tmp_path / "site", 8883, host="broker.example"), clock=clock)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}


def crl(site: Site) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl((site.folder / "broker" / "crl.pem").read_bytes())


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


# making


def test_secrets_are_their_owners_alone(site: Site):
    folders = {stat.S_IMODE(p.stat().st_mode) for p in [site.folder, *site.folder.rglob("*")] if p.is_dir()}
    assert folders == {0o700}
    assert all(b"PRIVATE KEY" not in p.read_bytes() or stat.S_IMODE(p.stat().st_mode) == 0o600
               for p in site.folder.rglob("*") if p.is_file())  # fmt: skip
    assert modes(site.folder / "broker") == modes(site.folder / "cloud") == {0o600}


def test_certificates_say_what_they_are_for(site: Site):
    ca = certificate(site.folder / "ca" / "ca.crt")
    server = certificate(site.folder / "broker" / "server.pem")
    client = certificate(site.folder / "cloud" / "client.pem")
    for found in (server, client):
        found.verify_directly_issued_by(ca)
        assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    hosts = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "broker.example" in hosts.get_values_for_type(x509.DNSName)
    uses = [list(c.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) for c in (server, client)]
    assert uses == [[x509.ExtendedKeyUsageOID.SERVER_AUTH], [x509.ExtendedKeyUsageOID.CLIENT_AUTH]]


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(tmp_path: Path, clock: At):
    taken = tmp_path / "site"
    taken.mkdir()
    (taken / "notes").write_text("mine")
    with pytest.raises(OperatorError, match="there already"):
        make(taken, "acme", plan(taken, 8883), clock=clock)
    assert [p.name for p in taken.iterdir()] == ["notes"]
    broken = msgspec.structs.replace(plan(tmp_path / "b", 8883), cloud_hosts=("not a host",))
    with pytest.raises(OperatorError, match="no host name"):
        make(tmp_path / "b", "acme", broken, clock=clock)
    with pytest.raises(OperatorError, match="cannot be the name"):
        make(tmp_path / "b", "acme\nlistener 1883", plan(tmp_path / "b", 8883), clock=clock)
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_the_authority_can_be_kept_elsewhere(tmp_path: Path, clock: At):
    key, folder = tmp_path / "stick", tmp_path / "site"
    make(folder, "acme", plan(folder, 8883), clock=clock, ca=key)
    assert not any(b"ca.key" in p.name.encode() for p in folder.rglob("*"))
    with pytest.raises(OperatorError, match="--ca"):
        Site(folder, clock).edge("e1", root=None)
    assert Site(folder, clock, ca=key).edge("e1", root=None)


def test_the_cloud_settings_can_be_loaded(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMBRIDGE_CONFIG", str(site.folder / "cloud" / "embridge.toml"))
    found = Settings()
    assert (found.mqtt.host, found.mqtt.port) == ("broker.example", 8883)
    assert found.cloud.http_host == "127.0.0.1"
    assert found.api.url == found.cloud.public_url == "https://127.0.0.1:8470"
    assert tls.tls_context(found.mqtt) is not None
    assert tls.common_name(found.mqtt.cert_file) == "@cloud"


def test_the_cloud_name_can_be_no_edges(site: Site):
    with pytest.raises(ConfigError):
        site.edge("@cloud", root=None)


def test_the_deployed_configuration_is_the_one_that_is_made():
    for name in ("mosquitto.conf", "acl"):
        assert (ROOT / "deploy" / "mosquitto" / name).read_text() == deployed()[name]
    limits = (ROOT / "deploy" / "mosquitto" / "conf.d" / "embridge.conf").read_text()
    assert limits.endswith(mosquitto.LIMITS)


def deployed() -> dict[str, str]:
    layout = registers.Layout(
        broker_hosts=("broker.example",),
        broker_folder="/etc/mosquitto/embridge",
        cloud_hosts=("cloud.example",),
        cloud_folder="/etc/embridge",
    )
    register = registers.Register(site="acme", layout=layout)
    return {"mosquitto.conf": mosquitto.configuration(layout), "acl": mosquitto.access_list(register, ["@cloud"])}


# edges, renewal, revocation


def test_an_edge_is_provisioned_once(site: Site):
    site.edge("e1", root=None)
    with pytest.raises(OperatorError, match="--renew"):
        site.edge("e1", root=None)
    with pytest.raises(OperatorError, match="no certificate to renew"):
        site.edge("e2", root=None, renew=True)
    for name in ("../e", "a/b", "+", "#", "a\nb", "", "x" * 65, "a;DROP TABLE edges"):
        with pytest.raises(ConfigError):
            site.edge(name, root=None)


def test_a_certificate_never_outlives_the_authority(tmp_path: Path, clock: At):
    folder = tmp_path / "site"
    site = make(folder, "acme", plan(folder, 8883), clock=clock, ca_days=100)
    site.edge("e1", root=None, days=1000)
    (edge,) = [c for c in site.register.issued if c.role is Role.EDGE]
    assert edge.ends_ns <= clock.now_ns + 100 * DAY_NS
    clock.now_ns += 101 * DAY_NS
    with pytest.raises(OperatorError, match="has ended"):
        site.edge("e2", root=None)


def standing(site: Site, name: str) -> list[Standing]:
    return [s for c, s in site.standing() if c.name == name]


def test_where_certificates_stand(site: Site, clock: At):
    site.edge("e1", root=None, days=100)
    assert standing(site, "e1") == [Standing.VALID]
    clock.now_ns += 80 * DAY_NS
    assert standing(site, "e1") == [Standing.ENDING]
    site.edge("e1", root=None, renew=True, days=100)
    assert standing(site, "e1") == [Standing.REPLACED, Standing.VALID]
    clock.now_ns += 101 * DAY_NS
    assert standing(site, "e1") == [Standing.ENDED, Standing.ENDED]


def test_renewal_takes_what_ends_soon(site: Site, clock: At):
    before = certificate(site.folder / "broker" / "server.pem")
    assert site.renew(within_days=30) == []
    clock.now_ns += 340 * DAY_NS
    assert {c.role for c in site.renew(within_days=30)} == {Role.BROKER, Role.CLOUD, Role.HTTP}
    after = certificate(site.folder / "broker" / "server.pem")
    assert after.not_valid_after_utc > before.not_valid_after_utc
    assert after.public_key() != before.public_key()
    assert site.renew(within_days=30) == []


def test_revocations_are_listed_and_every_list_is_newer(site: Site):
    site.edge("e1", root=None)
    site.edge("e1", root=None, renew=True)
    dates = [crl(site).last_update_utc]
    old, new = [c for c in site.register.issued if c.name == "e1"]
    assert [c.serial for c in site.revoke("e1", "renewed", replaced_only=True)] == [old.serial]
    dates.append(crl(site).last_update_utc)
    assert crl(site).get_revoked_certificate_by_serial_number(int(old.serial, 16)) is not None
    assert crl(site).get_revoked_certificate_by_serial_number(int(new.serial, 16)) is None
    assert "deny" not in (site.folder / "broker" / "acl").read_text()
    assert [c.serial for c in site.revoke("e1", "stolen")] == [new.serial]
    dates.append(crl(site).last_update_utc)
    assert site.revoke("e1", "again") == []
    assert crl(site).get_revoked_certificate_by_serial_number(int(new.serial, 16)) is not None
    assert dates == sorted(set(dates))
    assert crl(site).next_update_utc == certificate(site.folder / "ca" / "ca.crt").not_valid_after_utc
    assert "user e1\ntopic deny #\n" in (site.folder / "broker" / "acl").read_text()
    site.edge("e1", root=None)
    assert "deny" not in (site.folder / "broker" / "acl").read_text()
    with pytest.raises(OperatorError, match="never made"):
        site.revoke("e9", "typo")


def test_the_date_of_a_list_survives_a_clock_that_goes_back():
    last = NOW + timedelta(days=3)
    assert authority.list_date(NOW, None) < NOW
    assert authority.list_date(NOW, last) > last


def test_a_damaged_register_is_named(site: Site):
    (site.folder / "site.json").write_text("{}")
    with pytest.raises(DataError, match=r"site\.json"):
        site.standing()
    with pytest.raises(OperatorError, match="embridge site init"):
        Site(site.folder / "none", At()).standing()


def test_the_newest_root_goes_along(tmp_path: Path):
    folder = tmp_path / "repository" / "metadata"
    folder.mkdir(parents=True)
    assert update_root(tmp_path) is None
    for n in (2, 9, 10):
        (folder / f"{n}.root.json").write_text(str(n))
    assert update_root(tmp_path) == b"10"


def test_further_ingesters_hear_their_shards_alone(site: Site, monkeypatch: pytest.MonkeyPatch):
    folder = site.ingester(3, 4)
    acl = (site.folder / "broker" / "acl").read_text()
    own = acl.partition("user @ingest-3-4\n")[2].partition("\n\n")[0].splitlines()
    reads = [line.removeprefix("topic read embridge/v1/") for line in own if line.startswith("topic read")]
    assert reads == ["up/3/#", "event/3/#", "up/4/#", "event/4/#", "state/+", "ask/+"]
    assert "user @cloud\ntopic read embridge/v1/up/#\n" in acl
    monkeypatch.setenv("EMBRIDGE_CONFIG", str(folder / "embridge.toml"))
    found = Settings()
    assert (found.cloud.first_shard, found.cloud.last_shard, found.cloud.http_host) == (3, 4, "127.0.0.1")
    assert tls.common_name(folder / "client.pem") == "@ingest-3-4"
    assert modes(folder) == {0o600}
    with pytest.raises(OperatorError, match="already"):
        site.ingester(3, 4)
    with pytest.raises(ConfigError):
        site.ingester(4, 3)
    before = (folder / "client.pem").read_bytes()
    site.renew(within_days=400)
    assert (folder / "client.pem").read_bytes() != before


# bundles


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, data in members:
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "member",
    [
        entry("../client.pem"),
        entry("/etc/passwd"),
        entry("a/../../b"),
        entry("spool.db"),
        entry("ca.crt", tarfile.SYMTYPE, "/etc/passwd"),
        entry("ca.crt", tarfile.LNKTYPE, "edge.json"),
        entry("ca.crt", tarfile.DIRTYPE),
        entry("ca.crt", tarfile.CHRTYPE),
        entry("ca.crt", tarfile.FIFOTYPE),
        entry("edge.json"),
    ],
    ids=lambda m: f"{m.name} {m.type!r}",
)
def test_a_bundle_reaches_nowhere(member: tarfile.TarInfo):
    with pytest.raises(DataError) as caught:
        provision.unpack(tar((entry("edge.json"), b"{}"), (member, b"x")))
    assert caught.value.reason in (Reason.MALFORMED, Reason.FOREIGN)


@given(st.binary(max_size=2048))
def test_bytes_that_are_no_bundle(data: bytes):
    with pytest.raises(DataError):
        provision.unpack(data)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_bundle_is_refused_or_the_same(data: st.DataObject):
    site = provision.EdgeSite(edge="e1", site="acme", host="b", port=1)
    whole = bytearray(provision.pack(site, authority=b"A" * 100, client=b"C" * 100, root=b"R" * 100))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):
        found, files = provision.unpack(bytes(whole))
        assert len(files) == 3
        assert found.schema == 1


def test_a_bundle_too_large_is_not_read():
    with pytest.raises(DataError, match="none of ours"):
        provision.unpack(bytes(provision.MAX_BYTES + 1))


def bundle_of(site: Site, tmp_path: Path, name: str = "e1", **more) -> Path:
    path = tmp_path / f"{name}.edge.tar"
    path.write_bytes(site.edge(name, root=b"{}", **more))
    return path


def test_an_edge_is_installed(site: Site, tmp_path: Path, clock: At, monkeypatch: pytest.MonkeyPatch):
    done = install(bundle_of(site, tmp_path), tmp_path / "edge", now_ns=clock.now_ns)
    assert modes(done.folder) == {0o600}
    assert stat.S_IMODE(done.folder.stat().st_mode) == 0o700
    monkeypatch.setenv("EMBRIDGE_CONFIG", str(done.settings))
    found = Settings()
    assert (found.edge.name, found.edge.update_root) == ("e1", done.folder / "root.json")
    assert Credentials(found).ends_ns == site.register.issued[-1].ends_ns
    again = install(tmp_path / "e1.edge.tar", tmp_path / "edge", now_ns=clock.now_ns)
    assert again == done


def test_an_installation_is_not_overwritten_but_renewed(site: Site, tmp_path: Path, clock: At):
    place = tmp_path / "edge"
    with pytest.raises(OperatorError, match="holds no edge"):
        install(bundle_of(site, tmp_path), place, now_ns=clock.now_ns, renew=True)
    assert not place.exists()
    install(tmp_path / "e1.edge.tar", place, now_ns=clock.now_ns)
    before = (place / "client.pem").read_bytes()
    newer = bundle_of(site, tmp_path, renew=True)
    with pytest.raises(OperatorError, match="already"):
        install(newer, place, now_ns=clock.now_ns)
    with pytest.raises(OperatorError, match="already"):
        install(bundle_of(site, tmp_path, "e2"), place, now_ns=clock.now_ns)
    with pytest.raises(OperatorError, match="another edge"):
        install(tmp_path / "e2.edge.tar", place, now_ns=clock.now_ns, renew=True)
    assert (place / "client.pem").read_bytes() == before
    install(newer, place, now_ns=clock.now_ns, renew=True)
    assert (place / "client.pem").read_bytes() != before
    assert stat.S_IMODE((place / "client.pem").stat().st_mode) == 0o600
    other = make(tmp_path / "other", "acme", plan(tmp_path / "other", 8883), clock=clock)
    with pytest.raises(OperatorError, match="holds no edge of the site"):
        install(bundle_of(other, tmp_path), place, now_ns=clock.now_ns, renew=True)


def test_parts_that_do_not_belong_together(site: Site, tmp_path: Path, clock: At):
    other = make(tmp_path / "other", "acme", plan(tmp_path / "other", 8883), clock=clock)
    described, files = provision.unpack(site.edge("e1", root=None))
    foreign = provision.unpack(other.edge("e1", root=None))[1]
    theirs = provision.unpack(site.edge("e2", root=None))[1]
    pem = files["client.pem"].partition(b"-----BEGIN PRIVATE")[0]
    key = b"-----BEGIN PRIVATE" + theirs["client.pem"].partition(b"-----BEGIN PRIVATE")[2]
    cases = {
        "another authority": files | {"ca.crt": foreign["ca.crt"]},
        "another name": files | {"client.pem": theirs["client.pem"]},
        "another key": files | {"client.pem": pem + key},
        "no key": files | {"client.pem": pem},
        "no certificate": files | {"ca.crt": b"hello"},
    }
    for name, parts in cases.items():
        path = tmp_path / "bad.tar"
        path.write_bytes(provision.pack(described, authority=parts["ca.crt"], client=parts["client.pem"], root=None))
        with pytest.raises(DataError):
            install(path, tmp_path / name, now_ns=clock.now_ns)
        assert not (tmp_path / name).exists(), name
    path.write_bytes(site.edge("e3", root=None, days=5))
    with pytest.raises(DataError, match="has ended"):
        install(path, tmp_path / "late", now_ns=clock.now_ns + 6 * DAY_NS)


def test_sessions_of_another_name_are_told(tmp_path: Path):
    session = session_of(emg_spec(), edge="old-name")
    spool = Spool(tmp_path / "spool.db", 1 << 20)
    spool.begin(session.id, "take-1", msgspec.msgpack.encode(session), Item(session.id, -1, 0, 1, "t", b""))
    spool.close()
    assert strangers(tmp_path, "new-name", 1 << 20) == ["take-1 of old-name"]
    assert strangers(tmp_path, "old-name", 1 << 20) == []
    assert strangers(tmp_path / "none", "e", 1 << 20) == []


# settings


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("broker", False), ("localhost.evil.example", False), ("", False)],
)  # fmt: skip
def test_nothing_leaves_this_machine_in_clear(host: str, local: bool):
    assert tls.is_loopback(host) is local
    if local:
        assert tls.tls_context(MqttSettings(host=host)) is None
        return
    with pytest.raises(ConfigError, match=r"mqtt\.insecure") as caught:
        tls.tls_context(MqttSettings(host=host))
    assert caught.value.reason is Reason.INSECURE
    assert tls.tls_context(MqttSettings(host=host, insecure=True)) is None


async def test_the_embedded_broker_stays_on_this_machine():
    with pytest.raises(ConfigError, match="lets everybody in"):
        async with embedded_broker("0.0.0.0"):
            pass


def test_a_key_that_others_may_read_is_refused(site: Site, caplog: pytest.LogCaptureFixture):
    key = site.folder / "cloud" / "client.pem"
    mqtt = MqttSettings(ca_file=site.folder / "ca" / "ca.crt", cert_file=key)
    assert tls.tls_context(mqtt) is not None
    for mode in (0o604, 0o644, 0o606, 0o666):
        key.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600") as caught:
            tls.tls_context(mqtt)
        assert caught.value.reason is Reason.INSECURE
    key.chmod(0o660)
    with caplog.at_level(logging.WARNING):
        assert tls.tls_context(mqtt) is not None
    assert "a group may use the private key" in caplog.text
    key.unlink()
    with pytest.raises(ConfigError, match=r"cert_file"):
        tls.tls_context(mqtt)


def test_the_end_of_a_certificate_is_spoken_of(site: Site, tmp_path: Path, clock: At, caplog: pytest.LogCaptureFixture):
    done = install(bundle_of(site, tmp_path), tmp_path / "edge", now_ns=clock.now_ns)
    mqtt = MqttSettings(ca_file=done.folder / "ca.crt", cert_file=done.folder / "client.pem")
    credentials = Credentials(Settings(mqtt=mqtt, edge=EdgeSettings(name="e1")))
    end_ns = credentials.ends_ns
    assert end_ns == tls.expiry_ns(mqtt) == round(tls.expires_at(done.folder / "client.pem").timestamp()) * 10**9
    with caplog.at_level(logging.WARNING):
        assert credentials.watch(end_ns - 31 * DAY_NS) == end_ns
        assert not caplog.text
        for hours in (0, 1, 23, 25):
            credentials.watch(end_ns - 29 * DAY_NS + hours * DAY_NS // 24)
    assert caplog.text.count("in 29 days") == 1
    assert len(caplog.records) == 2
    assert "nobody accepts it" in tls.expiry_warning("it", end_ns, end_ns)
    assert tls.expiry_warning("it", 0, end_ns) == ""
    install(bundle_of(site, tmp_path, renew=True, days=300), done.folder, now_ns=clock.now_ns, renew=True)
    assert credentials.ends_ns != end_ns


def test_an_edge_shows_a_certificate_of_its_own_name(site: Site, tmp_path: Path, clock: At):
    done = install(bundle_of(site, tmp_path), tmp_path / "edge", now_ns=clock.now_ns)
    mqtt = MqttSettings(ca_file=done.folder / "ca.crt", cert_file=done.folder / "client.pem")
    with pytest.raises(ConfigError, match="names 'e1'"):
        Credentials(Settings(mqtt=mqtt, edge=EdgeSettings(name="e2")))
