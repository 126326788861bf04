"""Enrolment as a study asks it: late repetitions decide, nobody answers what they cannot know, noise gains nothing."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest

from embridge_cloud.learn.data import Windows
from embridge_cloud.study.enrolment import SHOTS, Maker, Question, enrolment_figures
from embridge_cloud.study.outcome import Figure
from embridge_cloud.study.protocol import LATE_REPETITIONS
from embridge_cloud.study.splits import make_split
from embridge_shared.errors import DataError
from support.study_world import WINDOW_S, noise, run, windows

LENGTH, HOP = 160, 160


def asked(made: Windows) -> dict[str, Figure]:
    figures = enrolment_figures(make_split(made, run(), WINDOW_S), length=LENGTH, hop=HOP)
    return {f.protocol: f for f in figures}


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return asked(windows())


def mean(figure: Figure) -> float:
    return fmean(figure.per_participant.values())


def test_every_question_is_put_to_who_can_answer(figures: dict[str, Figure]) -> None:
    due = {
        f"{maker}/{question}/{shots}"
        for question in Question
        for shots in SHOTS
        for maker in Maker
        if maker is Maker.BLEND or (shots and question is not Question.CARRIED)
    }
    assert set(figures) == due


def test_the_blend_starts_above_chance_and_one_repetition_is_worth_more_with_it(figures: dict[str, Figure]) -> None:
    for question in (Question.UNSEEN, Question.ALL, Question.CALIBRATED):
        none, one, five = (figures[f"blend/{question}/{shots}"] for shots in (0, 1, 5))
        assert mean(none) > none.chance
        assert mean(one) >= mean(figures[f"own/{question}/1"])
        assert mean(five) > 0.9


def test_only_late_repetitions_are_decided(figures: dict[str, Figure]) -> None:
    made = make_split(windows(), run(), WINDOW_S).tested
    late = int(np.isin(made.repetition, LATE_REPETITIONS).sum())
    assert figures[f"blend/{Question.ALL}/3"].windows == late


def test_noise_enrols_nothing() -> None:
    found = asked(noise(windows()))
    for shots in SHOTS:
        figure = found[f"blend/{Question.ALL}/{shots}"]
        assert mean(figure) < figure.chance + 0.2


def test_a_wearer_who_lacks_a_first_repetition_is_left_out() -> None:
    made = windows()
    late = (made.participant == 0) & (made.label == 0) & (made.repetition <= 3)
    found = asked(made.select(~late))
    assert set(found[f"blend/{Question.ALL}/1"].per_participant) == {"p1"}
    assert set(found[f"blend/{Question.ALL}/5"].per_participant) == {"p0", "p1"}


def test_a_prior_of_two_people_is_refused() -> None:
    made = windows(people=4)
    few = make_split(made, run(), WINDOW_S)
    with pytest.raises(DataError):
        enrolment_figures(few, length=LENGTH, hop=HOP)
