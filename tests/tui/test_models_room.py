"""The Models room over a scripted cloud: gates, lineage, recall, training, schedule."""

from __future__ import annotations

import msgspec
import pytest

from embridge_shared.errors import OperatorError, Reason
from embridge_shared.fleet import GateReport
from embridge_tui.screens.asking import FormDialog, PageDialog
from embridge_tui.screens.models import ModelsScreen, gate_words, marks
from embridge_tui.widgets.records import Records
from support.tui_rooms import GATE, REFUSED, RUNNING, check, release, told
from support.tui_world import EMPTY, ScriptedCloud, cells, edge, over, settle, typed, words

SIZES = [(80, 24), (100, 30), (150, 44)]


@pytest.fixture
def cloud() -> ScriptedCloud:
    first, second = release(1), release(2)
    made = ScriptedCloud(
        msgspec.structs.replace(
            EMPTY, releases=(first, second), edges=(edge("e1"), edge("e2", release="embridge-1")),
            jobs=(REFUSED, RUNNING),
        )
    )  # fmt: skip
    made.answers = {"/api/releases/embridge-1": told(first), "/api/releases/embridge-2": told(second, GATE)}
    return made


async def ready(pilot) -> None:
    await settle(
        pilot,
        lambda: (
            isinstance(pilot.app.screen, ModelsScreen)
            and pilot.app.screen.furnished
            and len(cells(pilot.app, "#releases")) == 2
            and cells(pilot.app, "#releases")[0][1] != "-"
        ),
    )


async def test_releases_show_their_gates_and_who_runs_them(cloud):
    app = over(cloud, "models")
    async with app.run_test(size=(150, 44)) as pilot:
        await ready(pilot)
        first, second = cells(app, "#releases")
        assert first == ["embridge-2", "▲✓", "3", "3.1 MB", "50 %", "● in force"]
        assert second[1:] == ["-", "", "3.1 MB", "50 %", "○ before"]
        assert "accepted on 3 people, beside embridge-1: nothing is worse" in words(app, "#model-text")
        assert cells(app, "#jobs")[0] == ["realign-4", "▶ running", "align", "██░░░░░░  25 %", "90 s", "12 +4"]


async def test_lineage_card_and_job_are_pages(cloud):
    cloud.answers["/api/releases/embridge-2/card"] = "# embridge-2\nIt decodes."
    cloud.answers["/api/jobs/realign-4/gate"] = GATE
    app = over(cloud, "models")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        for keys, said in (
            (["enter"], "participants  p01"),
            (["c"], "It decodes."),
            (["v"], "left out e3b0c442: labels look swapped"),
        ):
            await pilot.press(*keys)
            await settle(pilot, lambda: isinstance(app.screen, PageDialog))
            assert said in words(app, "#page")
            await pilot.press("escape")
            await settle(pilot, lambda: isinstance(app.screen, ModelsScreen))


async def test_a_recall_wants_the_name_and_a_reason(cloud):
    app = over(cloud, "models")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("x")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await typed(pilot, "embridge-1")
        await typed(pilot, "too many false activations")
        assert isinstance(app.screen, FormDialog)
        assert "type embridge-2" in words(app, "#wrong")
        assert not cloud.told
        await pilot.press("ctrl+a", "ctrl+k")
        await typed(pilot, "embridge-2")
        await pilot.press("enter")
        path = "/api/releases/embridge-2/recall"
        await settle(pilot, lambda: cloud.told == [("POST", path, {"reason": "too many false activations"})])
        assert "embridge-2 is recalled" in words(app, "#models-advice")


async def test_a_job_is_stopped_by_its_id_and_gone_on_with(cloud):
    app = over(cloud, "models")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("X")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await typed(pilot, "realign-4")
        await settle(pilot, lambda: cloud.told == [("DELETE", "/api/jobs/realign-4", None)])
        await pilot.press("r")
        assert "only one that was stopped or failed" in words(app, "#models-advice")
        stopped = msgspec.structs.replace(RUNNING, state="cancelled")
        cloud.now = msgspec.structs.replace(cloud.now, jobs=(REFUSED, stopped))
        await pilot.press("f5")
        await settle(pilot, lambda: cells(app, "#jobs")[0][1] == "■ cancelled")
        await pilot.press("r")
        await settle(pilot, lambda: cloud.told[1:] == [("POST", "/api/jobs/realign-4/resume", None)])


async def test_training_says_why_it_is_refused(cloud):
    hint = "embridge role operator is needed"
    cloud.refusals["/api/jobs"] = OperatorError("this token may only look", reason=Reason.FORBIDDEN, hint=hint)
    app = over(cloud, "models")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("t")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await typed(pilot, "lab-2")
        await settle(pilot, lambda: "this token may only look" in words(app, "#models-advice"))
        assert hint in words(app, "#models-advice")


async def test_the_schedule_is_shown_and_only_what_changed_is_sent(cloud):
    cloud.answers["/api/schedule"] = {
        "schedule": {"enabled": False, "sessions": 8, "timetable": "", "rollout": False},
        "waiting": {"sessions": 3, "participants": 1, "minutes": 9.4}, "why": "8 sessions are needed", "failed": "",
        "next_ns": 0,
    }  # fmt: skip
    app = over(cloud, "models")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("h")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        assert "3 sessions, 1 participants, 9 minutes" in words(app, ".dialog Static")
        await pilot.press("ctrl+a", "ctrl+k")
        await typed(pilot, "perhaps")
        await pilot.press("ctrl+s")
        assert "type yes or no" in words(app, "#wrong")
        await pilot.press("ctrl+a", "ctrl+k")
        await typed(pilot, "yes")
        await pilot.press("ctrl+s")
        await settle(pilot, lambda: cloud.told == [("PUT", "/api/schedule", {"enabled": True})])


async def test_a_refused_candidate_is_published_only_with_a_reason(cloud):
    app = over(cloud, "models")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        app.screen.query_one("#jobs", Records).focus()
        await pilot.press("j", "f")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await typed(pilot, "realign-3")
        await pilot.press("enter")
        assert "must not be empty" in words(app, "#wrong")
        await typed(pilot, "the fall is noise")
        path = "/api/jobs/realign-3/publish"
        await settle(pilot, lambda: cloud.told == [("POST", path, {"reason": "the fall is noise"})])


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
async def test_it_fits(cloud, size):
    app = over(cloud, "models")
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        for table in app.screen.query(Records).results():
            assert table.virtual_size.width <= table.scrollable_content_region.width, table
            assert table.size.height >= 3, table
        for widget in app.screen.query("#models > *, #models-advice, Footer").results():
            assert app.screen.region.contains_region(widget.region), widget


def test_signs_put_what_fails_first():
    assert marks(None) == "-"
    checks = [check("a", passed=True), check("b", passed=False), check("c", passed=False, required=False)]
    assert marks(msgspec.convert(GATE | {"checks": checks}, GateReport)) == "✕▲✓"
    forced = GATE | {"accepted": False, "forced_by": "ana", "forced_why": "noise"}
    assert "published all the same by ana: noise" in gate_words(msgspec.convert(forced, GateReport))
