"""From the registry to a running release over HTTP, and every attack on the way."""

from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embridge_cloud.registry import Expiry, Registry
from embridge_edge.update.slots import FOLDER, Slots
from embridge_edge.update.updater import Updater
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, EmbridgeError, ModelError, NetworkError, OperatorError, Reason
from embridge_shared.release import ENCODER_INT8, write_bundle
from support.bundles import C, D, M, encoder, make_bundle, parts
from support.web import Web, serve


class Past(SystemClock):
    """Yesterday's clock."""

    def wall_ns(self) -> int:
        return super().wall_ns() - 86_400_000_000_000


class World:
    """A registry with `embridge-1`, a server over it, and an edge that trusts it."""

    def __init__(self, folder: Path, web: Web, registry: Registry) -> None:
        self.folder = folder
        self.web = web
        self.registry = registry
        self.state = folder / "edge"
        self.updater = self.edge()

    def edge(self, **options: object) -> Updater:
        return Updater(self.state, self.registry.root_bytes(), self.web.url, timeout_s=5, **options)

    def publish(self, version: int, **changes: object) -> str:
        return self.registry.publish(make_bundle(self.folder, version, **changes)).digest

    def install(self, version: int) -> None:
        self.updater.activate(self.updater.fetch(f"embridge-{version}"))

    def target(self) -> Path:
        return next((self.registry.repository / "targets").iterdir())

    def metadata(self, name: str) -> Path:
        return self.registry.repository / "metadata" / name

    def refused(self, release: str = "embridge-1", kind: type[EmbridgeError] = ModelError) -> EmbridgeError:
        """Fetching fails, and what runs is what ran."""
        before = self.updater.current()
        with pytest.raises(kind) as caught:
            self.updater.fetch(release)
        assert self.updater.current() == before
        assert caught.value.hint or kind is NetworkError
        return caught.value


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    registry = Registry(tmp_path / "registry", SystemClock())
    registry.publish(make_bundle(tmp_path))
    with serve(registry.repository) as web:
        yield World(tmp_path, web, registry)


def test_fetch_activate_roll_back(world):
    updater = world.updater
    assert updater.current() is None
    assert updater.load() is None
    seen: list[tuple[int, int]] = []
    path = updater.fetch("embridge-1", progress=lambda held, size: seen.append((held, size)))
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert updater.current() is None, "a fetched release does not run yet"
    first = updater.activate(path)
    assert (first.name, first.path) == ("embridge-1", path)
    with pytest.raises(OperatorError) as caught:
        updater.rollback()
    assert caught.value.reason is Reason.NOT_FOUND
    world.publish(2)
    world.install(2)
    assert updater.current().name == "embridge-2"
    assert updater.load().manifest.release == "embridge-2"
    assert updater.rollback("too many errors") == first
    assert world.edge().current() == first, "the swap is on disk"
    assert "too many errors" in world.refused("embridge-2").message
    world.publish(3)
    world.install(3)
    assert updater.rollback() == first
    updater.activate(updater.fetch("embridge-3", force=True))
    assert updater.current().name == "embridge-3"


def test_only_the_current_and_the_previous_release_are_kept(world):
    digests = [world.updater.activate(world.updater.fetch("embridge-1")).digest]
    for version in (2, 3):
        digests.append(world.publish(version))
        world.install(version)
        world.install(version)
    kept = {path.stem for path in (world.state / FOLDER / "bundles").iterdir()}
    assert kept == set(digests[1:])
    assert world.updater.rollback().digest == digests[1]


def test_what_is_here_is_not_fetched_again(world):
    world.install(1)
    world.web.requests.clear()
    world.updater.fetch("embridge-1")
    assert not [path for path, _ in world.web.requests if "/targets/" in path]


def test_a_broken_download_resumes_where_it_stopped(world):
    size = world.target().stat().st_size
    world.web.cut = 3000
    error = world.refused(kind=NetworkError)
    assert error.reason is Reason.UNREACHABLE
    (part,) = (world.state / FOLDER / "downloads").iterdir()
    assert part.stat().st_size == 3000
    world.web.cut = None
    world.web.requests.clear()
    path = world.edge().fetch("embridge-1")
    assert path.stat().st_size == size
    assert world.web.requests[-1][1] == "bytes=3000-"
    assert list((world.state / FOLDER / "downloads").iterdir()) == []


def test_a_server_without_ranges_starts_over(world):
    world.web.cut = 3000
    world.refused(kind=NetworkError)
    world.web.cut, world.web.ranges = None, False
    assert world.updater.fetch("embridge-1").read_bytes() == world.target().read_bytes()


