"""Muscles of the forearm that move or steady the hand: where they lie and what they do.

Angles go around the cross-section of the proximal half, from the subcutaneous border of the ulna (0°) over the
extensors (90° is the back of the arm) and the radial side (180°) to the flexors (270°). Depth is from the muscle
surface, below skin and fat, to the middle of the fibres. Extent is where fibres run, as a fraction of the way from
elbow to wrist.

Layout after cross-sections in Gray's Anatomy, Leijnse et al. 2008 (J Neurophysiol 100, 64-75) for the compartments of
the extensor digitorum and Bickerton et al. 1997 (Muscle Nerve 20, 120-121) for the flexor digitorum superficialis.
Actions follow the moment arms of An et al. 1983 (J Biomech 16, 419-425) and Smutz et al. 1998 (J Biomech 31, 565-570)
for the thumb. What the hand's own small muscles do leaves no trace on the forearm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from embridge_shared.hand import JOINTS, N_JOINTS


class Role(StrEnum):
    """What a muscle does to the hand."""

    FLEXOR = "flexor"
    EXTENSOR = "extensor"
    WRIST_FLEXOR = "wrist_flexor"
    WRIST_EXTENSOR = "wrist_extensor"


@dataclass(frozen=True, slots=True)
class Muscle:
    """A muscle, or the compartment of one that serves one finger.

    Attributes:
        name: Abbreviation; compartments end in the finger's number, 2 to 5.
        angle_deg: Where around the arm.
        depth_mm: How deep.
        extent: Where along the arm its fibres run, from 0 at the elbow to 1 at the wrist.
        role: What it does.
        acts: Weight on each joint it moves, by joint name; positive where it raises the angle.
        digit: 1 thumb to 5 little finger, 0 for the wrist.
    """

    name: str
    angle_deg: float
    depth_mm: float
    extent: tuple[float, float]
    role: Role
    acts: Mapping[str, float] = field(default_factory=dict)
    digit: int = 0


_DIGITS = {2: "index", 3: "middle", 4: "ring", 5: "pinky"}


def _finger(
    pattern: str, role: Role, places: Mapping[int, tuple[float, float]], extent: tuple[float, float], **weights: float
) -> list[Muscle]:
    """The four compartments of a common finger muscle; places are (angle, depth) by finger."""
    return [
        Muscle(
            f"{pattern}{digit}",
            angle,
            depth,
            extent,
            role,
            {f"{_DIGITS[digit]}_{joint}": weight for joint, weight in weights.items()},
            digit,
        )
        for digit, (angle, depth) in places.items()
    ]


MUSCLES: tuple[Muscle, ...] = (
    *_finger(
        "FDP",
        Role.FLEXOR,
        {2: (262, 19), 3: (286, 18), 4: (312, 15), 5: (332, 13)},
        (0.05, 0.80),
        mcp_fe=0.30,
        pip_fe=0.35,
        dip_fe=0.35,
    ),
    *_finger(
        "FDS",
        Role.FLEXOR,
        {2: (252, 13), 3: (240, 10), 4: (272, 10), 5: (292, 11)},
        (0.05, 0.85),
        mcp_fe=0.45,
        pip_fe=0.55,
    ),
    *_finger(
        "EDC",
        Role.EXTENSOR,
        {2: (108, 8), 3: (94, 6), 4: (80, 6), 5: (68, 8)},
        (0.05, 0.70),
        mcp_fe=-0.60,
        pip_fe=-0.25,
        dip_fe=-0.15,
    ),
    Muscle(
        "EI",
        50,
        14,
        (0.40, 0.85),
        Role.EXTENSOR,
        {"index_mcp_fe": -0.55, "index_pip_fe": -0.20, "index_dip_fe": -0.10, "index_mcp_aa": -0.15},
        2,
    ),
    Muscle(
        "EDM",
        56,
        7,
        (0.10, 0.75),
        Role.EXTENSOR,
        {"pinky_mcp_fe": -0.55, "pinky_pip_fe": -0.15, "pinky_dip_fe": -0.10, "pinky_mcp_aa": -0.20},
        5,
    ),
    Muscle(
        "FPL", 220, 16, (0.20, 0.90), Role.FLEXOR, {"thumb_ip_fe": 0.45, "thumb_mcp_fe": 0.30, "thumb_cmc_fe": 0.25}, 1
    ),
    Muscle(
        "EPL",
        74,
        13,
        (0.25, 0.80),
        Role.EXTENSOR,
        {"thumb_ip_fe": -0.40, "thumb_mcp_fe": -0.15, "thumb_cmc_fe": -0.15, "thumb_cmc_aa": 0.30},
        1,
    ),
    Muscle("EPB", 122, 13, (0.40, 0.90), Role.EXTENSOR, {"thumb_mcp_fe": -0.45, "thumb_cmc_fe": -0.55}, 1),
    Muscle("APL", 134, 11, (0.25, 0.85), Role.EXTENSOR, {"thumb_cmc_fe": -0.50, "thumb_cmc_aa": -0.50}, 1),
    Muscle("ECU", 30, 6, (0.05, 0.75), Role.WRIST_EXTENSOR),
    Muscle("ECRB", 130, 7, (0.00, 0.60), Role.WRIST_EXTENSOR),
    Muscle("ECRL", 152, 6, (0.00, 0.45), Role.WRIST_EXTENSOR),
    Muscle("FCR", 226, 6, (0.00, 0.60), Role.WRIST_FLEXOR),
    Muscle("PL", 246, 5, (0.00, 0.50), Role.WRIST_FLEXOR, {"thumb_cmc_aa": -0.30}),
    Muscle("FCU", 320, 6, (0.00, 0.85), Role.WRIST_FLEXOR, {"pinky_mcp_aa": -0.30}),
)
"""The muscles of the model."""


def action_matrix() -> NDArray[np.float64]:
    """Weight of each joint's deviation in each muscle's drive, (muscles, 20)."""
    out = np.zeros((len(MUSCLES), N_JOINTS))
    for row, muscle in zip(out, MUSCLES, strict=True):
        for joint, weight in muscle.acts.items():
            row[JOINTS.index(joint)] = weight
    return out


def _pairs(related: Callable[[Muscle, Muscle], bool]) -> NDArray[np.float64]:
    """1 where the row's muscle follows the column's, each row averaging over those it follows."""
    table = np.array([[float(a is not b and related(a, b)) for b in MUSCLES] for a in MUSCLES])
    mean: NDArray[np.float64] = table / np.maximum(table.sum(axis=1, keepdims=True), 1.0)
    return mean


def _neighbours(a: Muscle, b: Muscle) -> bool:
    """Compartments of one finger muscle that cannot be driven apart (enslaving, Zatsiorsky et al. 2000)."""
    return a.name[:3] == b.name[:3] and abs(a.digit - b.digit) == 1 and min(a.digit, b.digit) > 1


def _antagonists(a: Muscle, b: Muscle) -> bool:
    return a.digit == b.digit > 0 and a.role is not b.role


def _steadies(a: Muscle, b: Muscle) -> bool:
    """Wrist extensors hold the wrist against finger flexors, wrist flexors against finger extensors."""
    return b.digit > 1 and (a.role, b.role) in (
        (Role.WRIST_EXTENSOR, Role.FLEXOR),
        (Role.WRIST_FLEXOR, Role.EXTENSOR),
    )


def mixing_matrix(*, enslaving: float, cocontraction: float, stabilising: float) -> NDArray[np.float64]:
    """How activity spreads between muscles, (muscles, muscles).

    Args:
        enslaving: Share a finger's compartment takes from its neighbours.
        cocontraction: Share a muscle takes from its antagonists.
        stabilising: Share a wrist muscle takes from the finger muscles it balances.
    """
    spread: NDArray[np.float64] = (
        np.eye(len(MUSCLES))
        + enslaving * _pairs(_neighbours)
        + cocontraction * _pairs(_antagonists)
        + stabilising * _pairs(_steadies)
    )
    return spread
