"""Recordings as a decoder meets them: rest, gestures and what must not be looked at; thresholds for a release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.decisions import TARGETS
from embridge_cloud.learn.onsets import BETWEEN, REST
from embridge_cloud.learn.wearer_prior import fit_wearer_prior
from embridge_cloud.pairing import PairedRun, PairedSession
from embridge_cloud.snapshot import Snapshot
from embridge_cloud.traces import Scores, Stretch, stretches, trace_of
from embridge_cloud.tuning import doubted, groups, head_traces, tune, wearer_traces
from embridge_shared.decision import DecisionConfig, OperatingPoint, activity_of
from embridge_shared.errors import DataError
from embridge_shared.preprocess import Features, FrontEndConfig, PreprocessConfig, WearerScale, WindowConfig
from embridge_shared.session import Repetition, RepetitionStatus
from support.learn_world import paired

RATE_HZ, LENGTH, HOP, CHANNELS = 100.0, 100, 10, 6
PREPROCESS = PreprocessConfig(
    front_end=FrontEndConfig(mode="identity", rate_hz=RATE_HZ, highpass_hz=None, lowpass_hz=None, notch_hz=()),
    window=WindowConfig(length=LENGTH, hop=HOP, patch=20),
)
SEEN = tuple(f"g{i}" for i in range(4))


def worlds_windows(people: int, first: int = 0, seed: int = 0) -> Windows:
    made = paired(windows=people * 6 * 8, people=people, gestures=6, samples=LENGTH, first_person=first, seed=seed)
    return replace(made, repetition=made.repetition + 1)


def session(
    person: int = 0, *, seed: int = 0, gap_s: float = 0.0, reject: int = 0
) -> tuple[PairedSession, list[Repetition]]:
    """Each gesture held for two windows, with 3 s of rest between."""
    made = worlds_windows(1, person, seed)
    rng = np.random.default_rng([seed, person, 5])
    assert made.emg is not None
    parts, done, at = [], [], 0
    for i in range(48):
        rest = np.abs(rng.normal(0, 0.02, (300, CHANNELS)))
        held = np.concatenate([made.emg[i][20:80]] * 4)
        parts += [rest, held]
        begin = at + len(rest)
        at = begin + len(held)
        rejected = reject and i < reject
        done.append(
            Repetition(
                gesture=f"g{made.label[i]}",
                repetition=int(made.repetition[i]),
                start_ns=round(begin / RATE_HZ * 1e9),
                end_ns=round(at / RATE_HZ * 1e9),
                status=RepetitionStatus.REJECTED if rejected else RepetitionStatus.ACCEPTED,
            )
        )
    values = np.concatenate(parts).astype(np.float32)
    t_ns = np.round((np.arange(len(values)) / RATE_HZ + gap_s) * 1e9).astype(np.int64)
    run = PairedRun(Features(0, values, np.zeros(len(values), bool)), t_ns, None)
    accepted = tuple(r for r in done if r.status is RepetitionStatus.ACCEPTED)
    return PairedSession(f"s{person}", f"p{person}", 0, (run,), accepted), done


def cut(person: int = 0, *, gestures: Sequence[str] = SEEN, **more: int) -> list[Stretch]:
    paired_session, done = session(person, **more)
    return stretches(paired_session, done, WearerScale.identity(CHANNELS), PREPROCESS, gestures)


def seen_scores(windows: np.ndarray) -> Scores:
    return windows.mean(axis=1), windows.max(axis=(1, 2))


def test_every_hop_knows_what_was_done() -> None:
    everything = tuple(f"g{i}" for i in range(6))
    (found,) = cut(gestures=everything)
    truth, whole = found.hops()
    assert len(truth) == len(found.windows()) == len(whole)
    # 3 s of rest: a second of it until no movement is in the window; 2.4 s of gesture, 1.4 s of it filled
    hops = truth[54:108]
    assert (hops == REST).sum() == pytest.approx(20, abs=1)
    assert (hops == BETWEEN).sum() == pytest.approx(10, abs=1)
    assert (hops >= 0).sum() == pytest.approx(24, abs=1)
    assert whole[54:108].sum() == pytest.approx(15, abs=1)
    np.testing.assert_array_equal(found.windows()[3], found.features[30 : 30 + LENGTH])
    assert [(g, r) for g, r, _ in found.performed()] == [(g, r) for g in range(6) for r in range(1, 9)]


def test_moments_of_other_gestures_change_nothing() -> None:
    paired_session, done = session()
    (run,) = paired_session.runs
    changed = run.features.values.copy()
    for r in done:
        if r.gesture not in SEEN:
            changed[round(r.start_ns * 1e-7) : round(r.end_ns * 1e-7)] = 77.0
    other = replace(paired_session, runs=(replace(run, features=replace(run.features, values=changed)),))
    assert (changed == 77.0).any()
    scale = WearerScale.identity(CHANNELS)
    before = [trace_of(s, seen_scores) for s in stretches(paired_session, done, scale, PREPROCESS, SEEN)]
    after = [trace_of(s, seen_scores) for s in stretches(other, done, scale, PREPROCESS, SEEN)]
    assert len(before) == len(after) > 5
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.log_likelihood, b.log_likelihood)
        np.testing.assert_array_equal(a.activity, b.activity)
        assert set(a.truth) <= {REST, BETWEEN, 0, 1, 2, 3}


def test_a_rejected_repetition_is_no_rest() -> None:
    rest = sum((trace_of(s, seen_scores).truth == REST).sum() for s in cut())
    rejected = sum((trace_of(s, seen_scores).truth == REST).sum() for s in cut(reject=6))
    assert rejected < rest
    quiet = [trace_of(s, seen_scores) for s in cut(reject=6)]
    assert max(t.activity[t.truth == REST].max() for t in quiet) < 0.1


def test_flawed_features_and_gaps_are_cut_out() -> None:
    paired_session, done = session()
    (run,) = paired_session.runs
    flawed = run.features.flawed.copy()
    flawed[5000:5010] = True
    bad = replace(paired_session, runs=(replace(run, features=replace(run.features, flawed=flawed)),))
    found = stretches(bad, done, WearerScale.identity(CHANNELS), PREPROCESS, tuple(f"g{i}" for i in range(6)))
    assert [s.first for s in found] == [0, 5010]
    # windows stay on the release's grid
    assert len(found[1].windows()) == (len(found[1].features) - LENGTH) // HOP + 1


def test_a_trace_holds_what_a_decoder_sees() -> None:
    stretch = cut()[0]
    found = trace_of(stretch, seen_scores, spent=[1])
    view = stretch.windows()
    assert found.activity[7] == pytest.approx(activity_of(view[7], RATE_HZ))
    np.testing.assert_allclose(found.log_likelihood[7], view[7].mean(axis=0), rtol=1e-6)
    assert found.distance is not None
    assert found.hop_s == pytest.approx(0.1)
    plain = trace_of(stretch, seen_scores)
    assert (plain.truth >= 0).any()
    spent = trace_of(stretch, seen_scores, spent=range(1, 9))
    assert not (spent.truth >= 0).any()
    assert not spent.whole.any()
    np.testing.assert_array_equal(plain.truth == REST, spent.truth == REST)


def test_a_wearers_model_is_fitted_on_people_its_prior_never_met() -> None:
    train = worlds_windows(6).of_gestures(SEEN)
    asked: list[tuple[str, ...]] = []

    def prior_without(people: Sequence[str]):  # type: ignore[no-untyped-def]
        asked.append(tuple(people))
        rest = train.of_participants(sorted(train.present("participants") - set(people)))
        return fit_wearer_prior(rest, rest.without_emg(), SEEN)

    recorded = [s for p in range(6) for s in cut(p)]
    traces = wearer_traces(recorded, prior_without)
    assert sorted(p for group in asked for p in group) == [f"p{i}" for i in range(6)]
    assert {t.person for t in traces} == {f"p{i}" for i in range(6)}
    decided, metrics = tune(traces, SEEN, "decision.wearer")
    assert decided is not None
    assert [p.target_per_hour for p in decided.points] == list(TARGETS)
    assert metrics["decision.wearer.people"] == 6
    assert metrics["decision.wearer.recall"] > 0.5
    assert metrics["decision.wearer.ece"] < 0.2
    # three repetitions calibrate: nothing is asked of them
    numbers = {r for s in recorded for _, r, _ in s.performed()}
    assert numbers == set(range(1, 9))
    performed = sum(len(s.performed()) for s in recorded)
    counted = sum(len(np.unique(np.cumsum(np.diff(t.truth, prepend=-9) != 0)[t.truth >= 0])) for t in traces)
    assert counted == performed * 5 // 8


def test_a_head_is_fitted_on_strangers_or_without_those_it_meets() -> None:
    def told(mark: float):  # type: ignore[no-untyped-def]
        return lambda w: (np.full((len(w), 4), mark), None)

    recorded = [s for p in range(4) for s in cut(p)[:1]]
    strangers = [s for s in recorded if s.person == "p3"]
    trained = [s for s in recorded if s.person != "p3"]
    seen = head_traces(strangers, told(1.0), trained, lambda people: told(2.0 + int(people[0][1])))
    marks = {t.person: t.log_likelihood[0, 0] for t in seen}
    assert marks == {"p3": 1.0, "p0": 2.0, "p1": 3.0, "p2": 4.0}
    assert {t.person for t in head_traces(strangers, told(1.0), trained)} == {"p3"}
    assert groups(["b", "a", "c", "d", "a"]) == [("a", "d"), ("b",), ("c",)]

    def none(people: Sequence[str]):  # type: ignore[no-untyped-def]
        raise DataError("too few")

    assert {t.person for t in head_traces(strangers, told(1.0), trained, none)} == {"p3"}


def test_too_little_leaves_a_release_without_decisions() -> None:
    assert tune([], SEEN, "decision.release") == (None, {})
    alone = [trace_of(s, seen_scores) for s in cut()]
    fitted, metrics = tune([replace(t, log_likelihood=t.log_likelihood[:, :4]) for t in alone], SEEN, "x")
    assert fitted is not None
    assert metrics == {"x.people": 1.0}


def test_doubt_promises_less() -> None:
    points = tuple(OperatingPoint(target_per_hour=t, otherwise=p) for t, p in ((2.0, 0.9), (6.0, 0.8), (12.0, 0.7)))
    config = DecisionConfig(temperature=1.5, target_per_hour=6.0, otherwise=0.8, points=points)
    less = doubted(config)
    assert (less.temperature, less.otherwise, less.target_per_hour) == (3.0, 0.9, 4.0)


def test_a_snapshot_without_some_people_forgets_all_of_theirs() -> None:
    train = worlds_windows(3)
    snapshot = Snapshot(train, train, train.without_emg(), "0", (), tuple(cut()))
    part = snapshot.without(["p1"])
    assert part.train.present("participants") == {"p0", "p2"}
    assert part.unseen_poses is not None
    assert part.unseen_poses.present("participants") == {"p0", "p2"}
    assert (part.validation, part.stretches) == (None, ())
    with pytest.raises(DataError):
        snapshot.without(["p0", "p1", "p2"])
