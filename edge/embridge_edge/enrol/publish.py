"""Brings a wearer's journal to the cloud: each entry is a session of its own that holds nothing but the entry.

Its id follows from the entry's, so whatever is killed between commit and delivery, an entry arrives once.
"""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

from embridge_edge.enrol.store import WearerStore
from embridge_edge.spool import EVENTS, Item, Spool
from embridge_shared.clock import Clock
from embridge_shared.enrolment import Entry
from embridge_shared.session import (
    Event,
    GesturesChanged,
    Participant,
    Purpose,
    Session,
    SessionClosed,
    SessionOpened,
)
from embridge_shared.wire import topics
from embridge_shared.wire.messages import EventMessage, pack

PROTOCOL: Final = "journal/1"
_SPACE: Final = uuid.UUID("5b2a6c1e-7d0f-4d6b-9a52-6a0a3f1c9b10")


def publish(spool: Spool, store: WearerStore, *, edge: str, clock: Clock, consent_version: str = "unstated") -> int:
    """Put what this edge wrote into the spool, unless it is there or was delivered; how many entries that were.

    Args:
        spool: The open spool.
        store: The wearer's.
        edge: Name of this edge; entries of others travel from theirs.
        clock: The edge's clocks.
        consent_version: The consent text the participant signed.

    Raises:
        OperatorError: The spool is full.
        DataError: The journal is damaged.
    """
    sent = 0
    for entry in store.entries():
        name = f"journal-{entry.id}"
        known = spool.session(name)
        if entry.stamp.edge != edge or (known is not None and known.closed):
            continue
        session = Session(
            id=uuid.uuid5(_SPACE, str(entry.id)),
            edge=edge,
            participant=Participant(id=store.participant, consent_version=consent_version),
            purpose=Purpose.ENROLMENT,
            protocol=PROTOCOL,
            streams=(),
            started_ns=entry.stamp.wall_ns,
            host_ns=clock.monotonic_ns(),
        )
        _send(spool, session, name, entry, begun=known is not None)
        sent += 1
    return sent


def _send(spool: Spool, session: Session, name: str, entry: Entry, *, begun: bool) -> None:
    if not begun:
        opening = _item(session, 0, SessionOpened(session=session))
        spool.begin(session.id, name, msgspec.msgpack.encode(session), opening)
    closing = SessionClosed(t_ns=entry.stamp.wall_ns, totals=())
    spool.end(session.id, _item(session, 1, GesturesChanged(entry=entry)), _item(session, 2, closing))


def _item(session: Session, seq: int, event: Event) -> Item:
    message = EventMessage(session=session.id, seq=seq, event=event)
    return Item(session.id, EVENTS, seq, 1, topics.event_topic(session.edge, session.id), pack(message))
