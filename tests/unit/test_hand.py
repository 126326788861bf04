from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from embridge_shared.errors import DataError, Reason
from embridge_shared.gestures import NINAPRO_DB1_E1
from embridge_shared.hand import (
    BONES,
    CYBERGLOVE_SENSORS,
    JOINTS,
    LANDMARKS,
    LIMITS,
    REST,
    GloveCalibration,
    clamp,
    fit_glove_calibration,
    glove_to_joints,
    ik_failures,
    landmarks,
)
from embridge_shared.session import Side

DATA = Path(os.environ.get("EMBRIDGE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
AT = {name: i for i, name in enumerate(LANDMARKS)}
J = {name: i for i, name in enumerate(JOINTS)}


def pose(**degrees: float) -> np.ndarray:
    out = np.zeros(20)
    for joint, value in degrees.items():
        out[J[joint]] = np.deg2rad(value)
    return out


def random_poses(n: int = 64) -> np.ndarray:
    return np.random.default_rng(3).uniform(LIMITS[:, 0], LIMITS[:, 1], (n, 20))


def test_joints_are_in_the_documented_order() -> None:
    assert JOINTS[:6] == (
        "thumb_cmc_fe",
        "thumb_cmc_aa",
        "thumb_mcp_fe",
        "thumb_ip_fe",
        "index_mcp_aa",
        "index_mcp_fe",
    )
    assert JOINTS[-1] == "pinky_dip_fe"
    assert len(set(JOINTS)) == 20
    assert (LIMITS[:, 0] < REST).all()
    assert (LIMITS[:, 1] > REST).all()


def test_only_all_zero_rows_are_failed_poses() -> None:
    rows = random_poses(5)
    rows[1] = 0.0
    rows[3, 1:] = 0.0
    assert ik_failures(rows).tolist() == [False, True, False, False, False]


def test_clamp_keeps_dtype_and_touches_only_what_is_outside() -> None:
    rows = random_poses(4).astype(np.float32)
    wild = rows.copy()
    wild[0, 0] = 9.0
    out = clamp(wild)
    assert out.dtype == np.float32
    assert out[0, 0] == pytest.approx(LIMITS[0, 1])
    np.testing.assert_array_equal(out[1:], rows[1:])


def test_a_pose_of_another_size_is_refused() -> None:
    for call in (landmarks, ik_failures, clamp):
        with pytest.raises(DataError) as caught:
            call(np.zeros((3, 22)))
        assert caught.value.reason is Reason.WRONG_SHAPE


def test_bones_keep_their_length_in_every_pose() -> None:
    points = landmarks(random_poses().reshape(8, 8, 20))
    assert points.shape == (8, 8, 21, 3)
    i, j = np.array(BONES).T
    lengths = np.linalg.norm(points[..., i, :] - points[..., j, :], axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0, 0], lengths.shape), atol=1e-12)
    assert sorted({*i, *j}) == list(range(21))
    assert lengths.min() > 0.015


def test_fingers_have_human_lengths() -> None:
    flat = landmarks(np.zeros(20))
    assert 0.17 < flat[AT["middle_tip"], 1] < 0.21
    reach = [np.linalg.norm(flat[AT[f"{f}_tip"]] - flat[AT[f"{f}_mcp"]]) for f in ("index", "middle", "ring", "pinky")]
    assert reach[1] == max(reach)
    assert reach[3] == min(reach)
    assert np.linalg.norm(flat[AT["thumb_tip"]]) < flat[AT["middle_tip"], 1]


def test_flexion_and_abduction_go_where_the_axes_say() -> None:
    flat = landmarks(np.zeros(20))
    bent = landmarks(pose(index_mcp_fe=60))
    assert bent[AT["index_tip"], 2] > flat[AT["index_tip"], 2] + 0.05
    np.testing.assert_allclose(bent[AT["middle_tip"]], flat[AT["middle_tip"]])
    for finger in ("index", "middle", "ring", "pinky"):
        radial = landmarks(pose(**{f"{finger}_mcp_aa": 15}))
        assert radial[AT[f"{finger}_tip"], 0] > flat[AT[f"{finger}_tip"], 0] + 0.01
    tip = AT["thumb_tip"]
    assert landmarks(pose(thumb_cmc_fe=30))[tip, 0] < flat[tip, 0] - 0.02
    assert landmarks(pose(thumb_cmc_aa=-30))[tip, 2] > flat[tip, 2] + 0.02
    assert landmarks(pose(thumb_cmc_aa=30))[tip, 2] < flat[tip, 2] - 0.02


def test_left_hand_is_the_mirror_image() -> None:
    right, left = landmarks(random_poses()), landmarks(random_poses(), Side.LEFT)
    np.testing.assert_array_equal(left * [-1, 1, 1], right)
    assert left[:, AT["index_mcp"], 0].max() < 0


