"""Words that are read from across the room."""

from __future__ import annotations

import pytest

from embridge_tui.widgets.bigword import ROWS, spelled


@pytest.mark.parametrize("word", ["RELAX", "HOLD", "MAKE IT", "READY", "REVIEW", "LOST", "GET READY", "PAUSED 3"])
def test_state_words_are_large_at_80_columns(word):
    lines = spelled(word, 80, ROWS)
    assert len(lines) == ROWS
    assert {len(line) for line in lines} == {80}
    assert all("█" in line for line in lines)


def test_letters_are_twice_as_wide_as_a_cell_where_there_is_room():
    wide, narrow = spelled("HOLD", 60, ROWS), spelled("HOLD", 30, ROWS)
    assert wide[0].count("█") == 2 * narrow[0].count("█")
    assert spelled("H", 12, ROWS)[2].strip() == "█" * 10
    assert spelled("H", 9, ROWS)[2].strip() == "█" * 5


def test_what_does_not_fit_or_has_no_block_letter_is_spelled_plainly():
    assert spelled("HOLD", 8, ROWS) == ["  HOLD  "]
    assert spelled("HOLD", 40, 3) == ["HOLD".center(40)]
    assert spelled("größer", 40, ROWS) == ["größer".center(40)]
    assert spelled("HOLD", 3, 1) == ["HOL"]
    assert spelled("HOLD", 3, 0) == []


def test_every_letter_has_five_rows_of_one_width():
    from embridge_tui.widgets.bigword import _FONT

    for letter, rows in _FONT.items():
        found = rows.split()
        assert len(found) == ROWS, letter
        assert len({len(row) for row in found}) == 1, letter
