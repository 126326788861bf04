"""Whether the process of this container does its work; for HEALTHCHECK, with the standard library alone.

cloud   /ready answers 200 at the address the process says it listens on
edge    an agent holds its state folder, and its spool can be read
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import ssl
import sys
import urllib.request
from pathlib import Path

TIMEOUT_S = 4.0


def cloud(state_dir: Path) -> None:
    """Ask the process. Its certificate need not be checked: the way does not leave the container."""
    url = (state_dir / "api" / "local.url").read_text().strip()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    opener.open(f"{url}/ready", timeout=TIMEOUT_S).close()


def edge(state_dir: Path) -> None:
    """Look for the agent's lock, and into its spool."""
    with (state_dir / "agent.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            raise OSError("no agent runs")
    with sqlite3.connect(f"file:{state_dir / 'spool.db'}?mode=ro", uri=True, timeout=TIMEOUT_S) as spool:
        spool.execute("SELECT count(*) FROM sessions").fetchone()


def main() -> int:
    """Exit status: 0 is well."""
    part = sys.argv[1]
    state_dir = Path(os.environ[f"EMBRIDGE_{part.upper()}__STATE_DIR"])
    try:
        {"cloud": cloud, "edge": edge}[part](state_dir)
    except (OSError, sqlite3.Error) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
