"""Devices: bands in the air and the one on the arm; what its channels are worth, before anything is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final

from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.errors import EmbridgeError
from embridge_tui import text
from embridge_tui.screens.collect_dialogs import TextDialog
from embridge_tui.screens.room import Room
from embridge_tui.trace import Glyphs
from embridge_tui.view import View
from embridge_tui.widgets.records import Column, Records, Row
from embridge_tui.widgets.scope import Scope

if TYPE_CHECKING:
    from embridge_edge.bands.discovery import Found
    from embridge_tui.part import EdgePart
    from embridge_tui.watching import Watched

COLUMNS = (
    Column("band", 20, grows=True),
    Column("name", 12, grows=True),
    Column("rssi", 5, right=True),
    Column("state", 18, grows=True),
)
_SCAN_S: Final = 5.0
_LOOK_S: Final = 0.5
_STALE_S, _LOST_S = 1.0, 3.0
_HELLO: Final = (
    "s looks for bands in the air; c connects the chosen one and shows its signal; u makes it the one in use."
)


class DevicesScreen(Room):
    """Finds bands, connects one, shows what it is worth.

    Args:
        part: The edge in this process; None where there is none.
        missing: Why there is none, and how to get one.
        glyphs: Characters to draw with.
    """

    ROOM = "devices"
    CSS: ClassVar[str] = """
    #devices { layout: vertical; height: 1fr; }
    #found { height: 1fr; }
    #bands { height: 1fr; min-height: 5; }
    #facts { height: auto; max-height: 9; padding: 0 1; }
    #facts.-stale { color: $text-warning; }
    #facts.-bad { color: $text-error; }
    #band-scope { height: 2fr; }
    #devices-advice { height: auto; padding: 0 1; background: $panel; }
    #devices-advice.-bad { color: $text-error; background: $error-muted; text-style: bold; }
    DevicesScreen.-broad #devices { layout: horizontal; }
    DevicesScreen.-broad #found { width: 64; height: 1fr; }
    DevicesScreen.-broad #band-scope { width: 1fr; height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "scan", "Scan", id="device.scan", tooltip="Look for bands in the air, five seconds."),
        Binding("c", "connect", "Connect", id="device.connect", tooltip="Connect the chosen band and show its signal."),
        Binding("d", "disconnect", "Disconnect", id="device.disconnect", tooltip="Let the band go."),
        Binding("i", "identify", "Identify", id="device.identify", tooltip="Let the connected band vibrate or blink."),
        Binding("u", "use", "Use", id="device.use", tooltip="Enrol and Live take the chosen band from now on."),
        Binding("n", "name", "Name", id="device.name", tooltip="Name a band by hand: KIND@ADDRESS, virtual:7."),
    ]

    def __init__(self, part: EdgePart | None, missing: str = "", *, glyphs: Glyphs = Glyphs.BRAILLE) -> None:
        super().__init__()
        self._part = part
        self._missing = missing
        self._glyphs = glyphs
        self._named: list[str] = [] if part is None else [part.band]
        self._heard: dict[str, Found] = {}
        self._watched: Watched | None = None

    def furnish(self) -> Iterable[Widget]:
        """Bands and what is known of the connected one, beside its scope."""
        bands = Records(COLUMNS, id="bands")
        bands.border_title = "bands"
        yield Container(
            Vertical(bands, Static("", id="facts", markup=False), id="found"),
            Scope(glyphs=self._glyphs, id="band-scope"),
            id="devices",
        )
        yield Static("", id="devices-advice", markup=False)

    def on_mount(self) -> None:
        """Say what can be done."""
        self.set_interval(_LOOK_S, self._refresh)
        self._advise(_HELLO if self._part is not None else self._missing, bad=self._part is None)
        self._list()

    def on_unmount(self) -> None:
        """Let the band go."""
        self._let_go()

    def show(self, view: View, now_ns: int) -> None:
        """Nothing here comes from the cloud."""

    def _list(self) -> None:
        words = list(dict.fromkeys([*self._named, *self._heard]))
        self.query_one("#bands", Records).fill([self._row(word) for word in words])

    def _row(self, word: str) -> Row:
        found = self._heard.get(word)
        states = [self._state(word)] if self._state(word) else ["advertising"] if found is not None else ["known"]
        if self._part is not None and word == self._part.band:
            states.append("in use")
        name = text.plain(found.name) if found is not None else "-"
        return word, (text.plain(word), name, "-" if found is None else str(found.rssi_dbm), ", ".join(states))

    def _state(self, word: str) -> str:
        watched = self._watched
        if watched is None or watched.word != word:
            return ""
        if watched.fault:
            return "✕ lost"
        return f"● {watched.row()['phase'] or 'streaming'}" if watched.ring.end else "▶ connecting"

    def _refresh(self) -> None:
        if not self.furnished or self.app.screen is not self:
            return
        self._list()
        facts = self.query_one("#facts", Static)
        watched = self._watched
        facts.update("" if watched is None else _facts(watched))
        age_s = None if watched is None else watched.row()["age_s"]
        facts.set_class(bool(watched and watched.fault) or (age_s is not None and age_s > _LOST_S), "-bad")
        facts.set_class(age_s is not None and _STALE_S < age_s <= _LOST_S, "-stale")

    # keys

    def action_scan(self) -> None:
        """Look which bands are in the air."""
        if self._part is not None:
            self.run_worker(self._scan(), name="scan", group="scan", exclusive=True)

    async def _scan(self) -> None:
        assert self._part is not None
        self._advise(f"Listening for {_SCAN_S:.0f} s…")
        try:
            from embridge_edge.bands.discovery import scan

            heard = await scan(self._part.settings.edge.adapter, _SCAN_S)
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        except ImportError as error:
            self._advise(f'{error.name} is not installed. `pip install "embridge[edge]"` brings it.', bad=True)
            return
        self._heard = {f"{f.kind}@{f.address}": f for f in heard}
        self._list()
        self._advise(
            f"{len(heard)} bands heard. c connects the chosen one." if heard else "No band advertises. Wake it."
        )

    def action_name(self) -> None:
        """Name a band by hand."""

        def typed(word: str | None) -> None:
            if word:
                self._named = [word, *(w for w in self._named if w != word)]
                self._list()
                self.query_one("#bands", Records).choose(word)

        words = "KIND, KIND@ADDRESS, uart:PROFILE or virtual[:WEARER]; `embridge band info` lists the kinds."
        self.app.push_screen(TextDialog("which band?", words), typed)

    async def action_connect(self) -> None:
        """Connect the chosen band, or look for it now."""
        word = self.query_one("#bands", Records).chosen
        if self._part is None or word is None:
            self._advise(self._missing or "Choose a band first; n names one.", bad=True)
            return
        if self._part.busy:
            self._advise(f"{self._part.busy}: its band is seen in Collect.", bad=True)
            return
        self._let_go()
        self._advise(f"{word} is looked for…")
        try:
            from embridge_tui.watching import watch

            self._watched = await asyncio.to_thread(watch, word, self._part.settings.edge, self._part.clock)
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        self.query_one(Scope).show(self._watched.ring)
        self.run_worker(self._follow(self._watched), name="watch", group="watch", exclusive=True)
        self._advise(f"{word} is connected; d lets it go.")

    async def _follow(self, watched: Watched) -> None:
        assert self._part is not None
        await watched.run(self._part.clock)
        if watched.fault and self.is_mounted:
            self._advise(f"{watched.fault} c connects again.", bad=True)

    def action_disconnect(self) -> None:
        """Let the band go."""
        self._let_go()
        self._advise(_HELLO)

    def _let_go(self) -> None:
        if self._watched is not None:
            self._watched.source.stop()
            self.workers.cancel_group(self, "watch")
        self._watched = None
        if self.is_mounted and self.query(Scope):
            self.query_one(Scope).show(None)

    async def action_identify(self) -> None:
        """Let the connected band show which one it is."""
        if self._watched is None:
            self._advise("Connect a band first: c.", bad=True)
            return
        try:
            self._advise(await self._watched.identify())
        except EmbridgeError as error:
            self._advise(str(error), bad=True)

    def action_use(self) -> None:
        """Let Enrol and Live take the chosen band."""
        word = self.query_one("#bands", Records).chosen
        if self._part is None or word is None:
            self._advise(self._missing or "Choose a band first.", bad=True)
            return
        self._part.use(word)
        self._list()
        self._advise(f"Enrol and Live use {word} from now on.")

    def _advise(self, words: str, *, bad: bool = False) -> None:
        advice = self.query_one("#devices-advice", Static)
        advice.update(f"{'✕ ' if bad else ''}{text.plain(words)}")
        advice.set_class(bad, "-bad")


