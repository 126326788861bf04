"""Attacks on updates: a mirror that lies, keys that were stolen, a signer that is hostile.

After each the release that ran still runs, the reason is told, and nothing of the attack is left on the disk.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
import zstandard
from onnx import TensorProto, helper
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from embridge_cloud.blocks import read_block
from embridge_cloud.registry import ROOT, Ceremony, Expiry, Registry
from embridge_cloud.registry.repository import Repository
from embridge_edge.update import blocks
from embridge_edge.update.blocks import BlockFetcher, Post, RouteFetcher
from embridge_edge.update.fetch import HttpFetcher
from embridge_edge.update.proving import SharedProver
from embridge_edge.update.slots import FOLDER
from embridge_edge.update.updater import Updater
from embridge_shared import archive, delta
from embridge_shared.clock import SystemClock
from embridge_shared.delta import DeltaTarget, delta_name, make_delta
from embridge_shared.errors import EmbridgeError, ModelError, NetworkError, Reason
from embridge_shared.manifest import LATER, FileEntry, Published
from embridge_shared.release import ENCODER, MANIFEST, read_bundle
from embridge_shared.wire.blocks import BlockReply, BlockRequest, pack_block, unpack_block
from support.bundles import make_bundle, parts
from support.mirror import Mirror, endless, mirror_of, redirect, trickle

DAY_NS = 86_400_000_000_000
TIMEOUT_S = 0.3
PROVER = SharedProver()


class Days(SystemClock):
    """A clock that is off by so many days."""

    def __init__(self, days: float) -> None:
        self._off_ns = int(days * DAY_NS)

    def wall_ns(self) -> int:
        return super().wall_ns() + self._off_ns


class World:
    """An edge that runs `embridge-1`, and is asked for `embridge-2` by way of a mirror."""

    def __init__(self, folder: Path, mirror: Mirror, registry: Shelf) -> None:
        self.folder = folder
        self.mirror = mirror
        self.registry = registry
        self.state = folder / "edge"
        self.first = read_bundle(folder / "embridge-1.embridge")
        if not self.state.exists():
            updater = self.updater()
            updater.activate(updater.fetch("embridge-1"))
        self.before = self.files()

    def updater(self, **options: Any) -> Updater:
        given = {"timeout_s": TIMEOUT_S, "prover": PROVER} | options
        return Updater(self.state, self.registry.root_bytes_of(1), self.mirror.url, **given)

    def files(self) -> dict[str, str]:
        """What lies in the edge's folder, without the metadata: signed, bounded, and none of the attacker's."""
        found = (p for p in (self.state / FOLDER).rglob("*") if p.is_file() and "metadata" not in p.parts)
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in found}

    def metadata(self) -> dict[str, bytes]:
        folder = self.registry.repository / "metadata"
        return {p.name: p.read_bytes() for p in folder.iterdir()}

    def target(self, name: str = "embridge-2") -> Path:
        return next((self.registry.repository / "targets").glob(f"*.{name}"))

    def publish(self, version: int = 2) -> Published:
        return self.registry.publish(self.folder / f"embridge-{version}.embridge")

    def refused(self, *reasons: Reason, release: str = "embridge-2", updater: Updater | None = None) -> EmbridgeError:
        with pytest.raises((ModelError, NetworkError)) as caught:
            (updater or self.updater()).fetch(release)
        assert caught.value.reason in reasons, caught.value
        self.untouched()
        return caught.value

    def untouched(self) -> None:
        """What ran runs, and nothing else is there; after a broken link only what was fetched of the release."""
        assert self.updater().current().name == "embridge-1"
        assert self.updater().load().digest == self.first.digest
        assert {n: d for n, d in self.files().items() if not n.endswith(".part")} == self.before

    def sign(self, data: bytes, name: str = "embridge-2", **changes: Any) -> Published:
        """Have bytes signed as a release by somebody who holds the keys and means ill."""
        digest = hashlib.sha256(data).hexdigest()
        entry = Published(
            name=name, line="embridge", version=2, digest=digest, size=len(data), min_agent="0.0.1", preprocess="0" * 8
        )
        entry = msgspec.structs.replace(entry, **changes)
        self.sign_target(name, data, msgspec.to_builtins(entry), f"targets/{digest}.{name}")
        return entry

    def sign_target(self, name: str, data: bytes, custom: dict[str, Any], path: str) -> None:
        repository = Repository(self.folder / "registry", SystemClock())
        loaded = repository.load()
        target = TargetFile.from_data(name, data, ["sha256"])
        target.unrecognized_fields["custom"] = custom
        loaded.targets.signed.targets[name] = target
        repository.write(self.registry.repository / path, data)
        repository.commit(loaded)

    def recovers(self) -> None:
        """With an honest mirror the same edge takes the release."""
        self.mirror.lies.clear()
        updater = self.updater(timeout_s=5)
        assert updater.activate(updater.fetch("embridge-2")).name == "embridge-2"


class Shelf(Registry):
    """A registry that remembers its roots."""

    def root_bytes_of(self, version: int) -> bytes:
        return self.roots()[version - 1]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world before anything happened to it, to be copied."""
    folder = tmp_path_factory.mktemp("world")
    registry = Shelf(folder / "registry", SystemClock())
    registry.publish(make_bundle(folder))
    for version in (2, 3):
        make_bundle(folder, version)
    with mirror_of(registry.repository) as mirror:
        World(folder, mirror, registry)
    return folder


