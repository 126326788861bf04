"""A demonstration that is killed takes its processes with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.loop import until

PARENT = """
import subprocess, sys, time
from pathlib import Path
from embridge_cloud.demo.site import Site
site = Site(Path(sys.argv[1]), 0.2)
site.start_cloud()
print(site._cloud.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_children_of_a_killed_demonstration_end(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
        parent.wait()
    until(lambda: not alive(child), 20, "the child to end")
    assert "stopped" in (tmp_path / "logs" / "cloud.log").read_text()
    assert not list((tmp_path / "cloud" / "hot").glob("*.wal"))


def test_a_child_whose_parent_is_gone_does_not_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embridge_cloud.demo.child", "1", "--version"], capture_output=True, check=False
    )
    assert done.returncode == 143
