"""Gates: whether a candidate may become a release, decided on people no training touched, with a written reason."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from embridge_cloud.gates.files import GATE, GUARD, Seen, keep_report, read_guard, read_report, write_guard
from embridge_cloud.gates.policy import GatePolicy, load_policy, policy_of

if TYPE_CHECKING:
    from embridge_cloud.gates.guard import inspect
    from embridge_cloud.gates.verdict import judge

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

_HEAVY = {"inspect": "guard", "judge": "verdict"}


def __getattr__(name: str) -> Any:
    """What learns and decodes is imported when it is asked for: a cloud process only reads what was decided."""
    if name not in _HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HEAVY[name]}"), name)
