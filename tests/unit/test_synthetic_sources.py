from __future__ import annotations

import asyncio
import itertools
import math

import numpy as np
import pytest

from embridge_edge.bands.synthetic import SyntheticBand
from embridge_edge.forearm import Link, Performance, Timing, Wearer
from embridge_edge.pose.synthetic import SyntheticPose
from embridge_edge.source import Packet, Source
from embridge_shared.errors import OperatorError
from embridge_shared.gestures import find
from embridge_shared.hand import JOINTS, ik_failures
from embridge_shared.signal import Modality, SampleType

START_NS = 5_000_000_000


class StepClock:
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.slept: list[float] = []

    def wall_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)
        await asyncio.sleep(0)


def performance(gestures: tuple[str, ...] = ("fist",)) -> Performance:
    return Performance(
        Wearer.random(7),
        find(gestures),
        repetitions=1,
        rng=np.random.default_rng(7),
        timing=Timing(lead_in_s=0.5, cue_s=1.0, rest_s=1.0, jitter_s=0.0),
    )


async def take(source: Source, first: int = 0) -> list[Packet]:
    await source.open(START_NS, first)
    out = [packet async for packet in source.packets()]
    await source.close()
    await source.close()
    return out


def joined(packets: list[Packet]) -> np.ndarray:
    return np.concatenate([packet.samples for packet in packets])


async def test_a_band_delivers_the_whole_performance_at_once() -> None:
    shown = performance()
    band = SyntheticBand(shown, speed=math.inf, packet_samples=24)
    packets = await take(band)
    assert band.spec.n_channels == 16
    assert band.spec.calibrated
    assert [p.first for p in packets] == list(range(0, len(packets) * 24, 24))
    assert all(p.samples.dtype == np.int16 and p.samples.shape[1] == 16 for p in packets)
    assert len(joined(packets)) == pytest.approx(2000 * shown.duration_s, abs=60)
    emg = joined(packets).astype(float)
    prompt = shown.prompts[0]
    working = emg[round(prompt.held_s * 2000) : round(prompt.release_s * 2000)].std()
    assert working > 8 * emg[: round(0.4 * 2000)].std()


async def test_packet_size_changes_nothing_but_the_packets() -> None:
    shown = performance()
    small, large = [await take(SyntheticBand(shown, speed=math.inf, packet_samples=n)) for n in (16, 1000)]
    np.testing.assert_array_equal(joined(small), joined(large))
    assert len(large) < len(small) / 50


async def test_stamps_follow_the_device_clock_with_one_sided_delay() -> None:
    link = Link(drift_ppm=400.0, start_s=0.25, delay_s=0.008, jitter_s=0.003)
    packets = await take(SyntheticBand(performance(), link=link, speed=math.inf))
    last = np.array([p.first + len(p.samples) - 1 for p in packets])
    arrived_s = (np.array([p.host_ns for p in packets]) - START_NS) * 1e-9
    late_s = arrived_s - (0.25 + last / (2000.0 * (1 + 400e-6)))
    assert late_s.min() >= 0.008 - 1e-6
    assert late_s.min() < 0.009
    assert 0.009 < late_s.mean() < 0.016
    assert (np.diff(arrived_s) >= 0).all()


async def test_pose_and_band_see_the_same_hand_on_different_clocks() -> None:
    shown = performance()
    link = Link(drift_ppm=-200.0, start_s=0.4)
    tracker = SyntheticPose(shown, link=link, rate_hz=100.0, noise_deg=0.0, speed=math.inf)
    packets = await take(tracker)
    assert tracker.spec.channels == JOINTS
    assert tracker.spec.modality is Modality.POSE
    frames = joined(packets)
    assert frames.dtype == np.float32
    t_s = 0.4 + np.arange(len(frames)) / (100.0 * (1 - 200e-6))
    np.testing.assert_allclose(frames, shown.angles(t_s), atol=1e-6)


