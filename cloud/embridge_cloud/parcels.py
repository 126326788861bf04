"""What arrives from the broker, read and checked before anyone looks at the store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from embridge_cloud.store.rows import EVENTS, INT64_MAX
from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.session import Session, SessionClosed, SessionOpened
from embridge_shared.signal import Chunk
from embridge_shared.wire import codec, topics
from embridge_shared.wire.messages import EdgeState, EventMessage, unpack
from embridge_shared.wire.topics import Address

STATE_PREFIX = f"{topics.ROOT}/state/"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as the broker delivered it, with the Unix time of its arrival, ns."""

    topic: str
    payload: bytes
    received_ns: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message whose header can be trusted.

    Attributes:
        incoming: The message.
        address: Its topic.
        body: The chunk or event in it.
        held_id: Its row in the quarantine, when it waited there for its session.
    """

    incoming: Incoming
    address: Address
    body: Chunk | EventMessage
    held_id: str = ""

    @property
    def session(self) -> UUID:
        """The session its header names."""
        return self.body.session

    @property
    def stream(self) -> int:
        """Ordinal of the stream, or `EVENTS`."""
        return self.body.stream if isinstance(self.body, Chunk) else EVENTS

    @property
    def first(self) -> int:
        """First sample, or number of the event."""
        return self.body.first if isinstance(self.body, Chunk) else self.body.seq

    @property
    def opens(self) -> bool:
        """It opens a session."""
        return isinstance(self.body, EventMessage) and isinstance(self.body.event, SessionOpened)


def read(incoming: Incoming, held_id: str = "") -> Parcel:
    """Read a chunk or an event.

    Raises:
        DataError: It is foreign, damaged or of a later version, and its header cannot be trusted.
    """
    address = topics.parse_upward(incoming.topic)
    body: Chunk | EventMessage
    try:
        topics.check_edge(address.edge)
        if address.stream:
            body = codec.decode(incoming.payload)
            if body.end > INT64_MAX:
                raise OverflowError(body.end)
        else:
            body = unpack(incoming.payload, EventMessage)
            if not 0 <= body.seq < INT64_MAX:
                raise OverflowError(body.seq)
    except ConfigError as error:
        raise DataError(error.message, reason=Reason.FOREIGN) from None
    except (ArithmeticError, ValueError) as error:
        raise DataError(f"numbers that no edge sends: {error}", reason=Reason.MALFORMED) from error
    return Parcel(incoming, address, body, held_id)


def read_state(incoming: Incoming) -> EdgeState:
    """Read an edge's state.

    Raises:
        DataError: It is no state, or speaks for another edge than its topic.
    """
    state = unpack(incoming.payload, EdgeState)
    if incoming.topic != STATE_PREFIX + state.edge or not _storable(msgspec.to_builtins(state)):
        raise DataError(f"a state of {state.edge!r} on {incoming.topic}", reason=Reason.FOREIGN)
    return state


def fault_of_event(message: EventMessage) -> str:
    """What no store could do with an event, or nothing."""
    event = message.event
    if isinstance(event, SessionOpened) != (message.seq == 0):
        return "a session is opened by its event 0 and by no other"
    if not _storable(msgspec.to_builtins(event)):
        return "a number in it is not finite or has more than 64 bits"
    if isinstance(event, SessionOpened):
        return _fault_of_session(event.session)
    if isinstance(event, SessionClosed) and any(total < 0 for total in event.totals):
        return "totals cannot be negative"
    return ""


def _fault_of_session(session: Session) -> str:
    names = [spec.name for spec in session.streams]
    if len(set(names)) < len(names) or "" in names:
        return "stream names are not unique"
    if any(name in {"events", "session"} or "." in name for name in names):
        return "a stream cannot be named like a file of the session"
    if len(names) > 0xFFFF or any(spec.n_channels > 0xFFFF for spec in session.streams):
        return "more streams or channels than a chunk header can name"
    return ""


def _storable(value: Any) -> bool:
    """Whether every number in a tree of builtins fits the database and JSON."""
    if isinstance(value, dict):
        return all(_storable(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(_storable(v) for v in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -INT64_MAX - 1 <= value <= INT64_MAX
