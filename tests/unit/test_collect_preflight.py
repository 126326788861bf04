"""The look before a session, and the judge of repetitions: each fault has its line or its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embridge_edge.collect.consent import ConsentSeen, Standing, cloud_consent
from embridge_edge.collect.judging import RepetitionJudge
from embridge_edge.collect.look import SignalLook
from embridge_edge.collect.preflight import Level, Line, Need
from embridge_edge.collect.protocol import Demands, Kind, Trial
from embridge_edge.collect.setup import Setup, free_name, parse_band, read_journal, source_of
from embridge_edge.collect.steps import Attempt
from embridge_edge.collect.virtual import VirtualSource
from embridge_shared.clock import SystemClock
from embridge_shared.enrolment import Refusal
from embridge_shared.errors import ConfigError, DataError
from embridge_shared.gestures import vocabulary
from embridge_shared.session import Placement, Side
from embridge_shared.signal import Modality, SampleType, StreamSpec
from support.collect import FrailBand, settings, setup, station, take_of, when

SPEC = StreamSpec(
    name="emg",
    modality=Modality.EMG,
    channels=tuple(f"e{i}" for i in range(16)),
    rate_hz=2000.0,
    dtype=SampleType.INT16,
    unit="µV",
    scale=0.2,
    calibrated=True,
    device="synthetic-forearm",
)
FIST = Trial(Kind.GESTURE, "fist", 1, 1, 1.5, 2.0, 1.5)
HELD = Attempt(1, 0, 3.0, 5.0)


def signal(moves: list[tuple[float, float, float]], *, seconds: float = 6.2, seed: int = 0) -> np.ndarray:
    """Counts of a band at rest but for (from, to, strength) moves of half of its channels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 20.0, (round(seconds * 2000), 16))
    for a, b, strength in moves:
        x[round(a * 2000) : round(b * 2000), :8] *= strength
    return np.clip(np.rint(x), -32768, 32767).astype(np.int16)


def judged(x: np.ndarray, *, trial: Trial = FIST, lost: tuple[float, float] | None = None):
    made = RepetitionJudge(SPEC, Demands(), keep_s=8.0)
    for first in range(0, len(x), 40):
        if lost is None or not lost[0] * 2000 <= first < lost[1] * 2000:
            made.push(first, x[first : first + 40])
    return made.judge(trial, HELD), made


@pytest.mark.parametrize(
    ("moves", "refusal"),
    [
        ([(3.4, 5.3, 12.0)], None),
        ([], Refusal.NO_ACTIVITY),
        ([(3.4, 5.3, 1.55)], Refusal.TOO_WEAK),
        ([(3.4, 3.9, 12.0)], Refusal.TOO_SHORT),
        ([(2.0, 5.3, 12.0)], Refusal.NOT_AT_REST),
    ],
)
def test_a_repetition_is_judged_by_what_rose_above_rest(moves, refusal) -> None:
    found, _ = judged(signal(moves))
    assert found.refusal == refusal, found
    if refusal is None:
        assert found.onset_s == pytest.approx(3.4, abs=0.06)
        assert found.end_s == pytest.approx(5.3, abs=0.06)
        assert found.level_db == pytest.approx(20 * np.log10(12.0), abs=3.0)
        assert found.rms_uv == pytest.approx(20 * 12 * 0.2, rel=0.25)
    else:
        assert found.words.startswith(refusal.value)


def test_a_short_break_does_not_make_two_of_it() -> None:
    found, _ = judged(signal([(3.4, 4.2, 12.0), (4.35, 5.3, 12.0)]))
    assert found.refusal is None
    assert found.end_s - found.onset_s == pytest.approx(1.9, abs=0.1)


@pytest.mark.parametrize(("lost", "refused"), [((4.0, 4.3), True), ((4.0, 4.02), False), ((1.8, 2.2), False)])
def test_a_gap_counts_where_it_was_to_be_held(lost, refused) -> None:
    found, _ = judged(signal([(3.4, 5.3, 12.0)]), lost=lost)
    assert (found.refusal is Refusal.GAP) == refused
    assert bool(found.gaps) == (lost[0] > 3.0)


