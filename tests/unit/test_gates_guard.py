"""Which recordings are named before they are learnt from, and which are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embridge_cloud.gates import GUARD, inspect, read_guard, write_guard
from embridge_cloud.learn.data import Windows
from embridge_shared.errors import DataError
from support.learn_world import paired

PEOPLE = 8
NEW = ("s-p6", "s-p7")
TRUSTED = tuple(f"s-p{i}" for i in range(6))


@pytest.fixture(scope="module")
def world() -> Windows:
    return paired(windows=8 * PEOPLE * 4, people=PEOPLE, samples=40)


def rows_of(world: Windows, session: str) -> np.ndarray:
    return np.flatnonzero(world.session == world.sessions.index(session))


def flagged(world: Windows, trusted=TRUSTED) -> dict[str, str]:
    return {s.session: s.suspicious for s in inspect(world, trusted) if s.suspicious}


def test_sound_sessions_are_not_suspicious(world) -> None:
    assert flagged(world) == {}
    assert flagged(world, ()) == {}


def test_every_session_is_looked_at_by_all_three(world) -> None:
    seen = inspect(world, TRUSTED)
    assert [s.session for s in seen] == sorted(world.sessions)
    assert {s.session for s in seen if s.trusted} == set(TRUSTED)
    for s in seen:
        assert s.participant == s.session.removeprefix("s-")
        assert None not in (s.own, s.pose, s.others)
        assert s.chance == 1 / 8


def test_mixed_up_prompts_are_named_though_each_session_agrees_with_itself(world) -> None:
    label = world.label.copy()
    for session in NEW:
        rows = rows_of(world, session)
        label[rows] = (label[rows] + 3) % 8
    found = flagged(replace(world, label=label))
    assert set(found) == set(NEW)  # though the whole drop is wrong: earlier sessions alone are trusted
    assert all("hand poses" in why for why in found.values())
    own = {s.session: s.own for s in inspect(replace(world, label=label), TRUSTED)}
    assert own[NEW[0]] > 0.8


def test_labels_at_random_are_borne_out_by_nothing(world) -> None:
    rng = np.random.default_rng(0)
    label = world.label.copy()
    for session in NEW:
        rows = rows_of(world, session)
        label[rows] = rng.permutation(label[rows])
    found = flagged(replace(world, label=label))
    assert set(found) == set(NEW)
    assert all("own labels" in why for why in found.values())


def test_emg_of_somebody_else_is_told_from_wrong_labels(world) -> None:
    assert world.emg is not None
    emg = np.array(world.emg)
    rows = rows_of(world, NEW[0])
    emg[rows] = emg[rows][:, :, ::-1]
    found = flagged(replace(world, emg=emg))
    assert set(found) <= {NEW[0]}
    seen = {s.session: s for s in inspect(replace(world, emg=emg), TRUSTED)}
    assert seen[NEW[0]].others < seen[TRUSTED[0]].others - 0.1
    assert seen[NEW[0]].pose > 0.8


def test_windows_without_pose_are_judged_by_emg_alone(world) -> None:
    assert all(s.pose is None for s in inspect(world.without_pose(), TRUSTED))


def test_too_few_trusted_sessions_say_nothing(world) -> None:
    label = world.label.copy()
    rows = rows_of(world, NEW[0])
    label[rows] = (label[rows] + 3) % 8
    assert flagged(replace(world, label=label), TRUSTED[:2]) == {}


def test_what_was_seen_is_kept(world, tmp_path) -> None:
    assert read_guard(tmp_path) == ()
    seen = inspect(world, TRUSTED)
    write_guard(tmp_path, seen)
    assert read_guard(tmp_path) == seen
    (tmp_path / GUARD).write_text("[{}]")
    with pytest.raises(DataError, match="damaged"):
        read_guard(tmp_path)
