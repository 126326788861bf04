"""The shadows of the edges: what the cloud has decided about each, kept on disk, and what each said last."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import Final

import msgspec

from embridge_cloud.store.reader import Reader
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.fleet import EdgeRecord
from embridge_shared.wire.messages import EdgeState

logger = logging.getLogger(__name__)

_SCHEMA: Final = 1

replace = msgspec.structs.replace


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    edges: tuple[EdgeRecord, ...]
    schema: int = _SCHEMA


@dataclass(frozen=True, slots=True)
class Shadow:
    """An edge as it should be, and as it is.

    Attributes:
        desired: What the cloud has decided.
        reported: Its last state; None before any. Of one that is gone, what it said while it was there.
        heard_ns: Unix time of its last state, ns, by the cloud's clock.
    """

    desired: EdgeRecord
    reported: EdgeState | None = None
    heard_ns: int = 0


class Roster:
    """Every edge that was ever heard of.

    Args:
        path: File of what was decided.

    Attributes:
        path: The same.

    Raises:
        DataError: DAMAGED: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shadows: dict[str, Shadow] = {}
        if path.is_file():
            try:
                found = msgspec.json.decode(path.read_bytes(), type=_File)
            except msgspec.DecodeError as error:
                raise DataError(
                    f"{path} cannot be read: {error}", reason=Reason.DAMAGED, hint="Restore it from a backup."
                ) from error
            self._shadows = {record.edge: Shadow(record) for record in found.edges}

    def __contains__(self, edge: object) -> bool:
        return edge in self._shadows

    def all(self) -> list[Shadow]:
        """Every edge, in order of names."""
        return [self._shadows[name] for name in sorted(self._shadows)]

    def get(self, edge: str) -> Shadow:
        """One edge.

        Raises:
            OperatorError: NOT_FOUND: it was never heard of.
        """
        if edge not in self._shadows:
            raise unknown([edge])
        return self._shadows[edge]

    def decide(self, record: EdgeRecord) -> None:
        """Change what is decided about an edge; it is on disk once `encode` was written."""
        shadow = self._shadows.get(record.edge)
        self._shadows[record.edge] = Shadow(record) if shadow is None else replaced(shadow, desired=record)

    def encode(self) -> bytes:
        """What was decided, as the file holds it."""
        return msgspec.json.encode(_File(tuple(shadow.desired for shadow in self._shadows.values())))

    def hear(self, states: Mapping[str, tuple[EdgeState, int]]) -> list[tuple[Shadow | None, Shadow]]:
        """Take in states, by name of the edge, each with when it came (Unix time, ns).

        Returns:
            Every edge as it was and as it is, in order of names.
        """
        heard = []
        for edge in sorted(states):
            state, at_ns = states[edge]
            before = self._shadows.get(edge)
            now = Shadow(EdgeRecord(edge=edge)) if before is None else before
            if not state.online and now.reported is not None:
                # A last will was written when the edge connected: what it said since is newer.
                state = replace(now.reported, online=False)
            now = replaced(now, reported=state, heard_ns=at_ns)
            self._shadows[edge] = now
            heard.append((before, now))
        return heard


def stored_states(read: Reader) -> dict[str, tuple[EdgeState, int]]:
    """The last state of every edge that the store holds."""
    found: dict[str, tuple[EdgeState, int]] = {}
    for edge, body, received_ns in read.rows("SELECT edge, body, received_ns FROM edges"):
        try:
            found[edge] = (msgspec.json.decode(body, type=EdgeState), received_ns)
        except msgspec.DecodeError as error:
            logger.warning("the last state of %s is of another version: %s", edge, error)
            found[edge] = (EdgeState(edge=edge, online=False), received_ns)
    return found


def unknown(edges: Iterable[str]) -> OperatorError:
    """The error for edges that were never heard of."""
    return OperatorError(
        f"{', '.join(sorted(edges)) or 'no edge'} has not been seen here",
        reason=Reason.NOT_FOUND,
        hint="An edge is known once it has connected.",
    )
