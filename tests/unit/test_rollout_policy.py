"""Policies of rollouts from settings, files and options; lengths of time; what people are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_cloud.rollouts.policy import ONE_WAVE, policy_of, read_policy, waves
from embridge_cloud.rollouts.table import headline, lines
from embridge_cloud.rollouts.tally import tally
from embridge_shared.durations import seconds, spoken
from embridge_shared.errors import ConfigError
from embridge_shared.fleet import RolloutPolicy, RolloutState, UpdatePhase, Wave
from embridge_shared.settings import RolloutSettings
from support.fleets import T0, S, policy, replace, rollout_of


@pytest.mark.parametrize(
    ("text", "length_s"),
    [("90", 90.0), (90, 90.0), ("45s", 45.0), ("10 min", 600.0), ("2h", 7200.0), ("1h30m", 5400.0), ("1.5h", 5400.0),
     ("1d", 86_400.0), ("1w", 604_800.0), ("250ms", 0.25), ("0", 0.0)],
)  # fmt: skip
def test_lengths_of_time_are_read(text, length_s):
    assert seconds(text) == length_s


@pytest.mark.parametrize("text", ["", " ", "h", "2 hours", "-5", "-5s", "1h x", "1e9", "nan", "2h30", "٣s"])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(ConfigError, match="no length of time"):
        seconds(text)


@given(st.integers(0, 10**7))
def test_what_is_spoken_can_be_read_and_is_near(length_s):
    assert abs(seconds(spoken(length_s)) - length_s) <= 0.02 * length_s + 1 + (3600 if length_s > 86_400 else 0)


def test_the_settings_are_a_policy():
    found = policy_of(RolloutSettings(waves=(0.01, 0.1, 0.5, 1.0), soak_s="2h", approve=("all",), retries=5))
    assert [w.name for w in found.waves] == ["canary", "wave-2", "wave-3", "all"]
    assert [w.approve for w in found.waves] == [False, False, False, True]
    assert {w.soak_s for w in found.waves} == {7200.0}
    assert (found.retries, found.trial.max_p99_ms) == (5, found.max_p99_ms)
    assert policy_of(RolloutSettings()).waves[1].name == "early"
    assert ONE_WAVE.trial.probation_s == ONE_WAVE.waves[0].soak_s == 0.0


def test_waves_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="no wave is called 'canaries'"):
        waves([0.1, 1.0], soak_s=1.0, approve=["canaries"])
    for shares in ([0.5], [0.5, 0.2, 1.0], []):
        with pytest.raises(ConfigError, match=r"share of 1|without waves"):
            policy_of(RolloutSettings(waves=tuple(shares)))


def test_a_file_changes_what_it_names(tmp_path):
    path = tmp_path / "careful.toml"
    path.write_text(
        'success = 0.9\npatience_s = "2h"\n[[waves]]\nname = "one"\nshare = 0.01\nsoak_s = "1d"\n'
        '[[waves]]\nname = "all"\nshare = 1.0\napprove = true\n[trial]\nprobation_s = "1h"\n'
    )
    base = policy_of(RolloutSettings(shadow_windows=7))
    found = read_policy(path, base)
    assert found.waves == (
        Wave(name="one", share=0.01, soak_s=86_400.0), Wave(name="all", share=1.0, approve=True),
    )  # fmt: skip
    assert (found.success, found.patience_s, found.trial.probation_s) == (0.9, 7200.0, 3600.0)
    assert (found.trial.shadow_windows, found.max_errors) == (7, base.max_errors)


ODD = (
    "succes = 0.9", "success = 'much'", "patience_s = 'long'", "trial = 3", "[[waves]]\nname = 'x'\nshare = 0.5",
    "on_error = 'explode'", "= 3",
)  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_a_file_that_says_something_else_is_refused(tmp_path, text):
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"odd\.toml"):
        read_policy(path, RolloutPolicy())


def test_what_people_are_shown():
    rollout = rollout_of(8, policy(0.25, 1.0))
    edges = list(rollout.edges)
    edges[0] = replace(edges[0], asked_ns=T0, phase=UpdatePhase.COMMITTED)
    edges[1] = replace(edges[1], asked_ns=T0, phase=UpdatePhase.REFUSED, error="refused: it lies", heard_ns=T0)
    edges[2] = replace(edges[2], left="pinned to m-1")
    rollout = replace(rollout, edges=tuple(edges), state=RolloutState.SOAKING, since_ns=T0, started_by="ana")
    rollout = replace(rollout, tally=tally(rollout))
    shown = "\n".join(lines(rollout, T0 + 4 * S))
    assert "by ana" in shown
    assert "25% → 100%" in shown
    assert "soaks 4 s of 10 s" in shown
    assert "waits for the wave before" in shown
    assert "refused: it lies (error)" in shown
    assert "takes no part: pinned to m-1" in shown
    assert "not asked yet" not in shown
    assert "not asked yet" in "\n".join(lines(rollout, T0, every=True))
    assert "1 error" in headline(rollout)
    assert "r-0001" in headline(rollout)
    many = rollout_of(100, policy(1.0))
    many = replace(many, edges=tuple(replace(p, asked_ns=T0) for p in many.edges))
    assert "and 60 more; --all shows every edge" in "\n".join(lines(replace(many, tally=tally(many)), T0))
