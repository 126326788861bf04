"""Sessions: what was recorded, how much of it is stored, and what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID

from textual.containers import Container, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.errors import NetworkError
from embridge_tui import text
from embridge_tui.client import SESSIONS_SHOWN, CloudClient
from embridge_tui.model import Session, SessionDetail, Stream
from embridge_tui.screens.room import Room
from embridge_tui.view import View
from embridge_tui.widgets.records import Column, Records, Row

COLUMNS = (
    Column("time UTC", 11),
    Column("participant", 11, grows=True),
    Column("purpose", 11),
    Column("edge", 8, grows=True),
    Column("state", 8),
    Column("samples", 8, right=True),
    Column("missing", 7, right=True),
)

EMPTY = "No session yet. Record one: embridge edge run --plan PLAN.toml"

_GLYPHS = {"open": "▶ open", "ended": "◐ ended", "sealed": "✓ sealed"}
_SETTLE_S = 0.1


class SessionsScreen(Room):
    """The list of sessions and the one that is chosen.

    Args:
        client: Where the chosen session is read.
    """

    ROOM = "sessions"

    def __init__(self, client: CloudClient) -> None:
        super().__init__()
        self._client = client
        self._wanted: str | None = None
        self._reading = False
        self._seen_ns = 0
        self._held: SessionDetail | None = None

    def furnish(self) -> Iterable[Widget]:
        """List and detail."""
        table = Records(COLUMNS, id="sessions")
        table.border_title = "sessions"
        detail = VerticalScroll(Static("", id="detail-text", markup=False), id="detail")
        detail.border_title = "chosen session · tab, then ↑ ↓ scroll"
        yield Container(table, detail, id="body")

    def show(self, view: View, now_ns: int) -> None:
        """Show the list, and read the chosen session again where it may have changed."""
        super().show(view, now_ns)
        if view.snapshot is None:
            self._say("" if view.error else "Asking the cloud …")
            return
        found = view.snapshot.sessions
        table = self.query_one(Records)
        table.fill([_row(session) for session in found])
        full = len(found) >= SESSIONS_SHOWN
        table.border_title = f"the {len(found)} newest sessions" if full else f"sessions: {len(found)}"
        if not found:
            self._say(EMPTY)
        elif view.error is None and view.read_ns != self._seen_ns:
            self._seen_ns = view.read_ns
            self._choose(table.chosen)

    def on_data_table_row_highlighted(self, _: Records.RowHighlighted) -> None:
        """Another session was chosen."""
        # Filling the table anew moves the cursor as well: what counts is where it is now.
        self._choose(self.query_one(Records).chosen)

    def _choose(self, key: str | None) -> None:
        if key is None or (self._reading and key == self._wanted):
            return
        held = self._held
        if held is not None and str(held.session) == key and held.state == "sealed":
            self._wanted = key
            self._say(describe(held))
            return
        fresh, self._wanted = key != self._wanted, key
        self._reading = True
        self.run_worker(self._read(UUID(key), fresh), name="detail", group="detail", exclusive=True)

    async def _read(self, session: UUID, fresh: bool) -> None:
        if fresh:
            self._say("Reading …")
            await asyncio.sleep(_SETTLE_S)
        try:
            self._held = await self._client.session(session)
        except NetworkError as error:
            self._say(f"✕ The session could not be read: {text.plain(str(error))}")
        else:
            self._say(describe(self._held))
        self._reading = False

    def _say(self, words: str) -> None:
        self.query_one("#detail-text", Static).update(words)


def _row(session: Session) -> Row:
    missing = session.missing or 0
    cells = (
        text.moment(session.started_at),
        text.plain(session.participant),
        text.plain(session.purpose),
        text.plain(session.edge),
        _GLYPHS.get(session.state, text.plain(session.state)),
        text.count(session.samples or 0),
        f"▲{text.count(missing)}" if missing else "0",
    )
    return str(session.session), cells


def describe(session: SessionDetail) -> str:
    """A session in lines: where it stands, its streams, and its gestures counted."""
    ended = f": {session.end_reason}" if session.end_reason else ""
    gestures = session.by_gesture()
    totals = [sum(column) for column in zip(*gestures.values(), strict=True)] or [0, 0, 0]
    lines = [
        f"{session.session}",
        text.plain(f"{session.participant} · {session.purpose} · {session.protocol}"),
        text.plain(f"{_GLYPHS.get(session.state, session.state)}{ended} · from {session.edge}"),
        f"{totals[0]} cues, {totals[1]} accepted, {totals[2]} rejected",
    ]
    for stream in session.streams:
        lines += _stream(stream)
    width = max([8, *(len(name) for name in gestures)])
    lines += ["", f"{'gesture':<{width}}  cues  accepted  rejected"]
    lines += [f"{text.plain(name):<{width}}  {c:>4}  {a:>8}  {r:>8}" for name, (c, a, r) in gestures.items()]
    reasons = sorted({r.reason for r in session.repetitions if r.status == "rejected" and r.reason})
    if reasons:
        lines.append(text.plain(f"rejected for: {', '.join(reasons)}"))
    return "\n".join(lines)


def _stream(stream: Stream) -> list[str]:
    whole = stream.samples + stream.missing
    share = f", {100 * stream.missing / whole:.1f} %" if stream.missing else ""
    awaited = ""
    if stream.awaited:
        awaited = f", {stream.awaited_samples} awaited, {len(stream.awaited)} gaps"
    mark = "▲" if stream.missing else "✓"
    head = f"{stream.name} {stream.channels} ch {stream.rate_hz:g} Hz · {stream.device}"
    return [text.plain(head), f"  {mark} {stream.samples} stored, {stream.missing} missing{share}{awaited}"]
