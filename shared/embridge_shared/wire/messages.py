"""Control messages: strict MessagePack, one type a topic."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

import msgspec

from embridge_shared.disk import DiskLevel
from embridge_shared.errors import DataError, Reason
from embridge_shared.fleet import ReleaseHealth, Trial, UpdateState
from embridge_shared.quality.grades import Grade
from embridge_shared.session import BandState, Event, WearingChanged

SCHEMA = 1


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class EventMessage(_Message, frozen=True, kw_only=True):
    """One session event; numbered like samples, so events are as safe as samples.

    Attributes:
        session: Its session.
        seq: 0 for `SessionOpened`, then one more an event.
        event: The event.
        schema: Version of this message.
    """

    session: UUID
    seq: int
    event: Event
    schema: int = SCHEMA


class StreamCommit(_Message, frozen=True, kw_only=True):
    """What the store holds of one stream, after the database commit.

    Attributes:
        stream: Ordinal in the session, or -1 for its events.
        until: Index after the last committed sample.
        holes: Ranges [a, b) below `until` that are not in the store.
    """

    stream: int
    until: int
    holes: tuple[tuple[int, int], ...] = ()


class Refusal(_Message, frozen=True, kw_only=True):
    """A chunk or event the store will never take, kept in quarantine; sending it again is of no use.

    Attributes:
        stream: Ordinal in the session, or -1 for its events.
        first: Index of its first sample, or its seq.
        reason: A `Reason` value.
        detail: One sentence.
    """

    stream: int
    first: int
    reason: str
    detail: str = ""


class CommitReport(_Message, frozen=True, kw_only=True):
    """Cloud to edge: the only thing that lets an edge forget a sample.

    Attributes:
        session: The session it speaks of.
        streams: Streams that changed since the last report.
        refused: What went to quarantine.
        sealed: The session is complete, verified and sealed.
        schema: Version of this message.
    """

    session: UUID
    streams: tuple[StreamCommit, ...] = ()
    refused: tuple[Refusal, ...] = ()
    sealed: bool = False
    schema: int = SCHEMA


class Desired(_Message, frozen=True, kw_only=True):
    """What an edge should run; retained.

    Attributes:
        release: Name of the signed target, as in "embridge-3".
        digest: sha256 of the bundle, for people and reports; trust comes from the signed metadata alone.
        url: Base URL of the update repository.
        rollout: Id of the rollout that asks for it; empty where an operator did.
        trial: How the edge tries it before it is committed; None commits at once.
        schema: Version of this message.
    """

    release: str
    digest: str
    url: str
    rollout: str = ""
    trial: Trial | None = None
    schema: int = SCHEMA


class StreamQuality(_Message, frozen=True, kw_only=True):
    """What the channels of a stream being recorded are worth now.

    Attributes:
        stream: Its name.
        grades: One a channel.
        told: What is bad and what to do about it, a line a channel.
    """

    stream: str
    grades: tuple[Grade, ...]
    told: tuple[str, ...] = ()


class EdgeState(_Message, frozen=True, kw_only=True):
    """What an edge is; retained, and its last will with `online` false.

    Attributes:
        edge: Its name.
        online: Connected.
        agent: Version of the agent's software.
        release: The release that decodes, or empty.
        digest: sha256 of that release's bundle.
        recording: The session being recorded, or None.
        spooled: Chunks and events waiting for a commit.
        spooled_bytes: Their size.
        update: Where it stands with the release it was asked to run.
        health: How the release in force fares here; None before anything was decoded.
        bands: The wristbands of the session being recorded.
        quality: Of the session being recorded, once a stream was judged.
        disk: How much room its spool has: "ok", "low", or "full", when nothing is recorded.
        disk_free: Bytes the spool could still write.
        wearing: How the band of the session being recorded sits, and drift; None where nobody watches.
        orders: Ids of the orders it has carried out, the latest last.
        certificate_ends_ns: Unix time its certificate towards the broker ends, ns; 0 without one.
        t_ns: Unix time of this message, ns.
        schema: Version of this message.
    """

    edge: str
    online: bool
    agent: str = ""
    release: str = ""
    digest: str = ""
    recording: UUID | None = None
    spooled: int = 0
    spooled_bytes: int = 0
    update: UpdateState = UpdateState()
    health: ReleaseHealth | None = None
    bands: tuple[BandState, ...] = ()
    quality: tuple[StreamQuality, ...] = ()
    wearing: WearingChanged | None = None
    disk: DiskLevel = DiskLevel.OK
    disk_free: int = 0
    orders: tuple[UUID, ...] = ()
    certificate_ends_ns: int = 0
    t_ns: int = 0
    schema: int = SCHEMA


M = TypeVar("M", bound=_Message)


def pack(message: _Message) -> bytes:
    """Encode a control message."""
    return msgspec.msgpack.encode(message)


def unpack(payload: bytes, kind: type[M]) -> M:
    """Decode and validate a control message.

    Raises:
        DataError: The payload is not a valid `kind` of a schema this version speaks.
    """
    try:
        message = msgspec.msgpack.decode(payload, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, DataError, RecursionError) as error:
        raise DataError(f"no valid {kind.__name__}: {error}", reason=Reason.MALFORMED) from error
    schema = getattr(message, "schema", SCHEMA)
    if schema != SCHEMA:
        raise DataError(
            f"{kind.__name__} of schema {schema}, this version speaks {SCHEMA}",
            reason=Reason.UNSUPPORTED_VERSION,
            hint="Update this side.",
        )
    return message
