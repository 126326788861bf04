"""Whether a message belongs where it says."""

from __future__ import annotations

from embridge_cloud.parcels import Parcel
from embridge_cloud.store.rows import StoredSession
from embridge_shared.errors import Reason
from embridge_shared.session import SessionOpened
from embridge_shared.wire import codec
from embridge_shared.wire.codec import Head
from embridge_shared.wire.messages import EventMessage


def misplaced(parcel: Parcel, found: StoredSession | None) -> tuple[Reason, str] | None:
    """Why a message does not belong where it says, as far as that is known, or None."""
    edge, body = parcel.address.edge, parcel.body
    if body.session != parcel.address.session:
        return Reason.MALFORMED, "topic and header name different sessions"
    if isinstance(body, EventMessage) and isinstance(body.event, SessionOpened):
        opening = body.event.session
        if opening.id != body.session:
            return Reason.MALFORMED, "the event opens another session than its own"
        if opening.edge != edge:
            return Reason.WRONG_EDGE, f"edge {edge} cannot open a session of {opening.edge}"
    if found is None:
        return None
    if found.session.edge != edge:
        return Reason.WRONG_EDGE, f"the session belongs to {found.session.edge}"
    if isinstance(body, EventMessage):
        return None
    if body.stream >= len(found.session.streams):
        return Reason.UNKNOWN_STREAM, f"the session has {len(found.session.streams)} streams, not number {body.stream}"
    spec = found.session.streams[body.stream]
    if spec.name != parcel.address.stream:
        return Reason.UNKNOWN_STREAM, f"stream {body.stream} is {spec.name}, not {parcel.address.stream}"
    if body.channels != spec.n_channels or body.sample_type is not spec.dtype:
        got = f"{body.channels} channels of {body.sample_type.value}"
        return Reason.WRONG_SHAPE, f"{got} in a stream of {spec.n_channels} of {spec.dtype.value}"
    return None


def past_end(found: StoredSession, chunk: Head) -> bool:
    """Whether a session that is closed has no place for a chunk that is new to it."""
    return found.totals is not None and (chunk.end > found.totals[chunk.stream] or found.complete)


def same_samples(held: bytes, payload: bytes) -> bool:
    """Whether two chunks hold the same samples, bit for bit: a NaN equals itself."""
    stored, new = codec.decode(held).samples, codec.decode(payload).samples
    return stored.shape == new.shape and stored.tobytes() == new.tobytes()
