"""One agent a state directory."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embridge_shared.errors import OperatorError, Reason

FILE = "agent.lock"


@contextmanager
def only_agent(state_dir: Path) -> Iterator[None]:
    """Be the only agent of a state directory inside the context; the lock ends with the process at the latest.

    Raises:
        OperatorError: LOCKED: another agent runs there.
    """
    state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    with (state_dir / FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(
                f"another agent runs in {state_dir}",
                reason=Reason.LOCKED,
                hint="Stop that one, or give this one a state directory and a name of its own.",
            ) from None
        yield


def is_running(state_dir: Path) -> bool:
    """Whether an agent runs in a state directory."""
    path = state_dir / FILE
    if not path.is_file():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
