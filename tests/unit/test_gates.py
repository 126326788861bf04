"""What lets a candidate through and what does not: intervals over people, every check by itself, decisions in words."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embridge_cloud.gates import GatePolicy, judge, load_policy, read_report
from embridge_cloud.gates import contender as contenders
from embridge_cloud.gates.card import CARD_PICTURES
from embridge_cloud.gates.checks import Pair
from embridge_cloud.gates.figures import Heard
from embridge_cloud.gates.files import CARD_PAGE, CARD_TEXT, Seen, write_guard
from embridge_cloud.gates.intervals import People, most_false, worst_of
from embridge_cloud.gates.policy import Costs
from embridge_shared.clock import SystemClock
from embridge_shared.decision import DecisionConfig
from embridge_shared.errors import ConfigError, DataError, LeakageError
from embridge_shared.manifest import Lineage
from embridge_shared.release import CARD, ENCODER_INT8, GOLDEN, Golden, Tolerances, pack_golden
from support import bundles
from support.exchange import seal
from support.gate_world import GESTURES, PEOPLE, job, performed, recipe, sealed_people, trace, weights_of

NOW_NS = 1_790_000_000_000_000_000
SWAPPED = tuple((1, 0, 2)[r % 3] for r in range(bundles.G * bundles.K))


class Stopped(SystemClock):
    def wall_ns(self) -> int:
        return NOW_NS


QUIET = GatePolicy(resamples=300, costs=Costs(windows=40))


# intervals


def people(count: int, seed: int = 0, confidence: float = 0.9) -> People:
    return People.of(count, confidence=confidence, resamples=1000, seed=seed)


@pytest.mark.parametrize("count", [4, 8])
def test_an_interval_over_few_people_covers_what_it_says(count: int) -> None:
    rng = np.random.default_rng(0)
    below = [people(count, seed).mean(rng.normal(size=count)).low < 0 for seed in range(150)]
    assert 0.82 < np.mean(below) < 0.98  # 0.9 is claimed; plain percentiles of 4 people reach 0.83


def test_the_same_seed_draws_the_same_people() -> None:
    values = np.array([0.1, -0.2, 0.05, 0.0])
    assert people(4, 3).mean(values) == people(4, 3).mean(values)
    assert (people(4, 3).drawn != people(4, 4).drawn).any()


def test_an_interval_needs_two_people() -> None:
    with pytest.raises(DataError):
        people(1)


def test_any_figure_is_drawn_over_people() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = people(6).of_any(lambda chosen: float(values[chosen].mean()), 1000)
    assert found == people(6).mean(values)


def test_the_worst_person_is_compared_with_the_worst() -> None:
    def table(right: float) -> np.ndarray:
        return np.array([[g, 10 * right, 10] for g in range(4) for _ in range(3)], float)

    same = worst_of([table(0.9), table(0.5)], [table(0.5), table(0.9)], confidence=0.9, resamples=200, seed=0)
    assert same.value == same.low == same.high == 0.0
    lost = worst_of([table(0.9), table(0.3)], [table(0.9), table(0.6)], confidence=0.9, resamples=200, seed=0)
    assert lost.value == pytest.approx(-0.3)


def test_more_false_activations_are_only_called_more_when_chance_does_not_give_them() -> None:
    assert most_false(0, 0.5, confidence=0.99) == 2 * most_false(0, 1.0, confidence=0.99)
    assert most_false(0, 1.0, confidence=0.99) == 6.0  # seven of seven fall to one side once in 128 times
    assert most_false(10, 1.0, confidence=0.99) > 10.0


# checks, each by itself


def heard(rights: list[float], **kinds: float) -> Heard:
    names = tuple(f"p{i}" for i in range(len(rights)))
    return Heard(GESTURES, names, tuple(trace(n, r, **kinds) for n, r in zip(names, rights, strict=True)))


def pair(candidate: Heard, champion: Heard | None, policy: GatePolicy = QUIET) -> Pair:
    return Pair(candidate, champion, people(len(candidate.people)), policy)


def test_a_candidate_as_good_is_no_worse_and_one_that_lost_much_is() -> None:
    usual = [0.9, 0.8, 0.85, 0.7, 0.95, 0.75]
    good = pair(heard(usual, seed=1), heard(usual)).accuracy("all", "all gestures", GESTURES, 0.05, None)
    assert good.passed
    assert good.low is not None
    assert good.low > -0.05
    bad = pair(heard([r - 0.2 for r in usual]), heard(usual)).accuracy("all", "all gestures", GESTURES, 0.05, None)
    assert not bad.passed
    assert bad.name == "all.accuracy"
    assert "-0.2" in bad.why


def test_a_loss_that_some_have_and_others_do_not_is_not_shown_to_be_none() -> None:
    usual = [0.8] * 4
    mixed = [0.95, 0.6, 0.9, 0.75]  # the same on average
    found = pair(heard(mixed), heard(usual)).accuracy("all", "all gestures", GESTURES, 0.05, None)
    assert found.candidate == pytest.approx(found.champion, abs=0.02)
    assert not found.passed


def test_a_first_release_is_held_against_chance() -> None:
    found = pair(heard([0.8, 0.9, 0.7, 0.85]), None).accuracy("seen", "learnt", GESTURES, 0.05, 0.1)
    assert found.passed
    assert found.champion is None
    assert not pair(heard([0.35, 0.3, 0.36, 0.33]), None).accuracy("seen", "learnt", GESTURES, 0.05, 0.1).passed


def test_the_person_served_worst_is_not_given_up_for_the_others() -> None:
    usual = [0.8] * 6
    uneven = [0.95, 0.95, 0.95, 0.95, 0.95, 0.35]
    assert not pair(heard(uneven), heard(usual)).worst(GESTURES).passed
    assert pair(heard([0.9] * 6), heard(usual)).worst(GESTURES).passed


def test_people_of_an_earlier_time_are_not_forgotten() -> None:
    usual, now = [0.8] * 6, [0.55, 0.55, 0.55, 0.95, 0.95, 0.95]
    found = pair(heard(now), heard(usual))
    assert not found.group("before release 1", ("p0", "p1", "p2"), GESTURES).passed
    assert found.group("before release 2", ("p3", "p4", "p5"), GESTURES).passed


def test_probabilities_that_promise_too_much_are_refused() -> None:
    usual = heard([0.7] * 6, sure=1.0)
    honest, boastful = DecisionConfig(temperature=0.65), DecisionConfig(temperature=0.05)
    found = pair(usual, usual)
    assert found.calibration(honest, honest).passed
    assert not found.calibration(boastful, honest).passed
    assert not found.calibration(None, honest).passed
    assert found.calibration(None, None) is None


def test_a_hand_at_rest_that_makes_gestures_is_refused() -> None:
    decides = DecisionConfig(otherwise=0.5)
    calm, restless = heard([0.9] * 4), heard([0.9] * 4, seems=0.9)
    assert pair(calm, calm).false_activations(decides, decides).passed
    found = pair(restless, calm).false_activations(decides, decides)
    assert not found.passed
    assert found.candidate > found.limit
    assert pair(restless, restless).false_activations(decides, decides).passed  # no more than the champion's


# whole decisions


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return sealed_people(tmp_path_factory.mktemp("store"))[1]


@pytest.fixture
def light(monkeypatch):
    """Nobody's memory is weighed, which takes a process each, and nothing is drawn."""
    monkeypatch.setattr("embridge_cloud.gates.verdict.write_card", lambda *_: None)
    monkeypatch.setattr("embridge_cloud.gates.costs.memory_bytes", lambda path: 20 << 20)