@pytest.fixture
def world(template: Path, tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "world"
    shutil.copytree(template, folder)
    registry = Shelf(folder / "registry", SystemClock())
    with mirror_of(registry.repository) as mirror:
        yield World(folder, mirror, registry)


# what a mirror can do


def whole_only(world: World) -> None:
    shutil.rmtree(world.registry.repository / "deltas", ignore_errors=True)


def test_a_tampered_part(world):
    world.publish()
    whole_only(world)
    data = bytearray(world.target().read_bytes())
    for at in (0, len(data) // 2, len(data) - 1):
        data[at] ^= 1
        world.mirror.lies["/targets/"] = bytes(data)
        world.refused(Reason.HASH_MISMATCH)
        assert world.files() == world.before
    world.recovers()


def test_another_release_under_its_name(world):
    world.publish()
    whole_only(world)
    world.mirror.lies["/targets/"] = (
        world.target("embridge-1")
        .read_bytes()
        .ljust(world.target().stat().st_size, b"\0")[: world.target().stat().st_size]
    )
    world.refused(Reason.HASH_MISMATCH)
    world.recovers()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_metadata_of_another_registry(world, tmp_path, role):
    world.publish()
    other = Registry(tmp_path / "other", SystemClock())
    for version in (1, 2):
        other.publish(make_bundle(tmp_path, version))
    theirs = {p.name: p.read_bytes() for p in (other.repository / "metadata").iterdir()}
    world.mirror.lies = {f"/{name}": data for name, data in theirs.items() if role in name}
    world.refused(Reason.SIGNATURE, Reason.HASH_MISMATCH)
    world.recovers()


def test_all_metadata_of_another_registry(world, tmp_path):
    other = Registry(tmp_path / "other", SystemClock())
    other.publish(make_bundle(tmp_path, 2))
    world.mirror.folder = other.repository
    world.refused(Reason.SIGNATURE)


def test_an_older_state_of_the_repository(world):
    old = world.metadata()
    world.publish()
    world.updater().recalls()
    world.mirror.lies = {f"/{name}": data for name, data in old.items() if name == "timestamp.json"}
    assert "older" in world.refused(Reason.SIGNATURE, release="embridge-1").message
    world.recovers()


def test_a_frozen_repository(world):
    """A mirror that keeps showing what was true once is found out when the timestamp ends."""
    world.publish()
    late = world.updater(now=lambda: datetime.fromtimestamp(Days(8).wall_ns() * 1e-9, UTC))
    assert "clock" in world.refused(Reason.EXPIRED, updater=late).message
    Registry(world.folder / "registry", Days(8)).refresh_timestamp()
    assert late.fetch("embridge-2")


def test_mix_and_match(world):
    """Files that were each signed, but never together."""
    world.publish()
    then = world.metadata()
    world.publish(3)
    now = world.metadata()
    for name, data in (("snapshot", then["3.snapshot.json"]), ("targets", then["3.targets.json"])):
        version = max(int(n.split(".")[0]) for n in now if n.endswith(f".{name}.json"))
        world.mirror.lies = {f"/{version}.{name}.json": data}
        world.refused(Reason.HASH_MISMATCH, Reason.SIGNATURE)
    world.recovers()


def test_endless_data(world):
    world.publish()
    whole_only(world)
    for path in ("2.root.json", "timestamp.json", "snapshot.json", "targets.json", "/targets/"):
        world.mirror.lies = {path: endless}
        world.refused(Reason.HASH_MISMATCH)
        assert world.files() == world.before
    world.recovers()


def test_a_bundle_that_is_larger_or_smaller_than_signed(world):
    world.publish()
    whole_only(world)
    data = world.target().read_bytes()
    world.mirror.lies["/targets/"] = data + b"\0"
    world.refused(Reason.HASH_MISMATCH)
    world.mirror.lies["/targets/"] = data[:-1]
    world.refused(Reason.UNREACHABLE)
    world.recovers()


@pytest.mark.parametrize("head", [True, False], ids=["head", "body"])
@pytest.mark.parametrize("path", ["timestamp.json", "/targets/"])
def test_a_server_that_is_slow_on_purpose(world, head, path):
    world.publish()
    whole_only(world)
    world.mirror.lies = {path: trickle(world.mirror.ended, head=head)}
    began = time.monotonic()
    world.refused(Reason.TIMEOUT, Reason.UNREACHABLE)
    assert time.monotonic() - began < 10 * TIMEOUT_S + 2


def test_redirects(world, tmp_path):
    world.publish()
    whole_only(world)
    for where in ("file:///etc/passwd", "ftp://127.0.0.1/x", world.mirror.url + "/targets/again"):
        world.mirror.lies = {"/targets/": redirect(where)}
        world.refused(Reason.UNREACHABLE)
    world.mirror.lies = {"timestamp.json": redirect(world.mirror.url + "/metadata/1.root.json")}
    world.refused(Reason.UNREACHABLE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x").write_bytes(b"\0" * world.target().stat().st_size)
    with mirror_of(elsewhere) as other:
        world.mirror.lies = {"/targets/": redirect(other.url + "/x")}
        world.refused(Reason.HASH_MISMATCH)
    world.recovers()


@pytest.mark.parametrize("lie", ["", "bytes 0-9/10", "bytes 1000-5/6", "bytes */6", "bytes 1000-1999999/2000000"])
def test_ranges_that_are_not_what_was_asked_for(world, lie):
    published = world.publish()
    whole_only(world)
    data = world.target().read_bytes()
    part = world.state / FOLDER / "downloads" / f"{published.digest}.part"
    part.write_bytes(data[:1000])

    def answer(handler: Any) -> None:
        handler.send_response(206)
        handler.send_header("Content-Range", lie)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    world.mirror.lies = {"/targets/": answer}
    world.refused(Reason.HASH_MISMATCH)
    assert world.files() == world.before
    world.recovers()


BOMBS = {
    "depth": b"[" * 15_000,
    "objects": b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    "digits": b'{"signed":{"version":' + b"9" * 10_000 + b"}}",
    "nothing": b"",
    "binary": bytes(range(256)) * 40,
    "null": b"null",
    "surrogates": b'{"signed":{"_type":"\\ud800"}}',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_in_metadata(world, bomb):
    world.publish()
    for name in ("2.root.json", "timestamp.json", "snapshot.json", "targets.json"):
        world.mirror.lies = {name: BOMBS[bomb]}
        world.refused(Reason.SIGNATURE, Reason.HASH_MISMATCH)
    world.recovers()


# what a thief of keys can do


def signer(world: World, name: str) -> Any:
    keys = Repository(world.folder / "registry", SystemClock()).keys
    return next(iter(keys.roots().values())) if name == ROOT else keys.online(name)[0]


def test_the_key_of_the_timestamp_cannot_bring_back_an_older_snapshot(world):
    old = world.metadata()
    world.publish()
    world.updater().recalls()
    forged = Metadata.from_bytes(world.metadata()["timestamp.json"])
    forged.signed.version += 1
    forged.signed.snapshot_meta = MetaFile.from_data(2, old["2.snapshot.json"], ["sha256"])
    forged.sign(signer(world, "timestamp"))
    world.mirror.lies = {"timestamp.json": forged.to_bytes()}
    assert "older" in world.refused(Reason.SIGNATURE).message


def test_the_keys_of_timestamp_and_snapshot_cannot_bring_back_older_targets(world):
    old = world.metadata()
    world.publish()
    world.updater().recalls()
    snapshot = Metadata.from_bytes(world.metadata()["3.snapshot.json"])
    snapshot.signed.version = 4
    snapshot.signed.meta["targets.json"] = MetaFile.from_data(2, old["2.targets.json"], ["sha256"])
    snapshot.sign(signer(world, "snapshot"))
    timestamp = Metadata.from_bytes(world.metadata()["timestamp.json"])
    timestamp.signed.version += 1
    timestamp.signed.snapshot_meta = MetaFile.from_data(4, snapshot.to_bytes(), ["sha256"])
    timestamp.sign(signer(world, "timestamp"))
    world.mirror.lies = {"timestamp.json": timestamp.to_bytes(), "4.snapshot.json": snapshot.to_bytes()}
    assert "older" in world.refused(Reason.SIGNATURE).message


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_role_signed_with_the_key_of_another(world, role):
    world.publish()
    name = "timestamp.json" if role == "timestamp" else f"3.{role}.json"
    forged = Metadata.from_bytes(world.metadata()[name])
    other = "snapshot" if role != "snapshot" else "timestamp"
    forged.sign(signer(world, other))
    world.mirror.lies = {f"/{name}": forged.to_bytes()}
    world.refused(Reason.SIGNATURE, Reason.HASH_MISMATCH)
    world.recovers()


def test_one_root_key_is_not_enough(world):
    forged = Metadata.from_bytes(world.registry.root_bytes())
    forged.signed.version = 2
    for keyid in list(forged.signed.roles[ROOT].keyids)[1:]:
        forged.signed.roles[ROOT].keyids.remove(keyid)
    forged.signed.roles[ROOT].threshold = 1
    forged.sign(signer(world, ROOT))
    world.mirror.lies = {"/2.root.json": forged.to_bytes()}
    world.refused(Reason.SIGNATURE, release="embridge-1")


def test_a_root_that_skips_a_version(world):
    desk = Ceremony(world.folder / "registry", SystemClock())
    desk.renew()
    desk.renew()
    world.mirror.lies = {"/2.root.json": world.metadata()["3.root.json"]}
    world.refused(Reason.SIGNATURE, release="embridge-1")
    world.mirror.lies.clear()
    world.publish()
    world.recovers()


def test_an_expired_root(tmp_path):
    short = Expiry(root_days=1)
    registry = Shelf(tmp_path / "registry", SystemClock(), short)
    registry.publish(make_bundle(tmp_path))
    with mirror_of(registry.repository) as mirror:
        world = World(tmp_path, mirror, registry)
        late = world.updater(now=lambda: datetime.fromtimestamp(Days(2).wall_ns() * 1e-9, UTC))
        assert "expired" in world.refused(Reason.EXPIRED, release="embridge-1", updater=late).message


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_key_that_was_replaced_counts_no_more(world, role):
    stolen = signer(world, role)
    Ceremony(world.folder / "registry", SystemClock()).rotate(role)
    world.publish()
    metadata = world.metadata()
    name = max((n for n in metadata if role in n), key=lambda n: (len(n), n))
    forged = Metadata.from_bytes(metadata[name])
    forged.sign(stolen)
    world.mirror.lies = {f"/{name}": forged.to_bytes()}
    world.refused(Reason.SIGNATURE, Reason.HASH_MISMATCH)
    world.recovers()


def test_an_edge_that_was_away_follows_every_root(world):
    desk = Ceremony(world.folder / "registry", SystemClock())
    for role in ("targets", "snapshot", "timestamp", "targets"):
        desk.rotate(role)
    world.publish()
    world.recovers()


# what a signer who means ill can do


def zip_with(name: str, data: bytes) -> bytes:
    """A stored archive of one member, whatever its name."""
    raw = name.encode()
    sizes = (0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(raw), 0)
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, *sizes) + raw + data
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 0x0314, 20, *sizes, 0, 0, 0, 0o100644 << 16, 0) + raw
    return local + entry + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(local), 0)


@pytest.mark.parametrize("name", ["../../../evil", "/etc/evil", "a/b", "..", "C:\\evil", "evil\0", ""])
def test_names_that_leave_the_archive(world, name):
    world.sign(zip_with(name, b"evil"))
    world.refused(Reason.MALFORMED)
    assert not list(world.folder.rglob("*evil*"))
    assert world.files() == world.before


def external(model: onnx.ModelProto) -> None:
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../etc/shadow"
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def unknown(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Shell", ["windows"], ["x"], domain="com.evil"))
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


def functions(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("own", "F", ["a"], ["a"], [], []))


@pytest.mark.parametrize("change", [external, unknown, functions])
def test_graphs_that_reach_out(world, change: Callable[[onnx.ModelProto], None]):
    manifest, files = parts(2)
    model = onnx.load_from_string(files[ENCODER])
    change(model)
    files[ENCODER] = model.SerializeToString()
    listed = {n: FileEntry(sha256=hashlib.sha256(d).hexdigest(), size=len(d)) for n, d in sorted(files.items())}
    body = msgspec.to_builtins(msgspec.structs.replace(manifest, files=listed), order="deterministic")
    kept = {k: v for k, v in body.items() if v is not None or k not in LATER}
    world.sign(archive.pack({MANIFEST: msgspec.json.encode(kept), **files}))
    assert "encoder.onnx" in world.refused(Reason.MALFORMED).message
    assert world.files() == world.before


@pytest.mark.parametrize(
    "changes", [{"name": "embridge-1"}, {"digest": "0" * 64}, {"size": 1}, {"version": 7}, {"line": "other"}]
)
def test_a_release_signed_as_another(world, changes):
    data = make_bundle(world.folder, 2).read_bytes()
    name = "embridge-2"
    entry = msgspec.structs.replace(Published.of(parts(2)[0], hashlib.sha256(data).hexdigest(), len(data)), **changes)
    world.sign_target(name, data, msgspec.to_builtins(entry), f"targets/{hashlib.sha256(data).hexdigest()}.{name}")
    world.refused(Reason.MALFORMED, Reason.INCOMPATIBLE)
    assert world.files() == world.before


# deltas: whatever is wrong with one, the whole bundle is fetched and checked


def bomb(base: str, size: int, *, claims: int) -> bytes:
    packed = zstandard.ZstdCompressor(level=1).compress(bytes(size))
    members = (delta._Member("manifest.json", "whole", claims, packed),)
    return delta._MAGIC + msgspec.msgpack.encode(delta._Delta(base, members))


@pytest.mark.parametrize("kind", ["bomb", "claims", "base", "garbage", "other", "gone", "tampered"])
def test_a_delta_that_will_not_do(world, kind, caplog):
    caplog.set_level(logging.INFO)
    published = world.publish()
    shutil.rmtree(world.registry.repository / "deltas", ignore_errors=True)
    base, new = world.first.digest, world.target().read_bytes()
    old = world.target("embridge-1").read_bytes()
    third = make_bundle(world.folder, 3, seed=9).read_bytes()
    data = {
        "bomb": bomb(base, 64 << 20, claims=100),
        "claims": bomb(base, 64 << 20, claims=64 << 20),
        "base": make_delta(third, new)[: len(new) // 2 - 1],
        "garbage": b"\0" * 100,
        "other": delta._MAGIC + msgspec.msgpack.encode(delta._Delta(base, (delta._Member("x", "diff", 1, b""),))),
        "gone": make_delta(old, new)[:1000],
        "tampered": make_delta(old, new)[:1000],
    }[kind]
    about = DeltaTarget(release="embridge-2", digest=published.digest, size=published.size, base=base)
    name = delta_name("embridge-2", base)
    path = f"deltas/{hashlib.sha256(data).hexdigest()}.{name.partition('/')[2]}"
    world.sign_target(name, data, {"delta": msgspec.to_builtins(about)}, path)
    if kind == "gone":
        (world.registry.repository / path).unlink()
    if kind == "tampered":
        (world.registry.repository / path).write_bytes(b"\0" * len(data))
    world.recovers()
    assert any("/targets/" in asked and "embridge-2" in asked for asked in world.mirror.asked)
    assert "whole" in caplog.text
    leftovers = list((world.state / FOLDER / "downloads").iterdir())
    assert leftovers == []


def test_a_delta_is_used_where_it_pays(world):
    world.publish()
    assert world.registry.deltas()
    world.recovers()
    assert any("/deltas/" in asked for asked in world.mirror.asked)
    assert not any("/targets/" in asked and "embridge-2" in asked for asked in world.mirror.asked)
    assert read_bundle(world.state / FOLDER / "bundles" / f"{world.updater().current().digest}.embridge")


# the way over the broker


class LyingCloud:
    """Answers requests for blocks, honestly but for what `lie` makes of an answer."""

    def __init__(self, repository: Path, lie: Callable[[BlockRequest, BlockReply], BlockReply | None]) -> None:
        self._repository = repository
        self._lie = lie
        self.post = Post(self.send)
        self.asked = 0

    def send(self, payload: bytes) -> None:
        request = unpack_block(payload, BlockRequest)
        self.asked += 1
        reply = self._lie(request, read_block(self._repository, request))
        if reply is not None:
            try:
                self.post.answered(pack_block(reply))
            except EmbridgeError:
                return

    def fetcher(self) -> BlockFetcher:
        return BlockFetcher(self.post.ask, timeout_s=0.02)


def by_blocks(world: World, lie: Callable[[BlockRequest, BlockReply], BlockReply | None]) -> Updater:
    return world.updater(fetcher=LyingCloud(world.registry.repository, lie).fetcher())


def test_an_honest_cloud_over_the_broker(world, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    world.publish()
    whole_only(world)
    updater = by_blocks(world, lambda _, reply: reply)
    assert updater.fetch("embridge-2").read_bytes() == world.target().read_bytes()
    assert updater.received > world.target().stat().st_size


REPLACE = msgspec.structs.replace
LIES: dict[str, Callable[[BlockRequest, BlockReply], BlockReply | None]] = {
    "silence": lambda _, reply: None,
    "short": lambda _, reply: REPLACE(reply, data=reply.data[:-1]),
    "long": lambda _, reply: REPLACE(reply, data=reply.data + b"\0"),
    "flipped": lambda _, reply: (
        REPLACE(reply, data=bytes([reply.data[0] ^ 1]) + reply.data[1:]) if reply.data else reply
    ),
    "endless": lambda request, reply: REPLACE(reply, total=1 << 50, data=b"\0" * request.size),
    "nothing": lambda _, reply: REPLACE(reply, total=-1, data=b""),
    "empty": lambda _, reply: REPLACE(reply, total=0, data=b""),
    "other": lambda _, reply: REPLACE(reply, id=reply.id + 1),
}


@pytest.mark.parametrize("part", ["metadata/", "targets/"])
@pytest.mark.parametrize("lie", LIES)
def test_lies_over_the_broker(world, lie, part):
    world.publish()
    whole_only(world)
    tell = LIES[lie]
    updater = by_blocks(world, lambda request, reply: tell(request, reply) if part in request.path else reply)
    world.refused(Reason.HASH_MISMATCH, Reason.SIGNATURE, Reason.TIMEOUT, Reason.UNREACHABLE, updater=updater)
    world.recovers()


def test_blocks_resume_and_take_over_where_http_reaches_nobody(world, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    world.publish()
    whole_only(world)
    left = 4

    def tire(request: BlockRequest, reply: BlockReply) -> BlockReply | None:
        nonlocal left
        left -= request.path.startswith("targets/")
        return reply if left > 0 else None

    world.refused(Reason.TIMEOUT, updater=by_blocks(world, tire))
    (part,) = (world.state / FOLDER / "downloads").iterdir()
    held = part.stat().st_size
    assert held > 1000
    cloud = LyingCloud(world.registry.repository, lambda _, reply: reply)
    route = RouteFetcher(HttpFetcher(0.2), cloud.fetcher())
    dead = Updater(world.state, world.registry.root_bytes_of(1), "http://127.0.0.1:9", fetcher=route, prover=PROVER)
    assert dead.fetch("embridge-2").read_bytes() == world.target().read_bytes()
    assert route.received < world.target().stat().st_size - held + 40_000


def test_nobody_waits_for_ever():
    waiting: list[bytes] = []
    post = Post(waiting.append)
    answer: Future[BlockReply] = post.ask("metadata/timestamp.json", 0, 10)
    answer.cancel()
    post.answered(pack_block(BlockReply(1, 5, b"12345")))
    assert post._waiting == {}
