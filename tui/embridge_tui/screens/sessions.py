"""Sessions: what was recorded, how much of it the cloud holds, what it is worth, and what can be done with it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final
from uuid import UUID

import msgspec
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from embridge_shared.errors import EmbridgeError, NetworkError
from embridge_tui import commands, recorded, text
from embridge_tui.client import SESSIONS_SHOWN, CloudClient
from embridge_tui.model import Edge, Entered, Gap, Judged, Quarantine, Session, SessionDetail
from embridge_tui.screens.asking import Field, FormDialog, PageDialog
from embridge_tui.screens.room import Room
from embridge_tui.view import View
from embridge_tui.widgets.records import Column, Records

COLUMNS = (
    Column("time UTC", 11),
    Column("who", 6, grows=True),
    Column("protocol", 8, grows=True),
    Column("reps", 6, right=True),
    Column("lasted", 6, right=True),
    Column("quality", 8),
    Column("size", 8, right=True),
    Column("sync", 9),
)
EMPTY = "No session yet. Record one in Collect, or: embridge session record"

_SETTLE_S: Final = 0.1
_JUDGED: Final = 40


class SessionsScreen(Room):
    """The list of sessions and the one that is chosen.

    Args:
        client: Where the chosen session is read.
        store: Folder of sealed sessions for commands; that of the settings when None.
    """

    ROOM = "sessions"
    OF_CLOUD = True
    CSS: ClassVar[str] = """
    SessionsScreen #sessions-advice { height: auto; max-height: 4; padding: 0 1; background: $panel; }
    SessionsScreen #sessions-advice.-bad { color: $text-error; background: $error-muted; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="session.open", tooltip="Timeline, repetitions, channels, gaps, bands."),
        Binding("u", "rest", "Upload", id="session.upload", tooltip="Where the rest of it is, and what it waits for."),
        Binding("v", "verify", "Verify", id="session.verify", tooltip="Compute every digest of it anew."),
        Binding("x", "held", "Quarantine", id="session.quarantine", tooltip="What of it the store could not place."),
        Binding("e", "export", "Export", id="session.export", tooltip="Write it in a format of others."),
        Binding("S", "seal", "Seal", show=False, id="session.seal", tooltip="Seal one that will never be complete."),
    ]

    def __init__(self, client: CloudClient, store: Path | None = None) -> None:
        super().__init__()
        self._client = client
        self._store = store
        self._wanted: str | None = None
        self._reading = False
        self._seen_ns = 0
        self._held: SessionDetail | None = None
        self._sessions: tuple[Session, ...] = ()
        self._edges: tuple[Edge, ...] = ()
        self._worth: dict[UUID, float | None] = {}
        self._quarantine: Counter[UUID] = Counter()

    def furnish(self) -> Iterable[Widget]:
        """List and detail."""
        table = Records(COLUMNS, id="sessions")
        table.border_title = "sessions"
        detail = VerticalScroll(Static("", id="detail-text", markup=False), id="detail")
        detail.border_title = "chosen session · tab, then ↑ ↓ scroll"
        yield Container(table, detail, id="body")
        yield Static("", id="sessions-advice", markup=False)

    def show(self, view: View, now_ns: int) -> None:
        """Show the list, and read the chosen session again where it may have changed."""
        if view.snapshot is None:
            self._say("" if view.error else "Asking the cloud …")
            return
        self._sessions, self._edges = view.snapshot.sessions, view.snapshot.edges
        self._draw()
        if not self._sessions:
            self._say(EMPTY)
        elif view.error is None and view.read_ns != self._seen_ns:
            self._seen_ns = view.read_ns
            self._choose(self.query_one(Records).chosen)
            self.background(self._read_worth, "worth")

    def _draw(self) -> None:
        if not self.furnished:
            return
        table = self.query_one(Records)
        table.fill(
            [
                recorded.row(s, quality=self._worth.get(s.session), held=self._quarantine[s.session])
                for s in self._sessions
            ]
        )
        full = len(self._sessions) >= SESSIONS_SHOWN
        count = f"the {len(self._sessions)} newest sessions" if full else f"sessions: {len(self._sessions)}"
        table.border_title = f"{count} · {recorded.queue(self._edges)}"

    async def _read_worth(self) -> None:
        """What the newest sealed sessions were worth, each once; and what could not be placed."""
        try:
            found = msgspec.convert(await self._client.ask("/api/quarantine?limit=1"), Quarantine)
            self._quarantine = Counter({g.session: g.messages for g in found.summary if g.session is not None})
            for session in self._sessions[:_JUDGED]:
                if session.state == "sealed" and session.session not in self._worth:
                    self._worth[session.session] = recorded.worth(await self._judged(session.session))
                    self._draw()
            self._draw()
        except EmbridgeError:
            return  # The banner says so already.
        except msgspec.ValidationError as error:
            self._advise(f"The cloud tells of quality in another way: {error}", bad=True)

    async def _judged(self, session: UUID) -> tuple[Judged, ...]:
        found: tuple[Judged, ...] = await self._rows(session, "quality", tuple[Judged, ...])
        return found

    async def _rows(self, session: UUID, part: str, kind: Any) -> Any:
        return msgspec.convert(await self._client.ask(f"/api/sessions/{session}/{part}"), kind, strict=False)

    def on_data_table_row_highlighted(self, _: Records.RowHighlighted) -> None:
        """Another session was chosen."""
        # Filling the table anew moves the cursor as well: what counts is where it is now.
        self._choose(self.query_one(Records).chosen)

    def on_data_table_row_selected(self, _: Records.RowSelected) -> None:
        """Enter."""
        self.action_open()

    def _choose(self, key: str | None) -> None:
        if key is None or (self._reading and key == self._wanted):
            return
        held = self._held
        if held is not None and str(held.session) == key and held.state == "sealed":
            self._wanted = key
            self._say(recorded.describe(held))
            return
        fresh, self._wanted = key != self._wanted, key
        self._reading = True
        self.background(partial(self._read, UUID(key), fresh), "detail")

    async def _read(self, session: UUID, fresh: bool) -> None:
        if fresh:
            self._say("Reading …")
            await asyncio.sleep(_SETTLE_S)
        try:
            self._held = await self._client.session(session)
        except NetworkError as error:
            self._say(f"✕ The session could not be read: {text.plain(str(error))}")
        else:
            self._say(recorded.describe(self._held))
        self._reading = False

    def _say(self, words: str) -> None:
        self.query_one("#detail-text", Static).update(words)

    def _chosen(self) -> Session | None:
        key = self.query_one(Records).chosen
        found = next((s for s in self._sessions if str(s.session) == key), None)
        if found is None:
            self._advise(EMPTY)
        return found

    # what can be done

    def action_open(self) -> None:
        """Show all that is known of the chosen session."""
        session = self._chosen()
        if session is not None:
            self.background(partial(self._open, session.session), "page")

    async def _open(self, session: UUID) -> None:
        self._advise("Reading …")
        try:
            found = await self._client.session(session)
            judged = await self._judged(session)
            gaps = await self._rows(session, "gaps", tuple[Gap, ...])
            bands = await self._rows(session, "bands", tuple[Entered, ...])
        except (EmbridgeError, msgspec.ValidationError) as error:
            self._advise(str(error), bad=True)
            return
        self._advise("")
        title = f"{found.participant} · {text.moment(found.started_at)}"
        self.app.push_screen(PageDialog(title, recorded.page(found, judged, gaps, bands)))

    def action_rest(self) -> None:
        """Say where the rest of the chosen session is."""
        session = self._chosen()
        if session is None:
            return
        edge = next((e for e in self._edges if e.edge == session.edge), None)
        if session.state == "sealed":
            self._advise("The cloud holds all of it that will ever come; it is sealed.")
        elif edge is None or not edge.online:
            self._advise(
                f"{session.edge} is away and keeps the rest. It delivers by itself once it reaches its broker; "
                "`embridge edge check` there says why it does not."
            )
        else:
            waits = f"{text.count(edge.spooled)} items, {text.size(edge.spooled_bytes)}"
            self._advise(f"{session.edge} is connected and delivers: {waits} wait there.")

    def action_held(self) -> None:
        """Show what of the chosen session the store could not place."""
        session = self._chosen()
        if session is not None:
            self.background(partial(self._show_held, session), "page")

    async def _show_held(self, session: Session) -> None:
        try:
            found = msgspec.convert(await self._client.ask("/api/quarantine?limit=1000"), Quarantine)
        except (EmbridgeError, msgspec.ValidationError) as error:
            self._advise(str(error), bad=True)
            return
        rows = [m for m in found.messages if m.session == session.session]
        if not rows:
            self._advise("The store could place all that came of it.")
            return
        lines = [f"{m.received_at:%m-%d %H:%M:%S}  {m.reason}: {m.detail}  {m.bytes} bytes" for m in rows]
        self.app.push_screen(PageDialog(f"what could not be placed: {len(rows)} messages", "\n".join(lines)))

    def action_verify(self) -> None:
        """Have the digests of the chosen session computed anew."""
        session = self._chosen()
        if session is None:
            return
        if session.state != "sealed":
            self._advise(f"It is {session.state}: only a sealed session has digests.")
            return
        self._run(["session", "verify", str(session.session), *self._where()])

    def action_export(self) -> None:
        """Ask how to write the chosen session, and write it."""
        session = self._chosen()
        if session is None:
            return
        if session.state != "sealed":
            self._advise(f"It is {session.state}: sealed sessions can be exported.")
            return
        words = "Whether the participant agreed is asked first, and the export goes on record before it is written."
        fields = (
            Field("format", "bids, emg2pose or parquet", "bids", needed=True),
            Field("out", "a new folder on this machine", needed=True, placeholder="export-p01"),
        )

        def answered(said: dict[str, str] | None) -> None:
            if said is not None:
                given = ["--format", said["format"], "--out", said["out"]]
                self._run(["session", "export", str(session.session), *given, *self._where()])

        self.app.push_screen(FormDialog(f"export a session of {session.participant}", words, fields), answered)

    def action_seal(self) -> None:
        """Seal the chosen session as it is, once its id was typed."""
        session = self._chosen()
        if session is None:
            return
        if session.state == "sealed":
            self._advise("It is sealed already.")
            return
        start = str(session.session)[:8]
        words = "What has not arrived is declared lost, and refused should it come after all; the edge keeps that."
        fields = (
            Field("id", f"type {start}", exactly=start),
            Field("reason", "why will nothing more come?", needed=True),
        )

        def answered(said: dict[str, str] | None) -> None:
            if said is not None:
                self.background(partial(self._seal, session.session, said["reason"]), "deeds", alone=False)

        self.app.push_screen(FormDialog("seal it as it is", words, fields), answered)

    async def _seal(self, session: UUID, reason: str) -> None:
        try:
            await self._client.tell(f"/api/sessions/{session}/seal", {"force": True, "reason": reason})
        except EmbridgeError as error:
            self._advise(str(error), bad=True)
            return
        self._advise("It is being sealed as it is.")

    def _where(self) -> list[str]:
        return [] if self._store is None else ["--dir", str(self._store)]

    def _run(self, words: Sequence[str]) -> None:
        self._advise(f"▶ embridge {' '.join(words)}")
        self.background(partial(self._ran, words), "command")

    async def _ran(self, words: Sequence[str]) -> None:
        ran = await commands.embridge(words)
        lines = ran.said.splitlines() or ["It said nothing."]
        mark = "✓" if ran.code == 0 else "✕"
        self._advise(f"{'' if ran.code else '✓ '}{lines[-1]}", bad=ran.code != 0)
        if len(lines) > 1:
            self.app.push_screen(PageDialog(f"{mark} {ran.typed}", "\n".join(lines)))

    def _advise(self, words: str, *, bad: bool = False) -> None:
        advice = self.query_one("#sessions-advice", Static)
        advice.update(f"{'✕ ' if bad else ''}{text.plain(words)}")
        advice.set_class(bad, "-bad")
