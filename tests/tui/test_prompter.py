"""The participant's view, and the socket it follows a session through."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from embridge_edge.collect import prompts
from embridge_edge.collect.conductor import Conductor
from embridge_edge.collect.prompts import Prompt, listen, prompt_of, told
from embridge_edge.collect.protocol import Kind, load, trials
from embridge_edge.collect.steps import State
from embridge_shared.errors import NetworkError, OperatorError, Reason
from embridge_shared.session import Placement, Side
from embridge_tui.prompter import Prompter
from embridge_tui.widgets.bigword import BigWord
from embridge_tui.widgets.hand import HandView


def led(side: Side = Side.RIGHT) -> Any:
    protocol = load("shapes-8")
    conductor = Conductor([t for t in trials(protocol) if t.kind is Kind.GESTURE], block_pause=False)
    conductor.prepared()
    conductor.passed()
    setup = SimpleNamespace(protocol=protocol, placement=Placement(side=side))
    return SimpleNamespace(conductor=conductor, setup=setup, now_s=0.0)


def test_a_prompt_says_what_is_asked_for_and_what_comes_next():
    leader = led(Side.LEFT)
    first = leader.conductor.trial
    found = prompt_of(leader)
    assert (found.state, found.word, found.done) == (State.READY, "READY", 0)
    assert found.total == len(leader.conductor.trials)
    leader.conductor.start(0.0)
    leader.now_s = first.prepare_s / 2
    found = prompt_of(leader)
    assert (found.state, found.word) == (State.COUNTDOWN, "GET READY")
    assert found.remaining_s == pytest.approx(first.prepare_s / 2, abs=0.06)
    assert found.left_handed
    assert found.title
    assert found.following
    assert prompt_of(None) == Prompt()


async def heard(folder: Path, wanted: int) -> list[Prompt]:
    found: list[Prompt] = []
    async with asyncio.timeout(10):
        async for prompt in listen(folder):
            found.append(prompt)
            if len(found) == wanted:
                break
    return found


async def test_listeners_follow_and_leave_as_they_like(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "_BEAT_S", 0.2)
    leader = led()
    async with told(tmp_path, lambda: leader):
        assert (tmp_path / prompts.SOCKET).stat().st_mode & 0o777 == 0o600
        assert (await heard(tmp_path, 1))[0].state is State.READY
        leader.conductor.start(0.0)
        both = await asyncio.gather(heard(tmp_path, 3), heard(tmp_path, 3))
        assert [[p.state for p in found] for found in both] == [[State.COUNTDOWN] * 3] * 2
        ended = asyncio.create_task(heard(tmp_path, 1000))
        await asyncio.sleep(0.2)
    assert await ended, "what is listened to ends with the session, and is no error"


async def test_a_deep_folder_and_a_socket_that_a_crash_left(tmp_path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    (deep / prompts.SOCKET).touch()
    async with told(deep, lambda: None):
        assert (await heard(deep, 1))[0] == Prompt()


async def test_two_stations_in_one_folder_are_refused_and_nobody_is_a_named_error(tmp_path):
    async with told(tmp_path, lambda: None):
        with pytest.raises(OperatorError) as caught:
            async with told(tmp_path, lambda: None):
                pass
        assert caught.value.reason is Reason.LOCKED
        assert (await heard(tmp_path, 1))[0] == Prompt()
    with pytest.raises(NetworkError, match="nothing prompts"):
        await heard(tmp_path / "nowhere", 1)


async def until(pilot: Pilot, word: str) -> None:
    async with asyncio.timeout(10):
        while pilot.app.query_one("#word", BigWord).word != word:
            await pilot.pause(0.02)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_view_follows_a_session_and_waits_for_one(tmp_path, size):
    leader = led()
    app = Prompter(tmp_path)
    async with told(tmp_path, lambda: leader), app.run_test(size=size) as pilot:
        await until(pilot, "READY")
        leader.conductor.start(0.0)
        await until(pilot, "GET READY")
        assert app.query_one("#what", BigWord).word == prompt_of(leader).title
        assert app.query_one(HandView).display
        leader.now_s = leader.conductor.trial.prepare_s + 0.1
        leader.conductor.tick(leader.now_s)
        await until(pilot, "HOLD")
        assert app.query_one("#word").has_class("-act")
        assert "━" in str(app.query_one("#bar", Static).content)
        shown = "".join(str(w.content) for w in app.query(Static))
        assert not any(c.isdigit() for c in shown), "a participant counts nothing"


async def test_the_view_comes_back_when_the_station_does(tmp_path):
    app = Prompter(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        assert app.query_one("#word", BigWord).word == "PLEASE WAIT"
        async with told(tmp_path, led):
            await until(pilot, "READY")
        await until(pilot, "PLEASE WAIT")
