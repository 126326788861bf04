"""What participants enrolled, on whatever edges: every journal entry the store holds, read as one."""

from __future__ import annotations

from typing import Any

import msgspec

from embridge_cloud.store.reader import Reader
from embridge_shared.enrolment import Held, in_order, merge
from embridge_shared.session import GesturesChanged

_SQL = (
    "SELECT e.body::VARCHAR FROM events e JOIN sessions s ON s.session = e.session "
    "WHERE s.participant = ? AND e.kind = 'gestures' ORDER BY e.session, e.seq"
)


def journal(read: Reader, participant: str) -> list[GesturesChanged]:
    """The entries of a participant's journal, in the order in which they count, each once.

    Args:
        read: The store.
        participant: Pseudonym.
    """
    rows = read.rows(_SQL, [participant])
    found = {c.entry.id: c for c in (msgspec.json.decode(row[0], type=GesturesChanged) for row in rows)}
    return [found[e.id] for e in in_order(c.entry for c in found.values())]


def gestures(read: Reader, participant: str) -> dict[str, Any]:
    """What a participant has, and where it is from; JSON builtins.

    Args:
        read: The store.
        participant: Pseudonym.
    """
    entries = [c.entry for c in journal(read, participant)]
    held: Held = merge(entries)
    edges = {note.hash: e.stamp.edge for e in reversed(entries) for note in e.put}
    return {
        "participant": participant,
        "entries": [msgspec.to_builtins(e) for e in entries],
        "gestures": [
            {
                "label": label,
                "added": msgspec.to_builtins(held.gestures[label]) if label in held.gestures else None,
                "repetitions": [{**msgspec.to_builtins(r), "edge": edges[r.hash]} for r in held.of(label)],
            }
            for label in held.labels
        ],
    }
