"""What the store must not take any more: sessions of participants who were erased."""

from __future__ import annotations

import hashlib
from uuid import UUID

from embridge_cloud.store.reader import Reader
from embridge_shared.erasure import fingerprint
from embridge_shared.session import Session


def session_digest(session: UUID) -> str:
    """What is kept of an erased session: enough to know it again, too little to find it by."""
    return hashlib.sha256(b"embridge-erased\0" + session.bytes).hexdigest()


class Embargo:
    """Sessions and participants that were erased.

    Args:
        read: The store.
    """

    def __init__(self, read: Reader) -> None:
        self._digests = {row[0] for row in read.rows("SELECT digest FROM erased_sessions")}
        rows = read.rows("SELECT erasure, salt, fingerprint FROM erasures WHERE fingerprint IS NOT NULL")
        self._people: list[tuple[UUID, bytes, bytes]] = [(i, bytes(salt), bytes(digest)) for i, salt, digest in rows]

    def bars(self, session: UUID) -> bool:
        """Whether a session was erased."""
        return bool(self._digests) and session_digest(session) in self._digests

    def erasure(self, session: Session) -> UUID | None:
        """The erasure that a session just opened falls under, and remember the session."""
        for erasure, salt, digest in self._people:
            if fingerprint(session.participant.id, salt) == digest:
                self._digests.add(session_digest(session.id))
                return erasure
        return None
