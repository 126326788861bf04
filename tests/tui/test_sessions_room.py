"""The Sessions room over a scripted cloud: what is stored, what it is worth, what can be done with it."""

from __future__ import annotations

import msgspec
import pytest

from embridge_shared.errors import NetworkError, OperatorError, Reason
from embridge_tui import commands, recorded
from embridge_tui.model import Judged
from embridge_tui.screens.asking import FormDialog, PageDialog
from embridge_tui.screens.sessions import SessionsScreen
from embridge_tui.widgets.records import Column, Records
from support.tui_rooms import detail, judged, session, uuid
from support.tui_world import EMPTY, ScriptedCloud, cells, edge, over, settle, typed, words

SIZES = [(80, 24), (100, 30), (150, 44)]


@pytest.fixture
def cloud() -> ScriptedCloud:
    sessions = (session(3, state="open", missing=0, ended_at=None), session(2), session(1, missing=0))
    made = ScriptedCloud(
        msgspec.structs.replace(
            EMPTY, sessions=sessions, edges=(edge("edge-1", spooled=12, spooled_bytes=41_000_000),)
        )
    )  # fmt: skip
    for s in sessions:
        path = f"/api/sessions/{s.session}"
        made.answers |= {path: detail(s), f"{path}/quality": judged(), f"{path}/gaps": [], f"{path}/bands": []}
    made.answers["/api/quarantine?limit=1"] = {
        "summary": [{"session": str(uuid(1)), "messages": 4, "reason": "x", "edge": "edge-1"}], "messages": [],
    }  # fmt: skip
    return made


async def ready(pilot) -> None:
    app = pilot.app
    await settle(
        pilot,
        lambda: (
            isinstance(app.screen, SessionsScreen)
            and app.screen.furnished
            and "stored" in words(app, "#detail-text")
            and all(row[5] != "-" for row in cells(app, "#sessions")[1:])
        ),
    )


async def test_the_list_says_what_is_held_and_what_it_is_worth(cloud):
    app = over(cloud, "sessions")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        rows = cells(app, "#sessions")
        assert rows[0][:6] == ["11-22 09:03", "p03", "shapes-4/1", "2/1", "…", "-"]
        assert rows[0][6:] == ["214.0 MB", "▶ open"]
        assert rows[1][4:] == ["18:22", "████ .95", "214.0 MB", "✓ ▲5000"]
        assert rows[2][7] == "⚠ 4 held"
        assert "12 items, 41.0 MB wait at edge-1" in str(app.screen.query_one(Records).border_title)
        shown = words(app, "#detail-text")
        assert "124344 stored, 5000 missing, 3.9 %, 1000 awaited, 2 gaps" in shown
        assert shown.splitlines()[-1] == "rejected for: too_short"


async def test_the_cursor_chooses_what_is_read_and_a_refresh_keeps_it(cloud):
    app = over(cloud, "sessions")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("j")
        await settle(pilot, lambda: str(uuid(2)) in words(app, "#detail-text"))
        cloud.answers[f"/api/sessions/{uuid(4)}"] = detail(session(4))
        cloud.now = msgspec.structs.replace(cloud.now, sessions=(session(4), *cloud.now.sessions))
        await pilot.press("f5")
        await settle(pilot, lambda: len(cells(app, "#sessions")) == 4)
        table = app.screen.query_one("#sessions", Records)
        assert (table.cursor_row, table.chosen) == (2, str(uuid(2)))


async def test_enter_opens_all_that_is_known(cloud):
    app = over(cloud, "sessions")
    cloud.answers[f"/api/sessions/{uuid(3)}/gaps"] = [
        {"stream": "emg", "first": 1000, "n": 600, "seconds": 0.3, "inferred": True}
    ]
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("enter")
        await settle(pilot, lambda: isinstance(app.screen, PageDialog))
        shown = words(app, "#page")
        assert "✕ too_short" in shown
        assert "✕ emg ch1: 5 bad, 0 warned of 50  flat" in shown
        assert "600 samples, 0.300 s, an estimate" in shown
        assert "timeline, 9 s" in shown


async def test_verify_and_export_are_the_commands(cloud, monkeypatch):
    app = over(cloud, "sessions")
    ran: list[list[str]] = []

    async def run(given, **_):
        ran.append(list(given))
        code = 0 if given[1] == "verify" else 2
        said = "1 session is what was sealed" if code == 0 else "embridge: error: p02 did not agree to sharing."
        return commands.Ran("embridge " + " ".join(given), code, said)

    monkeypatch.setattr(commands, "embridge", run)
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("v")
        assert "only a sealed session" in words(app, "#sessions-advice")
        await pilot.press("j", "v")
        await settle(pilot, lambda: "1 session is what was sealed" in words(app, "#sessions-advice"))
        assert ran == [["session", "verify", str(uuid(2))]]
        await pilot.press("e")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("enter")
        await typed(pilot, "out")
        await settle(pilot, lambda: "did not agree to sharing" in words(app, "#sessions-advice"))
        assert ran[1][3:] == ["--format", "bids", "--out", "out"]


