"""Data that arrive in drops: who records when, what is spoilt, and what is made of the figures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embridge_cloud.demo.continual_report import backward_transfer, forgetting
from embridge_cloud.demo.drops import EDGES, POISONED, ninapro_drops, synthetic_drops
from embridge_edge import plan
from embridge_shared.errors import ConfigError


def entries(dealt):
    return [entry for edge in EDGES for entry in dealt[edge]]


def test_nobody_is_learnt_from_who_is_held_out_and_everybody_comes_once() -> None:
    found = synthetic_drops(seed=3)
    learners, judges = [], []
    for drop in found.drops:
        recorded = entries(drop.recording)
        learners += [e["participant"] for e in recorded if e["purpose"] == "training"]
        judges += [e["participant"] for e in recorded if e["purpose"] == "evaluation"]
        assert sorted(e["participant"] for e in recorded if e["purpose"] == "evaluation") == sorted(drop.judges)
        assert {e["participant"] for e in entries(drop.live)} == set(drop.judges)
    assert len(set(learners)) == len(learners)
    assert not set(learners) & set(judges)
    assert set(found.world.recipe.held_out) == set(judges)


def test_only_the_spoilt_drop_has_mixed_up_prompts_and_only_in_what_is_learnt() -> None:
    for drop in synthetic_drops().drops:
        mixed = {e["purpose"] for e in entries(drop.recording) if e["source"].get("written")}
        assert mixed == ({"training"} if drop.number == POISONED else set())
        assert drop.spoilt == (drop.number == POISONED)
        for entry in entries(drop.recording):
            source = entry["source"]
            for done, written in zip(source["gestures"], source.get("written", ()), strict=False):
                assert done != written


def test_what_is_decoded_later_is_another_performance() -> None:
    first = synthetic_drops().drops[0]
    before = {e["participant"]: e["source"]["performance"] for e in entries(first.recording)}
    for entry in entries(first.live):
        assert entry["source"]["performance"] != before[entry["participant"]]


@pytest.mark.parametrize("stage", ["recording", "live"])
def test_edges_understand_their_plans(stage, tmp_path) -> None:
    for drop in synthetic_drops().drops:
        for edge in EDGES:
            path = tmp_path / f"{edge}-{drop.number}.json"
            path.write_text(json.dumps({"session": getattr(drop, stage)[edge]}))
            if getattr(drop, stage)[edge]:
                assert len(plan.load(path).session) == len(getattr(drop, stage)[edge])


def test_recorded_people_arrive_in_three_drops(tmp_path) -> None:
    for number in range(1, 16):
        (tmp_path / f"S{number}_A1_E1.mat").touch()
    found = ninapro_drops(tmp_path)
    assert [len(d.judges) for d in found.drops] == [3, 2, 2]
    mixed = [e for e in entries(found.drops[1].recording) if e["source"].get("written")]
    assert {e["purpose"] for e in mixed} == {"training"}
    (tmp_path / "S15_A1_E1.mat").unlink()
    with pytest.raises(ConfigError, match="14 participants"):
        ninapro_drops(tmp_path)


def test_forgetting_is_what_the_last_release_lost_and_transfer_what_it_gave() -> None:
    accuracy = np.array([[0.6, 0.5, 0.4], [0.7, 0.65, 0.4], [0.5, 0.75, 0.8]])
    assert forgetting(accuracy) == pytest.approx(((0.7 - 0.5) + (0.65 - 0.75)) / 2)
    assert backward_transfer(accuracy) == pytest.approx(((0.5 - 0.6) + (0.75 - 0.65)) / 2)
    assert forgetting(accuracy[:1, :1]) == backward_transfer(accuracy[:1, :1]) == 0.0
