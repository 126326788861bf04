"""How a release fares beside the one in force and on its own, and what is said to a running agent at its door."""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest

from embridge_edge.control import SOCKET, Request, ask, door
from embridge_edge.decode.runtime import Decoder
from embridge_edge.decode.stream import StreamDecoder
from embridge_edge.live import LiveDecoding
from embridge_edge.source import Packet
from embridge_edge.update.health import Latencies, Vitals, ailment
from embridge_edge.update.proving import Prover, SharedProver
from embridge_edge.update.shadow import Comparison, Shadow
from embridge_shared.decision import DecisionConfig
from embridge_shared.errors import ModelError, NetworkError, OperatorError, Reason
from embridge_shared.fleet import ReleaseHealth, Trial, UpdatePhase
from embridge_shared.preprocess import WearerScale
from embridge_shared.release import ENCODER, ENCODER_INT8, Bundle, read_bundle, write_bundle
from embridge_shared.session import Participant, Session
from embridge_shared.signal import Modality, StreamSpec
from support.bundles import C, D, M, encoder, make_bundle, parts
from support.updates import Edge

RATE_HZ = 1000.0
SPEC = StreamSpec(name="emg", modality=Modality.EMG, channels=tuple(f"e{i}" for i in range(C)), rate_hz=RATE_HZ)
CONFIG = DecisionConfig(temperature=0.02, rest_below=60, rest_above=90, otherwise=0.5, steady_s=0.05)


def packets(seconds: float, seed: int = 0) -> list[Packet]:
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(int(seconds * RATE_HZ), C)) * 300
    samples = raw.astype(np.int16)
    return [Packet(a, samples[a : a + 100], a) for a in range(0, len(samples), 100)]


def stream(bundle: Bundle) -> StreamDecoder:
    return StreamDecoder(Decoder(bundle), SPEC, WearerScale.identity(C))


def bundle_of(folder: Path, version: int = 1, **files: bytes) -> Bundle:
    manifest, own = parts(version)
    path = folder / f"{version}.embridge"
    write_bundle(path, manifest, own | files)
    return read_bundle(path)


def live_of(decoder: Decoder, gathered: Vitals | None) -> LiveDecoding:
    found = LiveDecoding(StreamDecoder(decoder, SPEC, WearerScale.identity(C)), CONFIG, vitals=gathered)
    session = Session(
        id=UUID(int=1),
        edge="e",
        participant=Participant(id="p1"),
        streams=(SPEC, *found.specs),
        started_ns=0,
        host_ns=0,
    )
    found.begin(session, 1, 0)
    return found


def live(bundle: Bundle, gathered: Vitals | None = None) -> LiveDecoding:
    return live_of(Decoder(bundle), gathered)


def vitals(name: str = "embridge-1") -> Vitals:
    return Vitals(ReleaseHealth(release=name))


def broken() -> bytes:
    return encoder(np.full((C, M * D), np.nan))


async def beside(old: Bundle, new: Bundle, seconds: float = 3.0) -> ReleaseHealth:
    """Decode with one release, and with the other in its shadow."""
    decoding, comparison = live(old), Comparison(new.manifest.release)
    shadow = Shadow(stream(new), CONFIG, comparison)
    decoding.shadow = shadow
    task = asyncio.create_task(shadow.run())
    for packet in packets(seconds):
        await decoding.push(packet, lambda index: index)
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return comparison.now()


async def test_the_same_release_in_the_shadow_says_the_same(tmp_path):
    bundle = bundle_of(tmp_path)
    found = await beside(bundle, bundle)
    assert found.windows > 40
    assert found.agreement == 1.0
    assert found.confidence == pytest.approx(found.shadow_confidence)
    assert ailment(found, Trial()) == ""


async def test_another_one_does_not(tmp_path):
    weights = np.random.default_rng(5).normal(size=(C, M * D))
    other = bundle_of(tmp_path, 2, **{ENCODER: encoder(weights), ENCODER_INT8: encoder(weights)})
    found = await beside(bundle_of(tmp_path), other)
    assert found.agreement < 1.0
    assert found.broken == 0


async def test_one_that_breaks_in_the_shadow_breaks_nothing(tmp_path):
    bad = bundle_of(tmp_path, 2, **{ENCODER_INT8: broken()})
    found = await beside(bundle_of(tmp_path), bad)
    assert found.broken == 1
    assert "finite" in ailment(found, Trial())


