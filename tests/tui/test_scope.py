"""The scope: its ring, its characters, its widget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.screen import Screen

from embridge_shared.quality.grades import Grade
from embridge_shared.signal import Modality, StreamSpec
from embridge_shared.wire.messages import StreamQuality
from embridge_tui.widgets.ring import SignalRing
from embridge_tui.widgets.scope import Scope
from embridge_tui.widgets.traces import BLANK, Glyphs, Span, draw, lanes, text

RATE = 2000.0


def spec(channels: int = 16, scale: float = 1.0) -> StreamSpec:
    names = tuple(f"ch{i:02d}" for i in range(channels))
    return StreamSpec(name="emg", modality=Modality.EMG, channels=names, rate_hz=RATE, scale=scale, unit="µV")


def noise(n: int, channels: int = 16, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, channels)) * 200).astype(np.int16)


# ring


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40), st.integers(1, 50))
def test_an_envelope_is_that_of_the_samples_however_they_came(sizes, samples):
    ring, whole = SignalRing(spec(2), seconds=1.0), noise(sum(sizes), 2)
    at = 0
    for size in sizes:
        ring.push(at, whole[at : at + size])
        at += size
    stop = at // samples * samples
    low, high = ring.envelope(20, samples)
    for column in range(20):
        first = stop - (20 - column) * samples
        if first < max(0, at - 2000):
            assert np.isnan(low[:, column]).all()
            continue
        part = whole[first : first + samples]
        # Offsets cancel in the height of a bin.
        height = part.max(axis=0).astype(float) - part.min(axis=0)
        assert high[:, column] - low[:, column] == pytest.approx(height, abs=0.05)


def test_a_gap_stays_a_gap_and_what_came_late_is_left_out():
    ring = SignalRing(spec(1), seconds=1.0)
    ring.push(0, np.ones((100, 1), np.int16))
    ring.push(150, np.ones((50, 1), np.int16))
    low, _ = ring.envelope(20, 10)
    assert np.isnan(low[0]).tolist() == [False] * 10 + [True] * 5 + [False] * 5
    ring.push(90, np.full((60, 1), 9, np.int16))
    assert ring.end == 200
    assert np.array_equal(ring.envelope(20, 10)[0], low, equal_nan=True)
    ring.push(190, np.ones((20, 1), np.int16))
    assert ring.end == 210


def test_bins_do_not_move_when_the_trace_scrolls():
    ring, whole = SignalRing(spec(1)), noise(3000, 1)
    ring.push(0, whole[:2000])
    before = ring.envelope(100, 10)
    ring.push(2000, whole[2000:2030])
    after = ring.envelope(100, 10)
    for old, new in zip(before, after, strict=True):
        assert np.diff(old[0, 3:] - new[0, :-3]) == pytest.approx(0, abs=1e-3)


def test_a_channels_offset_is_taken_from_it_and_the_scale_is_that_of_the_stream():
    ring = SignalRing(spec(1, scale=0.5))
    for k in range(100):
        ring.push(40 * k, (noise(40, 1, seed=k) + 5000).astype(np.int16))
    low, high = ring.envelope(50, 20)
    assert abs(float(np.mean(low + high))) < 40
    assert 150 < float(np.mean(high - low)) < 600


def test_freshness_and_quality_are_told():
    now = [10.0]
    ring = SignalRing(spec(2), monotonic_s=lambda: now[0])
    assert ring.age_s is None
    ring.push(0, noise(10, 2))
    now[0] = 12.5
    assert ring.age_s == 2.5
    assert ring.quality() == [(Grade.UNKNOWN, "")] * 2
    ring.judge(StreamQuality(stream="emg", grades=(Grade.GOOD, Grade.BAD), told=("ch01: flat: press the band",)))
    assert ring.quality() == [(Grade.GOOD, ""), (Grade.BAD, "flat: press the band")]


# characters


@given(st.integers(1, 6), st.integers(1, 30), st.sampled_from(Glyphs), st.randoms(use_true_random=False))
def test_every_cell_is_a_character_of_its_kind(rows, cells, glyphs, random):
    rng = np.random.default_rng(random.randrange(1 << 30))
    low = rng.normal(size=(3, cells * glyphs.across)).astype(np.float32)
    low[rng.random(low.shape) < 0.2] = np.nan
    found = draw(low, low + rng.random(low.shape).astype(np.float32), rows, glyphs)
    assert found.shape == (3, rows, cells)
    if glyphs is Glyphs.BRAILLE:
        assert found.min() >= BLANK
        assert found.max() <= BLANK + 0xFF
    else:
        assert set("".join(text(row) for lane in found for row in lane)) <= set(" ▀▄█")


def test_a_trace_of_full_range_fills_its_lane_and_a_gap_is_empty():
    full = np.ones((1, 8), np.float32)
    assert (draw(-full, full, 3, Glyphs.BRAILLE) == BLANK + 0xFF).all()
    assert text(draw(-full, full, 2, Glyphs.BLOCKS)[0, 0]) == "█" * 8
    gone = np.full((1, 8), np.nan, np.float32)
    assert (draw(gone, gone, 3, Glyphs.BRAILLE) == BLANK).all()


def test_a_step_stays_connected_but_not_over_a_gap():
    low = np.array([[-1, -1, 1, 1]], np.float32)
    column = draw(low, low, 2, Glyphs.BLOCKS)[0]
    assert text(column[0])[2] == "█"
    low[0, 1] = np.nan
    assert draw(low, low, 2, Glyphs.BLOCKS)[0, 1, 2] == ord(" ")


def test_lanes_use_every_row():
    assert lanes(10, 4) == [3, 3, 2, 2]
    assert sum(lanes(47, 16)) == 47


def test_the_span_grows_at_once_and_shrinks_at_leisure():
    span, loud = Span(), np.full((4, 50), 300, np.float32)
    assert span.follow(-loud, loud, 10) == 500
    for _ in range(10):
        assert span.follow(-loud / 10, loud / 10, 10) == 500
    assert span.follow(-loud / 10, loud / 10, 10) == 50
    humming = loud / 10
    humming[0] = 9000
    assert span.follow(-humming, humming, 10) == 50, "one bad channel must not flatten the others"
    assert Span().follow(loud * np.nan, loud * np.nan, 10) == 1.0


# widget


class Counted(SignalRing):
    calls = 0

    def envelope(self, columns, samples):
        self.calls += 1
        return super().envelope(columns, samples)


class Bench(App[None]):
    def __init__(self, ring: SignalRing | None, **more) -> None:
        super().__init__()
        self.scope = Scope(ring, **more)

    def compose(self) -> ComposeResult:
        yield self.scope


def filled(seconds: float = 3.0, channels: int = 16) -> Counted:
    ring = Counted(spec(channels))
    ring.push(0, noise(round(seconds * RATE), channels))
    return ring


def shown(scope: Scope) -> list[str]:
    return [strip.text for strip in scope._strips]


@pytest.mark.parametrize("size", [(160, 50), (100, 30), (80, 24)])
async def test_every_channel_has_a_lane_and_the_foot_says_the_scale(size):
    app = Bench(filled())
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.1)
        lines = shown(app.scope)
        assert len(lines) == size[1]
        assert {len(line) for line in lines} == {size[0]}
        assert [line[:4] for line in lines if line.startswith("ch")] == [f"ch{i:02d}" for i in range(16)]
        assert "2 s" in lines[-1]
        assert "µV" in lines[-1]


async def test_small_terminals_show_channels_by_pages():
    app = Bench(filled())
    async with app.run_test(size=(80, 12)) as pilot:
        app.scope.focus()
        await pilot.pause(0.1)
        assert "channels 1/2" in shown(app.scope)[-1]
        await pilot.press("full_stop")
        assert shown(app.scope)[0].startswith("ch08")
        await pilot.press("full_stop")
        assert shown(app.scope)[0].startswith("ch00")


async def test_keys_change_gain_window_and_hold_the_picture():
    ring = filled()
    app = Bench(ring)
    async with app.run_test(size=(100, 30)) as pilot:
        app.scope.focus()
        await pilot.press("plus", "right_square_bracket")
        assert "gain 2" in shown(app.scope)[-1]
        assert "4 s" in shown(app.scope)[-1]
        await pilot.press("z")
        held = shown(app.scope)[:-1]
        assert "FROZEN" in shown(app.scope)[-1]
        ring.push(ring.end, noise(40_000, seed=5))
        await pilot.pause(0.15)
        assert shown(app.scope)[:-1] == held, "even when the ring has long moved on"
        await pilot.press("z")
        assert shown(app.scope)[:-1] != held


async def test_quality_is_a_sign_and_a_reason_in_the_lane():
    ring = filled()
    grades = (Grade.BAD, Grade.WARN, *(Grade.GOOD,) * 14)
    ring.judge(StreamQuality(stream="emg", grades=grades, told=("ch00: flat: electrode off?", "ch01: 50 Hz +18 dB")))
    app = Bench(ring)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.1)
        lines = shown(app.scope)
        assert lines[0].startswith("ch00  ✕")
        assert lines[0].endswith("flat: electrode off?")
        assert any(line.startswith("ch01  ▲") and line.endswith("50 Hz +18 dB") for line in lines)
        assert any(line.startswith("ch02  ●") for line in lines)


async def test_silence_is_said(monkeypatch):
    now = [0.0]
    ring = SignalRing(spec(), monotonic_s=lambda: now[0])
    app = Bench(ring)
    async with app.run_test(size=(100, 30)) as pilot:
        ring.push(0, noise(100))
        now[0] = 4.0
        await pilot.pause(0.1)
        assert "no samples for 4 s" in shown(app.scope)[-1]


async def test_nothing_is_drawn_that_nobody_sees():
    ring = filled()
    app = Bench(ring)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause(0.2)
        await app.push_screen(Screen())
        await pilot.pause(0.1)
        before = ring.calls
        await pilot.pause(0.3)
        assert ring.calls == before
        await app.pop_screen()
        await pilot.pause(0.3)
        assert ring.calls > before


async def test_heavy_frames_halve_the_rate_and_calm_ones_restore_it():
    app = Bench(filled(), fps=20)
    async with app.run_test(size=(100, 30)):
        scope = app.scope
        scope._adapt(0.03)
        assert scope.fps == 10
        for _ in range(5):
            scope._adapt(0.5)
        assert scope.fps == 5
        scope._calm_since_s -= 10
        scope._adapt(0.001)
        assert scope.fps == 10


async def test_another_theme_gives_other_colours_and_no_source_says_so():
    app = Bench(None)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        assert any("no signal yet" in line for line in shown(app.scope))
        app.scope.watch_source(filled())
        before = app.scope._style("scope--trace")
        app.theme = "textual-light"
        await pilot.pause(0.1)
        assert app.scope._style("scope--trace") != before
