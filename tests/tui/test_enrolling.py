"""A guided sitting folded from its events."""

from __future__ import annotations

from embridge_edge.enrol.events import Answered, Judged, Level, Phase, Prompted, Stopped, Weighed
from embridge_shared.enrolment import ADVICE, Refusal
from embridge_tui.enrolling import KEPT_LINES, Standing


def prompted(phase: Phase, number: int = 1, lasts_s: float = 2.0) -> Prompted:
    return Prompted(at=0, phase=phase, gesture="fist", number=number, of=3, lasts_s=lasts_s)


def judged(refusal: Refusal | None = None, **more) -> Judged:
    detail = "level 0.05, at least 0.12" if refusal else ""
    advice = ADVICE[refusal] if refusal else ""
    return Judged(at=0, gesture="fist", number=1, refusal=refusal, detail=detail, advice=advice, **more)


def test_the_word_follows_what_is_asked_for():
    standing = Standing(wanted=3)
    assert standing.word == "GET READY"
    words = []
    for phase in (Phase.RELAX, Phase.PERFORM, Phase.HOLD, Phase.RELEASE):
        standing = standing.after([prompted(phase)])
        words.append(standing.word)
    assert words == ["RELAX", "MAKE IT", "HOLD", "RELAX"]
    assert (standing.gesture, standing.number, standing.of) == ("fist", 1, 3)
    assert standing.after([Stopped(at=0, complete=True)]).word == "DONE"
    assert standing.after([Stopped(at=0, complete=False, detail="8 in a row")]).word == "STOPPED"


def test_a_level_moves_the_meter_and_the_time_that_is_left():
    standing = Standing().after([prompted(Phase.HOLD), Level(at=9, level=0.4, phase=Phase.HOLD, remaining_s=1.2)])
    assert (standing.level, standing.remaining_s, standing.lasts_s) == (0.4, 1.2, 2.0)


def test_what_is_taken_fills_a_dot_and_what_is_not_says_why():
    standing = Standing(wanted=3).after(
        [judged(level=0.5, lasted_s=1.4, looks_like="point", probability=0.21), judged(Refusal.TOO_WEAK)]
    )
    assert standing.dots == "◉ ○ ○"
    assert (standing.taken, standing.refused, standing.nearest) == (1, 1, ("point", 0.21))
    good, bad = standing.log
    assert (good.mark, good.text) == ("✓", "good: level 0.50, 1.4 s, nearest point 0.21")
    assert bad.mark == "✕"
    assert bad.text == f"too weak: level 0.05, at least 0.12. {ADVICE[Refusal.TOO_WEAK]}"


def test_a_test_round_counts_what_was_decided_right():
    events = [
        Answered(at=0, asked="fist", decided=decided, probability=0.8, number=i, of=2)
        for i, decided in enumerate(("fist", "point"), 1)
    ]
    standing = Standing(wanted=2).after(events)
    assert (standing.taken, standing.refused) == (1, 1)
    assert [said.good for said in standing.log] == [True, False]
    assert "taken for point" in standing.log[1].text


def test_confusions_are_told_and_the_log_is_bounded():
    weighed = Weighed(at=0, gesture="fist", repetitions=5, own=0.7, confusions=(("fist", "point", 0.31),))
    standing = Standing().after([weighed])
    assert [said.good for said in standing.log] == [None, False]
    for _ in range(2 * KEPT_LINES):
        standing = standing.saying(None, "a line")
    assert len(standing.log) == KEPT_LINES
