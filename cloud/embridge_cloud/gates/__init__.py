"""Gates: whether a candidate may become a release, decided on people no training touched, with a written reason."""

from __future__ import annotations

from embridge_cloud.gates.guard import GUARD, Seen, inspect, read_guard, write_guard
from embridge_cloud.gates.policy import GatePolicy, load_policy, policy_of
from embridge_cloud.gates.verdict import GATE, judge, keep_report, read_report

__all__ = [
    "GATE",
    "GUARD",
    "GatePolicy",
    "Seen",
    "inspect",
    "judge",
    "keep_report",
    "load_policy",
    "policy_of",
    "read_guard",
    "read_report",
    "write_guard",
]
