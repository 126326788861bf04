"""MQTT 3.1.1 packets as bytes: those an ingester sends, and a stream of bytes cut into those it gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from embridge_shared.errors import NetworkError, Reason

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
SUBACK: Final = 0x90
PINGRESP: Final = 0xD0

PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"

REFUSED: Final = 0x80
"""What stands in a SUBACK for a filter that was not granted."""

CONNACK_CODES: Final = (
    "accepted",
    "it does not speak MQTT 3.1.1",
    "it does not accept the client's identifier",
    "it is not available",
    "bad user name or password",
    "not authorised",
)

_CONNECT, _SUBSCRIBE = 0x10, 0x82
_RETAIN, _QOS_1 = 0x01, 0x02
_USERNAME, _PASSWORD = 0x80, 0x40
_LONGEST = 4
"""Bytes the length of a packet takes at most."""

ROOM: Final = 256 << 10
"""Bytes read at once."""


def connect(client_id: str, *, keepalive_s: int, username: str = "", password: str = "") -> bytes:
    """Ask for the session that the broker keeps under `client_id`."""
    flags = (_USERNAME if username else 0) | (_PASSWORD if username and password else 0)
    body = b"\x00\x04MQTT\x04" + bytes((flags,)) + keepalive_s.to_bytes(2, "big") + _text(client_id)
    if username:
        body += _text(username)
        body += _text(password) if password else b""
    return _packet(_CONNECT, body)


def subscribe(mid: int, filters: Sequence[str]) -> bytes:
    """Ask for what matches the filters, with quality of service 1."""
    return _packet(_SUBSCRIBE, mid.to_bytes(2, "big") + b"".join(_text(f) + b"\x01" for f in filters))


def publish(mid: int, topic: str, payload: bytes, *, retain: bool = False) -> bytes:
    """A message with quality of service 1."""
    head = PUBLISH | _QOS_1 | (_RETAIN if retain else 0)
    return _packet(head, _text(topic) + mid.to_bytes(2, "big") + payload)


def pubacks(mids: Iterable[int]) -> bytes:
    """Acknowledgements of messages, back to back."""
    return b"".join(b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids)


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def _packet(head: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes((head,)) + bytes(digits) + body


class Frames:
    """Cuts what a socket reads into packets; keeps no more than one that is not whole yet.

    Args:
        max_packet: Bytes of the largest packet that is taken.
    """

    def __init__(self, max_packet: int) -> None:
        self._max = max_packet
        self._buffer = bytearray(ROOM)
        self._filled = 0

    def room(self) -> memoryview:
        """Where the next bytes go."""
        return memoryview(self._buffer)[self._filled :]

    def cut(self, n: int) -> Iterator[tuple[int, memoryview]]:
        """The packets that are whole now that `n` bytes came: first byte and body, which is valid until the next one.

        Raises:
            NetworkError: A packet is larger than allowed, or its length makes no sense.
        """
        self._filled += n
        at, needs = 0, 0
        with memoryview(self._buffer) as view:
            while True:
                start, end = self._bounds(at)
                if end > self._filled or not start:
                    needs = end - at
                    break
                yield self._buffer[at], view[start:end]
                at = end
        self._keep(at, needs)

    def _bounds(self, at: int) -> tuple[int, int]:
        """Where the body of the packet at `at` starts and ends; a start of 0: not even its length is there."""
        length = 0
        for k in range(_LONGEST):
            place = at + 1 + k
            if place >= self._filled:
                return 0, place + 1
            digit = self._buffer[place]
            length |= (digit & 0x7F) << (7 * k)
            if digit < 0x80:
                if length > self._max:
                    raise NetworkError(f"a packet of {length} bytes is too large", reason=Reason.MALFORMED)
                return place + 1, place + 1 + length
        raise NetworkError("a packet without a length", reason=Reason.MALFORMED)

    def _keep(self, at: int, needs: int) -> None:
        """Move what is left to the front, into a larger buffer where the next packet asks for one."""
        rest = self._buffer[at : self._filled]
        size = max(ROOM, needs)
        if len(self._buffer) != size:
            self._buffer = bytearray(size)
        self._buffer[: len(rest)] = rest
        self._filled = len(rest)
