from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from embridge_cloud.store.audit import GENESIS, AuditLog
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import Batch, EventRow
from embridge_shared.errors import DataError
from support.sessions import T0, emg_spec, record, session_of


@pytest.fixture
def store(tmp_path: Path):
    with HotStore(tmp_path / "hot.duckdb") as opened:
        yield opened


def test_rows_are_numbered_chained_and_read_back(store):
    log = AuditLog(store)
    assert log.verify().digest == GENESIS
    first = log.record("cli:me", "release.publish", "release:one", {"bytes": 12, "cosine": 0.99}, T0)
    second = log.record("cli:me", "release.roll", "release:one", {"edges": "all"}, T0 + 1)
    assert (first.previous, second.previous) == (GENESIS, first.digest)
    assert log.entries() == [first, second]
    assert log.entries(limit=1, newest=True) == [second]
    assert log.verify() == log.head()
    assert log.verify({1: first.digest}).seq == 2


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE audit SET detail = '{}' WHERE seq = 2",
        "UPDATE audit SET actor = 'nobody' WHERE seq = 1",
        "DELETE FROM audit WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit",
    ],
)
def test_whatever_is_changed_is_seen(store, tamper):
    log = AuditLog(store)
    for i in range(3):
        log.record("cli:me", "thing.do", f"thing:{i}", {"i": i}, T0 + i)
    with store.transaction() as connection:
        connection.execute(tamper)
    with pytest.raises(DataError, match="audit log was changed"):
        log.verify()


def test_a_chain_written_anew_does_not_stand_beside_what_is_known_of_the_old_one(store):
    log = AuditLog(store)
    old = log.record("cli:me", "thing.do", "thing", {}, T0)
    with store.transaction() as connection:
        connection.execute("DELETE FROM audit")
    log.record("cli:me", "thing.other", "thing", {}, T0)
    with pytest.raises(DataError, match="known from elsewhere"):
        log.verify({1: old.digest})
    log.head_path.write_text(json.dumps({"seq": 1, "digest": old.digest}))
    with pytest.raises(DataError, match="not the one that was recorded"):
        log.verify()
    log.head_path.unlink()
    with pytest.raises(DataError, match="is missing"):
        log.verify()


def test_people_and_sessions_stand_there_as_codes_that_die_with_their_secret(store):
    recording = record(session_of(emg_spec()), 1)
    session, person = recording.session.id, recording.session.participant.id
    store.commit(Batch(events=[EventRow(session, i, e, T0) for i, e in enumerate(recording.events)]))
    log = AuditLog(store)
    path = f"/exports/{person}_{session}.zip"
    row = log.record("token:me", "session.export", f"session:{session}", {"to": path, "of": person, "n": 3}, T0)
    again = log.record("token:me", "session.show", f"participant:{person}", {"was": str(uuid4())}, T0)
    text = json.dumps([row.subject, dict(row.detail), again.subject, dict(again.detail)])
    assert person not in text
    assert str(session) not in text
    assert row.detail["of"] == again.subject.removeprefix("participant:")
    assert again.detail["was"] == "s~unknown"
    with store.transaction() as connection:
        connection.execute("DELETE FROM people")
    after = log.record("token:me", "session.show", f"participant:{person}", {}, T0)
    assert after.subject != again.subject
    log.verify()
