"""Salvage: a damaged hot file is read as far as it can be, and what it lacks of what was acknowledged is told.

Nothing of the damaged files is changed: they are copied into a folder beside the store, and copies are worked on. Rows
are taken table by table, as many at a time as the database reads at once: a block that cannot be read costs all of
those. What the ledger names and no table gave is looked for in the bytes of the files. A chunk counts only if its
checksum is right.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import duckdb
import msgspec

from embridge_cloud.store.carving import BLOCK, HEADERS, carve
from embridge_cloud.store.custody import shortfall
from embridge_cloud.store.failures import StoreLockedError, translate, unopenable
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.ledger import Account, Ledger
from embridge_cloud.store.ranges import Range, RangeSet
from embridge_cloud.store.rows import EVENTS, Batch, EventRow
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.errors import DataError, EmbridgeError, OperatorError, Reason
from embridge_shared.session import SessionOpened
from embridge_shared.wire import codec

logger = logging.getLogger(__name__)

ASIDE = "damaged-"
REPORT = "repair.json"
_AT_ONCE = 2048
_OLD = "damaged"
_WAL_AT = re.compile(r"entry at byte position (\d+)")


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """Samples, or events, that an edge was told to forget and that are gone.

    Attributes:
        session: Their session.
        stream: Ordinal of the stream; -1 for events.
        name: Its name, as far as it is known.
        ranges: The ranges [a, b).
    """

    session: UUID
    stream: int
    name: str
    ranges: tuple[Range, ...]

    @property
    def count(self) -> int:
        """How many."""
        return sum(b - a for a, b in self.ranges)


class Repair(msgspec.Struct, kw_only=True):
    """What a repair did.

    Attributes:
        store: The file.
        aside: Folder of the damaged files, which are as they were.
        opened: What of them could be opened: "file and log", "file and part of the log", "file without its log" or
            "nothing".
        rows: Rows taken over, by table.
        unread: Rows that could not be read, by table, as far as they could be counted.
        damaged_chunks: Chunks whose checksum was wrong.
        carved_chunks: Chunks found in the bytes of the files alone.
        adopted: Sealed sessions put on record again from their folders.
        reopened: Sessions opened again from the ledger alone.
        missing: What was acknowledged and is gone; empty when nothing is.
    """

    store: str
    aside: str
    opened: str = "nothing"
    rows: dict[str, int] = msgspec.field(default_factory=dict)
    unread: dict[str, int] = msgspec.field(default_factory=dict)
    damaged_chunks: int = 0
    carved_chunks: int = 0
    adopted: list[UUID] = msgspec.field(default_factory=list)
    reopened: list[UUID] = msgspec.field(default_factory=list)
    missing: list[Missing] = msgspec.field(default_factory=list)


@dataclass(slots=True)
class _Damaged:
    """A copy of the damaged file, attached to a connection and attached again whenever the database gives it up."""

    path: Path
    target: Path
    connection: duckdb.DuckDBPyConnection = field(init=False)

    def attach(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET enable_progress_bar = false")
        for path, name, how in ((self.path, _OLD, "READ_ONLY"), (self.target, "fresh", "ROW_GROUP_SIZE 2048")):
            quoted = str(path).replace("'", "''")
            self.connection.execute(f"ATTACH '{quoted}' AS {name} ({how})")

    def again(self) -> None:
        self.connection.close()
        self.attach()


def repair(path: Path, sealed: Path, *, wall_ns: int) -> Repair | None:
    """Save what can be saved of a damaged store and put a whole one in its place.

    Args:
        path: The hot file; no process may have it open.
        sealed: Folder of the sealed sessions.
        wall_ns: Unix time, which names the folder of the damaged files.

    Returns:
        What was done; None when nothing is wrong.

    Raises:
        StoreLockedError: A cloud process has it.
        OperatorError: There is no such store, or no room for the copies.
    """
    if _sound(path):
        return None
    aside = path.parent / f"{ASIDE}{wall_ns // 10**9}"
    work = aside / "work"
    _copy_aside(path, aside, work)
    found = Repair(store=str(path), aside=str(aside))
    accounts = Ledger(path.with_suffix(".acks")).read()
    fresh = work / "fresh.duckdb"
    HotStore(fresh).open().close()
    copy = work / path.name
    found.opened = _make_readable(copy)
    if found.opened != "nothing":
        _take_over(copy, fresh, found)
    with HotStore(fresh) as store:
        _drop_damaged_chunks(store, found)
        _reopen(store, accounts, found, wall_ns)
        _adopt(store, sealed, found)
        for name in (path.name, f"{path.name}.wal"):
            _carve(store, aside / name, accounts, found, wall_ns)
        found.missing = _missing(store, accounts)
    _replace(path, fresh)
    (aside / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1))
    shutil.rmtree(work)
    return found


def _sound(path: Path) -> bool:
    """Whether every row can be read and nothing acknowledged lacks."""
    if not path.exists() and not path.with_suffix(".acks").exists():
        raise OperatorError(
            f"there is no store at {path}", reason=Reason.NOT_FOUND, hint="Set cloud.state_dir, or give --state-dir."
        )
    try:
        with HotStore(path) as store:
            for (table,) in store.read.rows("SELECT table_name FROM duckdb_tables() WHERE database_name = 'hot'"):
                store.read.rows(f'SELECT max(hash(t)) FROM "{table}" t')  # noqa: S608
    except StoreLockedError:
        raise
    except EmbridgeError as error:
        logger.info("%s", error)
        return False
    return True


def _copy_aside(path: Path, aside: Path, work: Path) -> None:
    work.mkdir(parents=True)
    try:
        for name in (path.name, f"{path.name}.wal", path.with_suffix(".acks").name):
            if (path.parent / name).exists():
                shutil.copy2(path.parent / name, aside / name)
                shutil.copy2(path.parent / name, work / name)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise OperatorError(
            f"the damaged files cannot be copied to {aside}: {error.strerror}",
            reason=Reason.DISK_FULL,
            hint="Make room for three times their size beside them.",
        ) from error


def _make_readable(copy: Path) -> str:
    """Bring a copy into a state in which it can be attached; how much of it that is."""
    wal = copy.with_name(copy.name + ".wal")
    if not copy.exists():
        return "nothing"
    _pad(copy)
    if wal.exists():
        for _ in range(64):
            error = _attach_fails(copy)
            if error is None:
                return "file and log"
            at = _WAL_AT.search(error)
            if at is None:
                break
            # The log up to a damaged entry is as good as one that ends there.
            with wal.open("r+b") as file:
                file.truncate(int(at[1]))
            if _attach_fails(copy) is None:
                return "file and part of the log"
        wal.unlink()
    return "file without its log" if _attach_fails(copy) is None else "nothing"


def _pad(copy: Path) -> None:
    """Fill up a file that was cut off, so that its other blocks can be read."""
    size = copy.stat().st_size
    whole = HEADERS + -(-max(0, size - HEADERS) // BLOCK) * BLOCK
    if size > HEADERS:
        with copy.open("r+b") as file:
            file.truncate(whole)


def _attach_fails(copy: Path) -> str | None:
    try:
        with duckdb.connect() as connection:
            quoted = str(copy).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS {_OLD} (READ_ONLY)")
            connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    except duckdb.Error as error:
        if isinstance(unopenable(copy, error), StoreLockedError):
            raise StoreLockedError(copy) from error
        return str(error)
    return None


def _take_over(copy: Path, fresh: Path, found: Repair) -> None:
    damaged = _Damaged(copy, fresh)
    damaged.attach()
    for table, columns in _tables(damaged).items():
        end = _count(damaged, table)
        for first in range(0, end, _AT_ONCE):
            _take_rows(damaged, (table, columns), (first, min(end, first + _AT_ONCE)), found)
    damaged.connection.close()


def _tables(damaged: _Damaged) -> dict[str, str]:
    """Tables that both files have, with the columns that both have, opening events first."""
    rows = damaged.connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = 'fresh' AND NOT internal "
        "INTERSECT SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = ? ORDER BY 1, 2",
        [_OLD],
    ).fetchall()
    views = {r[0] for r in damaged.connection.execute("SELECT view_name FROM duckdb_views()").fetchall()}
    found: dict[str, list[str]] = {}
    for table, column in rows:
        if table not in views and table != "schema_migrations":
            found.setdefault(table, []).append(f'"{column}"')
    return {table: ", ".join(columns) for table, columns in found.items()}


def _count(damaged: _Damaged, table: str) -> int:
    """Rows that a table has, those that were deleted included."""
    for sql in (f"SELECT max(rowid) + 1 FROM {_OLD}.{table}", f"SELECT count(*) FROM {_OLD}.{table}"):  # noqa: S608
        try:
            (count,) = damaged.connection.execute(sql).fetchall()[0]
        except duckdb.Error:
            damaged.again()
        else:
            return int(count or 0)
    sql = "SELECT estimated_size FROM duckdb_tables() WHERE database_name = ? AND table_name = ?"
    rows = damaged.connection.execute(sql, [_OLD, table]).fetchall()
    return int(rows[0][0]) if rows else 0


def _take_rows(damaged: _Damaged, table: tuple[str, str], rows: Range, found: Repair) -> None:
    """Take rows over, all or none of them."""
    (name, columns), (first, end) = table, rows
    sql = (
        f"INSERT OR IGNORE INTO fresh.{name} ({columns}) SELECT {columns} FROM {_OLD}.{name} "  # noqa: S608
        f"WHERE rowid >= {first} AND rowid < {end}"
    )
    try:
        (count,) = damaged.connection.execute(sql).fetchall()[0]
        found.rows[name] = found.rows.get(name, 0) + int(count)
    except duckdb.Error as error:
        logger.debug("%s rows %d..%d: %s", name, first, end, error)
        found.unread[name] = found.unread.get(name, 0) + end - first
        if translate(error).reopen:
            damaged.again()


def _drop_damaged_chunks(store: HotStore, found: Repair) -> None:
    for session, stream in store.read.rows("SELECT DISTINCT session, stream FROM chunks"):
        anchors = store.read.anchors(session, stream)
        bad = [a.first for a, p in zip(anchors, store.read.payloads(session, stream, anchors), strict=True) if _bad(p)]
        with store.transaction() as connection:
            for first in bad:
                key = [session, stream, first]
                connection.execute("DELETE FROM chunks WHERE session = ? AND stream = ? AND first = ?", key)
        found.damaged_chunks += len(bad)


def _bad(payload: bytes) -> bool:
    try:
        codec.decode(payload)
    except DataError:
        return True
    return False


def _reopen(store: HotStore, accounts: Mapping[UUID, Account], found: Repair, wall_ns: int) -> None:
    """Open sessions again whose opening was lost: their edges can go on delivering."""
    known = store.read.session_ids()
    batch = Batch()
    for key, account in accounts.items():
        if account.session is not None and (key not in known or store.read.event(key, 0) is None):
            batch.events.append(EventRow(key, 0, SessionOpened(session=account.session), wall_ns))
    if batch:
        store.commit(batch)
        found.reopened = [row.session for row in batch.events]


def _adopt(store: HotStore, sealed: Path, found: Repair) -> None:
    """Put sealed sessions on record that the store does not know as sealed."""
    known = {row[0] for row in store.read.rows("SELECT session FROM sealed_sessions")}
    for session in Catalogue(sealed).sessions():
        if session.id in known:
            continue
        try:
            session.verify()
        except DataError as error:
            logger.warning("%s", error)
            continue
        events = [EventRow(session.id, e.seq, e.event, session.manifest.sealed_ns) for e in session.events()]
        store.commit(Batch(events=events))
        store.adopt_sealed(session.manifest, session.directory)
        found.adopted.append(session.id)


def _carve(store: HotStore, file: Path, accounts: Mapping[UUID, Account], found: Repair, wall_ns: int) -> None:
    batch = Batch()
    for row in carve(file, _lacks(store, accounts), received_ns=wall_ns):
        batch.chunks.append(row)
        found.carved_chunks += 1
        if len(batch.chunks) == _AT_ONCE:
            store.commit(batch)
            batch = Batch()
    if batch:
        store.commit(batch)


def _lacks(store: HotStore, accounts: Mapping[UUID, Account]) -> dict[UUID, dict[int, RangeSet]]:
    sealed = {row[0] for row in store.read.rows("SELECT session FROM sealed_sessions")}
    owed = {i: a for i, a in accounts.items() if i not in sealed}
    return shortfall(owed, {i: store.read.coverage(i) for i in owed})


def _missing(store: HotStore, accounts: Mapping[UUID, Account]) -> list[Missing]:
    return [
        Missing(session=i, stream=stream, name=_name(accounts[i], stream), ranges=tuple(ranges))
        for i, parts in _lacks(store, accounts).items()
        for stream, ranges in sorted(parts.items())
    ]


def _name(account: Account, stream: int) -> str:
    if stream == EVENTS:
        return "events"
    return account.session.streams[stream].name if account.session is not None else ""


def _replace(path: Path, fresh: Path) -> None:
    """Put the whole store where the damaged one was; the damaged one lies aside."""
    path.with_name(path.name + ".wal").unlink(missing_ok=True)
    fresh.replace(path)
    fresh.with_suffix(".acks").replace(path.with_suffix(".acks"))
