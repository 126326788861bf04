"""The store of wearers: raw samples that come back as they were, changes that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest

from embridge_cloud.exchange.outgoing import Choice
from embridge_cloud.session_cli import _summary
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.store.wearers import gestures
from embridge_edge.enrol.publish import publish
from embridge_edge.enrol.repetition import About, StoredRepetition
from embridge_edge.enrol.store import FOLDER, JOURNAL, WearerStore, forget, wearers
from embridge_edge.erasures import erase
from embridge_edge.spool import Spool
from embridge_shared.clock import SystemClock
from embridge_shared.enrolment import GestureNote, Verb
from embridge_shared.errors import DataError, OperatorError, Reason
from support.intake import take
from support.sessions import emg_spec


def repetition(label: str = "a", seed: int = 1) -> StoredRepetition:
    samples = np.random.default_rng(seed).integers(-500, 500, (800, 4)).astype("<i2")
    about = About(label=label, spec=emg_spec(), first=100, onset=300, end=700, recorded_ns=seed, session=UUID(int=seed))
    return StoredRepetition(about, samples)


def store(folder: Path, participant: str = "p1", edge: str = "edge-1") -> WearerStore:
    return WearerStore(folder, participant, edge=edge, clock=SystemClock())


def test_repetitions_come_back_as_they_were(tmp_path: Path) -> None:
    kept = [repetition("a", 1), repetition("b", 2)]
    store(tmp_path).commit(kept)
    found = store(tmp_path).repetitions()
    assert [r.hash for r in found] == [r.hash for r in kept]
    assert [r.about for r in found] == [r.about for r in kept]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(found, kept, strict=True))
    assert (tmp_path / FOLDER / "p1" / JOURNAL).stat().st_mode & 0o077 == 0


def test_the_same_samples_under_another_name_are_another_repetition() -> None:
    assert repetition("a").hash != repetition("b").hash
    assert repetition("a").hash == repetition("a").hash


def test_whole_numbers_where_fractions_are_due_change_nothing(tmp_path: Path) -> None:
    one = repetition()
    whole = msgspec.structs.replace(one.about.spec, rate_hz=200, scale=1)
    same = StoredRepetition(msgspec.structs.replace(one.about, spec=whole), one.samples)
    assert same.hash == one.hash
    store(tmp_path).commit([same])
    assert [r.hash for r in store(tmp_path).repetitions()] == [one.hash]


def test_changes_are_undone_and_done_again(tmp_path: Path) -> None:
    s = store(tmp_path)
    s.commit([repetition("a", 1)], define=[GestureNote(label="a", source="template x")])
    s.commit([repetition("b", 2)])
    s.remove("a")
    assert s.held().labels == ("b",)
    s.undo()
    assert s.held().labels == ("a", "b")
    assert s.held().gestures["a"].source == "template x"
    s.undo()
    assert s.held().labels == ("a",)
    assert s.redo().verb is Verb.REDO
    assert s.held().labels == ("a", "b")
    with pytest.raises(OperatorError) as caught:
        s.remove("c")
    assert caught.value.reason is Reason.NOT_FOUND
    with pytest.raises(OperatorError):
        s.commit([])


class Killed(BaseException):
    """The process is gone: nothing after this happens, no clean-up either."""


@pytest.mark.parametrize("step", range(12))
def test_whatever_is_killed_when_the_last_commit_stands(tmp_path: Path, monkeypatch, step: int) -> None:
    s = store(tmp_path)
    s.commit([repetition("a", 1)])
    before = s.held()
    steps = iter(range(100))

    def dying(real):
        def call(*arguments, **more):
            if next(steps) == step:
                raise Killed
            return real(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        patch.setattr(Path, "replace", dying(Path.replace))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        try:
            s.commit([repetition("b", 2), repetition("b", 3)])
            whole = True
        except Killed:
            whole = False
    again = store(tmp_path)
    found = again.held()
    if whole:
        assert found.labels == ("a", "b")
    else:
        assert found == before or set(found.labels) == {"a", "b"}
    assert len(again.repetitions()) == len(found.repetitions)
    again.commit([repetition("b", 2), repetition("b", 3)])
    assert again.held().labels == ("a", "b")
    assert len(again.repetitions()) == 3


def test_damage_is_told_of(tmp_path: Path) -> None:
    s = store(tmp_path)
    s.commit([repetition("a", 1)])
    (path,) = (tmp_path / FOLDER / "p1" / "repetitions").iterdir()
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(DataError) as caught:
        s.repetitions()
    assert caught.value.reason is Reason.MALFORMED
    path.write_bytes(repetition("a", 9).pack())
    with pytest.raises(DataError) as caught:
        s.repetitions()
    assert caught.value.reason is Reason.HASH_MISMATCH
    path.write_bytes(good)
    (tmp_path / FOLDER / "p1" / JOURNAL).write_text("{")
    with pytest.raises(DataError):
        s.held()
    other = store(tmp_path, "p2")
    other.commit([repetition()])
    (tmp_path / FOLDER / "p1" / JOURNAL).write_bytes((tmp_path / FOLDER / "p2" / JOURNAL).read_bytes())
    with pytest.raises(DataError):
        s.held()


def test_bounds_outside_of_the_samples_are_refused() -> None:
    good = repetition()
    for change in ({"first": 400}, {"end": 2000}, {"onset": 700}):
        with pytest.raises(DataError):
            StoredRepetition(msgspec.structs.replace(good.about, **change), good.samples)
    with pytest.raises(DataError):
        StoredRepetition(good.about, good.samples[:, :3])


def test_a_participant_who_leaves_leaves_nothing(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        store(tmp_path, name).commit([repetition()])
    spool = Spool(tmp_path / "spool.db", 1 << 30)
    publish(spool, store(tmp_path, "p1"), edge="edge-1", clock=SystemClock())
    assert erase(spool, tmp_path, lambda name: name == "p1") == 3  # a session, a journal, a repetition
    assert not spool.pending(0, 10)
    spool.close()
    assert wearers(tmp_path) == ["p2"]
    assert forget(tmp_path, lambda name: True) == 2
    assert wearers(tmp_path) == []


def test_two_edges_meet(tmp_path: Path) -> None:
    here, there = store(tmp_path / "1"), store(tmp_path / "2", edge="edge-2")
    here.commit([repetition("a", 1)])
    there.commit([repetition("a", 2), repetition("b", 3)])
    here.remove("a")
    assert here.merge(there.entries()) == 1
    assert there.merge(here.entries(), here.repetitions()) == 2
    assert here.merge(there.entries()) == 0
    assert here.held() == there.held()
    assert there.held().labels == ("b",)
    assert here.repetitions() == []  # known of, but the samples lie on the other edge


def test_a_journal_reaches_the_cloud_once_and_is_listed(tmp_path: Path) -> None:
    s = store(tmp_path)
    s.commit([repetition("a", 1), repetition("a", 2)], define=[GestureNote(label="a")])
    spool = Spool(tmp_path / "spool.db", 1 << 30)
    assert publish(spool, s, edge="edge-1", clock=SystemClock()) == 1
    s.remove("a")
    s.undo()
    assert publish(spool, s, edge="edge-1", clock=SystemClock()) == 2
    assert publish(spool, s, edge="edge-1", clock=SystemClock()) == 0
    items = spool.pending(0, 100)
    with HotStore(tmp_path / "hot.db") as hot:
        messages = [(i.topic, i.payload) for i in items]
        take(hot, [*messages, *reversed(messages)])
        sealer = Sealer(hot, tmp_path / "sealed", wall_ns=lambda: 1)
        sealer.prepare()
        for session in {i.session for i in items}:
            sealer.seal(session).verify()
        # a journal holds no samples: it is listed, and exported only if it is named
        journals = Catalogue(tmp_path / "sealed").sessions()
        assert len(journals) == 3
        assert _summary(journals[0])["duration_s"] == 0
        with pytest.raises(OperatorError):
            Choice(participants=("p1",)).of(Catalogue(tmp_path / "sealed"))
        assert len(Choice(protocols=("journal",)).of(Catalogue(tmp_path / "sealed"))) == 3
        found = gestures(hot.read, "p1")
        assert [e["verb"] for e in found["entries"]] == ["enrol", "remove", "undo"]
        (only,) = found["gestures"]
        assert only["label"] == "a"
        assert [r["edge"] for r in only["repetitions"]] == ["edge-1", "edge-1"]
        assert gestures(hot.read, "p2")["gestures"] == []
    spool.close()