def decide(folder, store, champion=None, policy=QUIET):
    return judge(folder, store, champion=champion, policy=policy, clock=Stopped())


def failed(report) -> set[str]:
    return {c.name for c in report.checks if c.required and not c.passed}


def champion(tmp_path):
    return job(tmp_path / "before", 1)[1]


def test_a_candidate_as_good_is_accepted_and_its_card_is_written(tmp_path, store) -> None:
    before = champion(tmp_path)
    folder, _ = job(tmp_path / "jobs", 2)
    report = decide(folder, store, before)
    assert report.accepted, report.reason
    assert report == read_report(folder)
    assert (report.candidate, report.champion, report.participants) == ("embridge-2", "embridge-1", len(PEOPLE))
    assert report.decided_ns == NOW_NS
    names = {c.name for c in report.checks}
    assert {"seen.accuracy", "all.accuracy", "worst.accuracy", "golden.cosine", "int8.cosine"} <= names
    assert {"size", "memory", "latency.p99", "gestures.kept"} <= names
    assert "Accepted on 5 people" in report.reason
    memory = next(c for c in report.checks if c.name == "memory")
    assert 0.1 < memory.candidate < 200
    assert memory.champion is not None
    page = (folder / CARD_PAGE).read_text()
    assert "embridge-2" in page
    assert "held-3" in page
    assert "<svg" in page
    assert (folder / CARD_TEXT).read_text().startswith("# embridge-2")
    drawn = {p.stem for p in (folder / CARD_PICTURES).glob("*.svg")}
    assert {"people", "confusion-seen", "alignment"} <= drawn


