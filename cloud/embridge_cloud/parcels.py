"""What arrives from the broker, read and checked before anyone looks at the store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from embridge_cloud.store.rows import EVENTS, INT64_MAX
from embridge_shared.errors import ConfigError, DataError, Reason
from embridge_shared.names import is_code, is_showable
from embridge_shared.session import INCOMPLETE, Session, SessionClosed, SessionOpened
from embridge_shared.wire import codec, topics
from embridge_shared.wire.codec import Head
from embridge_shared.wire.messages import EdgeState, EventMessage, unpack
from embridge_shared.wire.topics import Address

STATE_PREFIX = f"{topics.ROOT}/state/"
MAX_MESSAGE_BYTES = 1 << 20


class Incoming(NamedTuple):
    """A message as the broker delivered it, with the Unix time of its arrival, ns."""

    topic: str
    payload: bytes
    received_ns: int


class Parcel(NamedTuple):
    """A message whose header can be trusted.

    Attributes:
        incoming: The message.
        address: Its topic.
        body: The head of the chunk in it, whose samples are known to be sound, or the event.
        held_id: Its row in the quarantine, when it waited there for its session.
    """

    incoming: Incoming
    address: Address
    body: Head | EventMessage
    held_id: str = ""

    @property
    def session(self) -> UUID:
        """The session its header names."""
        return self.body.session

    @property
    def stream(self) -> int:
        """Ordinal of the stream, or `EVENTS`."""
        return self.body.stream if isinstance(self.body, Head) else EVENTS

    @property
    def first(self) -> int:
        """First sample, or number of the event."""
        return self.body.first if isinstance(self.body, Head) else self.body.seq

    @property
    def opens(self) -> bool:
        """It opens a session."""
        return isinstance(self.body, EventMessage) and isinstance(self.body.event, SessionOpened)


@dataclass(frozen=True, slots=True)
class Sifted:
    """A round's messages, read.

    Attributes:
        parcels: Chunks and events, in the order they came.
        states: States of edges, not looked at yet.
        foreign: What cannot be trusted, and why.
        bytes: Size of all payloads.
    """

    parcels: list[Parcel] = field(default_factory=list)
    states: list[Incoming] = field(default_factory=list)
    foreign: list[tuple[Incoming, DataError]] = field(default_factory=list)
    bytes: int = 0

    @property
    def messages(self) -> int:
        """How many there are."""
        return len(self.parcels) + len(self.states) + len(self.foreign)


def sift(messages: Sequence[Incoming]) -> Sifted:
    """Read messages; what they mean to the store is not asked, so this runs beside a commit."""
    sifted = Sifted(bytes=sum(len(m.payload) for m in messages))
    for message in messages:
        if message.topic.startswith(STATE_PREFIX):
            sifted.states.append(message)
            continue
        try:
            sifted.parcels.append(read(message))
        except DataError as error:
            sifted.foreign.append((message, error))
    return sifted


@lru_cache(1 << 14)
def _address(topic: str) -> Address:
    """What a topic names; every chunk of a stream comes on the same."""
    address = topics.parse_upward(topic)
    topics.check_edge(address.edge)
    return address


def read(incoming: Incoming, held_id: str = "") -> Parcel:
    """Read a chunk or an event.

    Raises:
        DataError: It is foreign, damaged or of a later version, and its header cannot be trusted.
    """
    body: Head | EventMessage
    try:
        address = _address(incoming.topic)
        if address.stream:
            body = codec.check(incoming.payload)
            if body.end > INT64_MAX:
                raise OverflowError(body.end)
        else:
            body = unpack(_small(incoming.payload), EventMessage)
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
    state = unpack(_small(incoming.payload), EdgeState)
    named = is_code(state.edge) and incoming.topic == STATE_PREFIX + state.edge
    if not named or not _storable(msgspec.to_builtins(state)):
        raise DataError(f"a state of {state.edge!r} on {incoming.topic}", reason=Reason.FOREIGN)
    return state


def fault_of_event(message: EventMessage) -> str:
    """What no store could do with an event, or nothing."""
    event = message.event
    if isinstance(event, SessionOpened) != (message.seq == 0):
        return "a session is opened by its event 0 and by no other"
    if not _storable(msgspec.to_builtins(event)):
        return "a number in it is not finite or has more than 64 bits, or a text has control characters"
    if isinstance(event, SessionOpened):
        return _fault_of_session(event.session)
    if isinstance(event, SessionClosed) and event.reason.startswith(INCOMPLETE):
        return "only an operator ends a session as incomplete"
    if isinstance(event, SessionClosed) and any(total < 0 for total in event.totals):
        return "totals cannot be negative"
    return ""


def _fault_of_session(session: Session) -> str:
    if not is_code(session.participant.id):
        return "the participant's code cannot be part of a file name"
    names = [spec.name for spec in session.streams]
    if len(set(names)) < len(names) or "" in names:
        return "stream names are not unique"
    if any(name in {"events", "session"} or "." in name for name in names):
        return "a stream cannot be named like a file of the session"
    if len(names) > 0xFFFF or any(spec.n_channels > 0xFFFF for spec in session.streams):
        return "more streams or channels than a chunk header can name"
    return ""


def _small(payload: bytes) -> bytes:
    """A payload that an event or a state may have."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise DataError(f"{len(payload)} bytes are too many for a control message", reason=Reason.MALFORMED)
    return payload


def _storable(value: Any) -> bool:
    """Whether every number and text in a tree of builtins fits the database, JSON and a terminal."""
    if isinstance(value, str):
        return is_showable(value)
    if isinstance(value, dict):
        return all(_storable(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(_storable(v) for v in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -INT64_MAX - 1 <= value <= INT64_MAX
