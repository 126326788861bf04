"""Putting a band on again: what is said, what is kept and for how long, what a decoder then sees, and drift."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from embridge_cloud.pairing import turned_back, worn
from embridge_edge.decode.calibration import Calibration, CalibrationStore, calibrate
from embridge_edge.decode.donning import Donning, DonningStore, Verdict, don, look
from embridge_edge.decode.drift import Level, judged
from embridge_edge.decode.wearing import Own, Wearing, joined, wearing
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.preprocess import Features, FrontEndConfig, PreprocessConfig, WindowConfig, run_chunks
from embridge_shared.signal import Modality, SampleType, StreamSpec
from embridge_shared.wearer.donning import Turn
from embridge_shared.wearer.worn import WornScale

C, RATE_HZ = 8, 200.0
SPEC = StreamSpec(
    name="emg", modality=Modality.EMG, channels=tuple(f"e{i}" for i in range(C)), rate_hz=RATE_HZ, device="myo",
    dtype=SampleType.FLOAT32,
)  # fmt: skip
PREPROCESS = PreprocessConfig(
    front_end=FrontEndConfig(mode="envelope", rate_hz=100.0, lowpass_hz=None, notch_hz=()),
    window=WindowConfig(length=60, hop=10, patch=20),
)
GESTURES = np.random.default_rng(5).gamma(0.5, 1.0, (8, 4))
PLACES, WIDTHS = np.array([0.3, 1.6, 3.1, 4.6]), np.array([0.4, 0.6, 0.5, 0.7])
HOUR_NS = 3600 * 10**9


def arm(*, turned: float = 0.0, seed: int = 0, rounds: int = 2, strength: float = 1.0, other: bool = False) -> NDArray:
    """Raw samples (T, C): every gesture, rest between; the band turned by so many electrodes."""
    rng = np.random.default_rng([seed, 77])
    places = -PLACES + 0.9 if other else PLACES
    away = np.angle(np.exp(1j * ((np.arange(C) + turned) * 2 * np.pi / C - places[:, None])))
    reach = np.exp(-0.5 * np.square(away / WIDTHS[:, None]))
    parts = [np.full((200, C), 0.02)]
    for g in np.tile(rng.permutation(len(GESTURES)), rounds):
        parts += [np.tile(0.02 + GESTURES[g] * rng.uniform(0.8, 1.2, 4) @ reach, (300, 1)), np.full((100, C), 0.02)]
    level = strength * np.concatenate(parts)
    return (rng.normal(size=level.shape) * level).astype(np.float32)


def runs(raw: NDArray) -> list[Features]:
    return run_chunks(PREPROCESS.front_end, SPEC, [(0, raw)])


def calibrated(spec: StreamSpec = SPEC, **more: float) -> Calibration:
    return calibrate("p1", PREPROCESS, spec, [(0, arm(**more))], created_ns=5)


@pytest.mark.parametrize("turned", [1.0, -1.0, 0.5, 2.0])
def test_a_turned_band_is_found_said_and_undone(turned: float) -> None:
    known = calibrated()
    found = look(known, PREPROCESS, runs(arm(turned=turned, seed=1)))
    assert found.verdict is Verdict.TURNED
    assert found.sits is not None
    assert found.sits.electrodes == pytest.approx(turned, abs=0.25)
    assert f"{abs(found.sits.electrodes):g} electrode" in found.said
    assert ("higher" if turned > 0 else "lower") in found.said
    worn = WornScale(known.scale, found.sits, PREPROCESS.front_end)
    straight, bent = (np.concatenate([r.values for r in runs(arm(turned=t, seed=1))]) for t in (0.0, turned))
    target = known.scale.apply(straight)
    assert np.abs(worn.apply(bent) - target).mean() < 0.6 * np.abs(known.scale.apply(bent) - target).mean()


def test_a_band_that_sits_as_it_did_is_not_turned_but_its_strength_adjusted() -> None:
    found = look(calibrated(), PREPROCESS, runs(arm(seed=2, strength=0.5)))
    assert found.verdict is Verdict.SAME
    assert found.sits is not None
    assert found.sits.electrodes == 0
    assert np.allclose(found.sits.gain, 2.0, rtol=0.25)


def test_what_cannot_be_told_is_said_with_the_next_step() -> None:
    known = calibrated()
    still = look(known, PREPROCESS, runs(arm(seed=3)[:500]))
    foreign = look(known, PREPROCESS, runs(arm(seed=3, other=True)))
    other_band = msgspec.structs.replace(SPEC, device="homemade")
    no_ring = look(calibrated(other_band), PREPROCESS, runs(arm(seed=3)))
    old = look(msgspec.structs.replace(known, activity=None), PREPROCESS, runs(arm(seed=3)))
    found = [still, foreign, no_ring, old]
    assert [f.verdict for f in found] == [Verdict.TOO_LITTLE, Verdict.FOREIGN, Verdict.NO_RING, Verdict.NO_REFERENCE]
    for each in found:
        assert each.advice
        assert not each.useful
    with pytest.raises(OperatorError) as caught:
        don(DonningStore(Path("/nowhere")), known, foreign, now_ns=0)
    assert caught.value.hint == foreign.advice


def test_calibrations_of_before_still_read(tmp_path: Path) -> None:
    known, store = calibrated(), CalibrationStore(tmp_path)
    path = store.save(known)
    assert store.for_band("p1", PREPROCESS, SPEC) == known
    old = msgspec.json.decode(path.read_bytes())
    del old["ring"], old["activity"]
    path.write_bytes(msgspec.json.encode(old))
    read = store.for_band("p1", PREPROCESS, SPEC)
    assert read is not None
    assert read.activity is None
    assert read.scale == known.scale


def test_a_donning_ends_by_time_by_a_new_calibration_and_when_dropped(tmp_path: Path) -> None:
    known, store = calibrated(), DonningStore(tmp_path)
    found = look(known, PREPROCESS, runs(arm(turned=1, seed=1)))
    kept = don(store, known, found, now_ns=10, lasts_h=2)
    assert store.of(known, 10) == kept
    assert store.of(known, 10 + 2 * HOUR_NS - 1) == kept
    assert store.of(known, 10 + 2 * HOUR_NS) is None
    assert store.of(known, 9) is None
    assert store.of(msgspec.structs.replace(known, created_ns=6), 10) is None
    (path,) = tmp_path.glob("*.json")
    assert path.stat().st_mode & 0o077 == 0
    assert store.take_off(known)
    assert not store.take_off(known)
    don(store, known, found, now_ns=10)
    for damage in (b"", b"{}", msgspec.json.encode(msgspec.structs.replace(kept, participant="p2"))):
        path.write_bytes(damage)
        with pytest.raises(DataError) as caught:
            store.of(known, 10)
        assert caught.value.reason is Reason.MALFORMED


def watched(watch: Wearing, raw: NDArray) -> list:
    told = []
    whole = runs(raw)[0]
    for start in range(0, len(whole), 25):
        part = slice(start, start + 25)
        watch.push(Features(whole.first + start, whole.values[part], whole.flawed[part]))
        told += watch.told()
    return told


def test_a_session_that_begins_turned_is_told_so_and_turned_back_only_when_asked(tmp_path: Path) -> None:
    known, raw = calibrated(), arm(turned=1, seed=4, rounds=4)
    proposed = wearing(tmp_path, known, PREPROCESS, now_ns=10)
    told = watched(proposed, raw)
    assert [e.level for e in told] == [Level.RE_DON.value]
    assert told[0].applied is None
    assert "embridge edge don" in told[0].advice
    assert proposed.scale is known.scale
    assert not list(tmp_path.rglob("*.json"))

    applied = wearing(tmp_path, known, PREPROCESS, now_ns=10, auto=True)
    (told,) = [e for e in watched(applied, raw) if e.applied is not None]
    assert told.applied == pytest.approx(1.0, abs=0.25)
    assert told.ring == tuple(range(C))
    assert isinstance(applied.scale, WornScale)
    assert applied.now.level is not Level.RE_DON
    again = wearing(tmp_path, known, PREPROCESS, now_ns=20)
    assert isinstance(again.scale, WornScale)
    assert again.scale.sits == applied.scale.sits
    assert again.told()[0].applied == told.applied
    (path,) = tmp_path.rglob("*.json")
    assert msgspec.json.decode(path.read_bytes(), type=Donning).until_ns > 10


def test_a_session_as_calibrated_says_it_is_well() -> None:
    told = watched(Wearing(calibrated(), PREPROCESS), arm(seed=6, rounds=4))
    assert [e.level for e in told] == [Level.OK.value]


def test_who_cannot_be_watched_is_not() -> None:
    known = msgspec.structs.replace(calibrated(), ring=(), activity=None)
    watch = Wearing(known, PREPROCESS, own=Own(None, None))
    assert watched(watch, arm(turned=2, seed=6)) == []
    assert watch.now.level is Level.UNKNOWN


def turned_by(electrodes: float, gain: float) -> Turn:
    return Turn(electrodes=electrodes, degrees=electrodes * 45, gain=gain, distance=1.0)


def test_levels_rise_with_what_is_measured() -> None:
    moved, still = turned_by(1.0, 3.0), turned_by(0.0, 0.0)
    assert judged(0.0, still, donned=False)[0] is Level.OK
    assert judged(0.25, still, donned=False)[0] is Level.WATCH
    assert judged(0.4, still, donned=False)[0] is Level.RE_DON
    assert judged(0.4, still, donned=True)[0] is Level.RE_ENROL
    assert judged(0.0, moved, donned=False)[0] is Level.RE_DON
    assert judged(0.0, moved, donned=True)[0] is Level.OK
    assert judged(None, None, donned=False)[0] is Level.OK


def test_runs_are_joined_up_to_gaps() -> None:
    def part(first: int, n: int) -> Features:
        return Features(first, np.zeros((n, 2), np.float32), np.zeros(n, bool))

    assert [(r.first, len(r)) for r in joined([part(0, 3), part(3, 2), part(9, 1)])] == [(0, 5), (9, 1)]


def test_training_sees_a_session_turned_as_its_decoder_did(tmp_path: Path) -> None:
    session = wearing(tmp_path, calibrated(), PREPROCESS, now_ns=10, auto=True)
    told = watched(session, arm(turned=1, seed=4, rounds=4))
    (run,) = runs(arm(turned=1, seed=8))
    back = turned_back(run, worn(told), PREPROCESS)
    (straight,) = runs(arm(seed=8))
    assert np.abs(back.values - straight.values).mean() < 0.6 * np.abs(run.values - straight.values).mean()
    assert turned_back(run, worn([]), PREPROCESS) is run
    assert worn([e for e in told if e.applied is None]) is None
    beyond = msgspec.structs.replace(worn(told), ring=(0, 1, 2, 3, 4, 5, 6, 8))
    with pytest.raises(DataError, match="has no"):
        turned_back(run, beyond, PREPROCESS)
