from __future__ import annotations

import msgspec
import numpy as np
import pytest

from embridge_cloud.datasets.base import EmgKind, PairedRecording, Segment
from embridge_cloud.runs.spec import default_spec
from embridge_cloud.study.artefacts import read_artefacts
from embridge_cloud.study.benchmark import Asked, _switches, plan_benchmark
from embridge_cloud.study.controls import before_movements, controls_of
from embridge_cloud.study.outcome import Job, path_of, read_outcome
from embridge_cloud.study.protocol import Fold
from embridge_cloud.study.rows import make_rows
from embridge_cloud.study.runner import Study, Told, add_elapsed, basis_of, pending, run_study
from embridge_cloud.study.scan import levels_of, scan
from embridge_cloud.study.suites import PAPER, full_jobs, quick_jobs, units_of
from embridge_shared.errors import ConfigError
from embridge_shared.preprocess import ScaleConfig, fit_wearer_scale
from support.study_world import JOBS, World, config, figures_of, run, study, windows

# going on


def test_a_finished_job_is_not_done_again(tmp_path):
    told: list[Told] = []
    first = run_study(study(tmp_path), tell=told.append)
    assert [t.job for t in told if t.done] == [j.name for j in JOBS] * 2
    assert len(first) == 6
    again: list[Told] = []
    assert run_study(study(tmp_path), tell=again.append) == first
    assert not again


def test_a_killed_study_goes_on_with_the_same_result(tmp_path):
    whole = run_study(study(tmp_path / "whole"))

    class Killed(BaseException):
        pass

    def kill(told: Told) -> None:
        if told.done and told.job == JOBS[1].name:
            raise Killed

    with pytest.raises(Killed):
        run_study(study(tmp_path / "cut"), tell=kill)
    left = pending(study(tmp_path / "cut"), basis_of(study(tmp_path / "cut")))
    assert sum(len(u.jobs) for u in left) == 4
    assert figures_of(run_study(study(tmp_path / "cut"))) == figures_of(whole)


def test_a_damaged_outcome_is_made_again(tmp_path):
    whole = run_study(study(tmp_path))
    path = path_of(tmp_path, run(), JOBS[0])
    path.write_bytes(path.read_bytes()[:100])
    assert read_outcome(path) is None
    assert figures_of(run_study(study(tmp_path))) == figures_of(whole)


def test_other_data_or_settings_are_another_study(tmp_path):
    run_study(study(tmp_path))
    other = study(tmp_path, source=World("other"))
    assert len(pending(other, basis_of(other))) == 2
    changed = study(tmp_path)
    changed = Study(changed.source, config(steps=9), changed.units, tmp_path, 0)
    assert len(pending(changed, basis_of(changed))) == 2


def test_time_outlives_a_kill(tmp_path):
    assert add_elapsed(tmp_path, 2.0) == 2.0
    assert add_elapsed(tmp_path, 1.5) == 3.5
    (tmp_path / "elapsed.json").write_text("{")
    assert add_elapsed(tmp_path, 1.0) == 1.0


# failing


def test_a_failing_method_leaves_the_others(tmp_path):
    todo = (Job(method="embridge:unpaired-pose"), Job(method="regression"))
    found = run_study(study(tmp_path, todo=todo))
    assert [bool(o.error) for o in found] == [True, False, True, False]
    assert "unseen" in found[0].error
    assert {r.method for r in make_rows(found)} == {"regression"}


def test_pictures_are_kept_of_the_first_run_of_each_fold(tmp_path):
    todo = (Job(method="embridge"), Job(method="regression"))
    run_study(study(tmp_path, todo=todo))
    found = read_artefacts(tmp_path)
    assert [(a.method, a.unseen_set) for a in found] == [("embridge", "A"), ("embridge", "B")]
    assert [m.stage for m in found[0].maps] == ["before", "after"]
    assert {"emg_mae", "pose_mae", "align"} <= {c.name for c in found[0].curves}
    assert found[0].communities is not None
    assert np.sum(found[0].communities.counts) == 3 * 6 * 10


# suites


def test_the_full_suite_holds_every_method_and_the_quick_one_the_main_ones():
    quick, full = {j.method for j in quick_jobs(("closed",))}, {j.method for j in full_jobs(("closed",))}
    assert {"embridge", "cpep", "regression", "closed", "supervised", "shuffled-pairs"} <= quick <= full
    assert set(PAPER) <= full
    for jobs in (quick_jobs(("closed",)), full_jobs(("closed",))):
        assert len({j.name for j in jobs}) == len(jobs)
        assert {"new-wearer", "calibrated-wearer"} == {j.regime for j in jobs}


def test_ablations_meet_half_of_the_runs():
    runs = [run(), run(rotation=1, held_out=("p2",))]
    units = units_of(
        "full", runs, closed=("closed",), switches=("embridge:gmm",), enrolling=("embridge:unpaired-pose",)
    )
    assert "embridge:gmm" in {j.method for j in units[0].jobs}
    assert "embridge:gmm" not in {j.method for j in units[1].jobs}
    for unit in units:
        assert len({j.name for j in unit.jobs}) == len(unit.jobs)
    enrolled = {j.method for j in units[0].jobs if j.pose_regime == "pose-enrolled"}
    assert {"embridge:unpaired-pose", "embridge"} <= enrolled


def test_unseen_gestures_by_hand_leave_no_folds_to_choose(tmp_path):
    spec = msgspec.structs.replace(default_spec("quick"), data="ninapro:nowhere")
    with pytest.raises(ConfigError, match="no folds"):
        plan_benchmark(Asked(spec=spec, out=tmp_path, unseen=("1", "2"), folds=("P",)))


