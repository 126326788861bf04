"""A warm start: what moves and what must not, whom it may have met, and a training that was killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from embridge_cloud.learn.config import LearnConfig
from embridge_cloud.learn.heads import fit_head, load_head, save_head
from embridge_cloud.learn.optim import Progress, ignore_progress
from embridge_cloud.learn.presets import quick
from embridge_cloud.learn.trained import Trained
from embridge_cloud.learn.warm import Start, anchor_of, check_anchor, check_start
from embridge_cloud.recipe import MODEL, Continuation, Recipe
from embridge_cloud.snapshot import Snapshot
from embridge_cloud.training import CHECKPOINTS, Desk, Trainer, space_of
from embridge_shared.errors import LeakageError, ModelError, Reason
from embridge_shared.preprocess import PreprocessConfig, WindowConfig
from support.learn_world import paired

change = msgspec.structs.replace
DIGEST = "d" * 64


def config(**changes: object) -> LearnConfig:
    base = quick(channels=6, patch=40)
    return change(
        base,
        **{
            "encoder": change(base.encoder, width=16),
            "emg_mae": change(base.emg_mae, steps=3, decoder_width=16, batch=16),
            "pose_mae": change(base.pose_mae, steps=3, decoder_width=16, batch=16),
            "qformer": change(base.qformer, queries=2),
            "align": change(base.align, steps=6, batch=16, min_participants=1),
            "threads": 1,
        }
        | changes,
    )


OLD, NEW = (paired(windows=64, samples=config().emg.window, first_person=n) for n in (0, 10))


@pytest.fixture(scope="module")
def champion() -> Trained:
    made = fit_head("embridge", OLD, config(), seed=0)
    assert isinstance(made, Trained)
    return made


def weights(model: Trained, prefix: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.model.state_dict().items() if k.startswith(prefix)}


@pytest.mark.parametrize("distil", [0.0, 1.0])
def test_the_emg_side_goes_on_and_the_pose_side_stays_to_the_bit(champion, distil) -> None:
    before = anchor_of(champion.model)
    made = fit_head("embridge", NEW, config(), seed=1, start=Start(champion, distil))
    assert isinstance(made, Trained)
    assert anchor_of(made.model) == before == anchor_of(champion.model)
    np.testing.assert_array_equal(made.embed_pose(OLD.pose), champion.embed_pose(OLD.pose))
    for prefix in ("emg.", "qformer."):
        moved = [not torch.equal(v, champion.model.state_dict()[k]) for k, v in weights(made, prefix).items()]
        assert any(moved), prefix
    assert {"emg_mae", "pose_mae"}.isdisjoint(made.history)
    assert ("drift" in made.history) is (distil > 0)
    # whom the weights have met stays on record, whatever they are trained on now
    assert set(made.lineage.participants) == set(OLD.participants) | set(NEW.participants)
    assert set(made.lineage.sessions) == set(OLD.sessions) | set(NEW.sessions)


def test_a_pull_towards_the_champion_holds_embeddings_back(champion) -> None:
    def moved(distil: float) -> float:
        learn = config()
        learn = change(learn, align=change(learn.align, steps=12))
        made = fit_head("embridge", NEW, learn, seed=1, start=Start(champion, distil))
        return float(1 - (made.embed_emg(OLD.emg) * champion.embed_emg(OLD.emg)).sum(-1).mean())

    assert moved(30.0) < moved(0.0)


def test_another_pose_space_is_told_from_the_anchor(champion) -> None:
    other = fit_head("embridge", OLD, config(), seed=5)
    assert isinstance(other, Trained)
    check_anchor(champion.model, anchor_of(champion.model))
    with pytest.raises(ModelError, match="speaks in pose space") as caught:
        check_anchor(other.model, anchor_of(champion.model))
    assert caught.value.reason is Reason.INCOMPATIBLE


@pytest.mark.parametrize("name", ["center", "centroids", "pose.scale"])
def test_every_part_of_the_pose_side_belongs_to_the_anchor(champion, tmp_path, name) -> None:
    save_head(champion, tmp_path)
    copy = load_head(tmp_path)
    assert isinstance(copy, Trained)
    assert anchor_of(copy.model) == anchor_of(champion.model)
    with torch.no_grad():
        copy.model.state_dict()[name].add_(1e-4)
    assert anchor_of(copy.model) != anchor_of(champion.model)


def test_a_model_that_met_a_stranger_is_not_gone_on_from(champion) -> None:
    check_start(Start(champion), config(), {"somebody"})
    with pytest.raises(LeakageError, match="has learnt from p2"):
        check_start(Start(champion), config(), {"p2", "somebody"})
    control = replace(champion, lineage=change(champion.lineage, shuffled=True))
    with pytest.raises(LeakageError, match="control"):
        check_start(Start(control), config(), ())
    with pytest.raises(ModelError, match=r"another \[learn\.encoder\]"):
        check_start(Start(champion), config(encoder=change(config().encoder, width=32)), ())


# the trainer of a job


def recipe(**changes: object) -> Recipe:
    people = {"seen": OLD.gestures, "heads": ("embridge",)} | changes
    window = WindowConfig(length=config().emg.window, hop=10, patch=config().emg.patch)
    return Recipe(preprocess=PreprocessConfig(window=window), learn=config(), **people)


def continued(champion: Trained, **changes: object) -> Recipe:
    return recipe(parent=DIGEST, continues=Continuation(head="embridge", anchor=anchor_of(champion.model)), **changes)


def trainer(out: Path, told: Recipe, desk: Desk, progress=ignore_progress) -> Trainer:
    return Trainer(Snapshot(NEW, None, None, "0" * 64, NEW.sessions), told, out, desk, progress)


@pytest.fixture
def kept(champion, tmp_path) -> Path:
    save_head(champion, tmp_path / MODEL)
    return tmp_path / MODEL


def test_a_trainer_goes_on_from_the_champion_it_is_given(champion, kept, tmp_path) -> None:
    made = trainer(tmp_path / "job", continued(champion), Desk(champion=kept))
    assert made.warm == DIGEST
    choice = made.choose()
    assert choice.method == "embridge"
    assert space_of(made.head(choice)) == anchor_of(champion.model)
    anew = trainer(tmp_path / "job", recipe(), Desk(champion=kept))
    assert anew.warm == ""
    assert space_of(anew.head(anew.choose())) != anchor_of(champion.model)


def test_a_champion_that_is_gone_or_another_one_is_not_replaced_in_silence(champion, kept, tmp_path) -> None:
    with pytest.raises(ModelError, match="not here any more"):
        trainer(tmp_path / "job", continued(champion), Desk())
    told = continued(champion)
    other = change(told, continues=change(told.continues, anchor="e" * 64))
    with pytest.raises(ModelError, match="its line in eeee"):
        trainer(tmp_path / "job", other, Desk(champion=kept))


class KilledError(Exception):
    pass


@pytest.mark.parametrize("moment", [("emg_mae", 2), ("pose_mae", 3), ("align", 4)])
def test_a_training_that_was_killed_gives_the_same_model(tmp_path, moment) -> None:
    def dies(p: Progress) -> None:
        if (p.stage, p.step) == moment:
            raise KilledError

    def run(folder: Path, progress=ignore_progress) -> Trained:
        made = trainer(folder, recipe(), Desk(every=2), progress)
        head = made.head(made.choose())
        assert isinstance(head, Trained)
        return head

    with pytest.raises(KilledError):
        run(tmp_path / "killed", dies)
    seen: list[Progress] = []
    resumed = run(tmp_path / "killed", seen.append)
    whole = run(tmp_path / "whole")
    assert (len(seen) < 12) is (moment[0] != "emg_mae")  # the first checkpoint is after step 2
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.history == whole.history


def test_checkpoints_of_other_data_are_dropped(tmp_path) -> None:
    first = trainer(tmp_path, recipe(), Desk(every=2))
    first.head(first.choose())
    (key,) = (tmp_path / CHECKPOINTS).iterdir()
    fewer = Snapshot(NEW.of_participants(["p10", "p11"]), None, None, "0" * 64, NEW.sessions)
    Trainer(fewer, recipe(), tmp_path, Desk(every=2), ignore_progress)
    assert not key.exists()
    first.done()
    assert not (tmp_path / CHECKPOINTS).exists()