@pytest.mark.usefixtures("light")
class TestRefusals:
    def test_prototypes_of_the_wrong_gesture(self, tmp_path, store) -> None:
        report = decide(job(tmp_path / "jobs", 2, rows=SWAPPED)[0], store, champion(tmp_path))
        assert not report.accepted
        assert failed(report) == {"seen.accuracy", "all.accuracy", "worst.accuracy"}
        assert report.reason.startswith("Refused.")
        assert "EMG was learnt" in report.reason

    def test_a_gesture_that_is_no_longer_decoded(self, tmp_path, store) -> None:
        fewer = tuple(msgspec.structs.replace(g, prototypes=6) for g in bundles.parts()[0].gestures[:2])
        rows = tuple(r % 2 for r in range(bundles.G * bundles.K))
        report = decide(job(tmp_path / "jobs", 2, gestures=fewer, rows=rows)[0], store, champion(tmp_path))
        assert "gestures.kept" in failed(report)
        assert "g2" in report.reason

    def test_golden_windows_that_are_answered_otherwise(self, tmp_path, store) -> None:
        windows = np.random.default_rng(1).random((4, bundles.T, bundles.C)).astype(np.float32)
        queries = bundles.embed(weights_of(5), windows)
        golden = Golden(windows, queries, np.zeros((4, bundles.G), np.float32))
        report = decide(job(tmp_path / "jobs", 2, files={GOLDEN: pack_golden(golden)})[0], store, champion(tmp_path))
        assert failed(report) == {"golden.cosine", "golden.int8_cosine", "golden.scores"}

    def test_a_quantised_encoder_that_strays(self, tmp_path, store) -> None:
        strays = bundles.encoder(weights_of() + 0.5 * weights_of(5))
        loose = Tolerances(int8_cosine=-1.0, int8_score=10.0)
        folder, _ = job(tmp_path / "jobs", 2, files={ENCODER_INT8: strays}, tolerances=loose)
        report = decide(folder, store, champion(tmp_path))
        assert "int8.cosine" in failed(report)
        assert not {"golden.cosine", "size"} & failed(report)

    def test_a_bundle_that_grew(self, tmp_path, store) -> None:
        folder, _ = job(tmp_path / "jobs", 2, files={CARD: b"x" * 100_000})
        strict = msgspec.structs.replace(QUIET, costs=Costs(windows=40, free_bytes=1000))
        assert failed(decide(folder, store, champion(tmp_path), strict)) == {"size"}

    def test_an_encoder_that_became_slow(self, tmp_path, store, monkeypatch) -> None:
        folder, _ = job(tmp_path / "jobs", 2)
        real = contenders.Contender.time_one
        slow = {"embridge-2": 10.0}
        monkeypatch.setattr(contenders.Contender, "time_one", lambda self, w: real(self, w) * slow.get(self.name, 1.0))
        strict = msgspec.structs.replace(QUIET, costs=Costs(windows=40, hop=1e-9))
        assert "latency.p50" in failed(decide(folder, store, champion(tmp_path), strict))

    def test_memory_that_grew(self, tmp_path, store, monkeypatch) -> None:
        folder, bundle = job(tmp_path / "jobs", 2)
        monkeypatch.setattr(
            "embridge_cloud.gates.costs.memory_bytes", lambda path: (300 if path == bundle else 60) << 20
        )
        assert failed(decide(folder, store, champion(tmp_path))) == {"memory"}

    def test_new_sessions_that_contradict_themselves(self, tmp_path, store) -> None:
        folder, _ = job(tmp_path / "jobs", 2)
        bad = Seen(session="s9", participant="p9", trusted=False, chance=0.5, suspicious="its EMG does not bear it out")
        write_guard(folder, (bad, msgspec.structs.replace(bad, session="s8", suspicious="")))
        report = decide(folder, store, champion(tmp_path))
        assert failed(report) == {"data.labels"}
        assert "s9 of p9" in report.reason

    def test_one_bad_session_among_many_is_told_and_refuses_nothing(self, tmp_path, store) -> None:
        folder, _ = job(tmp_path / "jobs", 2)
        good = Seen(session="s", participant="p", trusted=False, chance=0.5)
        write_guard(folder, (msgspec.structs.replace(good, suspicious="odd"), *[good] * 9))
        report = decide(folder, store, champion(tmp_path))
        assert report.accepted
        assert "odd" in next(c.why for c in report.checks if c.name == "data.labels")

    def test_too_few_people_decide_nothing_against_a_champion(self, tmp_path, store) -> None:
        folder, _ = job(tmp_path / "jobs", 2)
        report = decide(folder, store, champion(tmp_path), msgspec.structs.replace(QUIET, min_people=6))
        assert not report.accepted
        assert not failed(report)
        assert "5 held-out people are recorded, and 6 are the least" in report.reason


