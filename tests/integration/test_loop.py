"""The loop end to end, small: real recordings through real processes, a release back on the edges, live decoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embridge_cloud.demo import worlds
from embridge_cloud.demo.cli import sound
from embridge_cloud.demo.loop import run_loop
from embridge_cloud.demo.report import write_report
from embridge_cloud.learn.config import DEEP, LearnConfig
from embridge_cloud.snapshot import take_snapshot
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.session import GestureChange, Purpose

change = msgspec.structs.replace


class Silent:
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, text: str) -> None:
        self.stages.append(name)

    def progress(self, done: float, total: float, text: str) -> None: ...


def short(learn: LearnConfig) -> LearnConfig:
    return change(
        learn,
        emg_mae=change(learn.emg_mae, steps=8),
        pose_mae=change(learn.pose_mae, steps=30),
        align=change(learn.align, steps=25),
    )


def small(data: Path) -> worlds.World:
    """Four participants, two repetitions; a calibration of one repetition for the one who is decoded."""
    world = worlds.ninapro(data, held_out=(3,))

    def trim(entry: dict[str, Any], repetitions: tuple[int, ...]) -> dict[str, Any]:
        select = dict(entry["source"]["select"] or {"margin_s": 2.0}) | {"repetitions": repetitions}
        return entry | {"source": entry["source"] | {"select": select}}

    people = {"ninapro-s1", "ninapro-s2", "ninapro-s4"}
    recording = {
        edge: [trim(e, (1, 2)) for e in entries if e["participant"] in people]
        for edge, entries in world.recording.items()
    }
    live = {
        edge: [trim(e, (1,) if e["purpose"] == "calibration" else (2, 3)) for e in entries]
        for edge, entries in world.live.items()
    }
    recipe = change(world.recipe, validation=(), learn=short(world.recipe.learn), controls=1)
    return replace(world, recording=recording, live=live, recipe=recipe, skip_repetitions=(1,))


@pytest.mark.real_data
def test_a_recording_goes_in_at_the_wrist_and_comes_out_decoded(data_dir: Path, tmp_path: Path) -> None:
    world = small(data_dir / "ninapro_db1")
    watcher = Silent()
    outcome = run_loop(world, tmp_path / "site", watcher)
    report = write_report(outcome, tmp_path / "report", 0.0)

    assert watcher.stages == ["record", "train", "rollout", "decode"]
    assert sound(report)
    assert report["chunks"]["sent"] == report["chunks"]["stored"] > 100
    assert report["chunks"]["samples_sent"] == report["chunks"]["samples_stored"]
    assert set(report["release"]["edges"].values()) == {"embridge-1"}
    assert report["release"]["edge"] == report["release"]["registry"] == outcome.summary.digest
    # what the edge decoded live is what the cloud's own run of the release gives, bit for bit
    assert report["decode"]["parity"]["windows"] > 50
    assert report["decode"]["parity"]["max_abs"] < 1e-5
    for group, n in (("seen", 8), ("unseen", 4), ("all", 12)):
        figures = report["zero_shot"][group]
        assert figures["chance"] == pytest.approx(1 / n, abs=1e-4)
        assert 0 <= figures["balanced_accuracy"] <= 1
        assert len(figures["gestures"]) == n
    head = report["release"]["head"]
    assert head in world.recipe.heads
    assert head in report["release"]["head_reason"]
    assert {f"trial.{name}.unseen" for name in world.recipe.heads} <= set(report["release"]["metrics"])
    drawn = {"confusion", "embedding", "latency", "strip"} | ({"losses"} if head in DEEP else set())
    assert {p.stem for p in (tmp_path / "report").glob("*.png")} == drawn
    for name in drawn:
        assert (tmp_path / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    catalogue = Catalogue(tmp_path / "site" / "cloud" / "sealed")
    for sealed in catalogue.sessions():
        sealed.verify()
    # the store holds EMG of unseen gestures; the training windows must not
    snapshot = take_snapshot(catalogue, world.recipe, lambda _: None)
    assert snapshot.train.present("gestures") == set(world.recipe.seen)
    assert snapshot.unseen_poses is not None
    assert snapshot.unseen_poses.emg is None
    assert "ninapro-s3" not in snapshot.train.present("participants") | snapshot.unseen_poses.present("participants")
    # decisions lie beside the scores, and every answer that is a gesture stands between its events
    decided = [s for s in catalogue.sessions() if s.session.purpose is Purpose.EVALUATION]
    assert decided
    for sealed in decided:
        scores, said = sealed.samples("decode"), sealed.samples("decision")
        np.testing.assert_array_equal(said.index, scores.index)
        labels = sealed.spec("decision").channels[2:]
        assert labels == sealed.spec("decode").channels
        on = {e.number: e.gesture for e in sealed.decoded() if e.change is GestureChange.ONSET}
        answers = dict(zip(said.index.tolist(), said.values[:, 0].astype(int).tolist(), strict=True))
        assert all(labels[answers[number]] == gesture for number, gesture in on.items())
        begun = [n for n, a in answers.items() if a >= 0 and answers.get(n - 1, -1) != a]
        assert begun == sorted(on)
    held_out = {s.session.participant.id for s in catalogue.sessions() if s.session.purpose is Purpose.EVALUATION}
    assert held_out == {"ninapro-s3"}
