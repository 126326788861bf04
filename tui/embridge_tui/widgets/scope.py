"""A scope: the newest seconds of all channels as traces, redrawn many times a second at little cost."""

from __future__ import annotations

import bisect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from embridge_shared.quality.grades import Grade
from embridge_tui import text, trace
from embridge_tui.pace import Pace
from embridge_tui.ring import Envelope, Lane, SignalSource
from embridge_tui.trace import PER_CELL, Glyphs

FPS: Final = 30.0
WINDOWS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
RANGES: Final = tuple(m * 10.0**e for e in range(-3, 7) for m in (1.0, 2.0, 5.0))
MARKS: Final = {Grade.GOOD: "●", Grade.WARN: "▲", Grade.BAD: "✕", Grade.UNKNOWN: "·"}

_LANE_ROWS: Final = 2
_LABEL: Final = 8
_REASON: Final = 0.6
_ROOM: Final = 1.25
_RANGE_HZ: Final = 4.0
_SHRINK_S: Final = 4.0
_STALE_S: Final = 1.0
_LOST_S: Final = 3.0


@dataclass(slots=True)
class _Range:
    """How much of the unit reaches from the middle of a lane to its edge; follows the signal until somebody sets it."""

    value: float = RANGES[0]
    auto: bool = True
    _known: bool = False
    _smaller_since_s: float | None = None

    def follow(self, peak: float, now_s: float) -> bool:
        """Make room for a signal at once, and take it back when it was not needed for some seconds."""
        if not self.auto or not np.isfinite(peak):
            return False
        wanted = RANGES[min(bisect.bisect_left(RANGES, _ROOM * peak), len(RANGES) - 1)]
        if wanted >= self.value or not self._known:
            self._smaller_since_s = None
        elif self._smaller_since_s is None:
            self._smaller_since_s = now_s
        if wanted < self.value and self._known and now_s - (self._smaller_since_s or now_s) < _SHRINK_S:
            return False
        changed = wanted != self.value
        self.value, self._known, self._smaller_since_s = wanted, True, None
        return changed

    def step(self, by: int) -> None:
        """Take the next one; from now on it stays."""
        at = min(range(len(RANGES)), key=lambda i: abs(RANGES[i] - self.value))
        self.value, self.auto = RANGES[min(max(at + by, 0), len(RANGES) - 1)], False


