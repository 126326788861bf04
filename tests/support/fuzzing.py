"""What takes bytes from elsewhere, each with the one error it may raise and valid inputs to start from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import msgspec
import numpy as np

from embridge_cloud import parcels
from embridge_cloud.parcels import Incoming
from embridge_cloud.placement import misplaced
from embridge_cloud.registry.drafts import parse_draft
from embridge_cloud.store.rows import StoredSession
from embridge_edge.pose.payload import Fault, Frame, from_json, from_osc
from embridge_shared import provision, release
from embridge_shared.archive import pack as pack_archive
from embridge_shared.delta import DeltaTarget, apply_delta, make_delta
from embridge_shared.erasure import ErasureOrder, SignedOrder
from embridge_shared.errors import DataError, ModelError, OperatorError
from embridge_shared.manifest import FileEntry
from embridge_shared.onnx_check import check_model
from embridge_shared.provision import EdgeSite
from embridge_shared.session import SessionOpened
from embridge_shared.signal import Arrivals, Chunk
from embridge_shared.wire import codec, topics
from embridge_shared.wire.blocks import BlockReply, BlockRequest, is_served, pack_block, unpack_block
from embridge_shared.wire.messages import CommitReport, Desired, EdgeState, EventMessage, StreamCommit, pack, unpack
from support.bundles import parts
from support.sessions import emg_spec, pose_spec, record, session_of

SESSION = UUID(int=7)
OSC_ADDRESS = "/pose"


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    `run` raises nothing but `allowed`.
    """

    run: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def __call__(self, data: bytes) -> None:
        try:
            self.run(data)
        except self.allowed:
            return


def _chunks() -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    found = []
    for dtype in (np.int16, np.int32, np.float32):
        samples = rng.normal(0, 100, (20, 4)).astype(dtype)
        index = np.arange(103, 120, 5, dtype=np.int64)
        chunk = Chunk(SESSION, 1, 100, samples, 5, 2, Arrivals(index, index * 1000))
        found += [codec.encode(chunk, how) for how in (codec.RAW, codec.DELTA_ZSTD)]
    return tuple(found)


def _sealed(data: bytes) -> bytes:
    """A chunk whose length and checksum are right whatever else it says: what a hostile sender would send."""
    head, body = bytearray(data[: codec.HEADER.size].ljust(codec.HEADER.size, b"\0")), data[codec.HEADER.size :]
    head[:5] = codec.MAGIC + bytes([codec.VERSION])
    struct.pack_into("<I", head, 56, len(body))
    struct.pack_into("<I", head, 60, zlib.crc32(body, zlib.crc32(head[:60])))
    return bytes(head) + body


def _chunk(data: bytes) -> None:
    """Both readers agree on what is a chunk."""
    try:
        head = codec.check(data)
    except DataError:
        head = None
    try:
        chunk = codec.decode(data)
    except DataError:
        chunk = None
    assert (head is None) == (chunk is None)
    if chunk is not None:
        assert head is not None
        assert (chunk.n, chunk.first, chunk.samples.shape[1]) == (head.n, head.first, head.channels)
        assert codec.decode(codec.encode(chunk)).samples.tobytes() == chunk.samples.tobytes()


def _event(data: bytes) -> None:
    message = unpack(data, EventMessage)
    parcels.fault_of_event(message)
    assert unpack(pack(message), EventMessage) == message or "nan" in repr(message)


def _state(data: bytes) -> None:
    parcels.read_state(Incoming(topics.state_topic("edge-1"), data, 1))


def _down(data: bytes) -> None:
    for kind in (CommitReport, Desired):
        try:
            unpack(data, kind)
        except DataError:
            continue


def _upward(data: bytes) -> None:
    """A topic and a payload, as an ingester takes them."""
    topic, _, payload = data.partition(b"\0")
    found = parcels.read(Incoming(topic.decode("utf-8", "replace"), payload, 1))
    assert topics.parse_upward(found.incoming.topic) == found.address
    assert found.address.edge.isascii()
    if isinstance(found.body, EventMessage):
        parcels.fault_of_event(found.body)
    misplaced(found, StoredSession(_OPENED))


def _order(data: bytes) -> None:
    order = SignedOrder.unpack(data)
    with contextlib.suppress(DataError):
        order.order()


def _asked(data: bytes) -> None:
    """A request names a file of a repository, or is refused."""
    request = unpack_block(data, BlockRequest)
    assert is_served(request.path)
    assert ".." not in request.path.split("/")
    assert len(request.path.split("/")) == 2


def _delta(data: bytes) -> None:
    """A delta makes what was signed, or nothing."""
    assert apply_delta(_BASE, data, _WANTED) == _NEW