async def test_a_release_that_breaks_live_costs_its_windows_and_not_the_recording(tmp_path, caplog):
    gathered = vitals()
    decoding = live(bundle_of(tmp_path, **{ENCODER_INT8: broken()}), gathered)
    for packet in packets(2.0):
        assert not (await decoding.push(packet, lambda index: index)).chunks
    health = gathered.now()
    assert health.broken > 5
    assert (health.windows, health.rate) == (0, 0.0)
    assert sum("left out" in r.message for r in caplog.records) == 1


async def test_what_live_decoding_tells_of_a_sound_release(tmp_path):
    gathered = vitals()
    decoding = live(bundle_of(tmp_path), gathered)
    for packet in packets(4.0):
        if packet.first != 2000:
            await decoding.push(packet, lambda index: index)
    health = gathered.now()
    assert health.windows > 60
    assert health.rate > 0.9, "samples that never came are not its fault"
    assert 0 < health.latency_p50_ms <= health.latency_p99_ms
    assert 0 < health.confidence <= 1


def test_quantiles_are_within_a_few_per_cent():
    rng = np.random.default_rng(0)
    times = rng.gamma(4.0, 0.003, 5000)
    found = Latencies()
    for t in times:
        found.add(float(t))
    for q in (0.5, 0.99):
        assert found.quantile_ms(q) == pytest.approx(np.quantile(times, q) * 1e3, rel=0.06)
    assert Latencies().quantile_ms(0.5) is None
    found.add(1e9)
    assert found.quantile_ms(1.0) > 20_000


def test_gathering_is_cheap():
    gathered = vitals()
    gathered.begin(rate_hz=1000.0, window_s=0.2, hop_s=0.05)
    begin = time.perf_counter()
    for i in range(20_000):
        gathered.fed(50 * i, 50, 0.01)
        gathered.decoded(0.01, 0.9)
    assert (time.perf_counter() - begin) / 20_000 < 100e-6


def test_a_less_sure_release_is_told_from_its_shadow_run():
    trial = Trial(max_confidence_loss=0.2, min_windows=10)
    health = ReleaseHealth(release="embridge-2", windows=20, confidence=0.5, shadow_confidence=0.75)
    assert "0.50" in ailment(health, trial)
    assert ailment(msgspec.structs.replace(health, windows=9), trial) == "", "too few to say"
    assert ailment(msgspec.structs.replace(health, confidence=0.6), trial) == ""


# in the keeper


async def test_a_shadow_run_comes_before_probation(tmp_path):
    edge = Edge(tmp_path)
    first, second = edge.publish(1), edge.publish(2)
    second = msgspec.structs.replace(second, trial=Trial(shadow_windows=20, shadow_s=300, probation_s=10))
    keeper = edge.keeper()
    async with keeper.running():
        task = asyncio.create_task(keeper.run())
        await keeper.desire(first)
        await edge.clock.settle()
        async with keeper.leased() as decoder:
            decoding = live_of(decoder, keeper.vitals)
            with keeper.decoding(decoding, lambda other: (StreamDecoder(other, SPEC, WearerScale.identity(C)), CONFIG)):
                await keeper.desire(second)
                await edge.clock.pass_s(1)
                assert keeper.progress.phase is UpdatePhase.SHADOW
                for packet in packets(3.0):
                    await decoding.push(packet, lambda index: index)
                    await asyncio.sleep(0.002)
                await edge.clock.pass_s(1)
                assert keeper.progress.phase is UpdatePhase.WAITING
                assert keeper.current.name == "embridge-1"
        await edge.clock.settle()
        assert keeper.progress.phase is UpdatePhase.PROBATION
        async with keeper.leased():
            assert keeper.health.agreement is not None
            assert keeper.health.shadow_confidence is not None
            assert keeper.health.self_test_ms is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_shadow_run_that_breaks_refuses_the_release(tmp_path):
    edge = Edge(tmp_path)
    first, second = edge.publish(1), edge.publish(2)
    second = msgspec.structs.replace(second, trial=Trial(shadow_windows=20, shadow_s=300))
    keeper = edge.keeper()
    async with keeper.running():
        task = asyncio.create_task(keeper.run())
        await keeper.desire(first)
        await edge.clock.settle()
        async with keeper.leased() as decoder:
            decoding = live_of(decoder, keeper.vitals)

            def fit(other: Decoder) -> Any:
                return stream(bundle_of(tmp_path, 2, **{ENCODER_INT8: broken()})), CONFIG

            with keeper.decoding(decoding, fit):
                await keeper.desire(second)
                await edge.clock.pass_s(1)
                for packet in packets(2.0):
                    await decoding.push(packet, lambda index: index)
                    await asyncio.sleep(0.005)
                await edge.clock.pass_s(1)
        assert (keeper.progress.phase, keeper.progress.reason) == (UpdatePhase.REFUSED, Reason.UNHEALTHY)
        assert keeper.current.name == "embridge-1"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_edge_that_decodes_nothing_goes_on_after_a_while(tmp_path):
    edge = Edge(tmp_path)
    first, second = edge.publish(1), edge.publish(2)
    second = msgspec.structs.replace(second, trial=Trial(shadow_windows=20, shadow_s=30, probation_s=10))
    keeper = edge.keeper()
    async with keeper.running():
        task = asyncio.create_task(keeper.run())
        await keeper.desire(first)
        await edge.clock.settle()
        await keeper.desire(second)
        await edge.clock.pass_s(29)
        assert keeper.progress.phase is UpdatePhase.SHADOW
        await edge.clock.pass_s(2)
        assert keeper.progress.phase is UpdatePhase.PROBATION
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# the machine