def test_clipped_and_flat_channels_are_told_meanwhile_and_refused() -> None:
    x = signal([(3.4, 5.3, 12.0)])
    x[round(3.5 * 2000) : round(5.2 * 2000), :4] = 32767
    x[:, 12:] = 7
    made = RepetitionJudge(SPEC, Demands(), keep_s=8.0)
    made.push(0, x[: round(4.5 * 2000)])
    told = " ".join(made.live(3.0))
    assert "e0 clip" in told
    assert "e12 flat" in told
    assert "e5" not in told
    found, _ = judged(x)
    assert found.refusal is Refusal.TOO_STRONG
    x[:, :4] = signal([(3.4, 5.3, 12.0)])[:, :4]
    found, _ = judged(x)
    assert found.refusal is Refusal.NOISY


def test_one_that_is_far_weaker_than_the_others_is_too_weak() -> None:
    _, made = judged(signal([(3.4, 5.3, 60.0)]))
    made.judge(FIST, HELD)
    weak = RepetitionJudge(SPEC, Demands(), keep_s=8.0)
    weak._levels = made._levels
    x = signal([(3.4, 5.3, 5.0)])
    weak.push(0, x)
    assert weak.judge(FIST, HELD).refusal is Refusal.TOO_WEAK


def test_a_stretch_of_rest_is_refused_when_the_hand_moves() -> None:
    rest = replace(FIST, kind=Kind.REST, gesture="rest")
    assert judged(signal([]), trial=rest)[0].refusal is None
    assert judged(signal([(3.2, 4.4, 12.0)]), trial=rest)[0].refusal is Refusal.NOT_AT_REST
    free = replace(FIST, kind=Kind.FREE, gesture="unknown")
    assert judged(signal([(3.2, 4.4, 12.0)]), trial=free)[0].refusal is None


# The preflight


async def looked(folder: Path, given: Setup, **more) -> dict[str, Line]:
    async with station(folder, **more) as made:
        async with await made.look(given) as preflight:
            lines = await preflight.settled(20.0)
        return {line.key: line for line in lines}


@pytest.fixture
def band(monkeypatch: pytest.MonkeyPatch):
    def wear(source: VirtualSource | None = None, **how) -> None:
        monkeypatch.setattr(
            Setup, "open", lambda self, clock, _: take_of(FrailBand(source or self.source, clock, **how))
        )

    return wear


def real(**more) -> Setup:
    """As if a person wore the band."""
    return setup(source=parse_band("open"), **more)


def says(standing: Standing, version: str = "3", scopes: tuple[str, ...] = ("collect",)):
    async def ask(_: str) -> ConsentSeen:
        return ConsentSeen(standing, version, scopes, 1_700_000_000_000_000_000, "nobody answers")

    return ask


async def test_a_good_band_passes(tmp_path: Path, band) -> None:
    band(VirtualSource(wearer=3, speed=0.0))
    lines = await looked(tmp_path, real())
    assert not [line for line in lines.values() if line.blocks]
    assert lines["electrodes"].level is Level.GREEN
    assert lines["electrodes"].what.startswith("16/16")
    assert lines["noise"].what.startswith("rest ")
    assert lines["device"].what.startswith("virtual")
    assert "signed 2023-11-14" in lines["consent"].what
    assert lines["cloud"].level is Level.OPEN
    assert not lines["cloud"].blocks
    assert (lines["MVC"].level, lines["MVC"].need) == (Level.OPEN, Need.RECOMMENDED)


@pytest.mark.parametrize(("dead", "level"), [((5,), Level.AMBER), ((1, 2, 3), Level.RED)])
async def test_electrodes_that_are_off(tmp_path: Path, band, dead, level) -> None:
    band(VirtualSource(wearer=3, speed=0.0), flat=dead)
    line = (await looked(tmp_path, real()))["electrodes"]
    assert line.level is level
    assert f"e{dead[0]}" in line.what
    assert "[t] retest" in line.action
    assert line.needs_reason == (level is Level.AMBER)


@pytest.mark.parametrize(
    ("standing", "stated", "level"),
    [
        (says(Standing.GIVEN), "unstated", Level.GREEN),
        (says(Standing.GIVEN), "2", Level.AMBER),
        (says(Standing.MISSING), "unstated", Level.RED),
        (says(Standing.MISSING), "3", Level.AMBER),
        (says(Standing.REFUSED, scopes=()), "3", Level.RED),
        (says(Standing.REFUSED, scopes=("share",)), "3", Level.RED),
        (says(Standing.UNKNOWN), "3", Level.GREEN),
        (says(Standing.UNKNOWN), "unstated", Level.RED),
    ],
)
async def test_consent(tmp_path: Path, band, standing, stated, level) -> None:
    band(VirtualSource(wearer=3, speed=0.0))
    line = (await looked(tmp_path, real(consent_version=stated), consent=standing))["consent"]
    assert line.level is level
    assert line.blocks == (level is Level.RED)
    assert level is Level.GREEN or line.action


