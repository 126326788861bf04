"""Rollouts led by keys in the interface, over a real cloud, broker and agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MosquittoBroker
from embridge_tui.app import EmbridgeApp
from embridge_tui.client import HttpClient
from embridge_tui.screens.asking import FormDialog, PageDialog
from embridge_tui.screens.collect_dialogs import ConfirmDialog
from embridge_tui.screens.fleet import FleetScreen
from embridge_tui.screens.models import ModelsScreen
from embridge_tui.widgets.records import Records
from support.loop import Loop
from support.rollout_site import Fleet
from support.tui_world import cells, settle, typed, words

WAIT_S = 40.0


@pytest.fixture
def loop(tmp_path: Path, own_mosquitto: MosquittoBroker) -> Iterator[Loop]:
    loop = Loop(tmp_path, own_mosquitto.port)
    yield loop
    loop.close()


async def begun(pilot, app: EmbridgeApp, release: str) -> None:
    """Propose a release, look at what would happen, begin."""
    await pilot.press("n")
    await settle(pilot, lambda: isinstance(app.screen, FormDialog))
    await typed(pilot, release)
    await pilot.press("ctrl+s")
    await settle(pilot, lambda: isinstance(app.screen, ConfirmDialog), WAIT_S)
    assert f"{release} goes to canary 1, then all 1." in words(app, ".dialog Static")
    await pilot.press("y")


async def state(pilot, app: EmbridgeApp, name: str, wanted: str) -> None:
    await settle(pilot, lambda: [name, wanted] in [row[::2][:2] for row in cells(app, "#rollouts")], WAIT_S)


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_a_rollout_is_approved_and_another_rolled_back_by_keys_alone(loop, own_mosquitto):
    loop.settings |= {"EMBRIDGE_ROLLOUT__APPROVE": '["all"]'}
    fleet = Fleet(loop, own_mosquitto, 2)
    fleet.publish(1)
    fleet.publish(2)
    await asyncio.to_thread(fleet.begin)
    app = EmbridgeApp(HttpClient(loop.api), room="fleet", period_s=0.5)
    async with app.run_test(size=(120, 34)) as pilot:
        await settle(pilot, lambda: isinstance(app.screen, FleetScreen) and len(cells(app, "#edges")) == 2, WAIT_S)
        await begun(pilot, app, "embridge-1")
        await state(pilot, app, "r-0001", "▲ approve?")
        await pilot.press("g", "enter")
        await state(pilot, app, "r-0001", "✓ done")
        await settle(pilot, lambda: {row[2] for row in cells(app, "#edges")} == {"embridge-1"}, WAIT_S)

        await begun(pilot, app, "embridge-2")
        await state(pilot, app, "r-0002", "▲ approve?")
        assert app.screen.query_one("#rollouts", Records).choose("r-0002")
        await settle(pilot, lambda: {row[2] for row in cells(app, "#edges")} == {"embridge-1", "embridge-2"}, WAIT_S)
        await pilot.press("x")
        await settle(pilot, lambda: isinstance(app.screen, FormDialog))
        await typed(pilot, "r-0002")
        await typed(pilot, "it drifts")
        await state(pilot, app, "r-0002", "✕ aborted")
        await settle(pilot, lambda: {row[2] for row in cells(app, "#edges")} == {"embridge-1"}, WAIT_S)
        await pilot.press("h")
        await settle(pilot, lambda: isinstance(app.screen, PageDialog))
        assert "rollout.abort  reason it drifts" in words(app, "#page")

        await pilot.press("escape", "7")
        await settle(
            pilot,
            lambda: (
                isinstance(app.screen, ModelsScreen)
                and app.screen.furnished
                and [row[5] for row in cells(app, "#releases")] == ["✕ recalled", "● in force"]
            ),
            WAIT_S,
        )
        await settle(pilot, lambda: "RECALLED: it drifts" in words(app, "#model-text"), WAIT_S)
    assert set(fleet.running().values()) == {"embridge-1"}
