from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.signal import welch

from embridge_edge.forearm import (
    CONTROL_HZ,
    EMG_RATE_HZ,
    MUSCLES,
    UV_PER_COUNT,
    Donning,
    ElectrodeFault,
    FaultKind,
    Forearm,
    Performance,
    Population,
    Timing,
    Wearer,
    lead_field,
)
from embridge_edge.forearm.anatomy import Role
from embridge_edge.forearm.drive import Drive
from embridge_shared.errors import DataError, OperatorError
from embridge_shared.gestures import find, vocabulary
from embridge_shared.hand import JOINTS, LIMITS
from embridge_shared.session import CueShown, Repetition

ALIKE = Population(angle_sd_deg=0, depth_sd=0, gain_sd=0, strategy_sd=0, strength_sd=0, shape_sd_deg=0, rest_sd_deg=0)


def held(wearer: Wearer, name: str, seconds: float) -> np.ndarray:
    pose = vocabulary()[name].pose if name != "rest" else wearer.rest
    return np.tile(pose, (round(seconds * CONTROL_HZ), 1))


def rms(wearer: Wearer, name: str, donning: Donning | None = None, seconds: float = 1.5) -> np.ndarray:
    emg = Forearm(wearer, donning, seed=5).emg(held(wearer, name, seconds))[600:] * UV_PER_COUNT
    return np.sqrt((emg**2).mean(axis=0))


def short_performance(seed: int = 2, **options: object) -> Performance:
    return Performance(
        Wearer.random(seed),
        find(["fist", "index_extension", "pinch_index"]),
        repetitions=2,
        rng=np.random.default_rng(seed),
        timing=Timing(lead_in_s=1.0, cue_s=1.5, rest_s=1.0, jitter_s=0.3),
        **options,  # type: ignore[arg-type]
    )