async def test_a_disk_that_is_nearly_full(tmp_path: Path, band) -> None:
    band(VirtualSource(wearer=3, speed=0.0))
    line = (await looked(tmp_path, real(), settings=settings(tmp_path, spool_max_bytes=1 << 20)))["storage"]
    assert line.level is Level.RED
    assert "the session takes about" in line.what
    hours = (await looked(tmp_path, real(), settings=settings(tmp_path, spool_max_bytes=1 << 28)))["storage"]
    assert hours.level is Level.AMBER


async def test_a_band_that_is_not_there_and_a_name_that_is_taken(tmp_path: Path, band) -> None:
    band(VirtualSource(wearer=3, speed=0.0), dies_s=0.0)
    async with station(tmp_path) as made, await made.look(real()) as preflight:
        await when(lambda: preflight.error is not None)
        line = preflight.lines()[0]
    assert line.level is Level.RED
    assert "lost for good" in line.what
    assert "[c]" in line.action


async def test_the_greatest_effort_is_captured_and_electrodes_are_looked_at_anew(tmp_path: Path, band) -> None:
    band(VirtualSource(wearer=3, speed=0.0))
    async with station(tmp_path) as made, await made.look(real()) as preflight:
        await preflight.settled(20.0)
        preflight.measure_effort()
        await when(lambda: not preflight.look.measuring)
        effort = {line.key: line for line in preflight.lines()}["MVC"]
        # nobody squeezed
        assert effort.level is Level.AMBER
        assert "µV" in effort.what
        preflight.retest()
        assert {line.key: line for line in preflight.lines()}["electrodes"].level is Level.OPEN
        assert preflight.look.effort is not None
        assert made.vitals().age_s < 5


async def test_a_greatest_effort_shows_electrodes_that_see_nothing(tmp_path: Path, band) -> None:
    squeezing = VirtualSource(wearer=3, speed=0.0, dead=(2,))
    made = FrailBand(squeezing, SystemClock())
    fist = vocabulary()["fist"]
    look = SignalLook(made.spec, 0)
    await made.open(0)
    async for packet in made.packets():
        look.push(packet)
        if packet.first == 8000:
            made._acting.perform(fist, 4.2)
        if packet.first == 10000:
            assert not look.faults()
            look.measure_effort()
        if packet.first > 17000:
            break
    assert list(look.faults()) == [2]
    assert look.effort > 10 * look.rest_level


async def test_a_cloud_that_cannot_be_asked_is_no_error(tmp_path: Path, free_port: int) -> None:
    given = settings(tmp_path)
    given = given.model_copy(update={"api": given.api.model_copy(update={"url": f"http://127.0.0.1:{free_port}"})})
    seen = await cloud_consent(given)("p07")
    assert seen.standing is Standing.UNKNOWN
    assert seen.why


# What is set up


def test_bands_and_names_by_word(tmp_path: Path) -> None:
    assert parse_band("virtual:7/2") == VirtualSource(wearer=7, performance=2)
    assert parse_band("open@AA:BB").address == "AA:BB"
    for word in ("virtual:x", "nothing"):
        with pytest.raises(ConfigError):
            parse_band(word)
    plan = tmp_path / "p.toml"
    plan.write_text('[[session]]\nname="a"\nparticipant="b"\n[session.source]\nkind="myo"\n[session.pose]\nkind="udp"')
    source, pose, base = source_of(str(plan))
    assert (type(source).__name__, type(pose).__name__, base) == ("MyoSource", "UdpPoseSource", str(tmp_path))
    left = Placement(side=Side.LEFT, donning=2)
    assert free_name("p07", left, ["p07_001_R_d1", "p07_012_L_d1", "p7_099_R_d1", "p07_x"]) == "p07_013_L_d2"


def test_a_journal_that_is_none_is_told_so() -> None:
    with pytest.raises(DataError) as caught:
        read_journal(msgspec.msgpack.encode({"setup": 3}))
    assert "embridge session finish" in caught.value.hint
