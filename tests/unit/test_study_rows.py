from __future__ import annotations

import msgspec
import numpy as np
import pytest

from embridge_cloud.study.choice import pick_head
from embridge_cloud.study.compare import paired_differences, sign_test
from embridge_cloud.study.outcome import Figure, Job, Outcome
from embridge_cloud.study.protocol import Fold, Run, groups_of
from embridge_cloud.study.rows import Row, failures, interval, make_rows
from embridge_shared.errors import DataError

PEOPLE = [f"p{i}" for i in range(18)]
FOLDS = {"A": ("a", "b"), "B": ("c", "d"), "C": ("e", "f")}


def outcome(
    run: Run, method: str, values: dict[str, dict[str, float]], *, draw: int = 0, share: float = 1.0
) -> Outcome:
    """Figures by protocol and participant."""
    figures = tuple(
        Figure(
            protocol=name,
            chance={"gzs-seen": 0.0625, "gzs-unseen": 0.125}.get(name, 0.25),
            windows=10,
            per_participant=each,
            f1_per_participant={p: v / 2 for p, v in each.items()},
            gestures=("a", "b"),
            confusion=((1, 0), (0, 1)),
        )
        for name, each in values.items()
    )
    return Outcome(job=Job(method=method, draw=draw, share=share), run=run, digest="", figures=figures, wall_s=2.0)


