"""A command of the product as a child that does not outlive the demonstration: `python -m ... PARENT ARGUMENT ...`.

A demonstration that is killed cannot stop what it started. So the kernel does: it sends the child SIGTERM when its
parent dies, and the child ends in good order.
"""

from __future__ import annotations

import sys

from embridge_cloud.offspring import die_with
from embridge_shared.cli import main

if __name__ == "__main__":
    die_with(int(sys.argv.pop(1)))
    main()