async def test_sealing_by_force_wants_the_id_and_a_reason_and_a_refusal_is_read(cloud):
    app = over(cloud, "sessions")
    start, path = str(uuid(3))[:8], f"/api/sessions/{uuid(3)}/seal"
    refusal = OperatorError("this token's role is viewer", reason=Reason.FORBIDDEN, hint="An operator's may.")
    cloud.refusals[path] = refusal
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for _ in range(2):
            await pilot.press("S")
            await settle(pilot, lambda: isinstance(app.screen, FormDialog))
            await typed(pilot, start)
            await typed(pilot, "the edge is broken")
            if path in cloud.refusals:
                await settle(pilot, lambda: "this token's role is viewer" in words(app, "#sessions-advice"))
                del cloud.refusals[path]
        body = {"force": True, "reason": "the edge is broken"}
        await settle(pilot, lambda: cloud.told == [("POST", path, body)])


async def test_where_the_rest_is(cloud):
    app = over(cloud, "sessions")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("u")
        assert "edge-1 is connected and delivers: 12 items, 41.0 MB" in words(app, "#sessions-advice")
        cloud.now = msgspec.structs.replace(cloud.now, edges=(edge("edge-1", online=False),))
        app._clock.ns += 1
        await pilot.press("f5")
        await settle(pilot, lambda: "nothing waits" in str(app.screen.query_one(Records).border_title))
        await pilot.press("u")
        assert "embridge edge check" in words(app, "#sessions-advice")
        await pilot.press("j", "u")
        assert "it is sealed" in words(app, "#sessions-advice")


async def test_the_list_narrows_sorts_and_hands_out_ids(cloud):
    app = over(cloud, "sessions")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("slash", "p", "0", "2")
        await settle(pilot, lambda: True)
        await pilot.press("enter")
        await settle(pilot, lambda: [row[1] for row in cells(app, "#sessions")] == ["p02"])
        await pilot.press("y")
        assert app.clipboard == str(uuid(2))
        await pilot.press("slash", "escape")
        await settle(pilot, lambda: len(cells(app, "#sessions")) == 3)
        await pilot.press("o")
        assert [row[1] for row in cells(app, "#sessions")] == ["p01", "p02", "p03"]
        await pilot.press("O")
        assert [row[1] for row in cells(app, "#sessions")] == ["p03", "p02", "p01"]


async def test_a_cloud_that_goes_away_leaves_marked_data_and_comes_back(cloud):
    app = over(cloud, "sessions")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        cloud.error = NetworkError(
            "no cloud answers at http://cloud.test:8470: [Errno 111] refused",
            reason=Reason.UNREACHABLE,
            hint="Start `embridge cloud run`, or give its address with --url.",
        )
        app._clock.ns += 3_000_000_000
        await pilot.press("f5")
        await settle(pilot, lambda: app.screen.query_one("#banner").display)
        banner = words(app, "#banner")
        assert "no cloud answers" in banner
        assert "Start `embridge cloud run`" in banner
        assert app.screen.has_class("-stale")
        assert len(cells(app, "#sessions")) == 3
        cloud.error = None
        await pilot.press("f5")
        await settle(pilot, lambda: not app.screen.has_class("-stale"))
        assert not app.screen.query_one("#banner").display


async def test_nothing_recorded_says_how_to_begin():
    app = over(ScriptedCloud(EMPTY), "sessions")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(
            pilot,
            lambda: (
                isinstance(app.screen, SessionsScreen)
                and app.screen.furnished
                and "session record" in words(app, "#detail-text")
            ),
        )


async def test_names_from_outside_are_not_markup_and_move_no_cursor(cloud):
    evil = session(1, participant="[red]\x1b[2J[/nope]", missing=0)
    cloud.answers[f"/api/sessions/{uuid(1)}"] = detail(evil)
    cloud.now = msgspec.structs.replace(cloud.now, sessions=(evil,))
    app = over(cloud, "sessions")
    async with app.run_test(size=(150, 44)) as pilot:
        await settle(pilot, lambda: isinstance(app.screen, SessionsScreen) and app.screen.furnished)
        await settle(pilot, lambda: "[red]" in words(app, "#detail-text"))
        assert cells(app, "#sessions")[0][1] == "[red]�[2J[/nope]"


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
async def test_it_fits(cloud, size):
    app = over(cloud, "sessions")
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        table = app.screen.query_one(Records)
        assert table.virtual_size.width <= table.scrollable_content_region.width
        assert table.size.height >= 5
        assert app.screen.region.contains_region(app.screen.query_one("#detail").region)


def test_worth_is_the_share_of_windows_without_a_fault():
    rows = [Judged(stream="emg", channel="a", windows=10, warn=2, bad=1, grade="warn"),
            Judged(stream="emg", channel="b", windows=10, warn=0, bad=0, grade="good")]  # fmt: skip
    assert recorded.worth(rows) == pytest.approx(0.85)
    assert recorded.worth([]) is None


def test_sync_says_how_much_is_still_to_come():
    ended = session(1, state="ended", samples=860, missing=140)
    assert recorded.sync(ended, 0) == "███░  86%"
    assert recorded.sync(msgspec.structs.replace(ended, declared_lost=140), 0) == "◐ ended"


async def test_a_command_runs_beside_and_a_long_one_is_ended():
    ran = await commands.embridge(["config", "nonsense"])
    assert ran.code == 2
    assert "nonsense" in ran.said
    assert ran.typed == "embridge config nonsense"
    assert (await commands.embridge(["config", "show"], timeout_s=0.001)).code == 124


def test_columns_fit_the_narrowest_terminal():
    from embridge_tui.screens.sessions import COLUMNS

    assert isinstance(COLUMNS[0], Column)
    assert sum(c.width + 2 for c in COLUMNS) <= 79
