"""What wearers enrol: why a repetition is refused, and the journal from which every machine reads the same gestures.

The journal only grows: undoing writes an entry that takes back another. What holds is found by reading the entries in
the order of their stamps, so it is the same whatever came first, twice, or from another edge:

* a label's repetitions are the union of all that were put, each known by the hash of its content;
* dropping one, or clearing a label, outlasts what stands before it in the order, and a later entry brings it back;
* of two definitions of a label the later one counts;
* the order is by Lamport counter, then wall time, then name of the edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import msgspec

from embridge_shared.errors import OperatorError, Reason


class Refusal(StrEnum):
    """Why a repetition is not taken."""

    NO_ACTIVITY = "no_activity"
    TOO_WEAK = "too_weak"
    TOO_STRONG = "too_strong"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NOT_AT_REST = "not_at_rest"
    GAP = "gap"
    NOISY = "noisy"
    INCONSISTENT = "inconsistent"
    TOO_SIMILAR = "too_similar"


ADVICE: dict[Refusal, str] = {
    Refusal.NO_ACTIVITY: "Make the gesture when asked; if you did, check that the band is tight.",
    Refusal.TOO_WEAK: "Squeeze a little harder.",
    Refusal.TOO_STRONG: "The signal is clipped: use less force, or lower the band's gain.",
    Refusal.TOO_SHORT: "Hold the gesture until you are told to relax.",
    Refusal.TOO_LONG: "Let go when you are told to relax.",
    Refusal.NOT_AT_REST: "Rest the arm on the table and let the hand hang loose before each repetition.",
    Refusal.GAP: "Samples were lost on the way: bring the band closer to the receiver, then repeat.",
    Refusal.NOISY: "Wet the skin and tighten the band; `embridge band stream` shows each channel.",
    Refusal.INCONSISTENT: "Make it as before; if the earlier ones were wrong, undo them and start over.",
    Refusal.TOO_SIMILAR: "Make it more distinct, or choose another gesture.",
}
"""What to do, in plain words."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Stamp(_Record, frozen=True, kw_only=True, order=True):
    """Where an entry stands among all entries; compared field by field.

    Attributes:
        lamport: One more than the greatest its edge had seen.
        wall_ns: Unix time, ns.
        edge: Who wrote it.
    """

    lamport: int
    wall_ns: int
    edge: str


class RepetitionNote(_Record, frozen=True, kw_only=True):
    """One repetition, known by its content; the samples lie with the edge and in the session it was recorded in.

    Attributes:
        hash: sha256 of label, stream, bounds and samples, hexadecimal.
        label: Gesture.
        session: Session it was recorded in; None where it was not sent.
        stream: Name of the EMG stream.
        first: Index of its first sample in that stream.
        n: Samples.
        onset: Index in the stream where the movement begins.
        end: Index in the stream where the hand is back at rest.
        recorded_ns: Unix time of the onset, ns.
        release: Release that looked at it, or empty.
    """

    hash: str
    label: str
    session: UUID | None
    stream: str
    first: int
    n: int
    onset: int
    end: int
    recorded_ns: int
    release: str = ""


class GestureNote(_Record, frozen=True, kw_only=True):
    """A gesture a wearer added.

    Attributes:
        label: Its name.
        title: For people.
        posture: Joint angles, rad; None where nobody said what the hand does.
        source: Where the posture is from: "template NAME", "pose FILE", "recording …", or "none".
        hint: How to make it, in one sentence.
    """

    label: str
    title: str = ""
    hint: str = ""
    posture: tuple[float, ...] | None = None
    source: str = "none"


class Verb(StrEnum):
    """What an entry does."""

    ENROL = "enrol"
    DEFINE = "define"
    CALIBRATE = "calibrate"
    REMOVE = "remove"
    UNDO = "undo"
    REDO = "redo"


