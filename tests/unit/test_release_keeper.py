"""What an edge does with releases it is asked to run: tried, kept, given up, by itself and without anybody."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import embridge_edge.update.slots as slots_module
from embridge_edge.releases import ReleaseKeeper
from embridge_edge.update.proving import Prover, SharedProver
from embridge_edge.update.slots import FOLDER, Slots
from embridge_shared.errors import ModelError, NetworkError, OperatorError, Reason
from embridge_shared.fleet import Trial, UpdatePhase
from embridge_shared.manifest import Tolerances
from embridge_shared.wire.messages import Desired
from support.updates import TRIAL, Edge

PROVER = SharedProver()


@pytest.fixture
def edge(tmp_path) -> Edge:
    return Edge(tmp_path, prover=PROVER)


@asynccontextmanager
async def agent(edge: Edge, **more: Any) -> AsyncIterator[ReleaseKeeper]:
    """The releases of an agent that runs; it ends in good order."""
    keeper = edge.keeper(**more)
    async with keeper.running():
        task = asyncio.create_task(keeper.run())
        await edge.clock.settle()
        try:
            yield keeper
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class CrashError(Exception):
    """Nobody catches it."""


async def crash(edge: Edge, *, decode: bool = True) -> None:
    """An agent starts, decodes and ends without a word."""

    async def start() -> None:
        async with agent(edge) as keeper:
            if decode:
                async with keeper.leased():
                    pass
            raise CrashError

    with pytest.raises(CrashError):
        await start()


async def run(edge: Edge, desired: Desired, *, seconds: float = 0.0) -> None:
    """An agent starts, is asked for a release, and ends in good order."""
    async with agent(edge) as keeper:
        await keeper.desire(desired)
        await edge.clock.pass_s(seconds)


def on(desired: Desired, trial: Trial = TRIAL) -> Desired:
    return msgspec.structs.replace(desired, trial=trial, rollout="r-1")


def slots(edge: Edge) -> Slots:
    return Slots(edge.settings.state_dir / FOLDER)


async def test_without_a_trial_it_is_committed_at_once(edge):
    await run(edge, edge.publish(1))
    assert edge.phases[-1] is UpdatePhase.COMMITTED
    assert slots(edge).current().name == "embridge-1"


async def test_with_one_it_runs_on_probation_first(edge):
    desired = on(edge.publish(1))
    async with agent(edge) as keeper:
        await keeper.desire(desired)
        await edge.clock.pass_s(59)
        assert keeper.progress.phase is UpdatePhase.PROBATION
        assert (keeper.progress.release, keeper.progress.rollout) == ("embridge-1", "r-1")
        await edge.clock.pass_s(2)
        assert keeper.progress.phase is UpdatePhase.COMMITTED
    assert edge.phases[1:] == [
        UpdatePhase.DOWNLOADING,
        UpdatePhase.TESTING,
        UpdatePhase.WAITING,
        UpdatePhase.PROBATION,
        UpdatePhase.COMMITTED,
    ]
    assert slots(edge).pointer().probation is None


async def test_two_crashes_on_probation_go_back_without_anybody(edge):
    await run(edge, edge.publish(1))
    second = on(edge.publish(2))
    await run(edge, second)
    edge.fetcher.down = True
    await crash(edge)
    async with agent(edge) as keeper:
        assert keeper.current.name == "embridge-2", "once may be bad luck"
        async with keeper.leased():
            assert keeper.health.crashes == 1
    await crash(edge)
    async with agent(edge) as keeper:
        assert keeper.current.name == "embridge-1"
        async with keeper.leased() as decoder:
            assert decoder.manifest.release == "embridge-1"
        assert keeper.progress.phase is UpdatePhase.ROLLED_BACK
        assert keeper.progress.reason == Reason.CRASHED
        assert "twice" in keeper.progress.detail
        assert (keeper.progress.release, keeper.progress.rollout) == ("embridge-2", "r-1")
        edge.fetcher.down = False
        await keeper.desire(second)
        await edge.clock.pass_s(100)
        assert keeper.current.name == "embridge-1", "it is not taken again"
        assert keeper.progress.phase is UpdatePhase.ROLLED_BACK


async def test_the_first_release_of_an_edge_goes_back_to_none(edge):
    await run(edge, on(edge.publish(1)))
    await crash(edge)
    await crash(edge)
    async with agent(edge) as keeper:
        assert keeper.current is None
        edge.settings.__dict__["release_wait_s"] = 0.01
        with pytest.raises(OperatorError, match="no release came"):
            await keeper.leased().__aenter__()


async def test_the_count_is_on_the_disk_before_anything_is_loaded(edge):
    await run(edge, on(edge.publish(1)))
    seen = []

    def load(bundle: object) -> Any:
        seen.append(slots(edge).pointer().probation.loaded)
        raise CrashError

    for _ in range(2):
        with pytest.raises(CrashError):
            async with agent(edge, load=load) as keeper, keeper.leased():
                pass
    assert seen == [True, True]
    async with agent(edge, load=load) as keeper:
        assert keeper.current is None
        assert keeper.progress.reason == Reason.CRASHED


async def test_a_stop_in_good_order_is_no_crash_and_probation_goes_on_after_it(edge):
    await run(edge, on(edge.publish(1)), seconds=25)
    for _ in range(3):
        with pytest.raises(NetworkError):
            async with agent(edge) as keeper, keeper.leased():
                raise NetworkError("something else went wrong")
    async with agent(edge) as keeper:
        await edge.clock.pass_s(20)
        assert keeper.progress.phase is UpdatePhase.PROBATION
        async with keeper.leased():
            assert keeper.health.crashes == 0
        await edge.clock.pass_s(20)
        assert keeper.progress.phase is UpdatePhase.COMMITTED


async def test_an_agent_that_loaded_nothing_is_not_the_release_s_crash(edge):
    await run(edge, on(edge.publish(1)))
    for _ in range(3):
        await crash(edge, decode=False)
    async with agent(edge) as keeper:
        assert keeper.current.name == "embridge-1"


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        (lambda v: v.broke(), "finite"),
        (lambda v: [v.decoded(0.4, 0.9) for _ in range(60)], "ms"),
        (lambda v: [v.fed(10 * i, 10, 0.0) for i in range(300)] + [v.decoded(0.001, 0.9) for _ in range(60)], "due"),
        (lambda v: [v.fed(10 * i, 10, 0.5) or v.decoded(0.01, 0.9) for i in range(60)], "due"),
    ],
    ids=["broken", "slow", "missing", "falls behind"],
)
async def test_bad_health_on_probation_goes_back(edge, feed, said):
    await run(edge, edge.publish(1))
    async with agent(edge) as keeper:
        await keeper.desire(on(edge.publish(2)))
        await edge.clock.settle()
        async with keeper.leased():
            keeper.vitals.begin(rate_hz=100.0, window_s=0.2, hop_s=0.1)
            feed(keeper.vitals)
            await edge.clock.pass_s(6)
            assert keeper.current.name == "embridge-1", "no session is waited for"
        assert keeper.progress.phase is UpdatePhase.ROLLED_BACK
        assert keeper.progress.reason == Reason.UNHEALTHY
        assert said in keeper.progress.detail
        assert keeper.health.release == "embridge-2", "its last figures are told"
        async with keeper.leased() as decoder:
            assert decoder.manifest.release == "embridge-1"


async def test_good_health_stays(edge):
    desired = on(edge.publish(1))
    async with agent(edge) as keeper:
        await keeper.desire(desired)
        await edge.clock.settle()
        async with keeper.leased():
            keeper.vitals.begin(rate_hz=100.0, window_s=0.2, hop_s=0.1)
            for i in range(100):
                keeper.vitals.fed(10 * i, 10, 0.005)
                if i > 1:
                    keeper.vitals.decoded(0.005, 0.8)
            await edge.clock.pass_s(61)
        assert keeper.progress.phase is UpdatePhase.COMMITTED
        health = keeper.health
        assert (health.windows, health.rate, health.confidence) == (98, 1.0, 0.8)
        assert health.latency_p50_ms == pytest.approx(5, rel=0.06)
        assert health.self_test_ms > 0


async def test_a_session_keeps_its_release_and_the_update_waits(edge):
    await run(edge, edge.publish(1))
    async with agent(edge) as keeper:
        async with keeper.leased():
            await keeper.desire(edge.publish(2))
            await edge.clock.pass_s(500)
            assert keeper.current.name == "embridge-1"
            assert keeper.progress.phase is UpdatePhase.WAITING
            assert "session" in keeper.progress.detail
        await edge.clock.settle()
        assert keeper.current.name == "embridge-2"


async def test_what_waited_goes_on_after_a_power_cut_without_a_network(edge):
    await run(edge, edge.publish(1))
    second = edge.publish(2)

    async def cut() -> None:
        async with agent(edge) as keeper, keeper.leased():
            await keeper.desire(second)
            await edge.clock.settle()
            raise CrashError

    with pytest.raises(CrashError):
        await cut()
    edge.fetcher.down = True
    async with agent(edge) as keeper:
        await edge.clock.settle()
        assert keeper.current.name == "embridge-2"


async def test_a_newer_wish_takes_the_place_of_one_that_waits(edge):
    await run(edge, edge.publish(1))
    async with agent(edge) as keeper:
        async with keeper.leased():
            await keeper.desire(edge.publish(2))
            await edge.clock.pass_s(1)
            await keeper.desire(edge.publish(3))
            await edge.clock.pass_s(1)
            assert keeper.progress.release == "embridge-3"
        await edge.clock.settle()
        assert keeper.current.name == "embridge-3"
    assert slots(edge).previous().name == "embridge-1"


async def test_what_is_on_probation_is_never_what_is_gone_back_to(edge):
    await run(edge, edge.publish(1))
    await run(edge, on(edge.publish(2)))
    await run(edge, on(edge.publish(3)))
    assert slots(edge).current().name == "embridge-3"
    assert slots(edge).previous().name == "embridge-1"


async def test_no_network_is_tried_again_with_longer_pauses(edge):
    desired = edge.publish(1)
    edge.fetcher.down = True
    async with agent(edge) as keeper:
        await keeper.desire(desired)
        await edge.clock.pass_s(60)
        assert keeper.progress.phase is UpdatePhase.FAILED
        assert keeper.progress.reason == Reason.UNREACHABLE
        tries = keeper.progress.attempts
        assert 60 / 8 <= tries <= 4 + 60 / 4
        edge.fetcher.down = False
        await edge.clock.pass_s(9)
        assert keeper.current.name == "embridge-1"


async def test_a_clock_in_the_future_is_told_and_the_update_comes_once_it_is_right(edge):
    desired = edge.publish(1)
    edge.clock.wall_at_start_ns += 40 * 86_400 * 10**9
    async with agent(edge) as keeper:
        await keeper.desire(desired)
        await edge.clock.settle()
        assert keeper.progress.phase is UpdatePhase.FAILED
        assert keeper.progress.reason == Reason.EXPIRED
        assert "clock" in keeper.progress.detail
        edge.clock.wall_at_start_ns -= 40 * 86_400 * 10**9
        await edge.clock.pass_s(9)
        assert keeper.current.name == "embridge-1"


async def test_a_clock_in_the_past_stops_nothing_and_old_metadata_stays_old(edge):
    first = edge.publish(1)
    await run(edge, first)
    old = (edge.registry.repository / "metadata" / "timestamp.json").read_bytes()
    edge.clock.wall_at_start_ns -= 20_000 * 86_400 * 10**9
    await run(edge, edge.publish(2))
    assert slots(edge).current().name == "embridge-2"
    (edge.registry.repository / "metadata" / "timestamp.json").write_bytes(old)
    with pytest.raises(ModelError, match="older than what was seen"):
        edge.updater().recalls()


async def test_a_recall_goes_back_and_lets_an_older_release_come(edge):
    first = edge.publish(1)
    second = edge.publish(2)
    await run(edge, second)
    async with agent(edge) as keeper:
        await keeper.desire(first)
        await edge.clock.settle()
        assert keeper.progress.phase is UpdatePhase.REFUSED, "no older one without a recall"
        assert keeper.progress.reason == Reason.INCOMPATIBLE
        third = edge.publish(3)
        await keeper.desire(third)
        await edge.clock.settle()
        assert keeper.current.name == "embridge-3"
        edge.registry.recall("embridge-3", "confuses fist and hook")
        edge.registry.recall("embridge-2", "so does this")
        await keeper.desire(msgspec.structs.replace(first, rollout="r-9"))
        await edge.clock.settle()
        assert keeper.current.name == "embridge-1"
    back = next(t for t in edge.told if t.phase is UpdatePhase.ROLLED_BACK)
    assert (back.release, back.reason) == ("embridge-3", Reason.RECALLED)
    assert "confuses" in back.detail
    await run(edge, third)
    assert edge.told[-1].phase is UpdatePhase.REFUSED
    assert slots(edge).current().name == "embridge-1"


async def test_an_edge_asks_by_itself_whether_what_it_runs_was_recalled(edge):
    await run(edge, edge.publish(1))
    async with agent(edge) as keeper:
        await keeper.desire(edge.publish(2))
        await edge.clock.settle()
        edge.registry.recall("embridge-2", "bad")
        await edge.clock.pass_s(1600)
        assert keeper.current.name == "embridge-1"
        assert keeper.progress.reason == Reason.RECALLED


async def test_an_operator_goes_back_while_a_session_records(edge):
    await run(edge, edge.publish(1))
    async with agent(edge) as keeper:
        await keeper.desire(edge.publish(2))
        await edge.clock.settle()
        async with keeper.leased() as decoder:
            assert await keeper.rollback("worse") == "embridge-1"
            assert decoder.manifest.release == "embridge-2", "the session keeps what it has"
        async with keeper.leased() as decoder:
            assert decoder.manifest.release == "embridge-1"
        assert keeper.progress.detail == "worse"
        with pytest.raises(OperatorError, match="no previous"):
            await keeper.rollback("still worse")


async def test_a_damaged_release_gives_way_and_is_fetched_again(edge):
    await run(edge, edge.publish(1))
    second = edge.publish(2)
    await run(edge, second)
    path = slots(edge).path(second.digest)
    path.write_bytes(path.read_bytes()[:-7])
    edge.fetcher.down = True
    async with agent(edge) as keeper:
        await keeper.desire(second)
        await edge.clock.settle()
        async with keeper.leased() as decoder:
            assert decoder.manifest.release == "embridge-1"
        assert [t.reason for t in edge.told if t.phase is UpdatePhase.ROLLED_BACK] == [Reason.DAMAGED]
        edge.fetcher.down = False
        await edge.clock.pass_s(10)
        async with keeper.leased() as decoder:
            assert decoder.manifest.release == "embridge-2"


async def test_a_full_disk_stops_neither_the_agent_nor_what_runs(edge, monkeypatch):
    await run(edge, edge.publish(1))
    real, full = slots_module.write_atomically, False

    def write(path: Path, data: bytes) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(slots_module, "write_atomically", write)
    second = on(edge.publish(2))
    async with agent(edge) as keeper:
        await keeper.desire(second)
        await edge.clock.settle()
        full = True
        with pytest.raises(OperatorError) as caught:
            await keeper.leased().__aenter__()
        assert caught.value.reason is Reason.DISK_FULL
        await edge.clock.pass_s(100)
        assert keeper.progress.phase is UpdatePhase.PROBATION
        await keeper.desire(edge.publish(3))
        await edge.clock.settle()
        assert (keeper.progress.phase, keeper.progress.reason) == (UpdatePhase.FAILED, Reason.DISK_FULL)
        full = False
        await edge.clock.pass_s(10)
        assert keeper.current.name == "embridge-3"
        full = True
    async with agent(edge) as keeper:
        assert keeper.current.name == "embridge-3"


async def test_two_crashes_of_its_self_test_refuse_it_for_good(edge):
    await run(edge, edge.publish(1))
    second = edge.publish(2)
    tries = []

    class Deadly(Prover):
        def prove(self, bundle: object, **_: object) -> Any:
            tries.append(bundle)
            raise CrashError

    edge.prover = Deadly()
    for n in range(2):
        keeper = edge.keeper()

        async def start(keeper: ReleaseKeeper = keeper, first: bool = n == 0) -> None:
            async with keeper.running():
                if first:
                    await keeper.desire(second)
                await keeper.run()

        with pytest.raises(ExceptionGroup):
            await start()
    async with agent(edge) as keeper:
        await keeper.desire(second)
        await edge.clock.pass_s(100)
        assert keeper.current.name == "embridge-1"
        assert keeper.progress.phase is UpdatePhase.REFUSED
        assert keeper.progress.reason == Reason.CRASHED
    assert len(tries) == 2


async def test_a_release_that_fails_its_self_test_is_told_once(edge):
    await run(edge, edge.publish(1))
    async with agent(edge) as keeper:
        bad = on(edge.publish(2, tolerances=Tolerances(int8_cosine=1.1)))
        await keeper.desire(bad)
        await edge.clock.settle()
        assert keeper.progress.reason == Reason.SELF_TEST
        edge.fetcher.requests.clear()
        await keeper.desire(bad)
        await edge.clock.pass_s(100)
        assert not edge.fetcher.requests
        assert keeper.current.name == "embridge-1"


async def test_the_same_release_for_another_rollout_is_confirmed(edge):
    desired = edge.publish(1)
    await run(edge, desired)
    async with agent(edge) as keeper:
        await keeper.desire(msgspec.structs.replace(desired, rollout="r-2", trial=TRIAL))
        await edge.clock.settle()
        assert (keeper.progress.phase, keeper.progress.rollout) == (UpdatePhase.COMMITTED, "r-2")


async def test_a_digest_that_was_not_signed_is_refused(edge):
    desired = msgspec.structs.replace(edge.publish(1), digest="0" * 64)
    await run(edge, desired)
    assert (edge.told[-1].phase, edge.told[-1].reason) == (UpdatePhase.REFUSED, Reason.HASH_MISMATCH)
    assert slots(edge).current() is None
