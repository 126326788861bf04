"""Protocols: what is read, what is refused and why, and the order that follows from a seed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from embridge_edge.collect import protocol_cli
from embridge_edge.collect.protocol import Kind, Order, Protocol, Stretches, Timing, built_in, load, read, trials
from embridge_shared.errors import ConfigError, Reason
from embridge_shared.session import Purpose, Split

PLAIN = Protocol(name="p", version=1, gestures=("fist", "open", "point"), repetitions=4, blocks=2, seed=3)


@pytest.mark.parametrize("name", built_in())
def test_what_is_built_in_can_be_used(name: str) -> None:
    protocol = load(name)
    assert protocol.name == name
    assert protocol.about
    asked = trials(protocol)
    assert sum(t.kind is Kind.GESTURE for t in asked) == protocol.repetitions_total
    lasts = sum(t.prepare_s + t.hold_s + t.rest_s for t in asked)
    assert lasts == pytest.approx(protocol.duration_s, rel=0.1)


def test_there_is_a_protocol_for_each_part_of_an_evaluation() -> None:
    found = [load(name) for name in built_in()]
    assert {Purpose.TRAINING, Purpose.CALIBRATION, Purpose.EVALUATION} == {p.purpose for p in found}
    assert {Split.TRAIN, Split.HELD_OUT_PARTICIPANT} <= {p.split for p in found}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("", "missing required field `gestures`"),
        ('gestures = ["fist"]\nrepetition = 3', "unknown field `repetition`"),
        ('gestures = ["fist", "fist"]', "names one twice"),
        ("gestures = []", "is empty"),
        ('gestures = ["wave"]', "nobody knows the gestures wave"),
        ('gestures = ["rest"]', "nobody knows the gestures rest"),
        ('gestures = ["fist"]\nschema = 2', "this version reads 1"),
        ('gestures = ["fist"]\nrepetitions = 0', "repetitions must be 1 or more"),
        ('gestures = ["fist"]\nrepetitions = 9999', "more than anybody makes"),
        ('gestures = ["fist"]\norder = "backwards"', "backwards"),
        ('gestures = ["fist"]\nsplit = "test"', "test"),
        ('gestures = ["fist"]\n[timing]\nhold_s = 0.1', "timing.hold_s must be from 0.3"),
        ('gestures = ["fist"]\n[timing]\nrest_s = inf', "timing.rest_s"),
        ('gestures = ["fist"]\n[timing]\njitter = 0.9', "timing.jitter"),
        ('gestures = ["fist"]\n[stretches]\nfree_s = 0.2', "stretches.free_s"),
        ('gestures = ["fist"]\n[demands]\nretries = 0', "demands.retries"),
        ('gestures = ["fist"]\n[demands]\nleast_db = nan', "demands.least_db"),
        ('gestures = ["fist"]\n[instructions]\nopen = "x"', "instructions speak of open"),
        ('gestures = ["fist"]\ntitle = "a\\u001b[2Jb"', "plain text"),
        ("gestures = [", "<"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(change: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(f'name = "x"\nversion = 1\n{change}'.encode(), "the protocol x")
    assert "the protocol x" in str(caught.value)
    assert words in str(caught.value) or words == "<"
    assert caught.value.hint


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"repetitions must.*blocks must.*jitter"):
        read(b'name="x"\nversion=1\ngestures=["fist"]\nrepetitions=0\nblocks=0\n[timing]\njitter=1.0', "x")


def test_a_protocol_that_is_not_there(tmp_path: Path) -> None:
    for word in ("nothing", str(tmp_path / "none.toml")):
        with pytest.raises(ConfigError) as caught:
            load(word)
        assert caught.value.reason is Reason.NOT_FOUND
    own = tmp_path / "own.toml"
    own.write_text('name = "own"\nversion = 2\ngestures = ["fist", "mine"]')
    with pytest.raises(ConfigError, match="mine"):
        load(str(own))
    assert load(str(own), known=("fist", "mine")).ref == "own/2"


@given(
    st.sampled_from(Order),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 1000),
    st.floats(0.0, 0.5),
    st.integers(1, 3),
)
def test_each_gesture_comes_as_often_as_asked(order, repetitions, blocks, seed, jitter, donning) -> None:
    protocol = msgspec.structs.replace(
        PLAIN, order=order, repetitions=repetitions, blocks=blocks, seed=seed, timing=Timing(jitter=jitter)
    )
    asked = trials(protocol, donning)
    assert asked == trials(protocol, donning)
    for block in range(1, blocks + 1):
        found = Counter(t.gesture for t in asked if t.block == block)
        assert found == dict.fromkeys(protocol.gestures, repetitions)
    for gesture in protocol.gestures:
        assert [t.repetition for t in asked if t.gesture == gesture] == list(range(1, repetitions * blocks + 1))
    for t in asked:
        for lasted, meant in ((t.prepare_s, 1.5), (t.hold_s, 2.0), (t.rest_s, 2.0)):
            assert abs(lasted - meant) <= jitter * meant + 1e-3


def test_orders_differ_by_seed_and_donning_but_not_when_grouped() -> None:
    def labels(donning: int = 1, **change: object) -> list[str]:
        return [t.gesture for t in trials(msgspec.structs.replace(PLAIN, **change), donning)]

    assert labels() != labels(seed=4)
    assert labels() != labels(2)
    assert labels(order=Order.GROUPED) == labels(2, order=Order.GROUPED, seed=9)
    rounds = labels(order=Order.ROUNDS)
    assert all(set(rounds[i : i + 3]) == set(PLAIN.gestures) for i in range(0, len(rounds), 3))


def test_blocks_begin_with_their_stretches() -> None:
    protocol = msgspec.structs.replace(PLAIN, stretches=Stretches(rest_s=5.0, free_s=8.0))
    asked = trials(protocol)
    firsts = [i for i, t in enumerate(asked) if i == 0 or t.block != asked[i - 1].block]
    for i in firsts:
        assert [(t.kind, t.gesture, t.hold_s) for t in asked[i : i + 2]] == [
            (Kind.REST, "rest", 5.0),
            (Kind.FREE, "unknown", 8.0),
        ]


def test_the_commands_list_show_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBRIDGE_EDGE__STATE_DIR", str(tmp_path))
    run = CliRunner()
    found = json.loads(run.invoke(protocol_cli.app, ["list", "--json"]).stdout)
    assert [p["name"] for p in found] == list(built_in())
    shown = json.loads(run.invoke(protocol_cli.app, ["show", "shapes-8", "--placement", "2", "--json"]).stdout)
    assert len(shown["trials"]) == shown["repetitions_total"] + 2 * shown["blocks"]
    assert "block 3 of 3" in run.invoke(protocol_cli.app, ["show", "shapes-8"]).stdout
    good = run.invoke(protocol_cli.app, ["check", "pinches"])
    assert good.exit_code == 0
    assert isinstance(run.invoke(protocol_cli.app, ["check", "no-such"]).exception, ConfigError)
