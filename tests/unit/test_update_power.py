"""Power cuts: before steps that an update takes towards the disk. The edge always starts with a whole release."""

from __future__ import annotations

import pytest

from support.update_rig import Rig, every

STRIDE = 3
"""Every so many steps; `tests/faults` takes each."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("power"))


def test_power_cuts_in_an_update(rig):
    every(rig, rig.update, stride=STRIDE, goals=("embridge-2",))


def test_power_cuts_in_a_rollback(rig):
    every(rig, rig.go_back, stride=2 * STRIDE, goals=("embridge-2", "embridge-1"))