def test_a_poisoned_part_is_thrown_away(world):
    world.web.cut = 3000
    world.refused(kind=NetworkError)
    world.web.cut = None
    (part,) = (world.state / FOLDER / "downloads").iterdir()
    part.write_bytes(b"\0" * 3000)
    assert world.refused().reason is Reason.HASH_MISMATCH
    assert world.updater.fetch("embridge-1")


def test_a_flipped_byte_in_the_bundle_is_refused(world):
    data = bytearray(world.target().read_bytes())
    data[4321] ^= 1
    world.target().write_bytes(data)
    assert world.refused().reason is Reason.HASH_MISMATCH
    assert not list((world.state / FOLDER / "downloads").iterdir())
    assert not list((world.state / FOLDER / "bundles").iterdir())


def test_another_file_under_the_same_name_is_refused(world):
    world.install(1)
    world.publish(2)
    shutil.rmtree(world.registry.repository / "deltas")
    other = make_bundle(world.folder / "other", 2, seed=5)
    target = next(p for p in (world.registry.repository / "targets").iterdir() if p.name.endswith("embridge-2"))
    assert other.read_bytes() != target.read_bytes()
    shutil.copyfile(other, target)
    assert world.refused("embridge-2").reason is Reason.HASH_MISMATCH
    assert world.updater.current().name == "embridge-1"


def test_an_endless_bundle_is_cut_off(world):
    world.web.extra = b"\0" * 100_000
    assert world.refused().reason is Reason.HASH_MISMATCH
    assert not list((world.state / FOLDER / "downloads").iterdir())


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json"])
def test_flipped_bytes_in_metadata_are_refused(world, name):
    path = world.metadata(name)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(good), 25):
        data = bytearray(good)
        data[at] ^= 1
        path.write_bytes(data)
        edge = Updater(world.folder / f"edge-{at}", world.registry.root_bytes(), world.web.url)
        with pytest.raises(ModelError) as caught:
            edge.fetch("embridge-1")
        assert caught.value.reason in {Reason.SIGNATURE, Reason.HASH_MISMATCH}
    path.write_bytes(good)
    world.install(1)


def test_a_replayed_timestamp_is_refused(world):
    old = world.metadata("timestamp.json").read_bytes()
    world.install(1)
    world.publish(2)
    world.install(2)
    world.metadata("timestamp.json").write_bytes(old)
    error = world.refused("embridge-2")
    assert error.reason is Reason.SIGNATURE
    assert "older" in error.message
    assert world.edge().current().name == "embridge-2"


def test_a_repository_signed_by_others_is_refused(world):
    other = Registry(world.folder / "other", SystemClock())
    other.publish(make_bundle(world.folder / "b", 1, seed=3))
    with serve(other.repository) as web, pytest.raises(ModelError) as caught:
        Updater(world.state, world.registry.root_bytes(), web.url).fetch("embridge-1")
    assert caught.value.reason is Reason.SIGNATURE
    with pytest.raises(ModelError) as caught:
        Updater(world.folder / "x", b"{}", world.web.url).fetch("embridge-1")
    assert caught.value.reason is Reason.SIGNATURE


def test_an_expired_timestamp_is_refused_until_it_is_refreshed(tmp_path):
    registry = Registry(tmp_path / "registry", Past(), Expiry(timestamp_days=0.5))
    registry.publish(make_bundle(tmp_path))
    with serve(registry.repository) as web:
        world = World(tmp_path, web, registry)
        error = world.refused()
        assert error.reason is Reason.EXPIRED
        assert "clock" in error.hint
        Registry(tmp_path / "registry", SystemClock()).refresh_timestamp()
        world.install(1)


def test_a_renewed_root_is_followed(tmp_path):
    registry = Registry(tmp_path / "registry", Past(), Expiry(root_days=1.5))
    world_root = registry.root_bytes()
    registry.publish(make_bundle(tmp_path))
    Registry(tmp_path / "registry", SystemClock(), Expiry(root_days=1.5)).refresh_timestamp()
    assert registry.root_bytes() != world_root
    with serve(registry.repository) as web:
        assert Updater(tmp_path / "edge", world_root, web.url).fetch("embridge-1")


def test_a_release_that_fails_its_self_test_is_refused(world):
    world.install(1)
    manifest, files = parts(2)
    other = encoder(np.random.default_rng(9).normal(size=(C, M * D)))
    write_bundle(world.folder / "bad", manifest, files | {ENCODER_INT8: other})
    world.registry.publish(world.folder / "bad")
    assert world.refused("embridge-2").reason is Reason.SELF_TEST
    assert world.edge(int8=False).fetch("embridge-2"), "the encoder of full precision is sound"


