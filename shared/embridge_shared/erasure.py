"""Orders to erase a participant: what the cloud signs and an edge obeys, without naming anybody.

An order carries a salt and a digest. An edge knows the participants it has recorded, digests each with the salt, and so
finds the one that is meant; whoever else reads the order learns no name from it.
"""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

import msgspec

from embridge_shared.errors import DataError, Reason

ORDERS_KEPT = 32
"""Orders done that an edge keeps telling of."""

_PREFIX = b"embridge-erasure-v1\0"  # no signed metadata begins like this
_COST = {"n": 1 << 12, "r": 8, "p": 1}


class ErasureOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Erase all that is kept of one participant.

    Attributes:
        id: An edge obeys an order once, so a message that is played again harms nobody who came back.
        edge: Who is meant.
        salt: Random.
        fingerprint: `fingerprint(participant, salt)`.
        issued_ns: Unix time, ns.
    """

    id: UUID
    edge: str
    salt: bytes
    fingerprint: bytes
    issued_ns: int

    def means(self, participant: str) -> bool:
        """Whether a participant is the one to erase."""
        return hmac.compare_digest(self.fingerprint, fingerprint(participant, self.salt))

    def body(self) -> bytes:
        """What is signed."""
        return _PREFIX + msgspec.msgpack.encode(self)


class SignedOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order and who vouches for it.

    Attributes:
        body: `ErasureOrder.body`.
        signatures: Signature by id of the key, of the registry's role `targets`.
        roots: Root metadata, oldest first, by which an edge that was away follows to the keys of today.
    """

    body: bytes
    signatures: dict[str, bytes]
    roots: tuple[bytes, ...] = ()

    def pack(self) -> bytes:
        """As it is sent."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def unpack(cls, payload: bytes) -> SignedOrder:
        """Read what was sent.

        Raises:
            DataError: It is none.
        """
        try:
            return msgspec.msgpack.decode(payload, type=cls, strict=True)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"no signed order: {error}", reason=Reason.MALFORMED) from error

    def order(self) -> ErasureOrder:
        """The order; call after the signatures were checked.

        Raises:
            DataError: It is none.
        """
        try:
            if not self.body.startswith(_PREFIX):
                raise ValueError("signed for something else")
            return msgspec.msgpack.decode(self.body[len(_PREFIX) :], type=ErasureOrder, strict=True)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise DataError(f"no order to erase: {error}", reason=Reason.MALFORMED) from error


def fingerprint(participant: str, salt: bytes) -> bytes:
    """Digest of a participant's code that is slow to guess from: codes are short."""
    return hashlib.scrypt(participant.encode(), salt=salt, dklen=32, **_COST)
