from __future__ import annotations

import threading
from pathlib import Path
from uuid import UUID

import pytest

from embridge_cloud.intake import Intake
from embridge_cloud.parcels import Incoming
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.backup import back_up
from embridge_cloud.store.consent import Consents, Scope, read_consents
from embridge_cloud.store.erase import Eraser, Stage
from embridge_cloud.store.exports import ExportIndex
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.people import People
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.session import Participant
from embridge_shared.wire import codec
from support.sessions import T0, assert_sealed_equals, emg_spec, pose_spec, record, session_of

NAME = "subject-4711-x"


def of(number: int, participant: str, edge: str = "edge-1"):
    import msgspec

    session = session_of(emg_spec(), pose_spec(), edge=edge, number=number)
    session = msgspec.structs.replace(session, participant=Participant(id=participant, consent_version="v2"))
    return record(session, number, n_chunks=4)


def ingest(store: HotStore, recording, *, part: slice = slice(None)) -> None:
    intake = Intake(store.read)
    taken = intake.take([Incoming(t, p, T0) for t, p in recording.messages()[part]])
    store.commit(taken.batch)
    intake.committed(taken)


class World:
    """A store with a participant to erase, in every place a trace can be, and one who stays."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.hot = state_dir / "hot" / "ingest.duckdb"
        self.sealed, self.open = of(1, NAME), of(2, NAME)
        self.other, self.later = of(3, "p-other", "edge-2"), of(4, "p-other", "edge-2")

    def fill(self, store: HotStore, *, backup: bool = True) -> None:
        sealer = Sealer(store, self.state_dir / "sealed", wall_ns=lambda: T0)
        sealer.prepare()
        for recording in (self.sealed, self.other):
            ingest(store, recording)
            sealer.seal(recording.session.id)
        ingest(store, self.open, part=slice(0, 5))
        ingest(store, self.later)
        topic, payload = self.open.messages()[5]
        intake = Intake(store.read)
        taken = intake.take([Incoming(topic.replace("edge-1", "edge-9"), payload, T0)])
        store.commit(taken.batch)
        job = self.state_dir / "jobs" / "realign-1"
        job.mkdir(parents=True)
        (job / "config.json").write_text(f'{{"held_out": ["{NAME}"]}}')
        out = self.state_dir.parent / "exports" / "one.zip"
        out.parent.mkdir()
        ExportIndex(store).record([(self.sealed.session.id, NAME)], path=out, format="bids", actor="cli:me", wall_ns=T0)
        out.write_bytes(b"".join(p for _, p in self.sealed.messages()))
        if backup:
            back_up(store, self.state_dir, self.state_dir.parent / "backups", wall_ns=lambda: T0)

    def eraser(self, store: HotStore, **more) -> Eraser:
        people = People(store, self.state_dir / "sealed")
        return Eraser(store, self.state_dir, people=people, wall_ns=lambda: T0 + 1, **more)

    def traces(self) -> list[str]:
        """Files that hold the name, a session, a payload or a run of samples of the participant."""
        marks = [NAME.encode(), NAME.encode("utf-16-le"), NAME.encode("utf-16-be")]
        for recording in (self.sealed, self.open):
            marks += [recording.session.id.bytes, str(recording.session.id).encode()]
            for chunk in (c for run in recording.chunks for c in run):
                marks += [codec.encode(chunk)[64:], chunk.samples[:8].tobytes(), chunk.samples[:8, 0].tobytes()]
        found = []
        for path in sorted(self.state_dir.parent.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                found += [f"{path}: mark {i}" for i, mark in enumerate(marks) if mark in data]
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "cloud")


def intact(world: World, store: HotStore) -> None:
    assert_sealed_equals(Catalogue(world.state_dir / "sealed").get(world.other.session.id), world.other)
    Sealer(store, world.state_dir / "sealed", wall_ns=lambda: T0).seal(world.later.session.id)
    assert_sealed_equals(Catalogue(world.state_dir / "sealed").get(world.later.session.id), world.later)
    AuditLog(store).verify()


def test_no_byte_is_left_of_who_was_erased_and_all_of_who_was_not(world):
    with HotStore(world.hot) as store:
        world.fill(store)
        assert len({t.split(":")[0] for t in world.traces()}) >= 5
        erasure = world.eraser(store).erase(NAME, actor="cli:me")
        assert erasure.stage is Stage.EDGES
        assert (erasure.report.sessions, erasure.report.unreachable) == (2, ())
        assert erasure.report.chunks > 0
        assert erasure.report.quarantined == 1
        assert world.traces() == []
        intact(world, store)
    assert world.traces() == []


STEPS = ["begun", "files", "rows", "rewritten"]


@pytest.mark.parametrize("step", STEPS)
def test_an_erasure_that_died_at_any_step_is_carried_to_its_end(world, step):
    def die(reached: str) -> None:
        if reached == step:
            raise KeyboardInterrupt

    with HotStore(world.hot) as store:
        world.fill(store, backup=False)
        with pytest.raises(KeyboardInterrupt):
            world.eraser(store, reached=die).erase(NAME, actor="cli:me")
    with HotStore(world.hot) as store:
        world.eraser(store).resume()
        assert [e.stage for e in world.eraser(store).all()] == [Stage.EDGES]
        assert world.traces() == []
        intact(world, store)


def test_what_edges_send_of_erased_sessions_later_is_refused_and_kept_nowhere(world):
    fresh = of(5, NAME)
    with HotStore(world.hot) as store:
        world.fill(store, backup=False)
        eraser = world.eraser(store)
        eraser.erase(NAME, actor="cli:me")
        intake = Intake(store.read)
        for recording in (world.open, fresh):
            taken = intake.take([Incoming(t, p, T0) for t, p in recording.messages()])
            store.commit(taken.batch)
            ((_, report),) = intake.committed(taken)
            assert len(report.refused) == len(recording.messages())
            assert {r.reason for r in report.refused} == {Reason.ERASED}
        # The session is known for erased even when its opening does not come again.
        intake = Intake(store.read)
        taken = intake.take([Incoming(*fresh.messages()[2], T0)])
        assert not taken.batch.quarantined
        world.sealed, world.open = fresh, world.open
        assert world.traces() == []


def test_orders_wait_for_every_edge_and_then_nothing_tells_who_it_was(world):
    with HotStore(world.hot) as store:
        world.fill(store, backup=False)
        eraser = world.eraser(store)
        erasure = eraser.erase(NAME, actor="cli:me")
        assert erasure.waiting == ("edge-1",)
        (order,) = eraser.orders()
        assert order.means(NAME)
        assert not order.means("p-other")
        with pytest.raises(OperatorError) as caught:
            People(store).add(NAME, version="v3", scopes=[Scope.COLLECT], actor="cli:me", wall_ns=T0)
        assert caught.value.reason is Reason.ERASED
        assert eraser.answered("edge-2", [erasure.id]) == []
        assert eraser.answered("edge-1", [erasure.id, UUID(int=9)]) == [erasure.id]
        assert eraser.orders() == []
        assert eraser.show(erasure.id).stage is Stage.DONE
        assert store.read.rows("SELECT count(*) FROM erasures WHERE salt IS NOT NULL") == [(0,)]
        People(store).add(NAME, version="v3", scopes=[Scope.COLLECT], actor="cli:me", wall_ns=T0)


def test_reads_wait_while_the_file_is_written_anew(world):
    with HotStore(world.hot) as store:
        world.fill(store, backup=False)
        stop, counts, errors = threading.Event(), [], []

        def ask() -> None:
            try:
                while not stop.is_set():
                    counts.append(store.read.rows("SELECT count(*) FROM sessions")[0][0])
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            store.rewrite()
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors
        assert set(counts) == {4}


def test_consent_decides_what_may_be_used(world):
    with HotStore(world.hot) as store:
        ingest(store, world.sealed)
        people = People(store, world.state_dir / "sealed", required=True)
        assert people.show(NAME).stated == ("v2",)
        people.publish()
        session = world.sealed.session
        consents = read_consents(world.state_dir / "sealed")
        assert "no consent" in consents.refusal(of(8, "nobody").session, Scope.TRAIN) or session.source
        live = __import__("msgspec").structs.replace(session, source="")
        assert "no consent" in consents.refusal(live, Scope.TRAIN)
        people.add(NAME, version="v2", scopes=[Scope.COLLECT, Scope.TRAIN], actor="cli:me", wall_ns=T0)
        consents = read_consents(world.state_dir / "sealed")
        consents.check(live, Scope.TRAIN)
        with pytest.raises(OperatorError, match="not to share") as caught:
            consents.check(live, Scope.SHARE)
        assert caught.value.reason is Reason.CONSENT
        people.withdraw(NAME, actor="cli:me", wall_ns=T0 + 1)
        with pytest.raises(OperatorError, match="withdrawn"):
            read_consents(world.state_dir / "sealed").check(live, Scope.TRAIN)
        assert Consents({}).refusal(live, Scope.TRAIN) == ""
        simulated = __import__("msgspec").structs.replace(session, source="synthetic:1/1")
        assert "withdrawn" in read_consents(world.state_dir / "sealed").refusal(simulated, Scope.TRAIN)
        assert Consents({}, required=True).refusal(simulated, Scope.TRAIN) == ""
        log = AuditLog(store)
        assert [e.action for e in log.entries()] == ["participant.add", "participant.withdraw"]
        log.verify()
