from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embridge_edge import plan as plans
from embridge_edge.takes import Tap, open_take
from embridge_shared.clock import SystemClock
from embridge_shared.errors import ConfigError, DataError, OperatorError
from embridge_shared.session import Repetition

SYNTHETIC = """
[[session]]
name = "one"
participant = "p1"

[session.source]
kind = "synthetic"
wearer = 3
performance = 1
gestures = ["fist"]
repetitions = 1
speed = 0
"""


def planned(tmp_path: Path, text: str) -> plans.SessionPlan:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    (entry,) = plans.load(path).session
    return entry


async def recorded(entry: plans.SessionPlan) -> np.ndarray:
    tap, take = Tap.on_band(open_take(entry, Path(), SystemClock()))
    assert take.band is tap
    assert [a.gesture for a in take.annotations if isinstance(a, Repetition)] == ["fist"]
    await take.band.open(0)
    async for _ in take.band.packets():
        pass
    await take.band.close()
    return np.concatenate([samples for _, samples in tap.chunks])


async def test_a_planned_fault_is_on_its_electrode_alone(tmp_path: Path) -> None:
    sound = await recorded(planned(tmp_path, SYNTHETIC))
    faulty = await recorded(planned(tmp_path, SYNTHETIC + 'faults = [{channel = 4, kind = "dead", start_s = 3.0}]\n'))
    others = [c for c in range(16) if c != 4]
    after = slice(7000, None)
    assert faulty[after, 4].std() < 0.5 * sound[after, 4].std()
    ratio = faulty[after][:, others].std(axis=0) / sound[after][:, others].std(axis=0)
    assert np.abs(ratio - 1).max() < 0.05


def test_mixed_up_prompts_change_what_is_written_and_not_what_is_done(tmp_path: Path) -> None:
    text = SYNTHETIC.replace('["fist"]', '["fist", "open"]')
    right = open_take(planned(tmp_path, text), Path(), SystemClock()).annotations
    wrong = open_take(planned(tmp_path, text + 'written = ["open", "fist"]'), Path(), SystemClock()).annotations
    swapped = {"fist": "open", "open": "fist"}
    assert [swapped[a.gesture] for a in right] == [a.gesture for a in wrong]
    assert [(a.start_ns, a.end_ns) for a in right] == [(a.start_ns, a.end_ns) for a in wrong]
    with pytest.raises(ConfigError, match="`written` names 1 gestures, `gestures` names 2"):
        planned(tmp_path, text + 'written = ["open"]')


@pytest.mark.parametrize("line", ['faults = [{channel = 4, kind = "burnt"}]', "speed = -1", 'gesture = ["fist"]'])
def test_a_plan_that_cannot_be_is_refused_by_name(tmp_path: Path, line: str) -> None:
    text = SYNTHETIC.replace("speed = 0\n", "") + line
    with pytest.raises(ConfigError):
        planned(tmp_path, text)


def test_what_a_plan_asks_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(OperatorError):
        open_take(planned(tmp_path, SYNTHETIC + "faults = [{channel = 99, kind = 'dead'}]"), tmp_path, SystemClock())
    replay = SYNTHETIC[: SYNTHETIC.index("[session.source]")] + '[session.source]\nkind = "replay"\npath = "no.mat"\n'
    with pytest.raises(DataError, match=r"no\.mat"):
        open_take(planned(tmp_path, replay), tmp_path, SystemClock())