def test_the_same_signal_for_any_block_size() -> None:
    performance = short_performance()
    donning = Donning(faults=(ElectrodeFault(3, FaultKind.LOOSE, 0.5), ElectrodeFault(7, FaultKind.CLIPPING)))
    angles = performance.angles(np.arange(600) / CONTROL_HZ)
    whole = Forearm(performance.wearer, donning, seed=1).emg(angles)
    assert whole.dtype == np.int16
    assert whole.shape == (6000, 16)
    for size in (1, 7, 250):
        forearm = Forearm(performance.wearer, donning, seed=1)
        parts = [forearm.emg(angles[i : i + size]) for i in range(0, 600, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(Forearm(performance.wearer, donning, seed=2).emg(angles), whole)


def test_amplitudes_are_those_of_surface_emg() -> None:
    rest, fist = [], []
    for seed in range(6):
        wearer = Wearer.random(seed)
        rest.append(rms(wearer, "rest"))
        fist.append(rms(wearer, "fist").max())
    assert 2.0 < np.median(rest) < 8.0
    assert 60.0 < np.median(fist) < 500.0
    assert min(fist) > 8 * np.median(rest)


def test_flexors_and_extensors_work_on_opposite_sides_of_the_arm() -> None:
    wearer = Wearer.random(0, ALIKE)
    around = np.exp(1j * np.deg2rad(np.arange(16) * 22.5))
    side = {}
    for name in ("middle_flexion", "middle_extension"):
        power = rms(wearer, name) ** 2
        side[name] = np.rad2deg(np.angle((power * around).sum())) % 360
    apart = abs(side["middle_flexion"] - side["middle_extension"])
    assert 130 < min(apart, 360 - apart) <= 180
    assert 60 < side["middle_extension"] < 130


def test_rotating_the_band_shifts_the_channels() -> None:
    wearer = Wearer.random(4)
    still = Donning(contact_sd=0.0)
    turned = Donning(contact_sd=0.0, rotation_deg=45.0)
    np.testing.assert_allclose(lead_field(wearer, turned), np.roll(lead_field(wearer, still), -2, axis=0))
    np.testing.assert_allclose(rms(wearer, "open", turned), np.roll(rms(wearer, "open", still), -2), rtol=0.1)


def test_further_down_the_arm_the_short_muscles_are_gone() -> None:
    wearer = Wearer.random(1, ALIKE)
    names = [muscle.name for muscle in MUSCLES]
    ecrl = slice(2 * names.index("ECRL"), 2 * names.index("ECRL") + 2)
    near, far = (lead_field(wearer, Donning(position=p))[:, ecrl].max() for p in (0.25, 0.75))
    assert far < 0.05 * near


@pytest.mark.parametrize(
    ("gesture", "muscle"),
    [
        ("index_extension", "EI"),
        ("middle_flexion", "FDS3"),
        ("pinky_extension", "EDM"),
        ("thumb_flexion", "FPL"),
        ("thumb_extension", "EPB"),
        ("ring_extension", "EDC4"),
    ],
)
def test_each_movement_is_made_by_its_muscle(gesture: str, muscle: str) -> None:
    wearer = Wearer.random(0, ALIKE)
    activity, _ = Drive(wearer, 1 / CONTROL_HZ, np.random.default_rng(0))(held(wearer, gesture, 4.0))
    mean = activity.mean(axis=0) - wearer.tonic
    names = [m.name for m in MUSCLES]
    same = {"EI": "EDC2", "EDM": "EDC5", "FDS3": "FDP3"}
    assert names[int(mean.argmax())] in {muscle, same.get(muscle, muscle)}
    assert mean.min() >= 0


def test_pressing_fingertips_together_takes_force() -> None:
    wearer = Wearer.random(0, ALIKE)
    touching = vocabulary()["pinch_index"].pose
    apart = touching.copy()
    apart[JOINTS.index("thumb_cmc_aa")] -= np.deg2rad(25)
    drive = [
        Drive(wearer, 1 / CONTROL_HZ, np.random.default_rng(0))(np.tile(p, (400, 1)))[0] for p in (touching, apart)
    ]
    flexor = [m.name for m in MUSCLES].index("FDS2")
    assert drive[0][:, flexor].mean() > 1.5 * drive[1][:, flexor].mean()
    assert all(m.role is Role.FLEXOR for m in MUSCLES if m.name.startswith("FD"))


def test_the_spectrum_is_that_of_surface_emg() -> None:
    wearer = Wearer.random(2)
    emg = Forearm(wearer, Donning(hum_uv=0.0), seed=3).emg(held(wearer, "fist", 6.0))[1000:]
    hz, power = welch(emg.astype(float), EMG_RATE_HZ, nperseg=1024, axis=0)
    total = power.sum(axis=1)
    inside = (hz >= 20) & (hz <= 450)
    assert total[inside].sum() / total.sum() > 0.97
    median = hz[np.searchsorted(np.cumsum(total), 0.5 * total.sum())]
    assert 60 < median < 130


def test_fatigue_slows_the_spectrum_and_raises_the_amplitude() -> None:
    median_hz, power = [], []
    for fatigability in (0.0, 1.5):
        who = dataclasses.replace(Wearer.random(2), fatigability=fatigability)
        emg = Forearm(who, Donning(hum_uv=0.0), seed=3).emg(held(who, "fist", 90.0))[-40_000:].astype(float)
        hz, density = welch(emg, EMG_RATE_HZ, nperseg=1024, axis=0)
        total = np.cumsum(density.sum(axis=1))
        median_hz.append(hz[np.searchsorted(total, 0.5 * total[-1])])
        power.append(total[-1])
    assert median_hz[1] < 0.9 * median_hz[0]
    assert power[1] > 1.1 * power[0]


def test_mains_appears_where_it_is_plugged_in() -> None:
    wearer = Wearer.random(1)
    for mains in (50.0, 60.0):
        emg = Forearm(wearer, Donning(mains_hz=mains, hum_uv=20.0), seed=0).emg(held(wearer, "rest", 4.0))
        hz, power = welch(emg.astype(float), EMG_RATE_HZ, nperseg=2000, axis=0)
        assert hz[power.sum(axis=1).argmax()] == mains


def test_faults_show_and_end() -> None:
    wearer = Wearer.random(1)
    faults = (
        ElectrodeFault(2, FaultKind.DEAD),
        ElectrodeFault(5, FaultKind.LOOSE, 0.0, 2.0),
        ElectrodeFault(9, FaultKind.CLIPPING),
    )
    angles = held(wearer, "fist", 4.0)
    good = Forearm(wearer, seed=0).emg(angles)
    bad = Forearm(wearer, Donning(faults=faults), seed=0).emg(angles)
    untouched = [c for c in range(16) if c not in (2, 5, 9)]
    np.testing.assert_array_equal(bad[:, untouched], good[:, untouched])
    assert 1.0 < bad[:, 2].std() * UV_PER_COUNT < 3.0
    assert (np.abs(bad[:, 9].astype(int)) >= 32767).mean() > 0.01
    hz, power = welch(bad[:4000, 5].astype(float), EMG_RATE_HZ, nperseg=2000)
    assert hz[power.argmax()] == 50.0
    np.testing.assert_array_equal(bad[4000:, 5], good[4000:, 5])


def test_a_loose_electrode_shakes_when_the_hand_moves() -> None:
    performance = short_performance()
    angles = performance.angles(np.arange(800) / CONTROL_HZ)
    donning = Donning(faults=(ElectrodeFault(5, FaultKind.LOOSE),))
    emg = Forearm(performance.wearer, donning, seed=0).emg(angles)[:, 5] * UV_PER_COUNT
    prompt = performance.prompts[0]
    moving = slice(round(prompt.onset_s * 2000), round(prompt.held_s * 2000))
    assert emg[moving].std() > 3 * emg[1000:1800].std()


def test_emg_comes_before_the_movement() -> None:
    performance = short_performance()
    wearer, prompt = performance.wearer, performance.prompts[0]
    n = 2 * round(prompt.held_s * CONTROL_HZ / 2)
    emg = Forearm(wearer, seed=0).emg(performance.angles(np.arange(n) / CONTROL_HZ + wearer.lead_s)) * UV_PER_COUNT
    level = np.sqrt((emg.reshape(-1, 20, 16) ** 2).mean(axis=(1, 2)))
    times = (np.arange(len(level)) + 0.5) * 0.01
    active = times[np.flatnonzero(level > 5 * level[:80].mean())[0]]
    angles = performance.angles(times)
    moved = np.abs(angles - angles[0]).max(axis=1)
    halfway = times[np.flatnonzero(moved > 0.5 * moved[-1])[0]]
    assert prompt.cue_s < active < halfway
    assert 0.030 <= wearer.lead_s <= 0.100


def test_wearers_differ_and_come_back_the_same() -> None:
    fields = [lead_field(Wearer.random(seed), Donning()) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(fields[0], fields[1])
    profile = [f.sum(axis=1) / f.sum() for f in fields]
    assert np.abs(profile[0] - profile[2]).max() > 0.01


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError):
        Forearm(Wearer.random(0)).emg(np.zeros((5, 22)))
    for channel, start, end in ((16, 0.0, 1.0), (0, 2.0, 1.0)):
        with pytest.raises(OperatorError):
            ElectrodeFault(channel, FaultKind.DEAD, start, end)
    with pytest.raises(OperatorError):
        Timing(cue_s=0.2)
    with pytest.raises(OperatorError):
        Performance(Wearer.random(0), [], repetitions=1, rng=np.random.default_rng(0))


def test_a_performance_follows_its_prompts() -> None:
    performance = short_performance()
    t = np.arange(0, performance.duration_s, 0.005)
    angles = performance.angles(t)
    assert (angles >= LIMITS[:, 0]).all()
    assert (angles <= LIMITS[:, 1]).all()
    assert np.abs(np.diff(angles, axis=0)).max() < np.deg2rad(4)
    rest = performance.wearer.rest
    for prompt, following in zip(performance.prompts, [*performance.prompts[1:], None], strict=True):
        assert prompt.cue_s + 0.1 < prompt.onset_s < prompt.held_s <= prompt.release_s < prompt.end_s
        assert prompt.cue_end_s < prompt.release_s
        assert following is None or prompt.end_s < following.cue_s + following.onset_s
        made, asked = performance.angles([(prompt.held_s + prompt.release_s) / 2])[0] - rest, prompt.gesture.pose - rest
        assert made @ asked / np.linalg.norm(made) / np.linalg.norm(asked) > 0.8
    before = performance.angles([performance.prompts[0].cue_s])[0]
    assert np.abs(before - rest).max() < np.deg2rad(8)


def test_order_and_annotations() -> None:
    plain, mixed = short_performance(), short_performance(shuffled=True)
    assert [p.gesture.name for p in plain.prompts] == [
        *["fist"] * 2,
        *["index_extension"] * 2,
        *["pinch_index"] * 2,
    ]
    for block in (mixed.prompts[:3], mixed.prompts[3:]):
        assert {p.gesture.name for p in block} == {"fist", "index_extension", "pinch_index"}
    events = mixed.annotations()
    assert [e.start_ns for e in events] == sorted(e.start_ns for e in events)
    cues = [e for e in events if isinstance(e, CueShown)]
    repetitions = [e for e in events if isinstance(e, Repetition)]
    assert len(cues) == len(repetitions) == 6
    for cue, repetition, prompt in zip(cues, repetitions, mixed.prompts, strict=True):
        assert (cue.gesture, cue.repetition) == (repetition.gesture, repetition.repetition)
        assert repetition.start_ns == round(prompt.onset_s * 1e9)
        assert repetition.end_ns == round(prompt.end_s * 1e9)
        assert cue.start_ns < repetition.start_ns


def test_making_emg_is_much_faster_than_real_time() -> None:
    import time

    wearer = Wearer.random(0)
    forearm, angles = Forearm(wearer, seed=0), held(wearer, "fist", 0.25)
    began = time.process_time()
    for _ in range(40):
        forearm.emg(angles)
    assert time.process_time() - began < 1.0  # 10 s of 16 channels at 2 kHz; about 0.1 s on an idle core
