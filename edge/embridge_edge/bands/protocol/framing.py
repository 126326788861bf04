"""Packets of one length out of a stream of bytes that is cut anywhere: each begins with the same bytes."""

from __future__ import annotations

_CONFIRM = 2
"""Packets that must follow one before a stream out of step is believed."""


class Framer:
    """Cuts a stream into packets, and finds its place again after bytes went missing.

    What begins like a packet may be samples that look so, and what is long enough may be halves of two: a packet is
    taken when what follows it begins like one too, and out of step what follows that. In step, one that also ends as it
    must is taken at once.

    Args:
        length: Bytes of a packet.
        begins: What every packet begins with; not empty.
        ends: What every packet ends with; may be empty.

    Attributes:
        skipped: Bytes that belonged to no packet.
    """

    def __init__(self, length: int, begins: bytes, ends: bytes = b"") -> None:
        if not begins or len(begins) + len(ends) > length:
            raise ValueError("a packet begins with something and is no shorter than that")
        self._length = length
        self._begins = begins
        self._ends = ends
        self._buffer = bytearray()
        self._in_step = False
        self.skipped = 0

    def push(self, data: bytes) -> list[bytes]:
        """Take in bytes; the packets they complete."""
        self._buffer += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def reset(self) -> None:
        """Forget what came: the stream begins anew."""
        self._buffer.clear()
        self._in_step = False

    def _next(self) -> bytes | None:
        """The next packet; None until more has come."""
        while len(self._buffer) >= len(self._begins):
            if not self._buffer.startswith(self._begins):
                self._seek(0)
                continue
            if len(self._buffer) < self._length:
                return None
            packet = bytes(self._buffer[: self._length])
            if not packet.endswith(self._ends):
                self._seek(1)
                continue
            followed = self._followed(_CONFIRM if not self._in_step else 0 if self._ends else 1)
            if followed is None:
                return None
            if not followed:
                self._seek(1)
                continue
            self._in_step = True
            del self._buffer[: self._length]
            return packet
        return None

    def _followed(self, n: int) -> bool | None:
        """Whether the next `n` packets begin as they must; None while that is not known."""
        for at in range(self._length, (n + 1) * self._length, self._length):
            following = self._buffer[at : at + len(self._begins)]
            if not self._begins.startswith(following):
                return False
            if len(following) < len(self._begins):
                return None
        return True

    def _seek(self, start: int) -> None:
        """Skip to where a packet may begin, from `start` on."""
        self._in_step = False
        at = self._buffer.find(self._begins, start)
        if at < 0:
            # Its last bytes may be the first of what a packet begins with.
            at = max(start, len(self._buffer) - len(self._begins) + 1)
        self.skipped += at
        del self._buffer[:at]
