"""The scope as a widget: what it draws, when it does not, and its keys."""

from __future__ import annotations

import numpy as np
import pytest
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Static

from embridge_shared.quality.grades import Grade
from embridge_shared.signal import Modality, StreamSpec
from embridge_tui.pace import Pace
from embridge_tui.ring import Envelope, Lane, SignalRing
from embridge_tui.trace import GAP, Glyphs
from embridge_tui.widgets.scope import WINDOWS_S, Scope

RATE_HZ = 2000.0


def spec(channels: int = 16, rate_hz: float = RATE_HZ) -> StreamSpec:
    names = tuple(f"ch{i:02d}" for i in range(channels))
    return StreamSpec(name="emg", modality=Modality.EMG, channels=names, rate_hz=rate_hz, unit="µV", calibrated=True)


class Counted(SignalRing):
    """Counts how often it is asked."""

    asked = 0

    def envelope(self, columns: int, samples: int, end: int) -> Envelope:
        self.asked += 1
        return super().envelope(columns, samples, end)


def source(n: int = 8000, channels: int = 16, rate_hz: float = RATE_HZ) -> Counted:
    ring = Counted(spec(channels, rate_hz))
    ring.push(0, np.random.default_rng(1).normal(0, 100, (n, channels)).astype(np.int16))
    ring.mark([Lane(Grade.GOOD)] * channels)
    return ring


class Bench(App[None]):
    """A scope alone."""

    def __init__(self, ring: SignalRing | None, *, glyphs: Glyphs = Glyphs.BRAILLE) -> None:
        super().__init__()
        self._ring = ring
        self._glyphs = glyphs

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Scope(self._ring, glyphs=self._glyphs)
        yield Static("another", id="other")

    @property
    def scope(self) -> Scope:
        return self.query_one(Scope)


def traces(scope: Scope) -> list[str]:
    return [line[8:] for line in scope.lines[:-1]]


def named(scope: Scope) -> list[str]:
    return [line[:8] for line in scope.lines[:-1] if line[:8].strip()]


@pytest.mark.parametrize(("size", "shown"), [((160, 50), 16), ((100, 34), 16), ((80, 18), 8), ((40, 3), 1)])
async def test_it_fills_its_room(size, shown):
    async with Bench(source()).run_test(size=size) as pilot:
        scope = pilot.app.scope
        assert len(scope.lines) == size[1] - 1
        assert {len(line) for line in scope.lines} == {size[0]}
        assert len(named(scope)) == shown
        assert len(scope.shown) == shown


async def test_blocks_need_no_braille():
    async with Bench(source(), glyphs=Glyphs.BLOCKS).run_test(size=(100, 40)) as pilot:
        drawn = set("".join(traces(pilot.app.scope)))
        assert drawn <= set(" ▁▂▃▄▅▆▇█")
        assert len(drawn) > 4


async def test_quality_is_a_sign_a_colour_and_a_reason():
    ring = source(channels=3)
    ring.mark([Lane(Grade.GOOD), Lane(Grade.BAD, "flat: electrode off skin?"), Lane(Grade.WARN, "50 Hz +18 dB")])
    async with Bench(ring).run_test(size=(100, 13)) as pilot:
        scope = pilot.app.scope
        assert [line.split()[1] for line in named(scope)] == ["●", "✕", "▲"]
        text = "\n".join(scope.lines)
        assert "flat: electrode off skin?" in text
        assert "50 Hz +18 dB" in text
        colours = {scope.get_component_rich_style(f"scope--{name}").color for name in ("good", "warn", "bad")}
        assert len(colours) == 3


async def test_a_gap_is_seen_as_a_gap():
    ring = source(6000)
    ring.push(6100, np.zeros((2000, 16), np.int16))
    async with Bench(ring).run_test(size=(100, 49)) as pilot:
        gaps = [line for line in traces(pilot.app.scope) if chr(GAP) in line]
        assert len(gaps) == 16
        # 100 samples of the 2 s that 92 cells show.
        assert {line.count(chr(GAP)) for line in gaps} <= {3, 4}


async def test_what_scrolls_does_not_shimmer():
    ring = source(8000)
    async with Bench(ring).run_test(size=(60, 34)) as pilot:
        scope = pilot.app.scope
        await pilot.press("minus")  # from now on the size stays
        scope.tick()
        before = traces(scope)
        cell = 2 * round(2.0 * RATE_HZ / (2 * 52))
        ring.push(8000, np.random.default_rng(2).normal(0, 100, (5 * cell, 16)).astype(np.int16))
        scope.tick()
        assert [line[:-5] for line in traces(scope)] == [line[5:] for line in before]


async def test_nothing_is_drawn_that_nobody_sees():
    ring = source()
    async with Bench(ring).run_test(size=(80, 24)) as pilot:
        app = pilot.app

        async def asked(wait_s: float = 0.12) -> int:
            await pilot.pause(0.05)
            before = ring.asked
            await pilot.pause(wait_s)
            return ring.asked - before

        assert await asked() > 0
        app.query_one("#box").display = False
        assert await asked() == 0
        app.query_one("#box").display = True
        assert await asked() > 0
        await app.push_screen(Screen())
        assert await asked() == 0
        await app.pop_screen()
        assert await asked() > 0
        app.scope.action_freeze()
        assert await asked() == 0
        app.scope.action_freeze()
        assert await asked() > 0
        app.scope.show(None)
        assert await asked() == 0
        assert "no signal" in app.scope.lines[0]


