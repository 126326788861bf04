"""Bytes from elsewhere: damaged messages cost the documented error and nothing else. `make fuzz` looks further."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fuzzing import TARGETS


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A valid message with bytes changed, cut out, put in, or cut off."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(["change", "remove", "insert", "cut"]))
        if how == "change" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 8))]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_input_is_taken(name: str):
    for seed in TARGETS[name].seeds:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_costs_the_documented_error(name: str):
    target = TARGETS[name]

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(damaged(target.seeds) | st.binary(max_size=200))
    def attack(data: bytes) -> None:
        target(data)

    attack()
