from __future__ import annotations

import sys
from pathlib import Path

# The groups use what the tests use.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.framework import found_groups, main

sys.exit(main(sys.argv[1:], found_groups()))
