"""The hand: joint angles, their limits, where they put the fingers, and how a glove maps to them."""

from __future__ import annotations

from embridge_shared.hand.glove import (
    CYBERGLOVE_SENSORS,
    GloveCalibration,
    fit_glove_calibration,
    glove_to_joints,
)
from embridge_shared.hand.inverse import joint_angles
from embridge_shared.hand.joints import JOINTS, LIMITS, N_JOINTS, REST, clamp, ik_failures
from embridge_shared.hand.kinematics import BONES, LANDMARKS, landmarks

__all__ = [
    "BONES",
    "CYBERGLOVE_SENSORS",
    "JOINTS",
    "LANDMARKS",
    "LIMITS",
    "N_JOINTS",
    "REST",
    "GloveCalibration",
    "clamp",
    "fit_glove_calibration",
    "glove_to_joints",
    "ik_failures",
    "joint_angles",
    "landmarks",
]
