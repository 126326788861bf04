from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from embridge_cloud.intake import Intake
from embridge_cloud.parcels import Incoming
from embridge_cloud.store import backup
from embridge_cloud.store import restore as restoring
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.backup import HEAD, back_up, list_backups, verify_backup
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.restore import restore
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_shared.errors import DataError, OperatorError, Reason
from support.intake import take
from support.sessions import T0, assert_sealed_equals, emg_spec, record, session_of


def some(number: int, n_chunks: int = 3):
    return record(session_of(emg_spec(), number=number), number, n_chunks=n_chunks)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "cloud"


def filled(store: HotStore, state: Path, numbers) -> dict:
    sealer, recordings = Sealer(store, state / "sealed", wall_ns=lambda: T0), {}
    for number in numbers:
        recording = recordings[number] = some(number)
        take(store, recording.messages())
        sealer.seal(recording.session.id)
    return recordings


def test_a_backup_during_ingest_holds_all_that_was_acknowledged_before_it(state, tmp_path):
    live = some(9, n_chunks=40)
    with HotStore(state / "hot" / "ingest.duckdb") as store:
        sealed = filled(store, state, [1, 2])
        acknowledged, stop = [], threading.Event()

        def ingest() -> None:
            intake = Intake(store.read)
            for topic, payload in live.messages()[:-1]:
                if stop.is_set():
                    return
                taken = intake.take([Incoming(topic, payload, T0)])
                store.commit(taken.batch)
                intake.committed(taken)
                acknowledged.append((topic, payload))

        thread = threading.Thread(target=ingest)
        thread.start()
        while len(acknowledged) < 4:
            stop.wait(0.005)
        before = len(acknowledged)
        made = back_up(store, state, tmp_path / "backups", wall_ns=lambda: T0, actor="cli:me")
        stop.set()
        thread.join()
    head = restore(made.path, tmp_path / "elsewhere")
    assert set(head.sessions) == {str(r.session.id) for r in sealed.values()}
    with HotStore(tmp_path / "elsewhere" / "hot" / "ingest.duckdb") as store:
        AuditLog(store).verify({made.head.audit_seq: made.head.audit_digest} if made.head.audit_seq else None)
        held = store.read.session(live.session.id)
        events, chunks = held.ranges[-1].stored.count, len(store.read.anchors(live.session.id, 0))
        assert events + chunks >= before
        # What came after it comes again from the edge, and nothing is stored twice.
        take(store, live.messages())
        sealer = Sealer(store, tmp_path / "elsewhere" / "sealed", wall_ns=lambda: T0)
        assert_sealed_equals(sealer.seal(live.session.id), live)
        paths = store.read.rows("SELECT path FROM sealed_sessions UNION SELECT path FROM sealed")
        assert all(Path(p).exists() and Path(p).is_relative_to(tmp_path / "elsewhere") for (p,) in paths)
    for recording in sealed.values():
        assert_sealed_equals(Catalogue(tmp_path / "elsewhere" / "sealed").get(recording.session.id), recording)


def test_a_later_backup_links_what_has_not_changed_and_leaves_keys_out(state, tmp_path):
    keys = state / "registry" / "keys"
    keys.mkdir(parents=True)
    (keys / "targets.pem").write_text("private")
    place = tmp_path / "backups"
    with HotStore(state / "hot" / "ingest.duckdb") as store:
        filled(store, state, [1])
        first = back_up(store, state, place, wall_ns=lambda: T0)
        second = back_up(store, state, place, wall_ns=lambda: T0 + 10**9, keys=True)
        with pytest.raises(OperatorError, match="within the state folder"):
            back_up(store, state, state / "backups", wall_ns=lambda: T0)
    assert list_backups(place) == [first.path, second.path]
    name = next(n for n in first.head.files if n.endswith("emg.parquet"))
    assert (first.path / name).samefile(second.path / name)
    sealed = sum(f.bytes for n, f in first.head.files.items() if n.startswith("sealed/"))
    assert second.copied <= sum(f.bytes for f in second.head.files.values()) - sealed
    assert not any("keys" in n for n in first.head.files)
    assert "registry/keys/targets.pem" in second.head.files


def test_a_backup_that_was_broken_off_or_changed_is_none(state, tmp_path, monkeypatch):
    place = tmp_path / "backups"
    with HotStore(state / "hot" / "ingest.duckdb") as store:
        filled(store, state, [1])
        with monkeypatch.context() as patch:
            patch.setattr(backup, "verify_backup", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                back_up(store, state, place, wall_ns=lambda: T0)
        assert list_backups(place) == [] or all(p.name.startswith(".") for p in list_backups(place))
        made = back_up(store, state, place, wall_ns=lambda: T0)
        assert [p.name for p in place.iterdir()] == [made.path.name]
    with pytest.raises(OperatorError) as caught:
        restore(made.path, state)
    assert caught.value.reason is Reason.LOCKED
    name = next(n for n in made.head.files if n.endswith("emg.parquet"))
    data = bytearray((made.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (made.path / name).write_bytes(data)
    for work in (lambda: verify_backup(made.path), lambda: restore(made.path, tmp_path / "elsewhere")):
        with pytest.raises(DataError) as damaged:
            work()
        assert damaged.value.reason is Reason.HASH_MISMATCH
    assert not (tmp_path / "elsewhere" / "hot").exists()
    (made.path / HEAD).write_text(json.dumps({"format": 9}))
    with pytest.raises(DataError):
        verify_backup(made.path)


def test_a_restore_that_was_broken_off_starts_over(state, tmp_path, monkeypatch):
    with HotStore(state / "hot" / "ingest.duckdb") as store:
        recordings = filled(store, state, [1])
        made = back_up(store, state, tmp_path / "backups", wall_ns=lambda: T0)
    elsewhere = tmp_path / "elsewhere"
    settle = restoring._settle

    def die(source: Path, target: Path) -> None:
        if target.name == "hot":
            raise KeyboardInterrupt
        settle(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(restoring, "_settle", die)
        with pytest.raises(KeyboardInterrupt):
            restore(made.path, elsewhere)
    restore(made.path, elsewhere)
    assert_sealed_equals(Catalogue(elsewhere / "sealed").get(recordings[1].session.id), recordings[1])
    assert not (elsewhere / "restoring").exists()
