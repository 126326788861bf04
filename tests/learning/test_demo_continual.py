"""Data in three drops through real processes: a release, a spoilt drop refused by name, and a better release."""

from __future__ import annotations

import numpy as np
import pytest

from embridge_cloud.demo.cli import sound
from embridge_cloud.demo.continual import run_continual
from embridge_cloud.demo.continual_report import continual_figures
from embridge_cloud.demo.drops import EDGES, synthetic_drops
from embridge_cloud.demo.report import PAGE, write_report


class Silent:
    def stage(self, name: str, text: str) -> None: ...

    def progress(self, done: float, total: float, text: str) -> None: ...


@pytest.mark.learning
@pytest.mark.timeout(1800)
def test_the_fleet_learns_on_and_takes_nothing_from_a_spoilt_drop(tmp_path) -> None:
    arrivals = synthetic_drops()
    out = tmp_path / "report"
    out.mkdir()
    outcome, steps = run_continual(arrivals, tmp_path / "site", Silent())
    found = continual_figures(arrivals, steps, tmp_path / "site" / "cloud" / "sealed", out)
    report = write_report(outcome, out, 0.0, continual=found)

    assert sound(report)
    assert found["refused"] == ["embridge-2"]
    assert found["rolled_back"] == []
    assert [s.in_force for s in steps] == ["embridge-1", "embridge-1", "embridge-3"]
    # the gate says whose recordings did it, and of nobody else
    recorded = [e for entries in steps[1].drop.recording.values() for e in entries]
    spoilt = {e["participant"] for e in recorded if e["purpose"] == "training"}
    assert len(found["drops"][1]["suspicious"]) == len(spoilt)
    assert not found["drops"][0]["suspicious"]
    # the canary came first, and everybody runs what the registry published
    waves = found["drops"][2]["rollout"]["edges"]
    assert set(waves) == set(EDGES)
    assert sorted(e["wave"] for e in waves.values()) == [0, 1, 1, 1]
    accuracy = np.array(found["accuracy_by_drop"], float)
    assert accuracy.shape == (3, 3)
    assert accuracy[0] == pytest.approx(accuracy[1])  # nothing changed in between
    assert accuracy.min() > 3 / 12
    assert found["forgetting"] < 0.08
    assert "Drop by drop" in (out / PAGE).read_text()