@pytest.mark.usefixtures("light")
class TestFirstRelease:
    def test_it_passes_where_it_decodes(self, tmp_path, store) -> None:
        report = decide(job(tmp_path / "jobs", 1)[0], store)
        assert report.accepted
        assert report.champion == ""

    def test_it_is_refused_where_it_guesses(self, tmp_path, store) -> None:
        report = decide(job(tmp_path / "jobs", 1, rows=SWAPPED)[0], store)
        assert failed(report) == {"seen.accuracy"}

    def test_without_anybody_held_out_it_passes_on_its_self_tests_and_says_so(self, tmp_path) -> None:
        report = decide(job(tmp_path / "jobs", 1)[0], tmp_path)
        assert report.accepted
        assert report.participants == 0
        assert "self-tests" in report.reason

    def test_without_anybody_held_out_those_who_watched_are_heard(self, tmp_path) -> None:
        metrics = {"validation.seen.balanced_accuracy": 0.14, "validation.seen.chance": 0.125}
        report = decide(job(tmp_path / "jobs", 1, metrics=metrics)[0], tmp_path)
        assert failed(report) == {"validation.accuracy"}

    def test_a_site_may_insist_on_people(self, tmp_path) -> None:
        insists = msgspec.structs.replace(QUIET, first_without_people=False)
        assert not decide(job(tmp_path / "jobs", 1)[0], tmp_path, policy=insists).accepted


