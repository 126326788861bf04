"""Participants and what they agreed to.

Consent is kept twice: here, in the order it was given, and as `consents.json` beside the sealed sessions, which is what
training and exports ask, for they run where the database is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from embridge_cloud.store.audit import AuditLog, append, secret_of
from embridge_cloud.store.consent import FILE, Consent, Scope, write_consents
from embridge_cloud.store.hot import HotStore
from embridge_shared.erasure import fingerprint
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.names import CODE_RULE, is_code

logger = logging.getLogger(__name__)

_LIST = """
SELECT p.id AS participant, x.secret IS NOT NULL AS registered, coalesce(n.sessions, 0) AS sessions,
       c.version, c.scopes, c.given_ns, p.stated
FROM (
    SELECT id, list_sort(list(DISTINCT consent_version) FILTER (WHERE consent_version IS NOT NULL)) AS stated
    FROM (SELECT participant AS id, NULL AS consent_version FROM people
          UNION ALL SELECT id, consent_version FROM participants)
    GROUP BY id
) p
LEFT JOIN people x ON x.participant = p.id
LEFT JOIN (SELECT participant, count(*) AS sessions FROM sessions GROUP BY participant) n ON n.participant = p.id
LEFT JOIN (SELECT participant, arg_max(version, seq) AS version, arg_max(scopes, seq) AS scopes,
                  arg_max(given_ns, seq) AS given_ns FROM consents GROUP BY participant) c ON c.participant = p.id
WHERE $1 IS NULL OR p.id = $1
ORDER BY p.id
"""


@dataclass(frozen=True, slots=True)
class Person:
    """A participant.

    Attributes:
        id: Pseudonym.
        consent: What they agreed to last; None when nothing is on record.
        stated: Versions of the consent text their sessions name.
        sessions: Sessions in the store.
    """

    id: str
    consent: Consent | None
    stated: tuple[str, ...]
    sessions: int


class People:
    """The participants of a store.

    Args:
        store: The open store.
        sealed: Folder of the sealed sessions, for `consents.json`; without it none is written.
        required: Whether somebody who is not on record agreed to nothing.
        also: A further file for the consents, in a folder that is shared with others.
    """

    def __init__(
        self, store: HotStore, sealed: Path | None = None, *, required: bool = False, also: Path | None = None
    ) -> None:
        self._store = store
        self._files = [*([] if sealed is None else [sealed / FILE]), *([] if also is None else [also])]
        self._required = required
        self._audit = AuditLog(store)

    def add(self, participant: str, *, version: str, scopes: Sequence[Scope], actor: str, wall_ns: int) -> Person:
        """Register a participant with the consent they gave.

        Raises:
            OperatorError: They are registered already, or are being erased.
            StoreError: The database refused.
        """
        known = self._one(participant)
        if known is not None and known.consent is not None:
            raise OperatorError(
                f"participant {participant!r} is registered already.",
                reason=Reason.INVALID,
                hint="`embridge participant consent` records what they agree to now.",
            )
        return self._give(participant, version, scopes, actor=actor, wall_ns=wall_ns, action="participant.add")

    def consent(self, participant: str, *, version: str, scopes: Sequence[Scope], actor: str, wall_ns: int) -> Person:
        """Record what a participant agrees to from now on; it takes the place of what they agreed to before.

        Raises:
            OperatorError: They are not known, or are being erased.
            StoreError: The database refused.
        """
        self.show(participant)
        return self._give(participant, version, scopes, actor=actor, wall_ns=wall_ns, action="participant.consent")

    def withdraw(self, participant: str, *, actor: str, wall_ns: int) -> Person:
        """Record that a participant agrees to nothing any more; their data stay until they are erased.

        Raises:
            OperatorError: They are not known.
            StoreError: The database refused.
        """
        person = self.show(participant)
        version = person.consent.version if person.consent else (person.stated or ("unstated",))[-1]
        return self._give(participant, version, (), actor=actor, wall_ns=wall_ns, action="participant.withdraw")

    def all(self) -> list[Person]:
        """Everybody who is registered or was recorded."""
        return [_person(*row) for row in self._store.read.rows(_LIST, [None])]

    def show(self, participant: str) -> Person:
        """One participant.

        Raises:
            OperatorError: There is none of that name.
        """
        found = self._one(participant)
        if found is None:
            raise OperatorError(
                f"there is no participant {participant!r}.",
                reason=Reason.NOT_FOUND,
                hint="`embridge participant list` shows them.",
            )
        return found

    def publish(self) -> None:
        """Write the consents beside the sealed sessions."""
        given = {p.id: p.consent for p in self.all() if p.consent is not None}
        for path in self._files:
            write_consents(path.parent, given, required=self._required, name=path.name)

    def _one(self, participant: str) -> Person | None:
        rows = self._store.read.rows(_LIST, [participant])
        return _person(*rows[0]) if rows else None

    def _give(
        self, participant: str, version: str, scopes: Sequence[Scope], *, actor: str, wall_ns: int, action: str
    ) -> Person:
        if not is_code(participant):
            raise OperatorError(
                f"{participant!r} cannot name a participant.", hint=f"Use the code of their form. {CODE_RULE}"
            )
        names = ",".join(s.value for s in Scope if s in scopes)
        with self._store.transaction() as connection:
            self._refuse_erased(connection, participant)
            secret_of(connection, participant, wall_ns)
            connection.execute(
                "INSERT INTO consents SELECT $1, coalesce(max(seq), 0) + 1, $2, $3, $4 FROM consents "
                "WHERE participant = $1",
                [participant, version, names, wall_ns],
            )
            detail = {"version": version, "scopes": names}
            append(connection, actor, action, f"participant:{participant}", detail, wall_ns=wall_ns)
        self._audit.anchor(self._audit.head())
        self.publish()
        return self.show(participant)

    def _refuse_erased(self, connection: duckdb.DuckDBPyConnection, participant: str) -> None:
        """A code that edges are still told to erase cannot be given to somebody."""
        rows = connection.execute("SELECT salt, fingerprint FROM erasures WHERE fingerprint IS NOT NULL").fetchall()
        if any(fingerprint(participant, bytes(salt)) == bytes(digest) for salt, digest in rows):
            raise OperatorError(
                "a participant of that code is being erased.",
                reason=Reason.ERASED,
                hint="Use another code, or wait until every edge has answered: `embridge participant erasures`.",
            )


def _person(
    id: str, _: bool, sessions: int, version: str | None, scopes: str | None, given_ns: int | None, stated: list[str]
) -> Person:
    consent = None
    if version is not None and given_ns is not None:
        consent = Consent(version=version, scopes=tuple(Scope(s) for s in (scopes or "").split(",") if s),
                          given_ns=given_ns)  # fmt: skip
    return Person(id, consent, tuple(stated or ()), sessions)