def test_methods_by_hand():
    units = units_of("quick", [run()], closed=("closed",), only=("regression", "embridge:gmm"))
    assert {j.method for j in units[0].jobs} == {"regression", "embridge:gmm"}


# recordings


def recording(person: int, *, order: list[int], told: float = 0.0) -> PairedRecording:
    """Movements with rest between; `told` makes EMG and glove at rest know what follows."""
    rng = np.random.default_rng(person)
    emg, pose, segments = [], [], []
    at = 0
    for n, gesture in enumerate(order * 4):
        hint = told * np.eye(12)[gesture]
        emg += [rng.random((200, 12)) * 0.2 + 0.05 + hint, rng.random((200, 12)) * 0.2 + np.eye(12)[gesture] + 0.3]
        pose += [rng.normal(size=(200, 12)) + 8 * hint, rng.normal(size=(200, 12)) + 5 * np.eye(12)[gesture]]
        segments.append(Segment(f"g{gesture}", n // len(order) + 1, at + 200, at + 400))
        at += 400
    return PairedRecording(
        participant=f"p{person}",
        session=f"s{person}",
        emg=np.concatenate(emg).astype(np.float32),
        emg_rate_hz=100.0,
        emg_kind=EmgKind.ENVELOPE,
        segments=tuple(segments),
        pose=np.concatenate(pose).astype(np.float32),
        pose_rate_hz=100.0,
    )


PEOPLE = tuple(f"p{i}" for i in range(6))
GROUPS = (("p0", "p1", "p2"), ("p3", "p4", "p5"))


def test_controls_find_what_rest_tells():
    order = [0, 1, 2, 3]
    silent = {c.name: c for c in controls_of([recording(i, order=order) for i in range(6)], GROUPS, window_s=1.6)}
    loud = {
        c.name: c for c in controls_of([recording(i, order=order, told=1.0) for i in range(6)], GROUPS, window_s=1.6)
    }
    assert set(silent) == {
        "rest-before-movement",
        "normaliser-state",
        "causal-normaliser-state",
        "glove-at-rest",
    }
    assert silent["normaliser-state"].balanced_accuracy == pytest.approx(0.25)
    for name in ("rest-before-movement", "glove-at-rest"):
        assert silent[name].balanced_accuracy < 0.45
        assert loud[name].balanced_accuracy > 0.9
        assert loud[name].chance == 0.25
    assert silent["causal-normaliser-state"].balanced_accuracy > 0.5


def test_rest_that_is_too_short_is_no_control():
    assert before_movements([recording(0, order=[0, 1])], 5.0) is None


def scanned(folds=()):
    recordings = [recording(i, order=[*range(12)]) for i in range(6)]
    gestures = tuple(f"g{i}" for i in range(12))
    from embridge_cloud.datasets.config import CutConfig
    from embridge_cloud.datasets.windows import cut_windows

    with_joints = [msgspec_pose(r) for r in recordings]
    made = cut_windows(with_joints, CutConfig(emg_scale=None, stride_s=2.0), gestures=gestures)
    return recordings, made, scan(made, levels_of(recordings, made.participants, gestures), GROUPS, folds)


def msgspec_pose(made: PairedRecording) -> PairedRecording:
    """The same with twenty joints."""
    from dataclasses import replace

    assert made.pose is not None
    wide = np.concatenate([made.pose, np.zeros((len(made.pose), 8), np.float32)], axis=1)
    return replace(made, pose=wide)


def test_the_scan_meets_every_set_once():
    fold = Fold("A", ("g0", "g3", "g6", "g9"))
    _, made, found = scanned([fold])
    assert len(found.values) == 495
    assert found.quantiles["0.05"] <= found.quantiles["0.5"] <= found.quantiles["0.95"]
    assert min(found.values) <= found.folds["A"] <= max(found.values)
    assert found.mean == pytest.approx(np.mean(found.values), abs=1e-4)
    # independent channels say nothing of a movement nobody learnt, and all of one that was
    assert found.seen > 0.9
    assert abs(found.mean - 0.25) < 0.1
    assert len(made.gestures) == 12


def test_the_scans_scale_is_the_wearers_without_the_hidden_gestures():
    recordings = [recording(i, order=[*range(12)]) for i in range(2)]
    gestures = tuple(f"g{i}" for i in range(12))
    levels = levels_of(recordings, ("p0", "p1"), gestures)
    offset, gain = levels.scale((0, 3), ScaleConfig())
    for i, made in enumerate(recordings):
        kept = np.ones(len(made.emg), bool)
        for s in made.segments:
            if s.gesture in ("g0", "g3"):
                kept[s.start : s.stop] = False
        wanted = fit_wearer_scale(made.emg[kept])
        assert offset[i] == pytest.approx(wanted.offset, abs=2e-3)
        assert gain[i] == pytest.approx(wanted.gain, rel=2e-2)


def test_outcomes_survive_their_file(tmp_path):
    (first, *_) = run_study(study(tmp_path, todo=JOBS[:1]))
    assert read_outcome(path_of(tmp_path, first.run, first.job)) == first
    assert msgspec.to_builtins(first)["run"]["fold"]["name"] == "A"
    assert len(windows()) == 400


def test_a_switch_that_changes_nothing_is_left_out():
    base = config()
    assert base.linear.l2 > 0
    assert "embridge:linear-path" not in _switches(base)
    assert {"embridge:no-linear-path", "embridge:ensemble", "embridge:gmm"} <= set(_switches(base))
