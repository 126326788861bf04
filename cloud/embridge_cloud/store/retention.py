"""Retention: sealed sessions past their term go, and nothing else does.

A session that is not sealed is never touched. One that is, is kept beyond its term until a backup holds it, unless
`store.retain_unless_backed_up` says otherwise or its participant has withdrawn.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from embridge_cloud.store.audit import AuditLog, append
from embridge_cloud.store.backup import read_head
from embridge_cloud.store.erase import delete_sessions
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.people import People
from embridge_cloud.store.rows import session_digest
from embridge_shared.errors import DataError
from embridge_shared.settings import StoreSettings

logger = logging.getLogger(__name__)

_DAY_NS = 86_400 * 1_000_000_000
_RETIRED = ".retired-"
_NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A session past its term.

    Attributes:
        session: Its id.
        age_days: Days since it was sealed.
        why: Which policy it falls under.
        kept: Why it is kept nevertheless; empty when it goes.
    """

    session: UUID
    age_days: float
    why: str
    kept: str = ""


class Retention:
    """Applies the policies of a configuration.

    Args:
        store: The open store.
        state_dir: The cloud's state folder.
        settings: The policies.
        people: Who has withdrawn.
        forget: Other places that hold sessions.
    """

    def __init__(
        self,
        store: HotStore,
        state_dir: Path,
        settings: StoreSettings,
        *,
        people: People,
        forget: Sequence[Callable[[Sequence[UUID]], None]] = (),
    ) -> None:
        self._store = store
        self._sealed = state_dir / "sealed"
        self._settings = settings
        self._people = people
        self._forget = forget

    def plan(self, now_ns: int) -> list[Verdict]:
        """Sessions past their term, the oldest first; nothing is changed."""
        withdrawn = {p.id: p.consent.given_ns for p in self._people.all() if p.consent and not p.consent.scopes}
        backed_up = self._backed_up()
        rows = self._store.read.rows(
            "SELECT session, purpose, participant, sealed_ns, content_hash FROM sealed_sessions JOIN sessions "
            "USING (session) ORDER BY sealed_ns, session"
        )
        found = []
        for session, purpose, participant, sealed_ns, content in rows:
            age = (now_ns - sealed_ns) / _DAY_NS
            why = self._withdrawn(withdrawn.get(participant), now_ns)
            kept = ""
            if not why:
                why = self._aged(purpose, age)
                unsafe = self._settings.retain_unless_backed_up and (session, content) not in backed_up
                kept = "no backup holds it" if unsafe else ""
            if why:
                found.append(Verdict(session, age, why, kept))
        return found

    def apply(self, now_ns: int, *, actor: str) -> tuple[list[Verdict], int]:
        """Carry the plan out; what was in it, and how many quarantined messages went.

        Raises:
            StoreError: The database refused; what went before stays gone.
        """
        for left in self._sealed.glob(_RETIRED + "*"):
            shutil.rmtree(left)
        verdicts = self.plan(now_ns)
        for verdict in verdicts:
            if not verdict.kept:
                self._drop(verdict, now_ns, actor)
        quarantined = self._drop_quarantined(now_ns, actor)
        AuditLog(self._store).anchor(AuditLog(self._store).head())
        return verdicts, quarantined

    def _drop(self, verdict: Verdict, now_ns: int, actor: str) -> None:
        for forget in self._forget:
            forget([verdict.session])
        folder, retired = self._sealed / str(verdict.session), self._sealed / f"{_RETIRED}{verdict.session}"
        if folder.is_dir():
            folder.replace(retired)
        with self._store.transaction() as connection:
            detail: dict[str, str | float] = {"why": verdict.why, "age_days": round(verdict.age_days, 1)}
            append(connection, actor, "session.retire", f"session:{verdict.session}", detail, wall_ns=now_ns)
            delete_sessions(connection, [verdict.session])
            digest = session_digest(verdict.session)
            connection.execute("INSERT OR IGNORE INTO erased_sessions VALUES (?, ?)", [digest, _NOBODY])
        if retired.is_dir():
            shutil.rmtree(retired)

    def _drop_quarantined(self, now_ns: int, actor: str) -> int:
        days = self._settings.retain_quarantine_days
        if days is None:
            return 0
        with self._store.transaction() as connection:
            sql = "DELETE FROM quarantine WHERE received_ns < ?"
            ((gone,),) = connection.execute(sql, [now_ns - round(days * _DAY_NS)]).fetchall()
            if gone:
                append(connection, actor, "quarantine.retire", "quarantine", {"messages": gone}, wall_ns=now_ns)
        return int(gone)

    def _withdrawn(self, since_ns: int | None, now_ns: int) -> str:
        days = self._settings.retain_withdrawn_days
        if days is None or since_ns is None or now_ns - since_ns < days * _DAY_NS:
            return ""
        return f"its participant has withdrawn, store.retain_withdrawn_days = {days:g}"

    def _aged(self, purpose: str, age_days: float) -> str:
        terms = self._settings.retain_days
        key = purpose if purpose in terms else "*"
        if key not in terms or age_days <= terms[key]:
            return ""
        return f'store.retain_days."{key}" = {terms[key]:g}'

    def _backed_up(self) -> set[tuple[UUID, str]]:
        """Sessions, with their content, that a backup holds which is still where it was made."""
        found = set()
        for (path,) in self._store.read.rows("SELECT DISTINCT path FROM backups"):
            try:
                head = read_head(Path(path))
            except (DataError, OSError) as error:
                logger.warning("a backup does not count: %s", error)
                continue
            for session, content in head.sessions.items():
                if (Path(path) / "sealed" / session / "session.json").is_file():
                    found.add((UUID(session), content))
        return found
