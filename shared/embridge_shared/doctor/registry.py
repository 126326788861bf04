"""The checks that every installation has."""

from __future__ import annotations

from typing import Final

from embridge_shared.doctor import machine, network, terminal

CHECKS: Final = (*machine.CHECKS, *network.CHECKS, *terminal.CHECKS)