def _facts(watched: Watched) -> str:
    """What is known of a connected band, in lines."""
    row, state = watched.row(), watched.source.state()
    if watched.fault:
        return f"✕ {text.plain(watched.fault)}"
    received, lost = row["received"] or 0, row["lost"] or 0
    loss = 100 * lost / max(1, received + lost)
    spec = watched.source.spec
    lines = [
        f"{spec.device}: {spec.n_channels} channels, {spec.rate_hz:g} Hz",
        f"received {text.count(received)}  lost {text.count(lost)} ({loss:.2f} %)  {_aged(row)}",
    ]
    if state is not None:
        known: dict[str, Any] = {
            "battery": None if state.battery is None else f"{state.battery} %",
            "rssi": None if state.rssi_dbm is None else f"{state.rssi_dbm} dBm",
            "mtu": state.mtu,
            "interval": None if state.interval_ms is None else f"{state.interval_ms:g} ms",
            "phy": state.phy or None,
            "connects": state.connects,
        }
        lines.append("  ".join(f"{name} {value}" for name, value in known.items() if value is not None))
        if state.reason:
            lines.append(f"▲ {state.phase}: {state.reason}. {state.action}")
    lanes = zip(watched.ring.channels, watched.ring.quality(), strict=True)
    bad = [f"{name}: {lane.reason}" for name, lane in lanes if lane.reason]
    return "\n".join(text.plain(line) for line in [*lines, *bad[:4]])


def _aged(row: dict[str, Any]) -> str:
    age_s = row["age_s"]
    if age_s is None:
        return "nothing came yet"
    return f"last packet {1000 * age_s:.0f} ms ago" if age_s < _STALE_S else f"✕ nothing for {age_s:.0f} s"
