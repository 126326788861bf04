from __future__ import annotations

import pytest

from embridge_cloud.study import judge
from embridge_cloud.study.judge import judge_heads
from embridge_cloud.study.outcome import Figure, Job, Outcome
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
    assert {e["method"]: e["runs"] for e in choice.table} == {"regression": 6, "cpep": 2}
    assert "2 runs: cpep" in choice.reason


@pytest.mark.parametrize(("lead", "head"), [(0.2, "cpep"), (0.01, "regression"), (-0.2, "regression")])
def test_a_deep_head_must_be_clearly_ahead(monkeypatch, lead, head):
    def planted(made, run, name, shared):
        value = 0.5 + 0.05 * run.rotation + (lead + (0.04 if run.rotation else -0.04) if name == "cpep" else 0.0)
        figures = [
            Figure(
                protocol=protocol,
                chance=0.5,
                windows=10,
                per_participant=dict.fromkeys(run.held_out, value),
                f1_per_participant=dict.fromkeys(run.held_out, value),
                gestures=("a", "b"),
                confusion=((5, 5), (5, 5)),
            )
            for protocol in ("zs-seen", "zs-unseen")
        ]
        return Outcome(job=Job(method=name), run=run, digest="", figures=tuple(figures))

    monkeypatch.setattr(judge, "_judged", planted)
    choice = judge_heads(windows(), config(), candidates=("regression", "cpep"), runs=2)
    assert choice.method == head
    assert f"cpep {lead:+.3f} ±" in choice.reason


def test_a_head_that_cannot_be_judged_is_named():
    with pytest.raises(DataError, match="could not be judged"):
        judge_heads(windows(), config(), candidates=("embridge:unpaired-pose",), runs=1)
    with pytest.raises(ConfigError, match="no method"):
        judge_heads(windows(), config(), candidates=("nothing",))