async def test_a_frozen_picture_stays_and_can_be_looked_back_in():
    ring = source(20_000)
    async with Bench(ring).run_test(size=(100, 40)) as pilot:
        scope = pilot.app.scope
        scope.focus()
        await pilot.press("z")
        held = traces(scope)
        assert scope.frozen
        assert "FROZEN" in scope.lines[-1]
        ring.push(20_000, np.full((4000, 16), 9000, np.int16))
        scope.tick()
        assert traces(scope) == held
        await pilot.press("left")
        assert "s back" in scope.lines[-1]
        half = len(held[0]) // 2
        assert [line[half:] for line in traces(scope)] == [line[:half] for line in held]
        await pilot.press("right")
        assert traces(scope) == held
        await pilot.press("z")
        assert not scope.frozen
        assert traces(scope) != held


async def test_keys_change_size_and_time():
    async with Bench(source(40_000)).run_test(size=(100, 40)) as pilot:
        scope = pilot.app.scope
        scope.focus()
        assert "auto" in scope.lines[-1]
        auto = scope.range
        await pilot.press("plus")
        assert scope.range < auto
        assert "auto" not in scope.lines[-1]
        await pilot.press("minus", "minus")
        assert scope.range > auto
        await pilot.press("0")
        assert "auto" in scope.lines[-1]
        await pilot.press("right_square_bracket")
        assert scope.window_s == 4.0
        assert "4 s" in scope.lines[-1]
        for _ in range(3):
            await pilot.press("left_square_bracket")
        assert scope.window_s == WINDOWS_S[0]


async def test_channels_that_do_not_fit_are_a_page_away():
    async with Bench(source()).run_test(size=(80, 18)) as pilot:
        scope = pilot.app.scope
        scope.focus()
        assert scope.shown == tuple(range(8))
        await pilot.press("tab")
        assert scope.shown == tuple(range(8, 16))
        assert "channels 9-16 of 16" in scope.lines[-1]
        await pilot.press("tab")
        assert scope.shown == tuple(range(8))
        await pilot.resize_terminal(80, 40)
        assert scope.shown == tuple(range(16))
        assert not scope.check_action("page", ()), "tab goes on where all channels fit"


async def test_a_slow_band_has_lines_of_several_cells_a_sample():
    async with Bench(source(400, 8, 200.0)).run_test(size=(160, 34)) as pilot:
        scope = pilot.app.scope
        scope.focus()
        for _ in range(3):
            await pilot.press("left_square_bracket")
        assert scope.lines[-1].startswith("── 0.51 s")
        lane = traces(scope)[:4]
        assert all(any(row[cell] != "⠀" for row in lane) for cell in range(len(lane[0])))


async def test_silence_is_said(monkeypatch):
    ring = source()
    async with Bench(ring).run_test(size=(100, 40)) as pilot:
        scope = pilot.app.scope
        scope._watch(ring, 0.0)
        assert "▲ no sample for 1.5 s" in scope._line(ring, 2.0, scope._end_since_s + 1.5).text
        assert "✕ no sample for 3.5 s" in scope._line(ring, 2.0, scope._end_since_s + 3.5).text


async def test_another_theme_is_taken_up():
    async with Bench(source()).run_test(size=(80, 30)) as pilot:
        scope = pilot.app.scope
        before = {s.style.color for strip in scope._strips for s in strip}
        pilot.app.theme = "textual-light"
        await pilot.pause()
        scope.tick()
        assert {s.style.color for strip in scope._strips for s in strip} != before


# pace


class Frames:
    """Frames one after the other, each of a cost, in a loop of a load."""

    def __init__(self) -> None:
        self.pace = Pace(30.0)
        self._now_s = self._cpu_s = 0.0

    def draw(self, n: int, cost_s: float, load: float = 0.2) -> float:
        for _ in range(n):
            self.pace.drawn(self._now_s, self._cpu_s, cost_s)
            self._now_s += 1.0 / self.pace.rate_hz
            self._cpu_s += load / self.pace.rate_hz
        return self.pace.rate_hz


def test_a_frame_that_costs_too_much_halves_the_rate_and_calm_brings_it_back():
    frames = Frames()
    assert frames.draw(100, 0.005) == 30.0
    assert frames.draw(2, 0.02) == 30.0, "one slow frame is none"
    assert frames.draw(1, 0.02) == 15.0
    assert frames.draw(200, 0.02) == 15.0, "20 ms fit into 67, but not into 33"
    assert frames.draw(200, 0.001) == 30.0


def test_it_never_stops():
    assert Frames().draw(1000, 10.0) == 2.0


def test_a_loop_that_is_full_halves_the_rate_too():
    frames = Frames()
    assert frames.draw(5, 0.001, load=0.95) == 15.0
    assert frames.draw(200, 0.001, load=0.7) == 15.0
    assert frames.draw(200, 0.001, load=0.2) == 30.0


def test_what_other_programs_take_changes_nothing():
    pace = Pace(30.0)
    for i in range(100):
        pace.drawn(i * 0.5, i * 0.01, 0.001)
    assert pace.rate_hz == 30.0
