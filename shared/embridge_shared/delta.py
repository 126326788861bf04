"""Deltas between release bundles: what an edge needs that holds another release.

A delta is a short magic and a MessagePack list of the new bundle's members, each told in the way that took the fewest
bytes. The bundle is rebuilt member by member and packed into its one canonical form, so that it has the signed sha256
to the byte or is refused.

    same    the base's member, unchanged
    whole   the member itself
    near    zstd with the base's member, and all members told before, as its dictionary: two graphs share their weights
    diff    bytewise difference to the base's member, of equal length
    words   the same, the four bytes of each word apart: floats differ in their low bytes

A delta is believed as little as a bundle: sizes are bounded before anything is unpacked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from embridge_shared import archive
from embridge_shared.errors import DataError, EmbridgeError, ModelError, Reason

_MAGIC: Final = b"EMBDELTA\x01"
LEVEL: Final = 15
_WORD: Final = 4
_MEMBERS_MAX: Final = 64
_WINDOW_MAX: Final = 1 << 27
_HINT: Final = "The whole bundle is fetched instead."


class DeltaTarget(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry signs of a delta.

    Attributes:
        release: Name of the release it makes.
        digest: sha256 of that release's bundle.
        size: Bytes of it.
        base: sha256 of the bundle it starts from.
    """

    release: str
    digest: str
    size: int
    base: str


class _Member(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    how: str
    size: int
    packed: bytes = b""


class _Delta(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    base: str
    members: tuple[_Member, ...]


def delta_name(release: str, base: str) -> str:
    """Target path of the delta that makes `release` from the bundle with the sha256 `base`."""
    return f"deltas/{release}.from-{base[:16]}"


def make_delta(base: bytes, new: bytes) -> bytes:
    """A delta that makes one bundle from another.

    Args:
        base: The bundle an edge holds.
        new: The bundle it shall have.

    Raises:
        DataError: One is no bundle.
    """
    old = archive.unpack(base)
    members, before = [], b""
    for name, data in archive.unpack(new).items():
        members.append(_told(name, data, old.get(name), before))
        before += data
    return _MAGIC + msgspec.msgpack.encode(_Delta(_sha256(base), tuple(members)))


def apply_delta(base: bytes, delta: bytes, target: DeltaTarget) -> bytes:
    """The bundle that a delta makes.

    Args:
        base: The bundle it starts from.
        delta: As `make_delta` made it; not trusted.
        target: What was signed of it.

    Raises:
        ModelError: HASH_MISMATCH: it is for another base, or makes something else than was signed; MALFORMED.
    """
    if _sha256(base) != target.base:
        raise _refused("it starts from another release", Reason.HASH_MISMATCH)
    try:
        if not delta.startswith(_MAGIC):
            raise _refused("it is none", Reason.FOREIGN)
        body = msgspec.msgpack.decode(memoryview(delta)[len(_MAGIC) :], type=_Delta, strict=True)
        if body.base != target.base:
            raise _refused("it is for another base", Reason.HASH_MISMATCH)
        sizes = [member.size for member in body.members]
        if len(sizes) > _MEMBERS_MAX or min(sizes, default=0) < 0 or sum(sizes) > min(target.size, archive.MAX_BYTES):
            raise _refused("it would unfold to more than was signed")
        old = archive.unpack(base)
        found: dict[str, bytes] = {}
        for member in body.members:
            found[member.name] = _rebuilt(member, old.get(member.name), b"".join(found.values()))
        built = archive.pack(found)
    except (msgspec.DecodeError, zstandard.ZstdError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(f"it is damaged: {error}") from error
    except ModelError:
        raise
    except EmbridgeError as error:
        raise _refused(error.message) from error
    if len(built) != target.size or _sha256(built) != target.digest:
        raise _refused("it makes another bundle than was signed", Reason.HASH_MISMATCH)
    return built


def _told(name: str, data: bytes, old: bytes | None, before: bytes) -> _Member:
    """A member in the way that takes the fewest bytes."""
    if data == old:
        return _Member(name, "same", len(data))
    ways = {"whole": _packed(data, None), "near": _packed(data, before + (old or b""))}
    if old and len(old) == len(data):
        difference = np.frombuffer(data, np.uint8) - np.frombuffer(old, np.uint8)
        ways["diff"] = _packed(difference.tobytes(), None)
        ways["words"] = _packed(_apart(difference), None)
    how = min(ways, key=lambda way: len(ways[way]))
    return _Member(name, how, len(data), ways[how])


def _rebuilt(member: _Member, old: bytes | None, before: bytes) -> bytes:
    if member.how == "same" and old is not None and len(old) == member.size:
        return old
    if member.how == "whole":
        return _unpacked(member, None)
    if member.how == "near":
        return _unpacked(member, before + (old or b""))
    if member.how not in ("diff", "words") or old is None or len(old) != member.size:
        raise DataError(f"{member.name} is told by {member.how!r}", reason=Reason.MALFORMED)
    difference = _unpacked(member, None)
    found = _together(difference) if member.how == "words" else np.frombuffer(difference, np.uint8)
    return (found + np.frombuffer(old, np.uint8)).tobytes()


def _packed(data: bytes, dictionary: bytes | None) -> bytes:
    compressor = zstandard.ZstdCompressor(
        dict_data=_dictionary(dictionary),
        compression_params=zstandard.ZstdCompressionParameters.from_level(
            LEVEL,
            source_size=len(data),
            dict_size=len(dictionary or b""),
            window_log=_window_log(len(data) + len(dictionary or b"")),
            enable_ldm=dictionary is not None,
        ),
    )
    return compressor.compress(data)


def _unpacked(member: _Member, dictionary: bytes | None) -> bytes:
    # A frame may lie about its content, and is then allocated as it says: it is asked before it is opened.
    head = zstandard.get_frame_parameters(member.packed)
    if head.content_size != member.size or head.window_size > _WINDOW_MAX:
        raise DataError(f"{member.name} claims another size", reason=Reason.MALFORMED)
    unpacker = zstandard.ZstdDecompressor(dict_data=_dictionary(dictionary), max_window_size=_WINDOW_MAX)
    found = unpacker.decompress(member.packed, max_output_size=member.size, allow_extra_data=False)
    if len(found) != member.size:
        raise DataError(f"{member.name} unfolds to another size", reason=Reason.MALFORMED)
    return found


def _dictionary(data: bytes | None) -> Any:
    if not data:
        return None
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _window_log(size: int) -> int:
    return min(max(size.bit_length(), 10), _WINDOW_MAX.bit_length() - 1)


def _apart(data: NDArray[np.uint8]) -> bytes:
    whole = len(data) // _WORD * _WORD
    return data[:whole].reshape(-1, _WORD).T.tobytes() + data[whole:].tobytes()


def _together(data: bytes) -> NDArray[np.uint8]:
    found = np.frombuffer(data, np.uint8)
    whole = len(found) // _WORD * _WORD
    return np.concatenate([found[:whole].reshape(_WORD, -1).T.ravel(), found[whole:]])


def ways(delta: bytes) -> Mapping[str, tuple[str, int]]:
    """How a delta tells each member, and in how many bytes; for people.

    Raises:
        ModelError: It is none.
    """
    try:
        body = msgspec.msgpack.decode(memoryview(delta)[len(_MAGIC) :], type=_Delta, strict=True)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _refused(f"it is damaged: {error}") from error
    return {member.name: (member.how, len(member.packed)) for member in body.members}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refused(why: str, reason: Reason = Reason.MALFORMED) -> ModelError:
    return ModelError(f"the delta is refused: {why}.", reason=reason, hint=_HINT)
