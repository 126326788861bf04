"""The registry: keys, publication order, refusals, refreshes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from embridge_cloud.registry import ONLINE, Expiry, Registry, repository
from embridge_shared.archive import write_atomically
from embridge_shared.errors import ModelError, OperatorError, Reason
from embridge_shared.release import read_bundle
from support.bundles import make_bundle

DAY_NS = 86_400_000_000_000


class Wall:
    """A wall clock a test can turn."""

    def __init__(self, days: float = 20_000) -> None:
        self.now_ns = int(days * DAY_NS)

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", Wall())


def names(registry: Registry) -> set[str]:
    return {path.name for path in (registry.repository / "metadata").iterdir()}


def test_first_use_makes_private_keys_and_an_empty_repository(registry, tmp_path):
    keys = tmp_path / "registry" / "keys"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {key.stem for key in keys.iterdir()} == {"root-1", "root-2", "root-3", *ONLINE}
    assert all(key.stat().st_mode & 0o777 == 0o600 for key in keys.iterdir())
    assert names(registry) == {"1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json"}
    assert registry.releases() == ()
    root = Metadata.from_bytes(registry.root_bytes()).signed
    assert root.consistent_snapshot
    assert len({keyid for role in root.roles.values() for keyid in role.keyids}) == 6
    assert (len(root.roles["root"].keyids), root.roles["root"].threshold) == (3, 2)
    served = b"".join(p.read_bytes() for p in registry.repository.rglob("*") if p.is_file())
    assert b"PRIVATE" not in served


def test_publish(registry, tmp_path):
    path = make_bundle(tmp_path)
    published = registry.publish(path)
    bundle = read_bundle(path)
    assert (published.name, published.version, published.digest) == ("embridge-1", 1, bundle.digest)
    assert published.size == path.stat().st_size
    assert registry.releases() == (published,)
    target = registry.repository / "targets" / f"{bundle.digest}.embridge-1"
    assert target.read_bytes() == path.read_bytes()
    before = names(registry)
    assert registry.publish(path) == published
    assert names(registry) == before
    second = registry.publish(make_bundle(tmp_path, version=2))
    again = Registry(tmp_path / "registry", Wall())
    assert again.releases() == (published, second)


def test_a_name_is_published_once_and_versions_grow(registry, tmp_path):
    registry.publish(make_bundle(tmp_path, version=3))
    for refused in (make_bundle(tmp_path, version=3, seed=1), make_bundle(tmp_path, version=2)):
        with pytest.raises(OperatorError):
            registry.publish(refused)
    assert [p.name for p in registry.releases()] == ["embridge-3"]
    assert registry.publish(make_bundle(tmp_path, version=1, name="other")).name == "other-1"


def test_a_recall_is_signed_and_final(registry, tmp_path):
    assert registry.champion("embridge") is None
    first, second = (registry.publish(make_bundle(tmp_path, version=v)) for v in (1, 2))
    assert registry.champion("embridge") == second
    recalled = registry.recall("embridge-2", " fists read as rest ")
    assert recalled.recalled == "fists read as rest"
    assert registry.champion("embridge") == first
    assert registry.releases() == (first, recalled)
    before = names(registry)
    assert registry.recall("embridge-2", "another reason") == recalled
    assert registry.publish(make_bundle(tmp_path, version=2)) == recalled, "publishing it again does not bring it back"
    assert names(registry) == before
    with pytest.raises(OperatorError):
        registry.publish(make_bundle(tmp_path, version=2, seed=1))
    for name, why in (("embridge-9", "gone"), ("embridge-1", "  ")):
        with pytest.raises(OperatorError):
            registry.recall(name, why)
    assert registry.champion("other") is None


def test_a_damaged_bundle_is_not_published(registry, tmp_path):
    path = make_bundle(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError):
        registry.publish(path)
    assert registry.releases() == ()


@pytest.mark.parametrize("writes", range(4))
def test_a_crash_while_publishing_leaves_the_repository_as_it_was(registry, tmp_path, monkeypatch, writes):
    first = registry.publish(make_bundle(tmp_path))
    left = writes

    def dying(path: Path, data: bytes, *, mode: int = 0o644) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        write_atomically(path, data, mode=mode)

    second = make_bundle(tmp_path, version=2)
    with monkeypatch.context() as patch:
        patch.setattr(repository, "write_atomically", dying)
        with pytest.raises(KeyboardInterrupt):
            registry.publish(second)
    again = Registry(tmp_path / "registry", Wall())
    assert again.releases() == (first,)
    assert [p.name for p in (again.publish(second), *again.releases())] == ["embridge-2", "embridge-1", "embridge-2"]


def expires(registry: Registry, name: str) -> datetime:
    return Metadata.from_bytes((registry.repository / "metadata" / name).read_bytes()).signed.expires


def test_refresh_signs_what_is_due(tmp_path):
    wall = Wall(0)
    registry = Registry(tmp_path, wall, Expiry(root_days=100, targets_days=40, snapshot_days=40, timestamp_days=2))
    assert expires(registry, "timestamp.json") == datetime(1970, 1, 3, tzinfo=UTC)
    wall.now_ns = 1 * DAY_NS
    registry.refresh_timestamp()
    assert expires(registry, "timestamp.json") == datetime(1970, 1, 4, tzinfo=UTC)
    assert "2.targets.json" not in names(registry)
    wall.now_ns = 30 * DAY_NS
    registry.refresh_timestamp()
    assert "2.targets.json" in names(registry)
    assert "2.root.json" not in names(registry)
    wall.now_ns = 60 * DAY_NS
    registry.refresh_timestamp()
    root = Metadata.from_bytes(registry.root_bytes()).signed
    assert root.version == 2
    assert root.expires == datetime(1970, 1, 1, tzinfo=UTC) + Expiry(root_days=160).of("root")


def test_a_repository_of_other_keys_is_refused(registry, tmp_path):
    other = Registry(tmp_path / "other", Wall())
    for key in (tmp_path / "other" / "keys").iterdir():
        (tmp_path / "registry" / "keys" / key.name).write_bytes(key.read_bytes())
    with pytest.raises(ModelError) as caught:
        Registry(tmp_path / "registry", Wall())
    assert caught.value.reason is Reason.SIGNATURE
    timestamp = other.repository / "metadata" / "timestamp.json"
    timestamp.write_bytes(timestamp.read_bytes().replace(b'"version":1', b'"version":7'))
    with pytest.raises(ModelError) as caught:
        other.releases()
    assert caught.value.reason is Reason.SIGNATURE
    (tmp_path / "other" / "keys" / "targets.pem").unlink()
    with pytest.raises(ModelError) as caught:
        Registry(tmp_path / "other", Wall())
    assert caught.value.reason is Reason.NOT_FOUND
