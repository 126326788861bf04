from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from embridge_shared import gestures_cli
from embridge_shared.errors import DataError, OperatorError
from embridge_shared.gestures import (
    COUNTS,
    FINGERSPELLING,
    NINAPRO_DB1_E1,
    REST_LABEL,
    confusable,
    find,
    parse_gestures,
    pose_clips,
    similarity,
    vocabulary,
)
from embridge_shared.hand import JOINTS, LANDMARKS, LIMITS, REST, landmarks

FINGERS = ("index", "middle", "ring", "pinky")
WORDS = vocabulary()
ENTRY = """
[{name}]
title = "T"
family = "sign"
hint = "H."
thumb = [0, 0, 0, 0]
index = [0, {index}, 0, 0]
middle = [0, 0, 0, 0]
ring = [0, 0, 0, 0]
pinky = [0, 0, 0, 0]
"""


def tip(name: str, digit: str) -> np.ndarray:
    return landmarks(WORDS[name].pose)[LANDMARKS.index(f"{digit}_tip")]


def reach(name: str, finger: str) -> float:
    """Knuckle to tip, as a fraction of the straight finger."""
    points = landmarks(np.array([WORDS[name].pose, np.zeros(20)]))
    i, j = LANDMARKS.index(f"{finger}_mcp"), LANDMARKS.index(f"{finger}_tip")
    bent, straight = np.linalg.norm(points[:, j] - points[:, i], axis=-1)
    return float(bent / straight)


def test_the_vocabulary_is_complete() -> None:
    assert len(WORDS) >= 32
    assert NINAPRO_DB1_E1[1] == "index_flexion"
    assert NINAPRO_DB1_E1[8] == "pinky_extension"
    assert NINAPRO_DB1_E1[12] == "thumb_extension"
    assert set(NINAPRO_DB1_E1) == set(range(1, 13))
    assert set(NINAPRO_DB1_E1.values()) | {REST_LABEL} <= set(WORDS)
    np.testing.assert_allclose(WORDS[REST_LABEL].pose, REST)
    for name, gesture in WORDS.items():
        assert gesture.name == name
        assert gesture.title
        assert gesture.hint.endswith(".")
        assert not gesture.pose.flags.writeable


def test_numbers_and_letters_are_shapes() -> None:
    assert sorted(COUNTS) == list(range(1, 11))
    assert {*COUNTS.values(), *FINGERSPELLING.values()} <= set(WORDS)
    assert len(set(COUNTS.values())) == 10
    for name, finger in (("six", "pinky"), ("seven", "ring"), ("eight", "middle"), ("letter_d", "middle")):
        assert np.linalg.norm(tip(name, "thumb") - tip(name, finger)) < 0.015
        others = {"index", "middle", "ring", "pinky"} - {finger}
        straight = [f for f in others if reach(name, f) > 0.97]
        assert straight == ["index"] if name == "letter_d" else set(straight) == others
    # crossed: the index tip lies on the other side of the middle one
    assert tip("letter_r", "index")[0] < tip("letter_r", "middle")[0]
    assert tip("letter_u", "index")[0] > tip("letter_u", "middle")[0]


@pytest.mark.parametrize("finger", FINGERS)
def test_a_pinch_brings_the_thumb_to_its_finger_only(finger: str) -> None:
    name = f"pinch_{finger}"
    gaps = {f: float(np.linalg.norm(tip(name, "thumb") - tip(name, f))) for f in FINGERS}
    assert gaps.pop(finger) < 0.015
    assert min(gaps.values()) > 0.03


def test_signs_and_grasps_are_anatomically_what_they_say() -> None:
    gap = {f: np.linalg.norm(tip("tripod", "thumb") - tip("tripod", f)) for f in FINGERS}
    assert max(gap["index"], gap["middle"]) < 0.02
    assert max(np.linalg.norm(tip("pinch_all", "thumb") - tip("pinch_all", f)) for f in FINGERS) < 0.027
    assert np.linalg.norm(tip("ok", "thumb") - tip("ok", "index")) < 0.015
    up = {
        "fist": (),
        "point": ("index",),
        "peace": ("index", "middle"),
        "three": ("index", "middle", "ring"),
        "four": FINGERS,
        "horns": ("index", "pinky"),
        "shaka": ("pinky",),
        "ok": ("middle", "ring", "pinky"),
        "open": FINGERS,
        "hook": (),
    }
    for name, fingers in up.items():
        for finger in FINGERS:
            assert (reach(name, finger) > 0.9) == (finger in fingers), (name, finger)
    assert tip("open", "index")[0] - tip("open", "pinky")[0] > tip("flat", "index")[0] - tip("flat", "pinky")[0] + 0.03
    split = tip("vulcan", "middle")[0] - tip("vulcan", "ring")[0]
    assert split > 2 * max(0.001, tip("vulcan", "index")[0] - tip("vulcan", "middle")[0])
    lateral = landmarks(WORDS["lateral"].pose)
    assert np.linalg.norm(tip("lateral", "thumb") - lateral[LANDMARKS.index("index_pip")]) < 0.025