def test_a_release_too_slow_for_this_machine_is_not_taken(tmp_path):
    bundle = read_bundle(make_bundle(tmp_path))
    assert Prover().prove(bundle, max_p99_ms=10_000).self_test_ms > 0
    with pytest.raises(ModelError, match="not for this machine") as caught:
        Prover().prove(bundle, max_p99_ms=1e-6)
    assert caught.value.reason is Reason.SELF_TEST
    grown = iter([0, 2 << 30])
    with pytest.raises(ModelError, match="MiB of memory"):
        Prover(memory=lambda: next(grown)).prove(bundle)


def test_what_was_found_of_a_bundle_is_shared_and_the_file_is_still_looked_at(tmp_path):
    path = make_bundle(tmp_path)
    digest = read_bundle(path).digest
    tried = []

    class Counting(Prover):
        def prove(self, bundle: Bundle, *, max_p99_ms: float | None = None) -> Any:
            tried.append(bundle)
            return super().prove(bundle, max_p99_ms=max_p99_ms)

    shared = SharedProver(Counting())
    bundle = shared.read(path, digest=digest)
    assert shared.read(path, digest=digest) is bundle
    assert shared.prove(bundle) == shared.prove(bundle)
    assert len(tried) == 1
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError):
        shared.read(path, digest=digest)


# the door


async def test_who_may_write_to_the_folder_may_ask(tmp_path):
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()

    async def back(request: Request) -> str:
        if request.reason == "no":
            raise OperatorError("there is none", reason=Reason.NOT_FOUND, hint="Publish one.")
        return f"went back: {request.reason}"

    async with door(folder, {"rollback": back}):
        assert stat.S_IMODE((folder / SOCKET).stat().st_mode) == 0o600
        assert await asyncio.to_thread(ask, folder, Request(do="rollback", reason="worse")) == "went back: worse"
        with pytest.raises(OperatorError, match="there is none") as caught:
            await asyncio.to_thread(ask, folder, Request(do="rollback", reason="no"))
        assert (caught.value.reason, caught.value.hint) == (Reason.NOT_FOUND, "Publish one.")
        with pytest.raises(OperatorError, match="cannot 'dance'"):
            await asyncio.to_thread(ask, folder, Request(do="dance"))
    assert not (folder / SOCKET).exists()
    with pytest.raises(NetworkError, match="cannot be asked"):
        await asyncio.to_thread(ask, folder, Request(do="rollback"))


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"\xff\xfe\n", b"x" * 200_000])
async def test_noise_at_the_door_is_answered_or_let_go(tmp_path, line):
    async with door(tmp_path, {}):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
        writer.write(line)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        assert answer == b"" or b"error" in answer
        with pytest.raises(OperatorError):
            await asyncio.to_thread(ask, tmp_path, Request(do="x"))
