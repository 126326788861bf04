"""The ring of electrodes: how it sits, what reaches it through the tissue, what can be wrong with it.

A muscle is a few sources side by side in a cylinder of tissue. A bipolar surface electrode sees a source fade with a
power of the distance near 2 (Roeleveld et al. 1997, Acta Physiol Scand 161, 465-472); fat pushes all of them further
away and blurs the ring (Lowery et al. 2002, IEEE TBME 49, 446-454).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from embridge_edge.forearm.anatomy import MUSCLES
from embridge_edge.forearm.wearer import Wearer
from embridge_shared.errors import OperatorError

N_ELECTRODES = 16
PARTS = 2
"""Sources a muscle is made of."""

_REFERENCE_MM = 10.0
_HALF_WIDTH_MM = 5.0
_EDGE = 0.06


class FaultKind(StrEnum):
    """What can be wrong with an electrode."""

    DEAD = "dead"  # flat but for the amplifier's noise
    LOOSE = "loose"  # little EMG, much hum, artefacts when the hand moves
    CLIPPING = "clipping"  # amplified until it hits the rails


@dataclass(frozen=True, slots=True)
class ElectrodeFault:
    """A fault of one electrode while it lasts.

    Attributes:
        channel: Which electrode.
        kind: What is wrong.
        start_s: Since the start of the recording, s.
        end_s: Since the start of the recording, s.
    """

    channel: int
    kind: FaultKind
    start_s: float = 0.0
    end_s: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.channel < N_ELECTRODES or not self.start_s < self.end_s:
            raise OperatorError(
                f"no electrode {self.channel} can be {self.kind} from {self.start_s} s to {self.end_s} s",
                hint=f"Channels are 0 to {N_ELECTRODES - 1}, and a fault ends after it starts.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Donning:
    """One way of wearing the band; a new one every time it is put on.

    Attributes:
        rotation_deg: Angle of electrode 0 from the ulna, over the extensors.
        position: Where along the arm, from 0 at the elbow to 1 at the wrist.
        contact_sd: Log spread of the gain of the single electrodes.
        leakage: Share of the mean of all electrodes that appears on each.
        mains_hz: Frequency of the mains.
        hum_uv: RMS of the mains on a good electrode, µV.
        floor_uv: RMS of amplifier and skin noise, µV.
        faults: What is wrong with the band.
    """

    rotation_deg: float = 0.0
    position: float = 0.4
    contact_sd: float = 0.10
    leakage: float = 0.05
    mains_hz: float = 50.0
    hum_uv: float = 1.0
    floor_uv: float = 2.0
    faults: tuple[ElectrodeFault, ...] = ()


def lead_field(wearer: Wearer, donning: Donning) -> NDArray[np.float64]:
    """What full activity of each source puts on each electrode.

    Args:
        wearer: Whose arm.
        donning: How the band sits.

    Returns:
        (16, sources), µV RMS; sources are `PARTS` a muscle, muscle by muscle.
    """
    radius = wearer.circumference_mm / (2.0 * np.pi)
    electrodes = np.deg2rad(donning.rotation_deg + np.arange(N_ELECTRODES) * 360.0 / N_ELECTRODES)
    below = np.minimum(wearer.depth_mm + wearer.fat_mm, 0.8 * radius)
    spread = np.linspace(-1.0, 1.0, PARTS) * _HALF_WIDTH_MM
    angles = (np.deg2rad(wearer.angle_deg)[:, None] + spread / (radius - below)[:, None]).ravel()
    inner = np.repeat(radius - below, PARTS)
    across = 2.0 * radius * inner * np.cos(electrodes[:, None] - angles[None, :])
    distance = np.sqrt(radius**2 + inner**2 - across)
    starts, ends = np.array([muscle.extent for muscle in MUSCLES]).T
    covered = 1.0 / (1.0 + np.exp((starts - donning.position) / _EDGE * 2.0))
    covered /= 1.0 + np.exp((donning.position - ends) / _EDGE * 2.0)
    strength = wearer.strength_uv * np.repeat(wearer.gain * covered, PARTS) / np.sqrt(PARTS)
    field: NDArray[np.float64] = strength * (_REFERENCE_MM / distance) ** wearer.falloff
    return field