def test_a_release_for_newer_agents_or_an_older_one_is_refused(world):
    world.install(1)
    world.publish(2, min_agent="99.0")
    world.web.requests.clear()
    assert world.refused("embridge-2").reason is Reason.INCOMPATIBLE
    assert not [path for path, _ in world.web.requests if "/targets/" in path]
    world.updater = world.edge(agent="99.1.0rc1")
    world.install(2)
    assert world.refused("embridge-1").reason is Reason.INCOMPATIBLE
    assert world.updater.fetch("embridge-1", force=True)


def test_what_is_not_there(world):
    assert world.refused("embridge-9").reason is Reason.NOT_FOUND
    world.install(1)
    world.publish(2)
    for folder in ("targets", "deltas"):
        shutil.rmtree(world.registry.repository / folder)
    assert world.refused("embridge-2", NetworkError).reason is Reason.UNREACHABLE
    world.metadata("timestamp.json").unlink()
    assert world.refused("embridge-2", NetworkError).reason is Reason.UNREACHABLE
    with pytest.raises(NetworkError):
        Updater(world.state, world.registry.root_bytes(), "http://127.0.0.1:9").fetch("embridge-1")
    with pytest.raises(ConfigError):
        Updater(world.state, world.registry.root_bytes(), "ftp://127.0.0.1").fetch("embridge-1")
    assert world.updater.current().name == "embridge-1"


@pytest.mark.parametrize(
    "name",
    [
        "../../embridge-1",
        "/etc/passwd",
        "embridge-1/../embridge-1",
        "..",
        "",
        "a\0b",
        "'; DROP TABLE edges; --",
        "%2e%2e",
    ],
)
def test_a_release_name_is_no_path(world, name):
    kept = {"metadata", "fetch.lock"}
    before = sorted(p for p in world.folder.rglob("*") if not kept & set(p.parts))
    assert world.refused(name, EmbridgeError).reason in {Reason.NOT_FOUND, Reason.UNREACHABLE}
    assert sorted(p for p in world.folder.rglob("*") if not kept & set(p.parts)) == before


def test_leftovers_of_a_crash_do_no_harm(world):
    world.install(1)
    first = world.updater.current()
    bundles, downloads = world.state / FOLDER / "bundles", world.state / FOLDER / "downloads"
    (world.state / FOLDER / ".slots.json.abc.tmp").write_bytes(b'{"cur')
    (downloads / f"{'0' * 64}.part").write_bytes(b"half of another release")
    world.publish(2)
    fetched = world.updater.fetch("embridge-2")
    # killed after the rename, before the activation; then the disk eats the end of the unused bundle
    assert world.edge().current() == first
    fetched.write_bytes(fetched.read_bytes()[:-100])
    assert world.edge().fetch("embridge-2") == fetched
    assert not list(downloads.iterdir())
    # killed after the activation, before the pruning
    (bundles / f"{'1' * 64}.embridge").write_bytes(b"old")
    world.updater.activate(fetched)
    assert {p.stem for p in bundles.iterdir()} == {first.digest, fetched.stem}


def test_a_damaged_slot_is_never_activated_or_returned_to(world):
    world.install(1)
    first = world.updater.current()
    world.publish(2)
    fetched = world.updater.fetch("embridge-2")
    good = fetched.read_bytes()
    fetched.write_bytes(good[:-1])
    with pytest.raises(ModelError):
        world.updater.activate(fetched)
    assert world.updater.current() == first
    fetched.write_bytes(good)
    world.updater.activate(fetched)
    first.path.write_bytes(b"gone")
    with pytest.raises(ModelError):
        world.updater.rollback()
    assert world.updater.current().name == "embridge-2"
    with pytest.raises(OperatorError):
        world.updater.activate(world.folder / "embridge-1.embridge")
    (world.state / FOLDER / "slots.json").write_bytes(b'{"current"')
    assert world.updater.current().name == "embridge-2", "the backup tells it too"
    (world.state / FOLDER / "slots.backup.json").write_bytes(b"")
    with pytest.raises(ModelError, match="fetch the release again"):
        world.updater.current()


def test_a_full_disk_is_said_before_the_download(world, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 1000))
    assert world.refused(kind=OperatorError).reason is Reason.DISK_FULL


def test_one_fetch_at_a_time(world):
    with (world.state / FOLDER / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert world.refused(kind=OperatorError).reason is Reason.LOCKED
    world.install(1)


def test_a_reader_sees_the_old_or_the_new_release_and_nothing_between(world):
    world.install(1)
    world.publish(2)
    paths = [world.updater.current().path, world.updater.fetch("embridge-2")]
    done = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        slots = Slots(world.state / FOLDER)
        while not done.is_set():
            seen.add(slots.current().name)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(40):
        world.updater.activate(paths[(turn + 1) % 2])
    done.set()
    reader.join()
    assert seen == {"embridge-1", "embridge-2"}
