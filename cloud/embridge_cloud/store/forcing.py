"""Ending a session that will never be whole: its edge died, or a part of it was refused.

What never arrived is declared lost, by an operator and with a reason that stays with the recording. An edge that still
holds some of it is not told to forget it.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.ranges import Range
from embridge_cloud.store.rows import EVENTS, Batch, EventRow, StoredSession
from embridge_shared.errors import DataError, ExitCode, OperatorError, Reason
from embridge_shared.session import INCOMPLETE, Event, Marker, SessionClosed


class Lacking(msgspec.Struct, frozen=True, kw_only=True):
    """What a session lacks.

    Attributes:
        session: The session.
        closed: Its edge has ended it, so what it lacks is known to its end.
        streams: Ranges [a, b) that never arrived, by name of the stream; "events" for its events.
    """

    session: UUID
    closed: bool
    streams: dict[str, tuple[Range, ...]]


class IncompleteError(OperatorError):
    """A session that is not whole is sealed only by force."""

    exit_code = ExitCode.REJECTED


def lacking(stored: StoredSession) -> Lacking:
    """What a session lacks now: to its announced end, or to its last sample while it is open."""
    ends: dict[int, int | None] = {EVENTS: None if stored.closed_seq is None else stored.closed_seq + 1}
    ends |= dict(enumerate(stored.totals or [None] * len(stored.session.streams)))
    found = {i: tuple(stored.of(i).awaited(end)) for i, end in ends.items()}
    names = {EVENTS: "events", **{i: s.name for i, s in enumerate(stored.session.streams)}}
    return Lacking(
        session=stored.session.id,
        closed=stored.totals is not None,
        streams={names[i]: ranges for i, ranges in found.items() if ranges},
    )


def end_incomplete(store: HotStore, session: UUID, reason: str, *, wall_ns: int, force: bool) -> Lacking:
    """End a session as it is, so that it can be sealed.

    Args:
        store: Where it is.
        session: Its id.
        reason: Why nothing more will come; kept in its closing event.
        wall_ns: Unix time, ns.
        force: Do it although something lacks.

    Returns:
        What it lacks for good.

    Raises:
        DataError: It was never opened here.
        IncompleteError: It lacks something or is open, and `force` is not given.
        OperatorError: It is sealed already, or no reason is given.
        StoreError: The database refused.
    """
    stored = store.read.session(session)
    if stored is None:
        raise DataError(f"session {session} was never opened here", reason=Reason.NOT_FOUND)
    if stored.sealed:
        raise OperatorError(
            f"session {session} is sealed already", reason=Reason.INVALID, hint="Nothing is left to do."
        )
    lacks = lacking(stored)
    if stored.complete:
        return lacks
    if not force:
        raise IncompleteError(
            f"session {session} is {_state(lacks)}",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Wait for its edge; or --force seals it without what never arrived, which nobody can add later.",
        )
    if not reason.strip():
        raise OperatorError(
            "no reason is given", reason=Reason.INVALID, hint="Say with --reason why it stays incomplete."
        )
    _write_end(store, stored, f"{INCOMPLETE}{reason.strip()} ({_state(lacks)})", wall_ns)
    return lacks


def _state(lacks: Lacking) -> str:
    open_ = "" if lacks.closed else "open, its edge never ended it"
    counts = ", ".join(f"{sum(b - a for a, b in r)} of {name}" for name, r in lacks.streams.items())
    return "; ".join(part for part in (open_, f"lacking {counts}" if counts else "") if part)


def _write_end(store: HotStore, stored: StoredSession, reason: str, wall_ns: int) -> None:
    session, held = stored.session.id, stored.of(EVENTS).stored
    end = max(held.end, 0 if stored.closed_seq is None else stored.closed_seq + 1)
    totals = stored.totals or tuple(stored.of(i).stored.end for i in range(len(stored.session.streams)))
    # Events are numbered without gaps: one that never came leaves a note in its place.
    events: list[tuple[int, Event]] = [
        (seq, Marker(text="lost: this event never arrived", t_ns=wall_ns))
        for a, b in held.missing(0, end)
        for seq in range(a, b)
    ]
    events.append((end, SessionClosed(t_ns=wall_ns, totals=totals, reason=reason)))
    store.commit(Batch(events=[EventRow(session, seq, event, wall_ns) for seq, event in events]))
    with store.transaction() as connection:
        connection.execute(
            "UPDATE session_ends SET seq = ?, ended_ns = ?, reason = ? WHERE session = ?",
            [end, wall_ns, reason, str(session)],
        )
