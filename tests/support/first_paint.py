"""How long `embridge tui` takes to its first paint, in a pty of 160 x 50; arguments go on to it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import tempfile
import termios
import time


def seconds_to_first_paint(arguments: list[str], within_s: float = 60.0) -> float:
    """From the start of the interpreter until the interface stands in the terminal, s."""
    home = tempfile.mkdtemp()
    begun = time.monotonic()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(home)
        os.environ.update(HOME=home, TERM="xterm-256color")
        os.execv(sys.executable, [sys.executable, "-m", "embridge_shared.cli", "tui", *arguments])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    seen = b""
    try:
        while b"EMBridge" not in seen:
            if time.monotonic() > begun + within_s:
                raise TimeoutError(seen.decode(errors="replace"))
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 65536)
        return time.monotonic() - begun
    finally:
        _leave(child, terminal)


def _leave(child: int, terminal: int) -> None:
    os.write(terminal, b"\x11")
    until = time.monotonic() + 30.0
    while time.monotonic() < until and os.waitpid(child, os.WNOHANG)[0] == 0:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                os.read(terminal, 65536)
                os.write(terminal, b"y")
            except OSError:
                continue


if __name__ == "__main__":
    sys.stdout.write(f"{seconds_to_first_paint(sys.argv[1:]):.2f} s\n")
