"""A PostgreSQL of its own for a test: a cluster in a temporary folder, on a socket, gone with the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def binaries() -> Path | None:
    """Folder of the server's programs, or None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server; the connection string of its database `lake`."""
    programs = binaries()
    assert programs is not None, "PostgreSQL is not installed: make system"
    # The server refuses to run as root, and its socket's path must be short.
    user = "nobody" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C"}

    def call(*arguments: str) -> None:
        subprocess.run(
            arguments, check=True, user=user, env=environment, cwd=folder, stdout=subprocess.DEVNULL, timeout=60
        )

    try:
        if user is not None:
            shutil.chown(folder, user)
        data = str(folder / "data")
        call("initdb", "-D", data, "-U", "embridge", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -k {folder} -c fsync=off -c max_connections=60"
        call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            call("createdb", "-h", str(folder), "-U", "embridge", "lake")
            yield f"host={folder} user=embridge dbname=lake"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
