"""Keys: none is hidden by another, each can be looked up and changed."""

from __future__ import annotations

import pytest

from embridge_tui.app import EmbridgeApp
from embridge_tui.screens.room import Room
from embridge_tui.widgets.records import Records
from support.tui_keys import PAGE, keys_of, own, owners, page
from support.tui_world import ScriptedCloud, over, settle

TABLES = ("devices", "sessions", "fleet", "models", "gestures")


def test_an_id_means_one_thing():
    ids = [b.id for owner in owners() for b in own(owner)]
    assert len(ids) > 80
    assert all(ids)
    assert len(ids) == len(set(ids)), sorted({i for i in ids if ids.count(i) > 1})


@pytest.mark.parametrize("room", TABLES)
async def test_no_key_of_a_room_is_hidden_by_its_tables_or_works_everywhere(room):
    app = over(ScriptedCloud(), room)
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot, lambda: isinstance(app.screen, Room) and app.screen.furnished)
        hidden = keys_of(type(app.screen)) & (keys_of(Records) | keys_of(EmbridgeApp))
        assert not hidden
        table = app.screen.query(Records).first()
        table.focus()
        await settle(pilot, lambda: app.focused is table)
        reached = {a.binding.id for a in app.screen.active_bindings.values()}
        assert {b.id for b in own(type(app.screen)) if b.key != "enter"} <= reached


def test_the_page_of_keys_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m support.tui_keys` in tests/"