def runs() -> list[Run]:
    groups = groups_of(PEOPLE)
    return [Run(Fold(f, u), r, r // 2, groups[r]) for f, u in FOLDS.items() for r in range(6)]


def study(method: str, mean: float, *, sd: float = 0.05, seed: int = 0, own: bool = True) -> list[Outcome]:
    """A method whose participants differ; `own` gives them the same level in every fold."""
    rng = np.random.default_rng(seed)
    level = dict(zip(PEOPLE, rng.normal(mean, sd, len(PEOPLE)), strict=True))
    made = []
    for run in runs():
        each = {p: level[p] if own else float(rng.normal(mean, sd)) for p in run.held_out}
        made.append(outcome(run, method, {"zs-seen": each, "zs-unseen": {p: v - 0.1 for p, v in each.items()}}))
    return made


def test_a_row_says_what_was_asked():
    row = make_rows(study("m", 0.5))[0]
    assert (row.method, row.regime, row.pose_regime, row.protocol) == ("m", "new-wearer", "strict", "zs-seen")
    assert row.runs == 18
    assert row.seeds == (0, 1, 2)
    assert row.unseen_sets == tuple(FOLDS.values())
    assert set(row.per_fold) == set(FOLDS)
    assert set(row.per_participant) == set(PEOPLE)
    assert row.balanced_accuracy == pytest.approx(np.mean(list(row.per_participant.values())))
    assert row.ci95[0] < row.balanced_accuracy < row.ci95[1]
    assert row.f1 == pytest.approx(row.balanced_accuracy / 2)
    assert row.wall_s == 2.0
    assert {
        "method",
        "regime",
        "protocol",
        "balanced_accuracy",
        "chance",
        "ci95",
        "seeds",
        "unseen_sets",
        "wall_s",
    } <= set(msgspec.to_builtins(row))


def test_a_row_is_the_mean_of_its_participants_over_folds():
    values = {("A", 0): {"p": 0.2, "q": 0.4}, ("B", 0): {"p": 0.6, "q": 0.8}}
    made = [
        outcome(Run(Fold(f, FOLDS[f]), r, 0, ("p", "q")), "m", {"zs-seen": each}) for (f, r), each in values.items()
    ]
    (row,) = make_rows(made)
    assert row.balanced_accuracy == pytest.approx(0.5)
    assert row.per_fold == pytest.approx({"A": 0.3, "B": 0.7})
    assert row.per_participant == pytest.approx({"p": 0.4, "q": 0.6})
    assert row.sd == pytest.approx(np.std([0.3, 0.7], ddof=1))


def test_the_harmonic_mean_is_made_of_its_parts():
    run = Run(Fold("A", FOLDS["A"]), 0, 0, ("p", "q"))
    rows = make_rows([outcome(run, "m", {"gzs-seen": {"p": 0.3, "q": 0.3}, "gzs-unseen": {"p": 0.0, "q": 0.4}})])
    harmonic = next(r for r in rows if r.protocol == "gzs-harmonic")
    assert harmonic.balanced_accuracy == pytest.approx(2 * 0.3 * 0.2 / 0.5)
    assert harmonic.per_participant == pytest.approx({"p": 0.0, "q": 2 * 0.3 * 0.4 / 0.7})
    assert harmonic.chance == pytest.approx(2 * 0.0625 * 0.125 / 0.1875)
    assert harmonic.ci95[0] <= harmonic.balanced_accuracy <= harmonic.ci95[1]


def test_draws_count_as_one_run():
    run = Run(Fold("A", FOLDS["A"]), 0, 0, ("p",))
    rows = make_rows([outcome(run, "m", {"zs-seen": {"p": v}}, draw=d) for d, v in enumerate((0.1, 0.2, 0.3))])
    assert (rows[0].runs, rows[0].draws, rows[0].balanced_accuracy) == (1, 3, pytest.approx(0.2))


def test_shares_and_failures_stay_apart():
    run = Run(Fold("A", FOLDS["A"]), 0, 0, ("p",))
    broken = Outcome(job=Job(method="bad"), run=run, digest="", error="DataError: no")
    made = [outcome(run, "m", {"zs-seen": {"p": s}}, share=s) for s in (1.0, 0.5)]
    assert [(r.share, r.balanced_accuracy) for r in make_rows([*made, broken])] == [(1.0, 1.0), (0.5, 0.5)]
    assert failures([*made, broken]) == [(broken.job, run.name, "DataError: no")]


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(300):
        table = rng.normal(0.4, 0.06, (18, 1)) + rng.normal(0, 0.03, (18, 3))
        low, high = interval([table], rng, bootstrap=400)
        hits.append(low <= 0.4 <= high)
    assert 0.88 <= np.mean(hits) <= 0.98


def test_an_interval_is_of_people_not_of_figures():
    rng = np.random.default_rng(6)
    people = rng.normal(0.4, 0.08, (18, 1))
    once, often = (interval([np.repeat(people, n, axis=1)], np.random.default_rng(0)) for n in (1, 30))
    assert once == pytest.approx(often)
    assert once[1] - once[0] == pytest.approx(4 * 0.08 / 18**0.5, rel=0.35)


# differences


def test_a_planted_difference_is_separable():
    found = paired_differences([*study("a", 0.50, seed=1), *study("b", 0.40, seed=1)], [("a", "b")])
    seen = next(d for d in found if d.protocol == "zs-seen")
    assert seen.mean == pytest.approx(0.10)
    assert (seen.separable, seen.wins, seen.verdict) == (True, 18, "a is better")


def test_standard_errors_are_of_runs_and_of_participants():
    a, b = study("a", 0.5, seed=1, own=False), study("b", 0.4, seed=2, own=False)
    (found,) = paired_differences([*a, *b], [("a", "b")], protocols=["zs-seen"])
    one, two = ({o.run.name: o for o in part} for part in (a, b))

    def each(o: Outcome) -> dict[str, float]:
        return next(f.per_participant for f in o.figures if f.protocol == "zs-seen")

    runs = [np.mean(list(each(one[n]).values())) - np.mean(list(each(two[n]).values())) for n in one]
    assert found.se == pytest.approx(np.std(runs, ddof=1) / len(runs) ** 0.5)
    people: dict[str, list[float]] = {}
    for n in one:
        for p, value in each(one[n]).items():
            people.setdefault(p, []).append(value - each(two[n])[p])
    means = [np.mean(v) for v in people.values()]
    assert found.se_participants == pytest.approx(np.std(means, ddof=1) / len(means) ** 0.5)


def test_equal_methods_are_not_separable():
    verdicts = []
    for seed in range(40):
        pair = [*study("a", 0.4, seed=seed, own=False), *study("b", 0.4, seed=1000 + seed, own=False)]
        verdicts += [d.separable for d in paired_differences(pair, [("a", "b")], protocols=["zs-seen"])]
    assert len(verdicts) == 40
    assert sum(verdicts) <= 3


def test_only_shared_runs_are_compared():
    a, b = study("a", 0.5, seed=1), study("b", 0.4, seed=1)[:9]
    (found,) = paired_differences([*a, *b], [("a", "b")], protocols=["zs-seen"])
    assert found.runs == 9
    assert not paired_differences([*a, b[0]], [("a", "b")])
    assert not paired_differences(a, [("a", "nobody")])


def test_signs_are_tested_on_both_sides():
    assert sign_test(18, 0) == pytest.approx(2 / 2**18)
    assert sign_test(9, 9) == 1.0
    assert sign_test(0, 0) == 1.0
    assert sign_test(14, 4) == sign_test(4, 14) < 0.05 < sign_test(13, 5)


# the head that ships


def rows_of(**unseen: float) -> list[Row]:
    return [r for name, value in unseen.items() for r in make_rows(study(name, value + 0.1, seed=len(name)))]


def test_the_head_that_wins_on_unseen_gestures_ships():
    rows = rows_of(regression=0.38, embridge=0.30, cpep=0.28)
    choice = pick_head(rows)
    assert choice.method == "regression"
    assert [e["method"] for e in choice.table] == ["regression", "embridge", "cpep"]
    assert "chance 0.250" in choice.reason
    assert "next is embridge" in choice.reason


def test_one_wearer_gives_no_interval():
    rows = [msgspec.structs.replace(r, ci95=(0.4, 0.4)) for r in rows_of(regression=0.4)]
    assert "95 %" in pick_head(rows_of(regression=0.4)).reason
    assert "95 %" not in pick_head(rows).reason


def test_a_head_that_cannot_ship_is_passed_over():
    rows = rows_of(ceiling=0.9, regression=0.38)
    assert pick_head(rows, candidates=["regression", "embridge"]).method == "regression"
    assert pick_head(rows, shippable=lambda m: m != "ceiling").method == "regression"
    with pytest.raises(DataError, match="no head"):
        pick_head(rows, candidates=["embridge"])


def test_the_reason_says_whether_the_heads_can_be_told_apart():
    outcomes = [*study("closed", 0.5, seed=1), *study("embridge", 0.4, seed=1)]
    differences = paired_differences(outcomes, [("closed", "embridge")])
    assert ", separable (0.100" in pick_head(make_rows(outcomes), differences=differences).reason
