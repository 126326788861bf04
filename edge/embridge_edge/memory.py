"""Memory an agent has no more use for."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> bool:
    """Return what was freed to the system; the C library keeps tens of MB after a release was read and verified.

    Returns:
        Whether anything was returned: False where the C library is not glibc.
    """
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
