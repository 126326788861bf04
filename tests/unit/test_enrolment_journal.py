"""Journals: whatever arrives first, twice, or from another edge, every machine reads the same gestures."""

from __future__ import annotations

import itertools
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_shared.enrolment import (
    ADVICE,
    Entry,
    GestureNote,
    Refusal,
    RepetitionNote,
    Stamp,
    Verb,
    merge,
    next_stamp,
    redoing,
    undoing,
)
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.session import GesturesChanged
from embridge_shared.wire.messages import EventMessage, pack, unpack


def note(name: str, label: str = "a") -> RepetitionNote:
    return RepetitionNote(
        hash=name, label=label, session=None, stream="emg", first=0, n=9, onset=1, end=8, recorded_ns=len(name)
    )


def entry(number: int, lamport: int, edge: str = "e1", **fields: object) -> Entry:
    stamp = Stamp(lamport=lamport, wall_ns=lamport, edge=edge)
    return Entry(**{"id": UUID(int=number), "stamp": stamp, "verb": Verb.ENROL} | fields)


def add(entries: list[Entry], make) -> list[Entry]:
    """What an edge writes that has seen `entries`."""
    stamp = next_stamp(entries, edge="e1", wall_ns=5)
    return [*entries, make(entries, id=UUID(int=100 + len(entries)), stamp=stamp)]


LABELS, NAMES = st.sampled_from("ab"), st.sampled_from(["r1", "r2", "r3", "r4"])
ENTRIES = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["e1", "e2", "e3"]),
        st.lists(NAMES, max_size=2),
        st.lists(NAMES, max_size=2),
        st.lists(LABELS, max_size=1),
        st.lists(LABELS, max_size=1),
    ),
    max_size=7,
)


@given(ENTRIES, st.randoms())
def test_the_order_of_arrival_and_repeats_do_not_matter(drawn, random) -> None:
    entries = [
        entry(
            i,
            lamport,
            edge,
            put=tuple(note(n, "ab"[int(n[1]) % 2]) for n in put),
            drop=tuple(drop),
            clear=tuple(clear),
            define=tuple(GestureNote(label=label, title=str(i)) for label in define),
        )
        for i, (lamport, edge, put, drop, clear, define) in enumerate(drawn)
    ]
    found = merge(entries)
    arrived = [*entries, *random.choices(entries, k=3)] if entries else []
    random.shuffle(arrived)
    again = merge(arrived)
    assert again == found
    assert list(again.repetitions) == list(found.repetitions)


def test_edges_that_were_apart_meet_in_the_same_gestures() -> None:
    """Both enrol one label offline; one takes it away, the other, later, adds to it."""
    shared = entry(1, 1, put=(note("r1"),))
    here = entry(2, 2, "e1", verb=Verb.REMOVE, clear=("a",))
    there = entry(3, 2, "e2", put=(note("r2"),))
    for order in itertools.permutations([shared, here, there]):
        assert list(merge(order).repetitions) == ["r2"]  # of the same count, e2 comes after e1
    early = entry(3, 2, "e0", put=(note("r2"),))
    for order in itertools.permutations([shared, here, early]):
        assert not merge(order).repetitions


def test_repetitions_of_two_edges_are_joined_and_the_later_definition_counts() -> None:
    entries = [
        entry(1, 1, "e1", put=(note("r1"),), define=(GestureNote(label="a", title="one"),)),
        entry(2, 1, "e2", put=(note("r2"),), define=(GestureNote(label="a", title="two"),)),
    ]
    for order in (entries, entries[::-1]):
        held = merge(order)
        assert set(held.repetitions) == {"r1", "r2"}
        assert held.gestures["a"].title == "two"
        assert held.labels == ("a",)


def test_every_change_is_undone_and_done_again() -> None:
    entries = [entry(1, 1, put=(note("r1"),)), entry(2, 2, put=(note("r2"),), define=(GestureNote(label="a"),))]
    entries.append(entry(3, 3, verb=Verb.REMOVE, clear=("a",), undefine=("a",)))
    states = [merge(entries[:n]) for n in range(4)]
    for n in (2, 1, 0):
        entries = add(entries, undoing)
        assert merge(entries) == states[n]
    with pytest.raises(OperatorError) as caught:
        add(entries, undoing)
    assert caught.value.reason is Reason.NOT_FOUND
    for n in (1, 2, 3):
        entries = add(entries, redoing)
        assert merge(entries) == states[n]
    with pytest.raises(OperatorError):
        add(entries, redoing)
    entries = add(entries, undoing)
    assert merge(entries) == states[2]


def test_what_is_new_ends_redoing() -> None:
    entries = add([entry(1, 1, put=(note("r1"),))], undoing)
    entries.append(entry(9, 5, put=(note("r9"),)))
    with pytest.raises(OperatorError):
        add(entries, redoing)


def test_undoing_leaves_what_another_edge_added() -> None:
    entries = [entry(1, 1, put=(note("r1"),)), entry(2, 1, "e2", put=(note("r2"),))]
    entries = add(entries, undoing)
    assert list(merge(entries).repetitions) == ["r1"]  # the last in the order is e2's
    entries = add(entries, undoing)
    assert not merge(entries).repetitions


def test_an_entry_travels_as_an_event() -> None:
    message = EventMessage(
        session=UUID(int=1), seq=1, event=GesturesChanged(entry=entry(1, 1, put=(note("r1"),), clear=("b",)))
    )
    assert unpack(pack(message), EventMessage) == message
    assert msgspec.json.decode(msgspec.json.encode(message.event), type=GesturesChanged) == message.event


def test_every_refusal_says_what_to_do() -> None:
    assert set(ADVICE) == set(Refusal)
    assert all(words.endswith(".") for words in ADVICE.values())