class Entry(_Record, frozen=True, kw_only=True):
    """One change of a wearer's gestures, carried out whole or not at all.

    Attributes:
        id: Unique.
        stamp: Its place in the order.
        verb: What was asked for.
        of: The entry that is undone or done again.
        put: Repetitions added.
        drop: Hashes of repetitions taken away.
        define: Gestures defined.
        undefine: Labels whose definition is taken away.
        clear: Labels of which every repetition so far is taken away.
    """

    id: UUID
    stamp: Stamp
    verb: Verb
    of: UUID | None = None
    put: tuple[RepetitionNote, ...] = ()
    drop: tuple[str, ...] = ()
    define: tuple[GestureNote, ...] = ()
    undefine: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What a wearer has.

    Attributes:
        gestures: Gestures they added, by label.
        repetitions: Those that count, by hash; in the order in which they were recorded.
    """

    gestures: dict[str, GestureNote] = field(default_factory=dict)
    repetitions: dict[str, RepetitionNote] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Everything they defined or performed, sorted."""
        return tuple(sorted({*self.gestures, *(r.label for r in self.repetitions.values())}))

    def of(self, label: str) -> tuple[RepetitionNote, ...]:
        """The repetitions of a gesture."""
        return tuple(r for r in self.repetitions.values() if r.label == label)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Entries by stamp, each once."""
    return sorted({e.id: e for e in entries}.values(), key=lambda e: (e.stamp, e.id))


def merge(entries: Iterable[Entry]) -> Held:
    """What holds after all of the entries, in whatever order they are given and however often."""
    gestures: dict[str, GestureNote] = {}
    live: dict[str, RepetitionNote] = {}
    for e in in_order(entries):
        _apply(e, gestures, live)
    ordered = sorted(live.values(), key=lambda r: (r.recorded_ns, r.hash))
    return Held(dict(sorted(gestures.items())), {r.hash: r for r in ordered})


def next_stamp(entries: Iterable[Entry], *, edge: str, wall_ns: int) -> Stamp:
    """The stamp of an entry written by `edge` that has seen `entries`."""
    return Stamp(lamport=1 + max((e.stamp.lamport for e in entries), default=0), wall_ns=wall_ns, edge=edge)


def undoing(entries: Sequence[Entry], *, id: UUID, stamp: Stamp) -> Entry:
    """The entry that takes back the last change that is not taken back.

    Raises:
        OperatorError: NOT_FOUND: there is none.
    """
    done, _ = _stacks(entries)
    if not done:
        raise OperatorError("there is nothing to undo.", reason=Reason.NOT_FOUND, hint="`embridge enrol list` shows.")
    target = done[-1]
    before = merge(e for e in entries if (e.stamp, e.id) < (target.stamp, target.id))
    return _inverse(target, before, Entry(id=id, stamp=stamp, verb=Verb.UNDO, of=target.id))


def redoing(entries: Sequence[Entry], *, id: UUID, stamp: Stamp) -> Entry:
    """The entry that does again what was taken back last.

    Raises:
        OperatorError: NOT_FOUND: nothing was, or something else was done since.
    """
    _, undone = _stacks(entries)
    if not undone:
        raise OperatorError(
            "there is nothing to do again.", reason=Reason.NOT_FOUND, hint="Only what was undone last can be redone."
        )
    target = undone[-1]
    return msgspec.structs.replace(target, id=id, stamp=stamp, verb=Verb.REDO, of=target.id)


def _apply(e: Entry, gestures: dict[str, GestureNote], live: dict[str, RepetitionNote]) -> None:
    for note in e.put:
        live[note.hash] = note
    gone = {*e.drop, *(r.hash for r in live.values() if r.label in e.clear)}
    for digest in gone:
        live.pop(digest, None)
    for gesture in e.define:
        gestures[gesture.label] = gesture
    for label in e.undefine:
        gestures.pop(label, None)


def _inverse(e: Entry, before: Held, blank: Entry) -> Entry:
    """`blank` with what takes an entry back, where `before` held ahead of it."""
    dropped = {*e.drop, *(r.hash for r in before.repetitions.values() if r.label in e.clear)}
    defined = {*(g.label for g in e.define), *e.undefine}
    return msgspec.structs.replace(
        blank,
        put=tuple(before.repetitions[h] for h in sorted(dropped) if h in before.repetitions),
        drop=tuple(sorted(r.hash for r in e.put if r.hash not in before.repetitions)),
        define=tuple(before.gestures[label] for label in sorted(defined) if label in before.gestures),
        undefine=tuple(sorted(label for label in defined if label not in before.gestures)),
    )


def _stacks(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """What can be undone and what can be redone, the next one last."""
    known = in_order(entries)
    by_id = {e.id: e for e in known}
    done: list[Entry] = []
    undone: list[Entry] = []
    for e in known:
        if e.verb in (Verb.UNDO, Verb.REDO):
            target = by_id.get(e.of) if e.of is not None else None
            taken, given = (done, undone) if e.verb is Verb.UNDO else (undone, done)
            if target is not None and target in taken:
                taken.remove(target)
                given.append(target)
        else:
            done.append(e)
            undone.clear()
    return done, undone
