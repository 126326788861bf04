"""The index of exports: what left the store, where it went, and whose it was.

An export that is not in the index cannot be found when a participant withdraws, so whatever writes samples outside the
state folder notes it here first and writes afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from embridge_cloud.store.hot import HotStore


@dataclass(frozen=True, slots=True)
class Export:
    """One export.

    Attributes:
        id: Its number.
        wall_ns: When, Unix time, ns.
        format: What was written: `bids`, `emg2pose`, `parquet`, `xdf`.
        path: File or folder it was written to, absolute.
        actor: Who asked for it.
        sessions: What it holds.
        participants: Whose it is.
    """

    id: UUID
    wall_ns: int
    format: str
    path: Path
    actor: str
    sessions: tuple[UUID, ...]
    participants: tuple[str, ...]


class ExportIndex:
    """The exports of a store.

    Args:
        store: The open store.
    """

    def __init__(self, store: HotStore) -> None:
        self._store = store

    def record(
        self, sessions: Sequence[tuple[UUID, str]], *, path: Path, format: str, actor: str, wall_ns: int
    ) -> Export:
        """Note an export before it is written; committed when this returns.

        Args:
            sessions: (session, participant) of what it will hold.
            path: File or folder it will be written to.
            format: What will be written.
            actor: Who asked for it.
            wall_ns: Unix time, ns.

        Raises:
            StoreError: The database refused; nothing was noted.
        """
        export, place = uuid4(), path.expanduser().absolute()
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT INTO exports VALUES (?, ?, ?, ?, ?)", [export, wall_ns, format, str(place), actor]
            )
            for session, participant in dict(sessions).items():
                connection.execute("INSERT INTO export_sessions VALUES (?, ?, ?)", [export, session, participant])
        people = tuple(sorted({p for _, p in sessions}))
        return Export(export, wall_ns, format, place, actor, tuple(dict(sessions)), people)

    def of(self, participant: str | None = None) -> list[Export]:
        """Exports, the oldest first; of one participant when named."""
        rows = self._store.read.rows(
            "SELECT e.export, e.wall_ns, e.format, e.path, e.actor, list(s.session ORDER BY s.session), "
            "list(DISTINCT s.participant ORDER BY s.participant) "
            "FROM exports e JOIN export_sessions s USING (export) GROUP BY ALL "
            "HAVING $1 IS NULL OR list_contains(list(s.participant), $1) ORDER BY e.wall_ns, e.export",
            [participant],
        )
        return [
            Export(i, ns, format, Path(path), actor, tuple(ids), tuple(people))
            for i, ns, format, path, actor, ids, people in rows
        ]

    def forget(self, export: UUID) -> None:
        """Take an export that is no longer there out of the index.

        Raises:
            StoreError: The database refused.
        """
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM export_sessions WHERE export = ?", [export])
            connection.execute("DELETE FROM exports WHERE export = ?", [export])
