"""Updates: signed releases in, the running one swapped atomically, the last one kept."""

from __future__ import annotations

from embridge_edge.update.slots import Current
from embridge_edge.update.updater import Updater

__all__ = ["Current", "Updater"]
