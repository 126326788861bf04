"""What the store must not take any more: sessions of participants who were erased."""

from __future__ import annotations

from uuid import UUID

from embridge_cloud.store.reader import Reader
from embridge_cloud.store.rows import session_digest
from embridge_shared.erasure import fingerprint
from embridge_shared.errors import DataError
from embridge_shared.session import Session
from embridge_shared.wire.topics import parse_upward


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

    def bars_topic(self, topic: str) -> bool:
        """Whether a topic names a session that was erased."""
        try:
            return self.bars(parse_upward(topic).session)
        except DataError:
            return False