async def test_pose_counts_carry_their_scale_and_failures_are_all_zero() -> None:
    shown = performance()
    counts = SyntheticPose(shown, dtype=SampleType.INT16, noise_deg=0.0, speed=math.inf)
    radians = SyntheticPose(shown, noise_deg=0.0, speed=math.inf)
    raw = joined(await take(counts))
    assert raw.dtype == np.int16
    np.testing.assert_allclose(raw * counts.spec.scale, joined(await take(radians)), atol=6e-5)
    blind = joined(await take(SyntheticPose(shown, failures_per_min=30.0, speed=math.inf)))
    assert 0.01 < ik_failures(blind).mean() < 0.6
    assert not ik_failures(joined(await take(SyntheticPose(shown, speed=math.inf)))).any()


async def test_lost_packets_are_jumps_in_the_index() -> None:
    shown = performance()
    whole = joined(await take(SyntheticBand(shown, speed=math.inf)))
    packets = await take(SyntheticBand(shown, link=Link(loss=0.2, seed=3), speed=math.inf))
    gaps = [b.first - (a.first + len(a.samples)) for a, b in itertools.pairwise(packets)]
    assert 0.1 < sum(gaps) / len(whole) < 0.3
    assert all(gap % 32 == 0 for gap in gaps)
    assert len({len(p.samples) for p in packets[:-1]}) == 1


async def test_time_passes_at_the_speed_asked_for() -> None:
    shown = performance()
    for speed in (1.0, 20.0):
        clock = StepClock()
        await take(SyntheticBand(shown, speed=speed, clock=clock, packet_samples=200))
        assert (clock.now_ns - START_NS) * 1e-9 == pytest.approx(shown.duration_s / speed, rel=0.02)
        assert max(clock.slept) < 0.3
    clock = StepClock()
    stamps = {
        speed: [p.host_ns for p in await take(SyntheticBand(shown, speed=speed, clock=clock))]
        for speed in (1, math.inf)
    }
    assert stamps[1] == stamps[math.inf]


async def test_a_fast_source_lets_others_run() -> None:
    band = SyntheticBand(performance(), speed=math.inf)
    await band.open(START_NS)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    taken = [packet async for packet in band.packets()]
    task.cancel()
    assert turns > 0.5 * len(taken)


async def test_a_resumed_session_goes_on_with_the_same_samples() -> None:
    shown = performance()
    whole = await take(SyntheticBand(shown, speed=math.inf))
    clock = StepClock()
    rest = await take(SyntheticBand(shown, speed=1.0, clock=clock), first=3000)
    assert rest[0].first <= 3000 < rest[0].first + 32
    assert [p.host_ns for p in rest] == [p.host_ns for p in whole[-len(rest) :]]
    np.testing.assert_array_equal(joined(rest), joined(whole)[rest[0].first :])
    assert (clock.now_ns - START_NS) * 1e-9 == pytest.approx(shown.duration_s - 1.5, abs=0.1)


async def test_closing_ends_the_stream() -> None:
    band = SyntheticBand(performance(), speed=math.inf)
    with pytest.raises(OperatorError):
        await anext(band.packets())
    await band.open(START_NS)
    seen = 0
    async for _ in band.packets():
        seen += 1
        await band.close()
    assert seen == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: SyntheticBand(performance(), packet_samples=0),
        lambda: SyntheticPose(performance(), rate_hz=0.0),
        lambda: SyntheticPose(performance(), dtype=SampleType.INT32),
        lambda: Link(loss=1.0),
        lambda: Link(jitter_s=-1.0),
    ],
)
def test_impossible_devices_are_refused(make: object) -> None:
    with pytest.raises(OperatorError):
        make()  # type: ignore[operator]


async def test_time_cannot_stand_still() -> None:
    with pytest.raises(OperatorError):
        await SyntheticBand(performance(), speed=0.0).open(START_NS)
