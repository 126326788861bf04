"""A Textual application that draws one thing as often as asked, and counts what it costs; run in a terminal.

python -m benchmarks.tui_child WHAT SECONDS OUT.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from textual.app import App, ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Sparkline, Static

from embridge_edge.bands.synthetic import SyntheticBand
from embridge_edge.forearm import Performance, Timing, Wearer
from embridge_edge.source import Source
from embridge_shared.clock import SystemClock
from embridge_shared.gestures import find, vocabulary
from embridge_tui.ring import SignalRing
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.hand import HandView
from embridge_tui.widgets.scope import Scope

FPS: Final = 30.0
_WARM_S: Final = 3.0
_BEAT_S: Final = 0.01
_PACKET: Final = 10
_SPAN: Final = 2.0
_COLUMNS: Final = 304


def band() -> Source:
    """A wearer who performs for long enough; 16 channels at 2 kHz."""
    performance = Performance(
        Wearer.random(1),
        find(("fist", "open", "point")),
        repetitions=12,
        rng=np.random.default_rng(1),
        timing=Timing(lead_in_s=0.5, cue_s=1.6, rest_s=1.0),
    )
    return SyntheticBand(performance, packet_samples=_PACKET, clock=SystemClock())


class Counted:
    """Frames that were asked for, and frames that were drawn."""

    def __init__(self) -> None:
        self.asked = self.drawn = 0
        self._due = False

    def ask(self) -> None:
        self.asked += 1
        self._due = True

    def draw(self) -> None:
        self.drawn += self._due
        self._due = False


class Bench(App[None]):
    """Draws `what`, with a band that streams in the same process."""

    CSS = "#all { height: 1fr; } Sparkline { height: 1fr; } HandView { width: 60; height: 24; }"

    def __init__(self, what: str, seconds: float, out: Path) -> None:
        super().__init__()
        self._what, self._seconds, self._out = what, seconds, out
        self._band = band()
        self.ring = SignalRing(self._band.spec)
        self.count = Counted()
        self.lags: list[float] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="all"):
            yield from WHAT[self._what](self)
        yield Static(self._what)

    def on_mount(self) -> None:
        self._tasks = [asyncio.create_task(each) for each in (self._stream(), self._beat(), self._measure())]

    async def _stream(self) -> None:
        await self._band.open(time.monotonic_ns())
        async for packet in self._band.packets():
            self.ring.push(packet.first, packet.samples)

    async def _beat(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_BEAT_S)
            self.lags.append(time.perf_counter() - before - _BEAT_S)

    async def _measure(self) -> None:
        await asyncio.sleep(_WARM_S)
        frames, asked, cpu, began = self.count.drawn, self.count.asked, time.process_time(), time.perf_counter()
        self.lags.clear()
        await asyncio.sleep(self._seconds)
        took = time.perf_counter() - began
        found = {
            "fps": (self.count.drawn - frames) / took,
            "asked": (self.count.asked - asked) / took,
            "cpu": (time.process_time() - cpu) / took,
            "lag_p99_ms": 1e3 * float(np.percentile(self.lags, 99)),
            "samples": self.ring.end,
        }
        self._out.with_suffix(".part").write_text(json.dumps(found))
        self._out.with_suffix(".part").rename(self._out)
        self.exit()


def counted(kind: type[Widget], method: str) -> type[Any]:
    """A widget that counts the frames it draws."""

    def draw(self: Any, *args: Any) -> Any:
        self.app.count.draw()
        return getattr(super(made, self), method)(*args)

    made: type[Any] = type(f"Counted{kind.__name__}", (kind,), {method: draw})
    return made


def idle(app: Bench) -> list[Widget]:
    return [Static("")]


def scope(app: Bench) -> list[Widget]:
    kind = counted(Scope, "render_lines")
    tick = kind.tick

    def ticked(self: Any) -> None:
        app.count.ask()
        tick(self)

    kind.tick = ticked
    return [kind(app.ring, fps=FPS)]


def sparkline(app: Bench) -> list[Widget]:
    """16 of Textual's own, of the level."""
    first = counted(Sparkline, "render")
    lines = [(first if c == 0 else Sparkline)([0.0]) for c in range(16)]

    def tick() -> None:
        app.count.ask()
        found = app.ring.envelope(150, round(_SPAN * app.ring.rate_hz / 150), app.ring.end)
        level = np.nan_to_num(found.high - found.low)
        for line, values in zip(lines, level, strict=True):
            line.data = values.tolist()

    return _ticked(app, tick, lines)


def plotext(app: Bench) -> list[Widget]:
    """One plot of 16 traces, of as many points as the scope has columns."""
    from textual_plotext import PlotextPlot

    plot = counted(PlotextPlot, "render")()

    def tick() -> None:
        app.count.ask()
        found = app.ring.envelope(_COLUMNS, round(_SPAN * app.ring.rate_hz / _COLUMNS), app.ring.end)
        plot.plt.clear_data()
        for c, values in enumerate(np.nan_to_num(found.high)):
            plot.plt.plot((values / 200 + c).tolist(), marker="braille")
        plot.refresh()

    return _ticked(app, tick, [plot])


def hand(app: Bench) -> list[Widget]:
    """A hand that moves, beside a target."""
    view = counted(HandView, "render_line")()
    shapes = [g.pose for g in vocabulary().values()][:6]

    def tick() -> None:
        app.count.ask()
        at = time.monotonic()
        mix = 0.5 + 0.5 * np.sin(at)
        view.show(mix * np.asarray(shapes[0]) + (1 - mix) * np.asarray(shapes[int(at / 3) % len(shapes)]))

    return _ticked(app, tick, [view])


def prompt(app: Bench) -> list[Widget]:
    """The word a wearer is told, changing with every frame."""
    word = counted(BigWord, "render")("HOLD")

    def tick() -> None:
        app.count.ask()
        word.say(("HOLD", "RELAX")[app.count.asked % 2])

    return _ticked(app, tick, [Horizontal(word)])


def _ticked(app: Bench, tick: Callable[[], None], widgets: list[Widget]) -> list[Widget]:
    app.call_later(app.set_interval, 1.0 / FPS, tick)
    return widgets


WHAT: Final[dict[str, Callable[[Bench], list[Widget]]]] = {
    "idle": idle,
    "scope": scope,
    "sparkline": sparkline,
    "plotext": plotext,
    "hand": hand,
    "prompt": prompt,
}

if __name__ == "__main__":
    Bench(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])).run()
