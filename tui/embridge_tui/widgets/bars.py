"""What stands above every screen: where one is, what is alive, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from embridge_shared.disk import DiskLevel
from embridge_tui import text
from embridge_tui.rooms import ROOMS
from embridge_tui.view import View

if TYPE_CHECKING:
    from embridge_edge.collect.station import Vitals

_STALE_S, _DEAD_S = 1.0, 3.0
_AMBER: Final = "bold $text-warning"
_RED: Final = "bold $text-error"
_DIM: Final = "$text-muted"


class TopBar(Horizontal):
    """Names the rooms and says what is alive.

    Args:
        room: The room it stands in.
    """

    # How wide the screen is, is a class of the screen.
    SCOPED_CSS = False
    DEFAULT_CSS = """
    TopBar { height: 1; background: $panel; }
    TopBar Static { width: auto; height: 1; }
    TopBar .room { color: $text-muted; link-color: $text-muted; link-style: none; link-background: $panel; }
    TopBar .-here { text-style: bold; link-style: bold; link-color: $foreground; color: $foreground; }
    TopBar #vitals { width: 1fr; text-align: right; text-overflow: ellipsis; padding: 0 1; }
    TopBar .title { display: none; padding: 0 0 0 1; }
    TopBar .title.-here { display: block; }
    .-wide TopBar .title, .-broad TopBar .title { display: block; }
    """

    def __init__(self, room: str) -> None:
        super().__init__()
        self._room = room

    def compose(self) -> ComposeResult:
        """The rooms by number, the vitals."""
        for number, room in enumerate(ROOMS, 1):
            here = " -here" if room.name == self._room else ""
            mark = "▸" if here else " "
            yield Static(f"[@click=app.go('{room.name}')]{mark}{number}[/]", classes=f"room{here}")
            yield Static(f"[@click=app.go('{room.name}')]{room.title}[/]", classes=f"room title{here}")
        yield Static("", id="vitals")

    def show(self, view: View, now_ns: int, vitals: Vitals | None = None) -> None:
        """Say what is alive: the band, what is stored and queued, the links, the release."""
        parts = [*_edge(vitals), _cloud(view, now_ns)]
        self.query_one("#vitals", Static).update(Content(" · ").join(part for part in parts if part), layout=False)


def _edge(vitals: Vitals | None) -> list[Content]:
    if vitals is None:
        return []
    parts = []
    if vitals.age_s is not None:
        style = "" if vitals.age_s < _STALE_S else _AMBER if vitals.age_s < _DEAD_S else _RED
        name = vitals.band.kind if vitals.band is not None else "band"
        alive = "●" if vitals.age_s < _STALE_S else f"✕ {vitals.age_s:.0f} s"
        parts.append(Content.styled(f"{text.plain(name)} {alive}", style))
        battery = None if vitals.band is None else vitals.band.battery
        if battery is not None:
            parts.append(Content.styled(f"{battery} %", _RED if battery < 10 else _AMBER if battery < 25 else ""))
    if vitals.disk is not DiskLevel.OK:
        full = vitals.disk is DiskLevel.FULL
        parts.append(Content.styled(f"disk {text.size(vitals.disk_free)} left", _RED if full else _AMBER))
    waits = f"q {text.count(vitals.waiting)}"
    parts.append(Content.styled(waits, _DIM if not vitals.waiting else ""))
    online = vitals.link.value == "online"
    parts.append(Content.styled(f"mqtt {'●' if online else '○'}", "" if online else _AMBER))
    if vitals.release:
        parts.append(Content(text.plain(vitals.release)))
    return parts


def _cloud(view: View, now_ns: int) -> Content:
    bad = view.error is not None or view.stale(now_ns)
    return Content.styled(f"cloud {view.status(now_ns)}", _RED if bad else "")


class Banner(Static):
    """What is wrong and what to do next; takes no room when all is well."""

    DEFAULT_CSS = """
    Banner { height: auto; max-height: 5; padding: 0 1; background: $warning-muted; color: $text-warning; }
    Banner.-bad { background: $error-muted; color: $text-error; text-style: bold; }
    """

    def __init__(self) -> None:
        super().__init__("", id="banner", markup=False)
        self._told = ""
        self.display = False

    def show(self, trouble: str) -> None:
        """Say what is wrong, if anything is."""
        self.display = bool(trouble)
        self.set_class(trouble.startswith("✕"), "-bad")
        if trouble != self._told:
            self._told = trouble
            self.update(trouble)