@pytest.mark.usefixtures("light")
class TestPanel:
    def test_somebody_who_was_learnt_from_may_not_judge(self, tmp_path, store) -> None:
        lineage = Lineage(snapshot="0" * 64, participants=(PEOPLE[2],))
        with pytest.raises(LeakageError):
            decide(job(tmp_path / "jobs", 2, lineage=lineage)[0], store, champion(tmp_path))
        with pytest.raises(LeakageError):  # the champion's lineage counts as well
            decide(job(tmp_path / "again", 2)[0], store, job(tmp_path / "old", 1, lineage=lineage)[1])

    def test_a_session_that_was_learnt_from_may_not_judge(self, tmp_path, store) -> None:
        used = next(p.name for p in sorted(store.iterdir()) if p.is_dir() and not p.name.startswith("."))
        lineage = Lineage(snapshot="0" * 64, sessions=(used,))
        with pytest.raises(LeakageError):
            decide(job(tmp_path / "jobs", 2, lineage=lineage)[0], store, champion(tmp_path))

    def test_only_those_held_out_judge(self, tmp_path, store) -> None:
        folder, _ = job(tmp_path / "jobs", 2, told=recipe(2, held_out=PEOPLE[:4]))
        assert decide(folder, store, champion(tmp_path)).participants == 4

    def test_what_nobody_knows_counts_as_rest(self, tmp_path) -> None:
        settings, sealed = sealed_people(tmp_path / "cloud", PEOPLE[:2])
        seal(settings, performed(PEOPLE[2], number=9, gestures=("g0", "g1", "g3"))[1])
        decides = DecisionConfig(temperature=0.05, otherwise=0.4, rest_below=0.1, rest_above=0.2)
        folder, _ = job(tmp_path / "jobs", 1, decision=decides)
        report = decide(folder, sealed)
        found = next(c for c in report.checks if c.name == "false_activations")
        assert found.candidate > 0  # channel 3 moves and every gesture it may say is wrong

    def test_earlier_people_are_a_group_of_their_own(self, tmp_path) -> None:
        settings, sealed = sealed_people(tmp_path / "cloud", PEOPLE[:3])
        later = 1_780_000_000_000_000_000
        for number, person in enumerate(PEOPLE[3:], 7):
            seal(settings, performed(person, number=number, started_ns=later)[1])
        before = job(tmp_path / "jobs", 1, created_ns=1_770_000_000_000_000_000)[1]
        report = decide(job(tmp_path / "jobs", 2)[0], sealed, before)
        assert [c.name for c in report.checks if c.name.startswith("forgetting")] == ["forgetting.before release 1"]


def test_the_same_job_is_decided_the_same_way_again(tmp_path, store, light) -> None:
    before, (folder, _) = champion(tmp_path), job(tmp_path / "jobs", 2)
    first, second = (decide(folder, store, before) for _ in range(2))
    steady = [c for c in first.checks if not c.name.startswith("latency")]
    assert steady == [c for c in second.checks if not c.name.startswith("latency")]


def test_a_policy_is_read_from_toml_and_a_typo_is_named(tmp_path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text("confidence = 0.8\n[margins]\nseen = 0.02\n")
    found = load_policy(path)
    assert (found.confidence, found.margins.seen, found.margins.unseen) == (0.8, 0.02, GatePolicy().margins.unseen)
    path.write_text("[margins]\nseem = 0.02\n")
    with pytest.raises(ConfigError, match="seem"):
        load_policy(path)
    with pytest.raises(ConfigError):
        load_policy(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="decides nothing"):
        GatePolicy(confidence=1.0)


def test_the_policy_of_the_documentation_is_one(tmp_path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "gates.md").read_text()
    (tmp_path / "gate.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    found = load_policy(tmp_path / "gate.toml")
    assert msgspec.structs.replace(found, groups={}) == GatePolicy()  # it shows the defaults


def test_a_damaged_report_is_named(tmp_path) -> None:
    assert read_report(tmp_path) is None
    (tmp_path / "gate.json").write_text(json.dumps({"accepted": 1}))
    with pytest.raises(DataError, match="damaged"):
        read_report(tmp_path)