class Scope(Widget, can_focus=True):
    """Draws a source as it comes, until it is hidden, frozen or has none.

    It pulls: nothing that receives samples waits for it, and drawing takes a bounded share of the loop's time.

    Args:
        source: What to draw; `show` gives another.
        glyphs: Characters to draw with; those of the application by default.
        fps: Frames a second where the machine is fast enough.
        window_s: Length of what is shown, s.
        id: Of the widget.
    """

    DEFAULT_CSS = """
    Scope { width: 1fr; height: 1fr; background: $background; }
    Scope > .scope--label { color: $text-muted; }
    Scope > .scope--good { color: $text-primary; }
    Scope > .scope--warn { color: $text-warning; }
    Scope > .scope--bad { color: $text-error; }
    Scope > .scope--unknown { color: $foreground; }
    Scope > .scope--line { color: $text-muted; }
    Scope:focus > .scope--line { color: $text-primary; text-style: bold; }
    Scope > .scope--frozen { color: $text-accent; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "scope--label", "scope--good", "scope--warn", "scope--bad", "scope--unknown", "scope--line", "scope--frozen",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("z", "freeze", "Freeze", id="scope.freeze", tooltip="Hold the picture; what comes is kept."),
        Binding("plus,equals_sign", "gain(1)", "Gain +", show=False, id="scope.gain_up", tooltip="Draw larger."),
        Binding("minus", "gain(-1)", "Gain -", show=False, id="scope.gain_down", tooltip="Draw smaller."),
        Binding("0", "auto", "Auto", show=False, id="scope.auto", tooltip="Let the size follow the signal."),
        Binding("left_square_bracket", "window(-1)", "Window", show=False, id="scope.shorter", tooltip="Shorter time."),
        Binding("right_square_bracket", "window(1)", "Window", show=False, id="scope.longer", tooltip="Longer time."),
        Binding("tab", "page", "Channels", id="scope.page", tooltip="The next channels, where not all fit."),
        Binding("left", "back(1)", "Back", show=False, id="scope.back", tooltip="Earlier, while frozen."),
        Binding("right", "back(-1)", "On", show=False, id="scope.on", tooltip="Later, while frozen."),
    ]

    def __init__(
        self,
        source: SignalSource | None = None,
        *,
        glyphs: Glyphs | None = None,
        fps: float = FPS,
        window_s: float = 2.0,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._source = source
        self._frozen: SignalSource | None = None
        self._back = 0
        self._stride = 0
        self._glyphs = glyphs
        self._window_s = window_s
        self._range = _Range()
        self._page = 0
        self._pace = Pace(fps)
        self._timer: Timer | None = None
        self._strips: list[Strip] = []
        self._styles: dict[str, Style] = {}
        self._ranged_s = 0.0
        self._end = -1
        self._end_since_s = 0.0
        self._frames: list[float] = []

    # what others may ask and say

    def show(self, source: SignalSource | None) -> None:
        """Draw another source, live."""
        self._source, self._frozen, self._back, self._end = source, None, 0, -1
        self._range = _Range(self._range.value, self._range.auto)
        self._draw(time.monotonic())

    @property
    def frozen(self) -> bool:
        """Whether the picture is held."""
        return self._frozen is not None

    @property
    def fps(self) -> float:
        """Frames of the last second."""
        return float(len(self._frames))

    @property
    def range(self) -> float:
        """From the middle of a lane to its edge, in the source's unit."""
        return self._range.value

    @property
    def window_s(self) -> float:
        """Length of what is asked to be shown, s."""
        return self._window_s

    @property
    def pages(self) -> int:
        """How many pages the channels take in this room."""
        source = self._shown
        if source is None:
            return 1
        return -(-len(source.channels) // max(1, self._rows // _LANE_ROWS))

    @property
    def shown(self) -> tuple[int, ...]:
        """Channels of the page that is open."""
        source = self._shown
        if source is None:
            return ()
        n, pages = len(source.channels), self.pages
        each = -(-n // pages)
        return tuple(range(n))[each * (self._page % pages) :][:each]

    @property
    def lines(self) -> list[str]:
        """What is drawn now."""
        return [strip.text for strip in self._strips]

    # keys

    def action_freeze(self) -> None:
        """Hold the picture, or go on."""
        if self._frozen is None and self._source is not None:
            self._frozen = self._source.snapshot()
        else:
            self._frozen = None
        self._back = 0
        self._draw(time.monotonic())

    def action_gain(self, by: int) -> None:
        """Draw larger or smaller."""
        self._range.step(-by)
        self._draw(time.monotonic())

    def action_auto(self) -> None:
        """Let the size follow the signal."""
        self._range = _Range(self._range.value)
        self._draw(time.monotonic())

    def action_window(self, by: int) -> None:
        """Show a shorter or a longer time."""
        at = min(range(len(WINDOWS_S)), key=lambda i: abs(WINDOWS_S[i] - self._window_s))
        self._window_s = WINDOWS_S[min(max(at + by, 0), len(WINDOWS_S) - 1)]
        self._draw(time.monotonic())

    def action_page(self) -> None:
        """Show the next channels."""
        self._page = (self._page + 1) % self.pages
        self._draw(time.monotonic())

    def action_back(self, by: int) -> None:
        """Look half a window earlier or later in what is held."""
        self._back = max(0, self._back + by)
        self._draw(time.monotonic())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that would do nothing are free for others."""
        if action == "page":
            return self.pages > 1
        return self.frozen if action == "back" else True

    # drawing

    def on_mount(self) -> None:
        """Begin to draw."""
        self._set_timer()

    def tick(self) -> None:
        """Draw a frame, unless nobody would see it."""
        if self.frozen or self._source is None or not self.is_attached or not self._seen:
            self._pace.paused()
            return
        began_s, cpu_s = time.monotonic(), time.thread_time()
        self._draw(began_s)
        self._frames = [t for t in self._frames if t > began_s - 1.0] + [began_s]
        if self._pace.drawn(began_s, cpu_s, time.thread_time() - cpu_s):
            self._set_timer()

    @property
    def _seen(self) -> bool:
        return self.is_on_screen and self.app.screen is self.screen

    @property
    def _shown(self) -> SignalSource | None:
        return self._frozen or self._source

    @property
    def _rows(self) -> int:
        """Rows for traces; the last one of the widget says what is shown."""
        return max(0, self.size.height - 1)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_interval(1.0 / self._pace.rate_hz, self.tick, name="scope")

    def on_resize(self) -> None:
        """Fill the new room."""
        self._draw(time.monotonic())

    def notify_style_update(self) -> None:
        """Take up another theme."""
        super().notify_style_update()
        self._styles = {}
        if self.is_attached and self.size.width:
            # The styles of the traces follow those of the widget.
            self.call_later(self._restyle)

    def _restyle(self) -> None:
        self._styles = {}
        self._draw(time.monotonic())

    def render_lines(self, crop: Region) -> list[Strip]:
        """The rows of a region; past the cache of boxes, which a picture that always changes cannot use."""
        width = self.size.width
        blank = Strip.blank(width, self._style("line"))
        rows = [self._strips[y] if y < len(self._strips) else blank for y in crop.line_range]
        if crop.column_span == (0, width):
            return rows
        return [row.crop(*crop.column_span) for row in rows]

    def _style(self, name: str) -> Style:
        found = self._styles.get(name)
        if found is None:
            found = self._styles[name] = self.get_component_rich_style(f"scope--{name}")
        return found

    def _draw(self, now_s: float) -> None:
        source, width = self._shown, self.size.width
        columns = PER_CELL * (width - _LABEL)
        if columns <= 0 or self._rows <= 0:
            self._strips = []
            return
        if source is None:
            self._strips = [Strip([Segment(text.fit("no signal", width), self._style("line"))], width)]
            self.refresh()
            return
        self._watch(source, now_s)
        samples, repeat = _steps(source.rate_hz, self._window_s, columns)
        envelope = self._envelope(source, columns, samples, repeat)
        if not self.frozen and now_s - self._ranged_s > 1.0 / _RANGE_HZ:
            self._ranged_s = now_s
            self._range.follow(_peak(envelope, source.quality()), now_s)
        span_s = columns * samples / repeat / source.rate_hz
        self._strips = [*self._lanes(source, envelope, columns), self._line(source, span_s, now_s)]
        self.refresh()

    def _envelope(self, source: SignalSource, columns: int, samples: int, repeat: int) -> Envelope:
        """A column more than is drawn, which the first one joins."""
        cell = max(1, PER_CELL // repeat) * samples
        # Half of the cells, in samples.
        self._stride = columns // PER_CELL // 2 * PER_CELL * samples // repeat
        end = source.end - self._back * self._stride
        found = source.envelope(-(-(columns + PER_CELL) // repeat), samples, end // cell * cell)
        if repeat == 1:
            return found
        return Envelope(np.repeat(found.low, repeat, 1), np.repeat(found.high, repeat, 1), found.first)

    def _lanes(self, source: SignalSource, envelope: Envelope, columns: int) -> list[Strip]:
        channels = self.shown
        quality = source.quality()
        strips: list[Strip] = []
        at = list(channels)
        low, high = (self._scaled(v[at, -(columns + PER_CELL) :]) for v in (envelope.low, envelope.high))
        heights = trace.lanes(self._rows, len(channels))
        draw = trace.drawing(self._glyphs or trace.glyphs_of(self.app))
        # At most two heights, of which the greater ones come first.
        for rows in sorted(set(heights), reverse=True):
            lanes = [lane for lane, height in enumerate(heights) if height == rows]
            if not rows:
                continue
            inside = slice(lanes[0], lanes[-1] + 1)
            drawn = trace.lines(draw(low[inside], high[inside], rows)[..., 1:])
            for k, lane in enumerate(lanes):
                channel = channels[lane]
                strips += self._lane(source.channels[channel], quality[channel], drawn[k * rows : (k + 1) * rows])
        return strips

    def _scaled(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = values * np.float32(1.0 / self._range.value)
        return scaled

    def _lane(self, name: str, lane: Lane, rows: list[str]) -> list[Strip]:
        label, style = self._style("label"), self._style(lane.grade.value)
        width = len(rows[0])
        strips = [Strip([Segment(" " * _LABEL, label), Segment(row, style)], _LABEL + width) for row in rows]
        head = rows[0]
        if lane.reason:
            words = text.fit(f" {text.plain(lane.reason)}", min(len(lane.reason) + 2, int(_REASON * width)))
            head = head[: width - len(words)] + words
        strips[0] = Strip(
            [
                Segment(text.fit(name, _LABEL - 3).rjust(_LABEL - 3), label),
                Segment(f" {MARKS[lane.grade]} ", style),
                Segment(head, style),
            ],
            _LABEL + width,
        )
        return strips

    def _watch(self, source: SignalSource, now_s: float) -> None:
        """Note when the last sample came."""
        if self._source is not None and self._source.end != self._end:
            self._end, self._end_since_s = self._source.end, now_s

    def _line(self, source: SignalSource, span_s: float, now_s: float) -> Strip:
        """What is shown, in words."""
        unit = source.unit
        parts = [f"{span_s:.2g} s", f"±{self._range.value:g} {unit}{' auto' if self._range.auto else ''}"]
        style = self._style("line")
        silent_s = now_s - self._end_since_s
        if self.frozen:
            back_s = self._back * self._stride / source.rate_hz
            parts.append("FROZEN" + (f" {back_s:.2g} s back" if back_s else "") + ", ← → look back")
            style = self._style("frozen")
        elif silent_s > _STALE_S:
            mark, name = ("✕", "bad") if silent_s > _LOST_S else ("▲", "warn")
            parts.append(f"{mark} no sample for {silent_s:.1f} s")
            style = self._style(name)
        else:
            parts.append(f"{self.fps:.0f} fps")
        if self.pages > 1:
            shown = self.shown
            parts.append(f"channels {shown[0] + 1}-{shown[-1] + 1} of {len(source.channels)}, tab")
        words = f"── {' · '.join(parts)} "
        width = self.size.width
        return Strip([Segment(words[:width].ljust(width, "─"), style)], width)


def _steps(rate_hz: float, window_s: float, columns: int) -> tuple[int, int]:
    """Samples a column, or columns a sample where there are more columns than samples."""
    samples = window_s * rate_hz
    if samples >= columns:
        return max(1, round(samples / columns)), 1
    return 1, max(1, round(columns / samples))


def _peak(envelope: Envelope, quality: Sequence[Lane]) -> float:
    """What nearly all of the signal stays below, leaving out channels that are bad if there are others."""
    well = [c for c, lane in enumerate(quality) if lane.grade is not Grade.BAD] or list(range(len(quality)))
    reach = np.maximum(envelope.high[well], -envelope.low[well])
    found = reach[np.isfinite(reach)]
    if not found.size:
        return float("nan")
    return float(np.partition(found, at := int(0.995 * (found.size - 1)))[at])
