"""The drawn hand, without a terminal."""

from __future__ import annotations

import numpy as np
import pytest
from textual.app import App, ComposeResult

from embridge_shared.errors import DataError
from embridge_shared.gestures import vocabulary
from embridge_shared.hand import LIMITS
from embridge_shared.session import Side
from embridge_tui.trace import Glyphs
from embridge_tui.widgets.hand import HandPair, HandView, draw_hand

SIZES = [(1, 1), (20, 8), (46, 18), (120, 40)]


def dots(lines: list[str]) -> np.ndarray:
    """(rows * 4, columns * 2): which dots are set."""
    bits = np.array([[0, 3], [1, 4], [2, 5], [6, 7]])
    cells = np.array([[ord(c) - 0x2800 for c in line] for line in lines])
    on = (cells[:, None, :, None] >> bits[None, :, None, :]) & 1
    return on.reshape(len(lines) * 4, -1).astype(bool)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_it_fills_its_room_with_braille(columns, rows):
    for gesture in vocabulary().values():
        lines = draw_hand(gesture.pose, columns=columns, rows=rows)
        assert [len(line) for line in lines] == [columns] * rows
        assert all(0x2800 <= ord(c) <= 0x28FF for line in lines for c in line)
        assert dots(lines).any()


def test_no_shape_touches_the_border():
    for gesture in vocabulary().values():
        on = dots(draw_hand(gesture.pose, columns=40, rows=20))
        assert not np.concatenate([on[0], on[-1], on[:, 0], on[:, -1]]).any(), gesture.name


def test_shapes_look_what_they_are():
    shapes = vocabulary()
    heights = {}
    for name in ("open", "point", "fist"):
        on = dots(draw_hand(shapes[name].pose, columns=60, rows=30))
        heights[name] = np.flatnonzero(on.any(1))[-1] - np.flatnonzero(on.any(1))[0]
    assert heights["fist"] < 0.7 * heights["open"]
    assert heights["point"] > 0.8 * heights["open"]


def test_shapes_are_told_apart():
    drawn = {"\n".join(draw_hand(g.pose, columns=46, rows=18)) for g in vocabulary().values()}
    assert len(drawn) == len(vocabulary())


def test_a_left_hand_is_a_mirror_image():
    pose = vocabulary()["point"].pose
    right, left = (dots(draw_hand(pose, columns=40, rows=20, side=side)) for side in Side)
    assert (right != left[:, ::-1]).mean() < 0.01  # rounding of half dots
    assert (right != left).mean() > 0.02


@pytest.mark.parametrize("end", [0, 1])
def test_any_pose_can_be_drawn(end):
    assert dots(draw_hand(LIMITS[:, end], columns=30, rows=12)).any()


def test_what_is_no_pose_is_refused():
    with pytest.raises(DataError):
        draw_hand(np.zeros(19), columns=10, rows=5)


def test_no_room_is_no_drawing():
    assert draw_hand(np.zeros(20), columns=0, rows=2) == ["", ""]
    assert draw_hand(np.zeros(20), columns=5, rows=0) == []


def test_blocks_show_the_same_hand_without_braille():
    shapes = vocabulary()
    heights = {}
    for name in ("open", "fist"):
        lines = draw_hand(shapes[name].pose, columns=40, rows=20, glyphs=Glyphs.BLOCKS)
        assert [len(line) for line in lines] == [40] * 20
        assert set("".join(lines)) <= set(" ▀▄█")
        heights[name] = sum(bool(line.strip()) for line in lines)
    assert heights["fist"] < 0.7 * heights["open"]


@pytest.mark.parametrize("glyphs", Glyphs)
@pytest.mark.parametrize(("columns", "rows"), [(6, 3), (10, 4), (16, 7)])
def test_small_hands_are_told_apart(glyphs, columns, rows):
    drawn = {
        name: tuple(draw_hand(vocabulary()[name].pose, columns=columns, rows=rows, glyphs=glyphs))
        for name in ("open", "fist", "point")
    }
    assert len(set(drawn.values())) == 3


class Pair(App[None]):
    def compose(self) -> ComposeResult:
        yield HandPair()


async def test_the_hand_stands_beside_its_target_and_says_how_far_it_is_off():
    shapes = vocabulary()
    async with Pair().run_test(size=(80, 20)) as pilot:
        pair = pilot.app.query_one(HandPair)
        target, live = pair.query(HandView)
        pair.aim(shapes["fist"].pose)
        await pilot.pause()
        assert not live.display
        pair.follow(shapes["open"].pose, source="mocap")
        await pilot.pause()
        assert live.display
        assert str(live.border_title).startswith("mocap: ")
        assert not live.has_class("-close")
        assert target.lines != live.lines
        pair.follow(shapes["fist"].pose)
        await pilot.pause()
        assert str(live.border_title) == "live: 0° off"
        assert live.has_class("-close")
        assert target.lines == live.lines
