"""Files of the update repository in blocks over MQTT, for edges with no other route.

An edge asks on `ask/{edge}` and is answered on `down/{edge}/blocks`. Nothing in it is trusted: what arrives is metadata
and bundles, which are checked against the root of trust like those fetched over HTTP.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from embridge_shared.errors import DataError, Reason

BLOCK_BYTES: Final = 128 << 10
"""The most a block holds."""
WINDOW: Final = 4
"""Blocks an edge asks for before the first arrives."""

_PATH: Final = re.compile(
    r"metadata/(timestamp|[1-9][0-9]{0,8}\.(root|targets|snapshot))\.json|(targets|deltas)/[0-9a-f]{64}\.[a-z0-9.-]{1,120}"
)
_MAX: Final = BLOCK_BYTES + 1024


class BlockRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A wish for a block.

    Attributes:
        id: Given back with the answer.
        path: Below the repository's base, as in "metadata/timestamp.json".
        offset: First byte.
        size: Bytes, at most `BLOCK_BYTES`; fewer come at the end of the file.
    """

    id: int
    path: str
    offset: int
    size: int


class BlockReply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A block.

    Attributes:
        id: Of the request.
        total: Bytes of the whole file; -1 where there is none of that name.
        data: The block.
    """

    id: int
    total: int
    data: bytes = b""


M = TypeVar("M", BlockRequest, BlockReply)


def is_served(path: str) -> bool:
    """Whether a path can be a file of a repository."""
    return _PATH.fullmatch(path) is not None


def pack_block(message: BlockRequest | BlockReply) -> bytes:
    """As it is sent."""
    return msgspec.msgpack.encode(message)


def unpack_block(payload: bytes, kind: type[M]) -> M:
    """Read what was sent.

    Raises:
        DataError: It is none, or asks for what no repository holds.
    """
    try:
        if len(payload) > _MAX:
            raise ValueError("too long")
        found = msgspec.msgpack.decode(payload, type=kind, strict=True)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DataError(f"no {kind.__name__}: {error}", reason=Reason.MALFORMED) from error
    if isinstance(found, BlockRequest) and not (
        is_served(found.path) and found.offset >= 0 and 0 < found.size <= BLOCK_BYTES
    ):
        raise DataError("a request for what no repository holds", reason=Reason.INVALID)
    return found
