from __future__ import annotations

import pytest

from embridge_cloud.study.judge import judge_heads
from embridge_shared.errors import ConfigError, DataError
from support.study_world import config, windows


def test_heads_are_judged_on_train_participants_and_seen_gestures_alone():
    seen = [f"g{i}" for i in range(6)]
    made = windows().of_gestures(seen)
    choice = judge_heads(made, config(), candidates=("regression", "closed"))
    assert choice.method in ("regression", "closed")
    assert {e["method"] for e in choice.table} == {"regression", "closed"}
    assert all(e["unseen"] > e["chance"] for e in choice.table)
    assert choice.table[0]["runs"] == 3 * 2


def test_deep_heads_are_judged_on_a_few_runs():
    choice = judge_heads(windows(), config(steps=3), candidates=("regression", "cpep"), runs=2)
    assert {e["runs"] for e in choice.table} == {2}


def test_a_head_that_cannot_be_judged_is_named():
    with pytest.raises(DataError, match="could not be judged"):
        judge_heads(windows(), config(), candidates=("embridge:unpaired-pose",), runs=1)
    with pytest.raises(ConfigError, match="no method"):
        judge_heads(windows(), config(), candidates=("nothing",))