_BASE = pack_archive({"a.onnx": bytes(range(256)) * 8, "b.npy": b"1" * 100})
_NEW = pack_archive({"a.onnx": bytes(range(1, 256)) * 8 + b"x" * 8, "b.npy": b"1" * 99 + b"2", "c.md": b"new"})
_WANTED = DeltaTarget(
    release="embridge-2",
    digest=hashlib.sha256(_NEW).hexdigest(),
    size=len(_NEW),
    base=hashlib.sha256(_BASE).hexdigest(),
)
_ROOT = json.dumps(
    {
        "signed": {
            "_type": "root", "version": 2, "spec_version": "1.0.31", "expires": "2030-01-01T00:00:00Z",
            "consistent_snapshot": True,
            "keys": {"k": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00" * 32}}},
            "roles": {r: {"keyids": ["k"], "threshold": 1} for r in ("root", "targets", "snapshot", "timestamp")},
        },
        "signatures": [{"keyid": "k", "sig": "00" * 64}],
    }
).encode()  # fmt: skip
_OPENED = session_of(emg_spec())
_MANIFEST, _FILES = parts()


def _bundle(files: dict[str, bytes], manifest: bytes | None = None) -> bytes:
    """A bundle in canonical form around files that may be anything."""
    listed = {n: FileEntry(sha256=hashlib.sha256(d).hexdigest(), size=len(d)) for n, d in files.items()}
    described = msgspec.structs.replace(_MANIFEST, files=listed)
    encoded = manifest if manifest is not None else msgspec.json.encode(described, order="deterministic")
    return pack_archive({release.MANIFEST: encoded, **files})


def _manifest(data: bytes) -> None:
    release.parse_bundle(_bundle(_FILES, data))


def _arrays(data: bytes) -> None:
    """The matrix of prototypes and the golden answers, signed by a hostile hand."""
    for name in (release.PROTOTYPES, release.GOLDEN):
        release.parse_bundle(_bundle(_FILES | {name: data}))


def _json_pose(data: bytes) -> None:
    assert isinstance(from_json(data, "pose", 20), Frame | Fault)


def _osc_pose(data: bytes) -> None:
    assert all(isinstance(f, Frame | Fault) for f in from_osc(data, OSC_ADDRESS, 20))


def _osc(address: str, types: str, body: bytes) -> bytes:
    def text(value: str) -> bytes:
        raw = value.encode() + b"\0"
        return raw + bytes(-len(raw) % 4)

    return text(address) + text("," + types) + body


def _osc_seeds() -> tuple[bytes, ...]:
    message = _osc(OSC_ADDRESS, "i" + "f" * 20, struct.pack(">i20f", 17, *np.linspace(0, 1, 20)))
    other = _osc(OSC_ADDRESS, "h" + "d" * 20, struct.pack(">q20d", 17, *np.linspace(0, 1, 20)))
    bundle = b"#bundle\0" + bytes(8) + struct.pack(">i", len(message)) + message
    nested = b"#bundle\0" + bytes(8) + struct.pack(">i", len(bundle)) + bundle
    return message, other, bundle, nested


def _events() -> tuple[bytes, ...]:
    recording = record(session_of(emg_spec(), pose_spec()))
    return tuple(recording.event_message(i, e)[1] for i, e in enumerate(recording.events))


def _upward_seeds() -> tuple[bytes, ...]:
    recording = record(session_of(emg_spec()), n_chunks=1)
    return tuple(topic.encode() + b"\0" + payload for topic, payload in recording.messages())


def _targets() -> dict[str, Target]:
    chunks, events = _chunks(), _events()
    opened = _OPENED
    salted = ErasureOrder(id=SESSION, edge="e1", salt=b"s" * 16, fingerprint=b"f" * 32, issued_ns=1)
    signed = SignedOrder(body=salted.body(), signatures={"k": b"x" * 64})
    report = CommitReport(session=SESSION, streams=(StreamCommit(stream=0, until=9, holes=((1, 2),)),), sealed=True)
    desired = Desired(release="embridge-3", digest="0" * 64, url="https://cloud.example/updates")
    state = EdgeState(edge="edge-1", online=True, recording=SESSION)
    opening = pack(EventMessage(session=opened.id, seq=0, event=SessionOpened(session=opened)))
    site = EdgeSite(edge="e1", site="acme", host="broker.example", port=8883)
    handed = provision.pack(site, authority=b"A" * 90, client=b"C" * 90, root=b"R")
    manifest = msgspec.json.encode(_MANIFEST, order="deterministic")
    pose = json.dumps({"frame": 17, "pose": [round(0.1 * i, 2) for i in range(20)]}).encode()
    return {
        "chunk": Target(_chunk, (), chunks),
        "chunk-sealed": Target(lambda data: _chunk(_sealed(data)), (), chunks),
        "event": Target(_event, (DataError,), (*events, opening)),
        "state": Target(_state, (DataError,), (pack(state),)),
        "down": Target(_down, (), (pack(report), pack(desired))),
        "order": Target(_order, (DataError,), (signed.pack(),)),
        "ask": Target(_asked, (DataError,), (pack_block(BlockRequest(1, "metadata/timestamp.json", 0, 10)),)),
        "block": Target(
            lambda data: unpack_block(data, BlockReply), (DataError,), (pack_block(BlockReply(1, 2, b"12")),)
        ),
        "delta": Target(_delta, (ModelError,), (make_delta(_BASE, _NEW), make_delta(_BASE, _BASE))),
        "root-draft": Target(parse_draft, (OperatorError,), (_ROOT,)),
        "upward": Target(_upward, (DataError,), _upward_seeds()),
        "release": Target(release.parse_bundle, (ModelError,), (_bundle(_FILES)[:4096],)),
        "manifest": Target(_manifest, (ModelError,), (manifest,)),
        "arrays": Target(_arrays, (ModelError,), (_FILES[release.PROTOTYPES], _FILES[release.GOLDEN])),
        "onnx": Target(check_model, (ModelError,), (_FILES[release.ENCODER], _FILES[release.ENCODER_INT8])),
        "provision": Target(provision.unpack, (DataError,), (handed,)),
        "json-pose": Target(_json_pose, (), (pose,)),
        "osc-pose": Target(_osc_pose, (), _osc_seeds()),
    }


TARGETS = _targets()