def synthetic_glove(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rest = np.arange(2000) % 200 < 100
    counts = 110.0 + rng.normal(0, 1, (2000, 22))
    counts[~rest] += rng.uniform(-40, 60, ((~rest).sum(), 22))
    return counts, rest


def test_glove_rest_becomes_rest_and_the_map_is_linear() -> None:
    counts, rest = synthetic_glove(np.random.default_rng(0))
    calibration = fit_glove_calibration(counts, rest)
    np.testing.assert_allclose(np.median(glove_to_joints(counts[rest], calibration), axis=0), REST, atol=0.02)
    step = glove_to_joints(counts + 500.0, calibration) - glove_to_joints(counts, calibration)
    np.testing.assert_allclose(step, np.broadcast_to(step[0], step.shape), atol=1e-9)


def test_each_sensor_moves_its_joint_and_the_dropped_ones_none() -> None:
    counts, rest = synthetic_glove(np.random.default_rng(0))
    calibration = fit_glove_calibration(counts, rest)
    base = np.array(calibration.offset)
    moved = {}
    for i, sensor in enumerate(CYBERGLOVE_SENSORS):
        change = glove_to_joints(base + 30.0 * np.eye(22)[i], calibration) - REST
        moved[sensor] = {JOINTS[k]: float(np.sign(change[k])) for k in np.flatnonzero(np.abs(change) > 1e-9)}
    assert moved["index_pip"] == {"index_pip_fe": 1.0}
    assert moved["thumb_abduction"] == {"thumb_cmc_aa": -1.0}
    assert moved["ring_middle_abduction"] == {"ring_mcp_aa": -1.0, "pinky_mcp_aa": -1.0}
    assert [s for s, joints in moved.items() if not joints] == ["palm_arch", "wrist_flexion", "wrist_abduction"]
    assert set(JOINTS) - {j for joints in moved.values() for j in joints} == {"middle_mcp_aa"}


def test_glove_fit_sees_only_what_it_may() -> None:
    counts, rest = synthetic_glove(np.random.default_rng(0))
    use = np.arange(2000) < 1200
    changed = counts.copy()
    changed[1200:] *= 3.0
    assert fit_glove_calibration(counts, rest, use=use) == fit_glove_calibration(changed, rest, use=use)
    assert fit_glove_calibration(counts, rest) != fit_glove_calibration(changed, rest)


def test_a_dead_sensor_stays_at_rest_and_an_inverted_one_turns_round() -> None:
    counts, rest = synthetic_glove(np.random.default_rng(0))
    dip = CYBERGLOVE_SENSORS.index("ring_dip")
    counts[:, dip] = 90.0
    counts[7, dip] = 92.0
    joints = glove_to_joints(counts, fit_glove_calibration(counts, rest))
    assert np.ptp(joints[:, J["ring_dip_fe"]]) < 0.2
    turned = glove_to_joints(counts, fit_glove_calibration(counts, rest, inverted=["thumb_ip"]))
    thumb = J["thumb_ip_fe"]
    np.testing.assert_allclose(turned[:, thumb] - REST[thumb], REST[thumb] - joints[:, thumb])


@pytest.mark.parametrize(
    ("counts", "rest", "options"),
    [
        (np.ones((50, 18)), np.ones(50, bool), {}),
        (np.ones((50, 22)), np.ones(49, bool), {}),
        (np.ones((50, 22)), np.ones(50, bool), {}),
        (np.full((50, 22), np.nan), np.arange(50) < 25, {}),
        (np.ones((50, 22)), np.arange(50) < 25, {"inverted": ["thumb_tip"]}),
        (np.ones((50, 22)), np.arange(50) < 25, {"use": np.ones(3, bool)}),
    ],
)
def test_glove_fit_refuses_what_it_cannot_use(counts: np.ndarray, rest: np.ndarray, options: dict) -> None:
    with pytest.raises(DataError):
        fit_glove_calibration(counts, rest, **options)


def test_calibration_survives_a_file_and_refuses_other_gloves() -> None:
    counts, rest = synthetic_glove(np.random.default_rng(0))
    calibration = fit_glove_calibration(counts, rest)
    assert msgspec.json.decode(msgspec.json.encode(calibration), type=GloveCalibration) == calibration
    with pytest.raises(DataError):
        GloveCalibration(offset=(0.0,) * 18, gain=(1.0,) * 18)


@pytest.mark.real_data
def test_recorded_poses_lie_within_the_limits() -> None:
    polars = pytest.importorskip("polars")
    path = DATA / "pose" / "emg2pose_angles.parquet"
    if not path.exists():
        pytest.skip("no recordings")
    frame = polars.read_parquet(path)
    assert tuple(frame.columns) == JOINTS
    angles = frame.to_numpy()
    failed = ik_failures(angles)
    assert failed.sum() == 63
    np.testing.assert_array_equal(clamp(angles[~failed]), angles[~failed])


@pytest.mark.real_data
@pytest.mark.parametrize("subject", [1, 8, 14])
def test_mapped_glove_tells_movements_apart(subject: int) -> None:
    from scipy.io import loadmat

    path = DATA / "ninapro_db1" / f"S{subject}_A1_E1.mat"
    if not path.exists():
        pytest.skip("no recordings")
    mat = loadmat(path)
    label, rep = mat["restimulus"].ravel(), mat["rerepetition"].ravel()
    calibration = fit_glove_calibration(mat["glove"], label == 0, use=(label == 0) | (rep % 2 == 1))
    joints = glove_to_joints(mat["glove"], calibration)
    mean = {(k, r): joints[(label == k) & (rep == r)].mean(0) for k in NINAPRO_DB1_E1 for r in range(1, 11)}
    prototype = np.array([np.mean([mean[k, r] for r in range(1, 11, 2)], 0) for k in NINAPRO_DB1_E1])
    hits = [
        1 + int(np.argmin(((prototype - mean[k, r]) ** 2).sum(1))) == k for k in NINAPRO_DB1_E1 for r in range(2, 11, 2)
    ]
    assert np.mean(hits) > 0.9
    for number, finger in ((1, "index"), (3, "middle"), (7, "pinky")):
        bend = prototype[number - 1] - REST
        most = JOINTS[int(np.argmax(bend))]
        assert most.startswith(finger)
        assert most.endswith("_fe")
