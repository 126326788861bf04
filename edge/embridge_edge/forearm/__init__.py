"""A forearm that can be simulated: from what a hand does to what electrodes around the arm pick up.

`Performance` says what the hand does, `Wearer` whose arm it is, `Donning` how the band sits on it, and `Forearm` turns
joint angles into EMG counts.
"""

from __future__ import annotations

from embridge_edge.forearm.anatomy import MUSCLES, Muscle
from embridge_edge.forearm.electrodes import Donning, ElectrodeFault, FaultKind, lead_field
from embridge_edge.forearm.emg import CONTROL_HZ, EMG_RATE_HZ, UV_PER_COUNT, Forearm
from embridge_edge.forearm.link import Link
from embridge_edge.forearm.performance import Performance, Performer, Prompt, Timing
from embridge_edge.forearm.prompted import Manner, PromptedPerformance
from embridge_edge.forearm.wearer import Population, Wearer

__all__ = [
    "CONTROL_HZ",
    "EMG_RATE_HZ",
    "MUSCLES",
    "UV_PER_COUNT",
    "Donning",
    "ElectrodeFault",
    "FaultKind",
    "Forearm",
    "Link",
    "Manner",
    "Muscle",
    "Performance",
    "Performer",
    "Population",
    "Prompt",
    "PromptedPerformance",
    "Timing",
    "Wearer",
    "lead_field",
]
