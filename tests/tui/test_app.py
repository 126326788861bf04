"""The rooms over a cloud that the test plays."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID

import msgspec
import pytest
from textual.binding import Binding
from textual.widgets import Static

from embridge_shared.clock import SystemClock
from embridge_shared.errors import NetworkError, Reason
from embridge_shared.fleet import UpdatePhase, UpdateState
from embridge_shared.gestures import vocabulary
from embridge_tui.app import EmbridgeApp
from embridge_tui.model import (
    Cue,
    Edge,
    Ingest,
    Job,
    Readiness,
    Release,
    Repetition,
    Session,
    SessionDetail,
    Snapshot,
    Stream,
)
from embridge_tui.screens.dialogs import HelpDialog, QuitDialog
from embridge_tui.screens.fleet import FleetScreen
from embridge_tui.screens.gestures import GesturesScreen
from embridge_tui.screens.sessions import SessionsScreen
from embridge_tui.widgets.hand import HandView, draw_hand
from embridge_tui.widgets.records import Records

SIZES = [(80, 24), (120, 34), (160, 50)]
DIGEST = "9f3c" * 16


def uuid(i: int) -> UUID:
    return UUID(int=(i << 96) + i)


def session(i: int, **changes) -> Session:
    given = {
        "session": uuid(i), "edge": "edge-1", "participant": f"p{i:02d}", "purpose": "training",
        "protocol": "shapes-4/1", "state": "sealed", "started_at": datetime(2026, 11, 22, 9, i),
        "end_reason": "complete", "samples": 132_091, "missing": 5000, "cues": 3, "accepted": 2, "rejected": 1,
    }  # fmt: skip
    return Session(**(given | changes))


def detail(of: Session) -> SessionDetail:
    head = {name: getattr(of, name) for name in of.__struct_fields__ if name not in {"cues", "accepted", "rejected"}}
    emg = Stream(
        name="emg", channels=16, rate_hz=2000.0, device="band-07", samples=124_344, missing=5000,
        awaited=((1000, 1600), (9000, 9400)),
    )  # fmt: skip
    return SessionDetail(
        **head,
        streams=(emg,),
        cues=(Cue(gesture="fist"), Cue(gesture="fist"), Cue(gesture="open")),
        repetitions=(
            Repetition(gesture="fist", status="accepted"),
            Repetition(gesture="fist", status="rejected", reason="too_short"),
            Repetition(gesture="open", status="accepted"),
        ),
    )


def edge(name: str, **changes) -> Edge:
    given = {
        "edge": name, "online": True, "release": "embridge-3", "recording": None, "spooled": 0, "spooled_bytes": 0,
        "update": UpdateState(), "seen_at": datetime(2026, 11, 22, 9, 30),
    }  # fmt: skip
    return Edge(**(given | changes))


SNAPSHOT = Snapshot(
    readiness=Readiness(ready=True, state="ready"),
    ingest=Ingest(chunks=255, samples=132_091, duplicates=0, refused=2, sealed=1),
    sessions=(session(3, state="open", missing=0), session(2), session(1)),
    edges=(
        edge("edge-1", recording=uuid(3), spooled=12, spooled_bytes=41_000_000),
        edge("edge-2", online=False, release="", update=UpdateState(phase=UpdatePhase.FAILED, detail="checksum")),
    ),
    releases=(Release(name="embridge-3", version=3, digest=DIGEST, size=3_100_000, min_agent="0.1.0"),),
    jobs=(Job(id="realign-1", state="done", release="embridge-3"), Job(id="realign-2", state="running", stage="align",
                                                                    step=30, total=120, loss=0.5)),
)  # fmt: skip


class FakeCloud:
    """Answers what it is told to; counts what it was asked."""

    address = "http://cloud.test:8470"

    def __init__(self, snapshot: Snapshot = SNAPSHOT) -> None:
        self.now = snapshot
        self.error: NetworkError | None = None
        self.hangs = False
        self.asked = 0
        self.details: list[UUID] = []

    async def snapshot(self) -> Snapshot:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.now

    async def session(self, session: UUID) -> SessionDetail:
        self.details.append(session)
        if self.error is not None:
            raise self.error
        return detail(next(s for s in self.now.sessions if s.session == session))

    def away(self) -> None:
        self.error = NetworkError(
            "no cloud answers at http://cloud.test:8470: [Errno 111] refused",
            reason=Reason.UNREACHABLE,
            hint="Start `embridge cloud run`, or give its address with --url.",
        )


class Clock(SystemClock):
    """Stands still until it is told otherwise."""

    ns = 5_000_000_000

    def monotonic_ns(self) -> int:
        return self.ns


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud()


@pytest.fixture
def app(cloud) -> EmbridgeApp:
    return EmbridgeApp(cloud, clock=Clock(), period_s=3600.0)


def words(app: EmbridgeApp, selector: str) -> str:
    return str(app.screen.query_one(selector, Static).render())


def cells(app: EmbridgeApp, selector: str) -> list[list[str]]:
    table = app.screen.query_one(selector, Records)
    return [[str(cell) for cell in table.get_row_at(y)] for y in range(table.row_count)]


async def settle(pilot, condition) -> None:
    """Wait until something holds; the default timeout ends a test where it never does."""
    async with asyncio.timeout(5):
        while not condition():
            await pilot.pause(0.02)
    await pilot.pause()


async def ready(pilot) -> None:
    await settle(
        pilot, lambda: isinstance(pilot.app.screen, SessionsScreen) and "stored" in words(pilot.app, "#detail-text")
    )


async def test_sessions_appear_newest_first_with_the_detail_of_the_chosen(app, cloud):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        rows = cells(app, "#sessions")
        assert [row[1] for row in rows] == ["p03", "p02", "p01"]
        assert rows[0] == ["11-22 09:03", "p03", "training", "edge-1", "▶ open", "132091", "0"]
        assert rows[1][4:] == ["✓ sealed", "132091", "▲5000"]
        shown = words(app, "#detail-text")
        assert str(uuid(3)) in shown
        assert "124344 stored, 5000 missing, 3.9 %, 1000 awaited, 2 gaps" in shown
        assert "3 cues, 2 accepted, 1 rejected" in shown
        assert shown.splitlines()[-3].split() == ["fist", "2", "1", "1"]
        assert shown.splitlines()[-1] == "rejected for: too_short"
        assert "● live 0 s" in words(app, "#status")
        assert not app.screen.query_one("#banner").display


async def test_the_cursor_chooses_what_is_read(app, cloud):
    async with app.run_test(size=(120, 34)) as pilot:
        await ready(pilot)
        await pilot.press("j", "j")
        await settle(pilot, lambda: str(uuid(1)) in words(app, "#detail-text"))
        await pilot.press("k")
        await settle(pilot, lambda: str(uuid(2)) in words(app, "#detail-text"))
        assert cloud.details[-1] == uuid(2)


async def test_a_refresh_keeps_the_chosen_session_where_rows_are_added(app, cloud):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("j")
        await settle(pilot, lambda: str(uuid(2)) in words(app, "#detail-text"))
        cloud.now = msgspec.structs.replace(cloud.now, sessions=(session(4), *cloud.now.sessions))
        await pilot.press("r")
        await settle(pilot, lambda: len(cells(app, "#sessions")) == 4)
        table = app.screen.query_one("#sessions", Records)
        assert (table.cursor_row, table.chosen) == (2, str(uuid(2)))
        assert str(uuid(2)) in words(app, "#detail-text")


async def test_a_refresh_shows_what_changed(app, cloud):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        cloud.now = msgspec.structs.replace(cloud.now, sessions=(session(3, samples=7), *cloud.now.sessions[1:]))
        await pilot.press("r")
        await settle(pilot, lambda: cells(app, "#sessions")[0][4:] == ["✓ sealed", "7", "▲5000"])


async def test_it_refreshes_by_itself(cloud):
    app = EmbridgeApp(cloud, period_s=0.02)
    async with app.run_test() as pilot:
        await settle(pilot, lambda: cloud.asked >= 4)


async def test_an_open_session_is_read_again_with_every_answer_and_not_between(app, cloud):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        before = len(cloud.details)
        for _ in range(3):
            app.display_view()
            await pilot.pause(0.02)
        assert len(cloud.details) == before
        app._clock.ns += 1
        await pilot.press("r")
        await settle(pilot, lambda: cloud.details[before:] == [uuid(3)])


async def test_rooms_are_switched_by_number(app):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("2")
        await settle(pilot, lambda: isinstance(app.screen, FleetScreen) and len(cells(app, "#edges")) == 2)
        await pilot.press("1")
        await settle(pilot, lambda: isinstance(app.screen, SessionsScreen))


async def test_the_fleet_shows_edges_releases_and_progress(app):
    async with app.run_test(size=(120, 34)) as pilot:
        await ready(pilot)
        await pilot.press("2")
        await settle(pilot, lambda: isinstance(app.screen, FleetScreen) and len(cells(app, "#edges")) == 2)
        first, second = cells(app, "#edges")
        assert first == ["edge-1", "● on", "11-22 09:30", "embridge-3", "▶0000000", "12 41.0 MB", "idle"]
        assert second[1::2] == ["○ away", "none", "0"]
        assert second[-1] == "✕ failed: checksum"
        assert cells(app, "#releases") == [["embridge-3", DIGEST[:16], "3.1 MB", "0.1.0", "1 of 2 edges"]]
        assert "realign-2  align  ████████░░░░░░░░" in words(app, "#job")
        assert "30/120  25 %  loss 0.5" in words(app, "#job")
        assert "▲ 2 refused" in words(app, "#job")


async def test_a_cloud_that_goes_away_leaves_marked_data_and_comes_back(app, cloud):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        cloud.away()
        app._clock.ns += 3_000_000_000
        await pilot.press("r")
        await settle(pilot, lambda: app.screen.query_one("#banner").display)
        banner = words(app, "#banner")
        assert banner.startswith("✕ no cloud answers at http://cloud.test:8470: [Errno 111] refused")
        assert "Start `embridge cloud run`" in banner
        assert "What is shown is 3 s old." in banner
        assert "✕ STALE 3 s" in words(app, "#status")
        assert app.screen.has_class("-stale")
        assert len(cells(app, "#sessions")) == 3
        await pilot.press("2")
        await settle(pilot, lambda: isinstance(app.screen, FleetScreen) and app.screen.has_class("-stale"))
        cloud.error = None
        await pilot.press("r")
        await settle(pilot, lambda: not app.screen.has_class("-stale"))
        assert not app.screen.query_one("#banner").display
        assert "● live 0 s" in words(app, "#status")


async def test_a_cloud_that_never_was_there(app, cloud):
    cloud.away()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, lambda: isinstance(app.screen, SessionsScreen) and app.screen.query_one("#banner").display)
        assert "There is nothing to show yet." in words(app, "#banner")
        assert "✕ no data" in words(app, "#status")


async def test_a_cloud_that_hangs_is_not_taken_for_live(app, cloud):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        cloud.hangs = True
        await pilot.press("r")
        app._clock.ns += 30_000_000_000
        app.display_view()
        assert "✕ STALE 30 s" in words(app, "#status")
        assert "has not answered" in words(app, "#banner")
        await pilot.press("j")
        assert app.screen.query_one("#sessions", Records).cursor_row == 1


async def test_a_cloud_that_does_not_ingest_is_a_warning(app, cloud):
    cloud.now = msgspec.structs.replace(
        cloud.now, readiness=Readiness(ready=False, state="connecting", last_error="[bold]refused[/bold]")
    )
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        assert words(app, "#banner").startswith(
            "▲ The cloud answers but does not ingest: connecting ([bold]refused[/bold])"
        )
        assert not app.screen.has_class("-stale")


async def test_nothing_recorded_says_how_to_begin(cloud):
    empty = msgspec.structs.replace(SNAPSHOT, sessions=(), edges=(), releases=(), jobs=())
    app = EmbridgeApp(FakeCloud(empty), period_s=3600.0)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, lambda: isinstance(app.screen, SessionsScreen) and "edge run" in words(app, "#detail-text"))
        await pilot.press("2")
        await settle(pilot, lambda: isinstance(app.screen, FleetScreen) and "No job has run" in words(app, "#job"))


async def test_names_from_outside_are_not_markup_and_move_no_cursor(cloud):
    cloud.now = msgspec.structs.replace(SNAPSHOT, sessions=(session(1, participant="[red]\x1b[2J[/nope]"),))
    app = EmbridgeApp(cloud, period_s=3600.0)
    async with app.run_test(size=(160, 50)) as pilot:
        await ready(pilot)
        assert cells(app, "#sessions")[0][1] == "[red]�[2J[/nope]"
        assert "[red]�[2J[/nope]" in words(app, "#detail-text")


async def test_leaving_asks_first(app):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        for key in ("q", "ctrl+q"):
            await pilot.press(key)
            assert isinstance(app.screen, QuitDialog)
            await pilot.press("escape")
            assert isinstance(app.screen, SessionsScreen)
            assert app.is_running
        await pilot.press("q", "y")
        await settle(pilot, lambda: app._exit)


@pytest.mark.parametrize("key", ["question_mark", "f1"])
async def test_help_names_every_key_with_an_id(app, key):
    async with app.run_test(size=(120, 34)) as pilot:
        await ready(pilot)
        own = {a.binding.tooltip for a in app.screen.active_bindings.values() if a.binding.id}
        await pilot.press(key)
        assert isinstance(app.screen, HelpDialog)
        text = str(app.screen.query_one(".dialog Static", Static).render())
        assert own
        assert all(tooltip in text for tooltip in own)
        await pilot.press("escape")
        assert isinstance(app.screen, SessionsScreen)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
async def test_everything_fits(app, size):
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        for key in ("1", "2", "3", "1"):
            await pilot.press(key)
            await pilot.pause(0.05)
            inside = app.screen.region
            for widget in app.screen.query("*").results():
                scrolled = any(a.id == "detail" for a in widget.ancestors)
                if widget.display and widget.region and not scrolled:
                    assert inside.contains_region(widget.region), widget
            for table in app.screen.query(Records).results():
                assert table.virtual_size.width <= table.scrollable_content_region.width, table
                assert table.size.height >= 2, table
            footer = {w.region.bottom for w in app.screen.query("Footer").results()}
            assert footer == {size[1]}


async def test_the_vocabulary_needs_no_cloud(app, cloud):
    cloud.away()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot, lambda: isinstance(app.screen, SessionsScreen) and app.view.error is not None)
        await pilot.press("3")
        await settle(pilot, lambda: isinstance(app.screen, GesturesScreen) and "alike" in words(app, "#gesture-words"))
        before = app.screen.query_one(HandView).lines
        assert cells(app, "#gestures")[0][0] == next(iter(vocabulary()))
        assert not app.screen.query_one("#banner").display
        await pilot.press("j")
        await settle(pilot, lambda: app.screen.query_one(HandView).lines != before)
        shown = app.screen.query_one(HandView)
        second = list(vocabulary().values())[1]
        assert shown.lines == draw_hand(second.pose, columns=shown.size.width, rows=shown.size.height)
        assert second.hint in words(app, "#gesture-words")


async def test_a_resize_keeps_the_chosen_session(app):
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("j")
        for width, height in SIZES[1:]:
            await pilot.resize_terminal(width, height)
            await pilot.pause(0.05)
            assert app.screen.query_one("#sessions", Records).chosen == str(uuid(2))


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "nord", "ansi-dark"])
async def test_themes(app, theme):
    async with app.run_test(size=(80, 24)) as pilot:
        if theme not in app.available_themes:
            pytest.skip(f"this Textual has no {theme}")
        app.theme = theme
        await ready(pilot)
        assert app.export_screenshot()


def test_bindings_have_ids_and_tooltips_and_no_key_twice():
    for owner in (EmbridgeApp, SessionsScreen, FleetScreen, GesturesScreen, QuitDialog, HelpDialog, Records):
        own = [b for b in owner.__dict__.get("BINDINGS", []) if isinstance(b, Binding)]
        keys = [key for b in own for key in b.key.split(",")]
        assert len(keys) == len(set(keys)), owner
        assert all(b.id and b.tooltip for b in own), owner
        assert len({b.id for b in own}) == len(own), owner
