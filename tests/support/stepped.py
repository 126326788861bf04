"""The command with a wall clock that a test steps: `python -m support.stepped FILE ARGUMENT ...`.

FILE holds the seconds by which the wall clock is off; the monotonic clock goes on as it does on a real machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from embridge_shared.cli import main
from embridge_shared.clock import SystemClock

if __name__ == "__main__":
    file = Path(sys.argv.pop(1))
    real_ns, real_s = time.time_ns, time.time

    def off_s() -> float:
        return float(file.read_text() or 0)

    time.time_ns = lambda: real_ns() + round(off_s() * 1e9)
    time.time = lambda: real_s() + off_s()
    SystemClock.wall_ns = lambda self: time.time_ns()
    main()
