"""Traces as characters, without a terminal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embridge_tui.trace import BLANK, FULL, GAP, Glyphs, blocks, braille, dots, drawing, lanes, lines

VALUES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 12).map(lambda n: 2 * n)),
    elements=st.floats(-3, 3, width=32) | st.just(float("nan")),
)


def test_a_full_range_fills_every_dot():
    low, high = np.full((3, 20), -1.0), np.full((3, 20), 1.0)
    assert (braille(low, high, 3) == FULL).all()
    assert (blocks(low, high, 3) == 0x2588).all()


@given(VALUES, st.integers(1, 5))
def test_every_cell_is_braille_or_a_gap(values, rows):
    codes = braille(values, np.maximum(values, values**2), rows)
    assert codes.shape == (len(values), rows, values.shape[1] // 2)
    assert (((codes >= BLANK) & (codes <= FULL)) | (codes == GAP)).all()
    codes = blocks(values, np.maximum(values, values**2), rows)
    assert (((codes >= 0x2581) & (codes <= 0x2588)) | (codes == 0x20) | (codes == GAP)).all()


@pytest.mark.parametrize("glyphs", Glyphs)
def test_a_cell_that_lacks_samples_is_a_gap_over_its_whole_height(glyphs):
    low, high = np.full((1, 12), -1.0), np.full((1, 12), 1.0)
    low[0, 5] = high[0, 5] = np.nan
    codes = drawing(glyphs)(low, high, 3)[0]
    assert codes[1, 2] == GAP
    assert set(codes[[0, 2], 2]) <= {BLANK, 0x20}
    assert GAP not in np.delete(codes, 2, axis=1)


def test_nothing_is_drawn_across_a_gap():
    low = np.full((1, 12), -1.0)
    low[0, 6:] = 1.0
    low[0, 4:6] = np.nan
    drawn = raster(braille(low, low, 2)[0])
    assert drawn[:, :4].sum() == 4
    assert drawn[:, 6:].sum() == 6
    joined = low.copy()
    joined[0, 4:6] = -1.0
    assert raster(braille(joined, joined, 2)[0])[:, 6].all(), "a step without a gap is one line"


@given(st.integers(1, 6), st.floats(-1, 1))
def test_a_flat_line_is_one_row_of_dots_where_it_belongs(rows, level):
    flat = np.full((1, 8), level)
    drawn = raster(braille(flat, flat, rows)[0])
    assert drawn.sum() == 8
    row = np.flatnonzero(drawn.any(1))[0]
    assert row == pytest.approx((1 - level) / 2 * (4 * rows - 1), abs=0.5001)


def test_blocks_rise_with_the_extent():
    extent = np.repeat(np.linspace(0, 1, 9), 2)[None]
    assert lines(blocks(-extent, extent, 1)) == [" ▁▂▃▄▅▆▇█"]


@given(st.integers(0, 100), st.integers(1, 40))
def test_lanes_fill_the_room(height, channels):
    heights = lanes(height, channels)
    assert sum(heights) == height
    assert max(heights) - min(heights) <= 1
    assert heights == sorted(heights, reverse=True)


def test_lines_are_what_the_codes_say():
    assert lines(np.array([[[65, 66], [67, 0x28FF]]], np.uint32)) == ["AB", "C⣿"]
    assert lines(np.zeros((2, 0), np.uint32)) == ["", ""]


@given(hnp.arrays(bool, st.tuples(st.integers(1, 3).map(lambda n: 4 * n), st.integers(1, 5).map(lambda n: 2 * n))))
def test_dots_are_found_where_they_were_set(on):
    assert (raster(dots(on)) == on).all()


def raster(codes: np.ndarray) -> np.ndarray:
    """(rows, columns) of braille as its dots, (4 rows, 2 columns)."""
    bits = np.array([[0, 3], [1, 4], [2, 5], [6, 7]])
    codes = np.where(codes == GAP, BLANK, codes).astype(int) - BLANK
    on = (codes[:, None, :, None] >> bits[None, :, None, :]) & 1
    return on.reshape(4 * len(codes), -1).astype(bool)
