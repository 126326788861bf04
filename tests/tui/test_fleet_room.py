"""The Fleet room over a scripted cloud: a rollout is proposed, approved, paused, aborted; edges are pinned."""

from __future__ import annotations

import msgspec
import pytest

from embridge_shared.errors import OperatorError, Reason
from embridge_shared.fleet import (
    EdgeProgress,
    RolloutState,
    UpdatePhase,
    WaveTally,
)
from embridge_tui import rolling
from embridge_tui.model import Shadow
from embridge_tui.screens.asking import FormDialog, PageDialog
from embridge_tui.screens.collect_dialogs import ConfirmDialog
from embridge_tui.screens.fleet import FleetScreen
from embridge_tui.widgets.records import Records
from support.tui_rooms import NOW, fleet_cloud, rollout, shadow
from support.tui_world import ScriptedCloud, cells, over, settle, typed, words

SIZES = [(80, 24), (100, 30), (150, 44)]


@pytest.fixture
def cloud() -> ScriptedCloud:
    return fleet_cloud(rollout())


async def ready(pilot) -> None:
    app = pilot.app
    await settle(
        pilot,
        lambda: isinstance(app.screen, FleetScreen) and app.screen.furnished and len(cells(app, "#edges")) == 5,
    )
    await settle(pilot, lambda: "✕ checksum (try 1)" in cells(app, "#edges")[0][5] or not cloud_rollouts(app))


def cloud_rollouts(app) -> bool:
    return bool(cells(app, "#rollouts"))


def edge(app, name: str) -> list[str]:
    return next(row for row in cells(app, "#edges") if row[0] == name)


async def test_waves_and_edges_say_where_they_stand(cloud):
    app = over(cloud, "fleet")
    app._clock.wall = NOW
    async with app.run_test(size=(150, 44)) as pilot:
        await ready(pilot)
        assert cells(app, "#rollouts") == [["r-0088", "embridge-2", "▶ soaking", "1/2✕1 0/1"]]
        shown = words(app, "#waves")
        assert "wave 1 canary" in shown
        assert "1 error" in shown
        assert "waits for approval after the wave before" in shown
        assert cells(app, "#edges")[0][0] == "band-31"
        assert edge(app, "band-22")[5].endswith("locked: in session")
        assert edge(app, "band-40")[5] == "⚑ pinned to embridge-1: demo day (ana)"
        assert edge(app, "band-40")[1] == "○ away"
        assert edge(app, "band-20")[2:4] == ["embridge-2", "embridge-2"]


async def test_a_wave_that_waits_is_approved_after_its_figures_were_seen(cloud):
    cloud = fleet_cloud(rollout(RolloutState.WAITING, wave=1))
    app = over(cloud, "fleet")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("g")
        await settle(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "waits to be approved" in words(app, ".dialog Static")
        await pilot.press("escape")
        await settle(pilot, lambda: isinstance(app.screen, FleetScreen))
        assert not cloud.told
        await pilot.press("g", "enter")
        await settle(pilot, lambda: cloud.told == [("POST", "/api/rollouts/r-0088/approve", {})])
        assert "the next wave begins" in words(app, "#fleet-advice")


async def test_an_abort_wants_the_id_and_a_reason(cloud):
    app = over(cloud, "fleet")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("x")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await typed(pilot, "r-0089")
        await typed(pilot, "windows take too long")
        assert "type r-0088" in words(app, "#wrong")
        assert not cloud.told
        await pilot.press("ctrl+a", "ctrl+k")
        await typed(pilot, "r-0088")
        await pilot.press("enter")
        body = {"reason": "windows take too long"}
        await settle(pilot, lambda: cloud.told == [("POST", "/api/rollouts/r-0088/abort", body)])


async def test_pause_wants_a_reason_and_what_is_paused_goes_on(cloud):
    app = over(cloud, "fleet")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("p")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("enter")
        assert "must not be empty" in words(app, "#wrong")
        await typed(pilot, "wait")
        await settle(pilot, lambda: cloud.told == [("POST", "/api/rollouts/r-0088/pause", {"reason": "wait"})])
        cloud.now = msgspec.structs.replace(cloud.now, rollouts=(rollout(RolloutState.PAUSED, reason="wait"),))
        await pilot.press("f5")
        await settle(pilot, lambda: cells(app, "#rollouts")[0][2] == "▲ paused")
        await pilot.press("p")
        await settle(pilot, lambda: cloud.told[1:] == [("POST", "/api/rollouts/r-0088/resume", {})])


async def test_a_rollout_is_proposed_shown_dry_and_then_begun():
    cloud = fleet_cloud()
    plan = rollout(id="", tally=(WaveTally(name="canary", edges=1), WaveTally(name="all", edges=4)))
    left = (EdgeProgress(edge="band-40", wave=0, left="pinned"),)
    cloud.done = lambda method, path, body: msgspec.to_builtins(msgspec.structs.replace(plan, edges=left))
    app = over(cloud, "fleet")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot, lambda: isinstance(app.screen, FleetScreen) and len(cells(app, "#edges")) == 5)
        await pilot.press("n")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("enter", "ctrl+a", "ctrl+k")
        await typed(pilot, "20,100")
        await pilot.press("ctrl+s")
        await settle(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "embridge-2 goes to canary 1, then all 4." in words(app, ".dialog Static")
        assert "band-40 takes no part: pinned" in words(app, ".dialog Static")
        assert [body["dry_run"] for _, _, body in cloud.told] == [True]
        await pilot.press("y")
        await settle(pilot, lambda: len(cloud.told) == 2)
        _, path, body = cloud.told[1]
        assert path == "/api/rollouts"
        assert "dry_run" not in body
        assert [w["share"] for w in body["policy"]["waves"]] == [0.2, 1.0]


async def test_waves_that_are_none_are_refused_before_anything_is_asked():
    cloud = fleet_cloud()
    app = over(cloud, "fleet")
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot, lambda: isinstance(app.screen, FleetScreen) and len(cells(app, "#edges")) == 5)
        await pilot.press("n")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("enter", "ctrl+a", "ctrl+k")
        await typed(pilot, "50,20")
        await pilot.press("ctrl+s")
        await settle(pilot, lambda: "grow and end with a share of 1" in words(app, "#fleet-advice"))
        assert not cloud.told