@pytest.mark.parametrize("finger", FINGERS)
def test_single_finger_movements_move_that_finger_most(finger: str) -> None:
    for direction, sign in (("flexion", 1), ("extension", -1)):
        change = sign * (WORDS[f"{finger}_{direction}"].pose - REST)
        assert JOINTS[int(np.argmax(change))].startswith(finger)


def test_clips_go_from_rest_to_the_shape_and_hold_it() -> None:
    shape = WORDS["fist"]
    clips = pose_clips(shape, 200, rate_hz=100, seconds=2.0, rng=np.random.default_rng(1))
    assert clips.shape == (200, 200, 20)
    assert clips.dtype == np.float32
    assert (clips >= LIMITS[:, 0] - 1e-6).all()
    assert (clips <= LIMITS[:, 1] + 1e-6).all()
    off_start = np.sqrt(((clips[:, 0] - REST) ** 2).mean(-1))
    off_shape = np.sqrt(((clips - shape.pose) ** 2).mean(-1))
    assert np.rad2deg(off_start).max() < 10
    assert np.rad2deg(off_shape[:, 60:]).max() < 12
    assert 3 < np.rad2deg((clips[:, -1] - shape.pose).std(0)).mean() < 6
    arrival = (off_shape < np.deg2rad(12)).argmax(1)
    assert np.unique(arrival).size > 5
    assert np.abs(np.diff(clips, axis=1)).max() < np.deg2rad(12)


def test_clips_repeat_with_the_seed_and_vary_with_the_jitter() -> None:
    make = lambda seed, jitter: pose_clips(  # noqa: E731
        WORDS["ok"], 3, rate_hz=50, seconds=1.0, rng=np.random.default_rng(seed), jitter_deg=jitter
    )
    np.testing.assert_array_equal(make(4, 10.0), make(4, 10.0))
    assert not np.array_equal(make(4, 10.0), make(5, 10.0))
    exact = make(4, 0.0)
    np.testing.assert_allclose(exact[:, -1], np.broadcast_to(WORDS["ok"].pose, (3, 20)), atol=1e-6)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"rate_hz": 0.0}, {"seconds": 0.0}, {"jitter_deg": -1.0}, {"warp": 1.0}])
def test_clips_that_cannot_be_are_refused(wrong: dict) -> None:
    options = {"n": 1, "rate_hz": 100.0, "seconds": 1.0, "rng": np.random.default_rng(0)} | wrong
    with pytest.raises(DataError):
        pose_clips(WORDS["ok"], options.pop("n"), **options)


def test_similar_shapes_are_reported() -> None:
    kernel = similarity(WORDS.values())
    np.testing.assert_allclose(np.diag(kernel), 1.0)
    np.testing.assert_allclose(kernel, kernel.T)
    assert confusable(find(["fist", "point", "open", "horns"])) == []
    assert [pair[:2] for pair in confusable(find(["fist", "open", "vulcan"]))] == [("open", "vulcan")]
    # shapes that fingerspelling tells apart by a finger's breadth
    alike = {("peace", "letter_u"), ("letter_r", "letter_u"), ("open", "vulcan"), ("thumbs_up", "letter_a")}
    assert {pair[:2] for pair in confusable(WORDS.values())} == alike


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[x", "not TOML"),
        (ENTRY.format(name="x", index=0) + "speed = 3\n", "speed"),
        (ENTRY.format(name="x", index=0).replace("hint", "hunt"), "hunt"),
        (ENTRY.format(name="x", index=0).replace("sign", "signs"), "signs"),
        (ENTRY.format(name="x", index=150), "index_mcp_fe is 150°"),
        (ENTRY.format(name="Ex", index=0), "'Ex'"),
        (ENTRY.format(name="x", index=0).replace("[0, 0, 0, 0]", "[0, 0, 0]", 1), "thumb"),
        ("x = 3", "x"),
    ],
)
def test_vocabulary_files_are_read_strictly(text: str, message: str) -> None:
    with pytest.raises(DataError, match=r".*") as caught:
        parse_gestures(text, "mine.toml")
    assert "mine.toml" in str(caught.value)
    assert message in str(caught.value)


def test_unknown_names_say_what_to_do() -> None:
    with pytest.raises(OperatorError) as caught:
        find(["fist", "fits"])
    assert "'fits'" in str(caught.value)
    assert "gesture list" in caught.value.hint


def test_command_lists_and_shows() -> None:
    run = CliRunner().invoke
    listed = json.loads(run(gestures_cli.app, ["list", "--json"]).stdout)
    assert [g["name"] for g in listed] == list(WORDS)
    assert "pinch_ring" in run(gestures_cli.app, ["list", "--family", "pinch"]).stdout
    shown = json.loads(run(gestures_cli.app, ["show", "open", "--json"]).stdout)
    assert list(shown["pose_deg"]) == list(JOINTS)
    assert "vulcan" in shown["nearest"]
    assert "index_mcp_fe" in run(gestures_cli.app, ["show", "open"]).stdout
    assert isinstance(run(gestures_cli.app, ["show", "nothing"]).exception, OperatorError)
    assert isinstance(run(gestures_cli.app, ["list", "--family", "x"]).exception, OperatorError)
