"""What goes wrong is readable: each state of an error, what shows it, and that somebody proves it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from embridge_edge.collect.station import Vitals
from embridge_edge.uplink import LinkState
from embridge_shared.clock import SystemClock
from embridge_shared.disk import DiskLevel
from embridge_shared.errors import NetworkError, Reason
from embridge_tui.app import EmbridgeApp
from embridge_tui.part import EdgePart
from support.collect import settings
from support.tui_world import ScriptedCloud, settle, words

FOLDER = Path(__file__).parent
PROVED = {
    "a band that is not there": "test_collect.py::test_a_band_that_is_not_there_says_so_and_is_looked_for_again",
    "a band that is lost": "test_collect.py::test_a_lost_band_shows_and_comes_back",
    "a bad repetition": "test_collect.py::test_a_bad_repetition_is_offered_again_and_can_be_taken",
    "consent missing": "test_collect.py::test_nothing_begins_without_consent",
    "disk nearly full before": "test_collect.py::test_a_disk_that_is_nearly_full_is_red_before",
    "spool full meanwhile": "test_collect.py::test_a_full_spool_stops_and_tells_what_to_do",
    "disk nearly full meanwhile": "test_error_states.py::test_a_disk_that_fills_is_told_in_every_room",
    "data stale": "test_error_states.py::test_a_silent_band_turns_amber_then_red",
    "broker away": "test_error_states.py::test_a_broker_that_is_away_costs_nothing_but_the_queue",
    "cloud away": "test_sessions_room.py::test_a_cloud_that_goes_away_leaves_marked_data_and_comes_back",
    "cloud refuses": "test_error_states.py::test_a_cloud_that_refuses_is_read_with_the_next_step",
    "cloud refuses what is asked": "test_fleet_room.py::test_a_refusal_says_why_and_what_next",
    "session refused in part": "test_sessions_room.py::test_where_the_rest_is",
    "release failed, edge busy": "test_fleet_room.py::test_waves_and_edges_say_where_they_stand",
    "enrolment without a band": "test_enrol_room.py::test_a_band_that_is_not_there_is_said_with_the_next_step",
    "live silence": "test_live_room.py::test_silence_is_loud",
}


@pytest.mark.parametrize("state", PROVED)
def test_somebody_proves_it(state: str) -> None:
    module, name = PROVED[state].split("::")
    tree = ast.parse((FOLDER / module).read_text(encoding="utf-8"))
    assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


class Told(EdgePart):
    """An edge that says what a test tells it to."""

    now = Vitals(
        edge="edge-1", state=None, session="", band=None, age_s=None, stored_bytes=0, waiting=0, waiting_bytes=0,
        link=LinkState.ONLINE, disk=DiskLevel.OK, disk_free=8 << 30, release="", quality=(),
    )  # fmt: skip

    async def run(self) -> None:
        """Deliver nothing."""

    def vitals(self) -> Vitals:
        return self.now

    def say(self, **changes: object) -> None:
        self.now = Vitals(**{name: changes.get(name, getattr(self.now, name)) for name in Vitals.__dataclass_fields__})


@pytest.fixture
def part(tmp_path: Path) -> Told:
    return Told(settings(tmp_path / "edge"), SystemClock())


def over(cloud: ScriptedCloud, part: Told) -> EmbridgeApp:
    return EmbridgeApp(cloud, part, period_s=3600.0, room="sessions")


async def shows(pilot, *found: str) -> None:
    await settle(pilot, lambda: all(each in words(pilot.app, "#vitals") for each in found))


async def test_a_broker_that_is_away_costs_nothing_but_the_queue(part: Told) -> None:
    async with over(ScriptedCloud(), part).run_test(size=(120, 30)) as pilot:
        await shows(pilot, "mqtt ●", "q 0")
        part.say(link=LinkState.WAITING, waiting=412)
        await shows(pilot, "mqtt ○", "q 412")
        part.say(link=LinkState.ONLINE, waiting=0)
        await shows(pilot, "mqtt ●", "q 0")


async def test_a_silent_band_turns_amber_then_red(part: Told) -> None:
    async with over(ScriptedCloud(), part).run_test(size=(120, 30)) as pilot:
        part.say(age_s=0.02)
        await shows(pilot, "band ●")
        part.say(age_s=2.0)
        await shows(pilot, "band ✕ 2 s")
        part.say(age_s=41.0)
        await shows(pilot, "band ✕ 41 s")


async def test_a_disk_that_fills_is_told_in_every_room(part: Told) -> None:
    async with over(ScriptedCloud(), part).run_test(size=(120, 30)) as pilot:
        part.say(disk=DiskLevel.LOW, disk_free=300_000_000)
        await shows(pilot, "disk 300.0 MB left")
        await pilot.press("4")
        await shows(pilot, "disk 300.0 MB left")


async def test_a_cloud_that_refuses_is_read_with_the_next_step(part: Told) -> None:
    cloud = ScriptedCloud()
    cloud.error = NetworkError("the token is not known", reason=Reason.UNAUTHENTICATED, hint="Set api.token.")
    async with over(cloud, part).run_test(size=(80, 24)) as pilot:
        await settle(pilot, lambda: "the token is not known" in words(pilot.app, "#banner"))
        assert "Set api.token." in words(pilot.app, "#banner")
        assert "✕ no data" in words(pilot.app, "#vitals")