async def test_an_edge_is_pinned_with_a_reason_and_follows_again(cloud):
    app = over(cloud, "fleet")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        table = app.screen.query_one("#edges", Records)
        table.focus()
        assert table.choose("band-21")
        await pilot.press("i")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("enter")
        await typed(pilot, "a study")
        body = {"pinned": "embridge-1", "pinned_why": "a study"}
        await settle(pilot, lambda: cloud.told == [("PUT", "/api/fleet/band-21", body)])
        table.choose("band-40")
        await pilot.press("i")
        await settle(pilot, lambda: cloud.told[1:] == [("PUT", "/api/fleet/band-40", {"pinned": ""})])


async def test_edges_and_history_are_pages(cloud):
    rows = [{"at": "2026-11-23T09:12:00Z", "actor": "token:ana", "action": "rollout.pause", "detail": {"reason": "x"}}]
    cloud.answers |= {
        "/api/fleet/band-31": shadow("band-31", phase=UpdatePhase.FAILED, detail="checksum"),
        "/api/fleet/band-31/history": [],
        "/api/rollouts/r-0088/history": rows,
    }
    app = over(cloud, "fleet")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("h")
        await settle(pilot, lambda: isinstance(app.screen, PageDialog))
        assert "2026-11-23T09:12:00  token:ana  rollout.pause  reason x" in words(app, "#page")
        await pilot.press("escape")
        app.screen.query_one("#edges", Records).focus()
        await pilot.press("enter")
        await settle(pilot, lambda: isinstance(app.screen, PageDialog))
        assert "update    failed: checksum" in words(app, "#page")


async def test_a_refusal_says_why_and_what_next(cloud):
    path = "/api/rollouts/r-0088/advance"
    cloud.refusals[path] = OperatorError("this token may only look", reason=Reason.FORBIDDEN, hint="Ask an operator.")
    app = over(cloud, "fleet")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("g")
        await settle(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("y")
        await settle(pilot, lambda: "this token may only look" in words(app, "#fleet-advice"))
        assert "Ask an operator." in words(app, "#fleet-advice")


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
async def test_it_fits(cloud, size):
    app = over(cloud, "fleet")
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        for table in app.screen.query(Records).results():
            assert table.virtual_size.width <= table.scrollable_content_region.width, table
            assert table.size.height >= 4, table
        for widget in app.screen.query("#waves, #edges, #fleet-advice, Footer").results():
            assert app.screen.region.contains_region(widget.region), widget


def test_trouble_comes_first_and_thousands_are_no_row_each():
    rows = [msgspec.convert(shadow(f"e-{i}"), Shadow) for i in range(3)]
    bad = msgspec.convert(shadow("e-9", phase=UpdatePhase.REFUSED), Shadow)
    order = sorted([*rows, bad], key=lambda s: rolling.weight(s, None))
    assert order[0].edge == "e-9"
    left = EdgeProgress(edge="e-1", wave=0, left="pinned")
    assert rolling.note(rows[1], left) == "takes no part: pinned"
