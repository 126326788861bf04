"""What a study is held against: the bars of the project and the tables of the papers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["deep", "supervised", "regression", "shipped", "any", "ceiling", "shuffled"]

CONTROLS = frozenset({"shuffled-pairs", "shuffled-regression", "shuffled-closed"})
CEILINGS = frozenset({"pose-ceiling", "posture-ceiling"})
NO_ALIGNMENT = frozenset({"emg-mae", "supervised", "random-init"})


@dataclass(frozen=True, slots=True)
class Bar:
    """A level a result must reach, on NinaPro DB1, exercise 1, held-out participants rotated.

    Attributes:
        quantity: In words.
        protocol: Of the row.
        family: Whose best row counts.
        must: Accuracy to be reached; of a control, the greatest distance from chance.
        stretch: Accuracy hoped for; None where there is none.
        regime: Of the row.
        floor: No single fold may lie below it; None where there is no such rule.
    """

    quantity: str
    protocol: str
    family: Family
    must: float
    stretch: float | None = None
    regime: str = "new-wearer"
    floor: float | None = None


BARS: tuple[Bar, ...] = (
    Bar("zero-shot seen, best aligned model", "zs-seen", "deep", 0.40, 0.46),
    Bar("the same, prototypes", "zs-seen-proto", "deep", 0.42, 0.48),
    Bar("the same, vote over a trial", "zs-seen-trial", "deep", 0.47, 0.55),
    Bar("supervised network, 8-way", "supervised", "supervised", 0.42, 0.48),
    Bar("linear probe seen, best aligned model", "lp-seen", "deep", 0.40, 0.46),
    Bar("zero-shot unseen, regression baseline", "zs-unseen", "regression", 0.34, 0.40),
    Bar("zero-shot unseen, best aligned model", "zs-unseen", "deep", 0.28, 0.38, floor=0.20),
    Bar("zero-shot unseen, the head that ships", "zs-unseen", "shipped", 0.34, 0.42),
    Bar("generalised zero-shot, harmonic mean", "gzs-harmonic", "any", 0.18, 0.28),
    Bar("calibrated wearer, seen", "zs-seen", "any", 0.66, 0.78, "calibrated-wearer"),
    Bar("calibrated wearer, unseen", "zs-unseen", "any", 0.40, 0.50, "calibrated-wearer"),
    Bar("4 gestures enrolled, 1 repetition", "few-shot-1", "any", 0.72, 0.85),
    Bar("4 gestures enrolled, 3 repetitions", "few-shot-3", "any", 0.84, 0.93),
    Bar("4 gestures enrolled, 5 repetitions", "few-shot-5", "any", 0.88, 0.95),
    Bar("pose ceiling, neighbours, seen", "zs-seen", "ceiling", 0.84),
    Bar("pose ceiling, neighbours, unseen", "zs-unseen", "ceiling", 0.88),
    Bar("pose ceiling, linear probe, seen", "lp-seen", "ceiling", 0.88),
    Bar("pose ceiling, linear probe, unseen", "lp-unseen", "ceiling", 0.92),
    Bar("shuffled pairs, seen: distance from chance", "zs-seen", "shuffled", 0.03),
    Bar("shuffled pairs, unseen: distance from chance", "zs-unseen", "shuffled", 0.03),
)
"""In the order of the table."""

PAPER_COLUMNS = ("lp-seen", "zs-seen", "lp-unseen", "zs-unseen")


@dataclass(frozen=True, slots=True)
class Published:
    """A row of a paper's table.

    Attributes:
        label: The paper's name of it.
        methods: Names here, the first that was measured is shown beside it.
        values: In the order of `PAPER_COLUMNS`; None where the paper has none.
    """

    label: str
    methods: tuple[str, ...]
    values: tuple[float | None, float | None, float | None, float | None]


EMG2POSE_TABLE: tuple[Published, ...] = (
    Published("EMG-MAE", ("emg-mae",), (0.347, None, 0.334, None)),
    Published("emg2pose, supervised", ("supervised",), (0.734, None, 0.405, None)),
    Published("CPEP", ("cpep",), (0.782, 0.757, 0.536, 0.481)),
    Published("Q-Former, InfoNCE only", ("qformer",), (0.782, 0.763, 0.493, 0.498)),
    Published("EMBridge", ("embridge",), (0.785, 0.777, 0.505, 0.528)),
    Published("Pose-MAE, linear probe (ceiling)", ("pose-ceiling",), (0.851, None, 0.649, None)),
)
"""Balanced accuracy on emg2pose, 4 seen and 4 unseen stages."""

ABLATION_TABLE: tuple[Published, ...] = (
    Published("without the Q-Former (CPEP + CASCLe)", ("cpep+cascle",), (0.793, 0.763, 0.538, 0.494)),
    Published("without MPRL", ("qformer+cascle",), (0.783, 0.764, 0.494, 0.516)),
    Published("without CASCLe", ("qformer+mprl",), (0.784, 0.764, 0.485, 0.509)),
    Published("label smoothing instead", ("label-smoothing",), (0.777, 0.759, 0.489, 0.511)),
    Published("SoftCLIP instead", ("softclip",), (0.788, 0.760, 0.490, 0.510)),
    Published("full", ("embridge",), (0.785, 0.777, 0.505, 0.528)),
)
"""The paper's ablation, on the same data."""


PUBLISHED = frozenset(m for row in (*EMG2POSE_TABLE, *ABLATION_TABLE) for m in row.methods) - CEILINGS
"""Methods of the papers."""


def is_aligned(method: str) -> bool:
    """Whether a method is one of the paper's that bring EMG into a pose space; switches beyond it are not."""
    return method.startswith(("cpep", "qformer", "embridge", "softclip", "label-smoothing")) and ":" not in method
