"""The ledger: which samples edges were told to forget, kept apart from the database that holds them.

A database restored from an old copy, or that has lost its write-ahead log, opens without a word and holds less than
was acknowledged. The ledger knows: it is a small file beside the database, appended to after every commit and before
its acknowledgement, so it never says more than was committed. It speaks of sessions that are not sealed yet.

One line a commit: a checksum and JSON. A line that was cut off by a crash says nothing, and was not acted upon.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import msgspec

from embridge_cloud.store.ranges import RangeSet
from embridge_cloud.store.rows import EVENTS, Batch
from embridge_shared.session import Session, SessionOpened

logger = logging.getLogger(__name__)

REWRITE_BYTES = 32 << 20

Held = tuple[UUID, int, int, int]
"""Session, stream, and a range of its samples."""


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    opened: tuple[Session, ...] = ()
    held: tuple[Held, ...] = ()
    left: tuple[UUID, ...] = ()


@dataclass(slots=True)
class Account:
    """What a ledger says of one session.

    Attributes:
        session: Its description; None when the ledger began after it.
        held: Samples that were acknowledged, by stream, and events under `rows.EVENTS`.
    """

    session: Session | None = None
    held: dict[int, RangeSet] = field(default_factory=dict)


class Ledger:
    """Appends to one file; used by the thread that commits.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def read(self) -> dict[UUID, Account]:
        """What was acknowledged of every session that has not left; nothing when there is no file.

        Raises:
            OSError: It cannot be read.
        """
        accounts: dict[UUID, Account] = {}
        for line in self._lines():
            for session in line.opened:
                accounts.setdefault(session.id, Account()).session = session
            for key, stream, first, end in line.held:
                accounts.setdefault(key, Account()).held.setdefault(stream, RangeSet()).add(first, end)
            for key in line.left:
                accounts.pop(key, None)
        return accounts

    def note(self, batch: Batch) -> None:
        """Write down what a batch that is committed holds.

        Raises:
            OSError: It cannot be written; nothing of it counts.
        """
        ranges: dict[tuple[UUID, int], RangeSet] = {}
        for chunk in batch.chunks:
            ranges.setdefault((chunk.session, chunk.stream), RangeSet()).add(chunk.first, chunk.first + chunk.n)
        for row in batch.events:
            ranges.setdefault((row.session, EVENTS), RangeSet()).add(row.seq, row.seq + 1)
        if ranges:
            opened = tuple(r.event.session for r in batch.events if isinstance(r.event, SessionOpened))
            self._append(_Line(opened, _flat(ranges)))

    def leave(self, sessions: Iterable[UUID]) -> None:
        """Speak no more of sessions: they are sealed, or erased.

        Raises:
            OSError: It cannot be written.
        """
        self._append(_Line(left=tuple(sessions)))

    def rewrite(self, accounts: Mapping[UUID, Account]) -> None:
        """Say this and nothing else, on the disk when it returns.

        Raises:
            OSError: It cannot be written; the old file stands.
        """
        self.close()
        lines = [
            _Line((a.session,) if a.session is not None else (), _flat({(i, s): r for s, r in a.held.items()}))
            for i, a in accounts.items()
        ]
        part = self.path.with_name(self.path.name + ".part")
        with part.open("wb") as file:
            file.writelines(map(_encode, lines))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)

    def close(self) -> None:
        """Let the file go; the next line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, line: _Line) -> None:
        if self._file is None:
            # Unbuffered: what is written is what a killed process leaves.
            self._file = self.path.open("ab", buffering=0)
        size = self._file.tell()
        try:
            data = _encode(line)
            written = self._file.write(data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes were written to {self.path}")
        except OSError:
            os.ftruncate(self._file.fileno(), size)
            raise
        if size > REWRITE_BYTES:
            self._shrink(size)

    def _shrink(self, size: int) -> None:
        accounts = self.read()
        try:
            self.rewrite(accounts)
        except OSError as error:
            logger.warning("the ledger stays at %d bytes: %s", size, error)

    def _lines(self) -> Iterator[_Line]:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for number, raw in enumerate(file, 1):
                try:
                    yield _decode(raw)
                except ValueError as error:
                    logger.warning("line %d of %s says nothing: %s", number, self.path, error)


def _flat(ranges: Mapping[tuple[UUID, int], RangeSet]) -> tuple[Held, ...]:
    return tuple((session, stream, a, b) for (session, stream), part in ranges.items() for a, b in part)


def _encode(line: _Line) -> bytes:
    body = msgspec.json.encode(line)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(raw: bytes) -> _Line:
    body = raw[9:].rstrip(b"\n")
    if not raw.endswith(b"\n") or raw[:8] != b"%08x" % zlib.crc32(body):
        raise ValueError("it is cut off or damaged")
    return msgspec.json.decode(body, type=_Line)
