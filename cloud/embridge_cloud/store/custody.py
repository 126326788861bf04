"""Whether the store still holds what edges were told to forget, and whether there is room for more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from embridge_cloud.store.failures import StoreDamagedError, StoreError, disk_full
from embridge_cloud.store.ledger import Account, Ledger
from embridge_cloud.store.ranges import CommittedRanges, RangeSet
from embridge_cloud.store.rows import EVENTS
from embridge_shared.disk import DiskLevel, FreeSpace, level, mib
from embridge_shared.errors import Reason

if TYPE_CHECKING:
    from embridge_cloud.store.reader import Reader

logger = logging.getLogger(__name__)


class Room:
    """What is left on the disk of a store.

    Args:
        folder: On that disk.
        reserve: Bytes that ingest leaves.
        free: Tells what is free.
    """

    def __init__(self, folder: Path, reserve: int, free: FreeSpace) -> None:
        self._folder = folder
        self._reserve = reserve
        self._free = free

    @property
    def free(self) -> int:
        """Bytes that can be written, the reserve included.

        Raises:
            StoreError: The disk does not answer.
        """
        try:
            return self._free(self._folder)
        except OSError as error:
            raise StoreError(
                f"the disk of {self._folder} does not answer: {error.strerror}",
                reason=Reason.DENIED,
                hint="Mount it again; edges keep what was not committed.",
            ) from error

    @property
    def level(self) -> DiskLevel:
        """How much room there is."""
        return level(self.free, self._reserve)

    def check(self) -> None:
        """Make sure that the reserve is whole.

        Raises:
            StoreError: DISK_FULL: it is not.
        """
        free = self.free
        if self._reserve and free <= self._reserve:
            raise disk_full(
                f"the store's disk is full: {mib(free)} are left in {self._folder}, and cloud.reserve_bytes keeps "
                f"{mib(self._reserve)} back."
            )


def shortfall(
    accounts: Mapping[UUID, Account], held: Mapping[UUID, Mapping[int, CommittedRanges]]
) -> dict[UUID, dict[int, RangeSet]]:
    """What was acknowledged and is not held.

    Args:
        accounts: What was acknowledged, by session.
        held: What is held, by session and stream.

    Returns:
        Ranges of samples, and of events under `rows.EVENTS`, by session and stream; empty when nothing lacks.
    """
    lacks: dict[UUID, dict[int, RangeSet]] = {}
    for session, account in accounts.items():
        for stream, owed in account.held.items():
            there = held.get(session, {}).get(stream, CommittedRanges()).stored
            missing = RangeSet(hole for a, b in owed for hole in there.missing(a, b))
            if missing:
                lacks.setdefault(session, {})[stream] = missing
    return lacks


def check_fresh(path: Path, ledger: Ledger) -> None:
    """Make sure that a store that is not there never was.

    Args:
        path: Its file.
        ledger: What was acknowledged.

    Raises:
        StoreDamagedError: Its log or its ledger says that it was.
    """
    accounts = ledger.read()
    if accounts:
        raise StoreDamagedError(f"the store {path} is gone, and with it what edges were told to forget.")
    if path.with_name(path.name + ".wal").exists():
        raise StoreDamagedError(f"the store {path} is gone, and its log is there.")


def reconcile(ledger: Ledger, read: Reader, path: Path) -> None:
    """Check a store against its ledger, and begin the ledger anew from it.

    Args:
        ledger: What was acknowledged.
        read: The store.
        path: Its file, for the message.

    Raises:
        StoreDamagedError: Less is held than was acknowledged.
    """
    try:
        accounts = ledger.read()
    except OSError as error:
        raise StoreDamagedError(f"{ledger.path} cannot be read: {error.strerror}.") from error
    sealed = {row[0] for row in read.rows("SELECT session FROM sealed_sessions")}
    accounts = {i: a for i, a in accounts.items() if i not in sealed}
    lacks = shortfall(accounts, {i: read.coverage(i) for i in accounts})
    if lacks:
        raise StoreDamagedError(f"the store {path} lacks what edges were told to forget: {describe(lacks)}.")
    live = {s.session.id: s for s in read.unsealed()}
    now = {i: Account(s.session, {k: r.stored for k, r in s.ranges.items()}) for i, s in live.items()}
    try:
        ledger.rewrite(now)
    except OSError as error:
        # It holds less than the store does, and no more: nothing false.
        logger.warning("the ledger %s was not begun anew: %s", ledger.path, error)


def describe(lacks: Mapping[UUID, Mapping[int, RangeSet]]) -> str:
    """Ranges for people, in one line."""
    samples = sum(r.count for parts in lacks.values() for stream, r in parts.items() if stream != EVENTS)
    events = sum(r.count for parts in lacks.values() for stream, r in parts.items() if stream == EVENTS)
    session, parts = next(iter(lacks.items()))
    stream, ranges = next(iter(sorted(parts.items(), reverse=True)))
    first, end = next(iter(ranges))
    where = "events" if stream == EVENTS else f"stream {stream}"
    return (
        f"{samples} samples and {events} events of {len(lacks)} session{'s' * (len(lacks) > 1)}, "
        f"as {where} {first}..{end} of {session}"
    )
