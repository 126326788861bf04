"""A study in processes of its own: the same figures, and one that dies."""

from __future__ import annotations

from embridge_cloud.study.runner import Told, basis_of, pending, run_study
from support.study_world import Dying, figures_of, study


def test_two_processes_give_what_one_gives(tmp_path):
    alone = run_study(study(tmp_path / "alone"))
    told: list[Told] = []
    both = run_study(study(tmp_path / "both", jobs=2), tell=told.append)
    assert figures_of(both) == figures_of(alone)
    assert len([t for t in told if t.done]) == 6


def test_a_dead_process_fails_its_jobs_alone(tmp_path):
    told: list[Told] = []
    found = run_study(study(tmp_path, jobs=2, source=Dying()), tell=told.append)
    failed = [o for o in found if o.error]
    assert {o.run.fold.name for o in failed} == {"B"}
    assert len(failed) == 3
    assert "-9" in failed[0].error
    assert len([o for o in found if o.figures]) == 3
    assert len([t for t in told if t.done and t.error]) == 3
    assert len(pending(study(tmp_path), basis_of(study(tmp_path, source=Dying())))) == 1
