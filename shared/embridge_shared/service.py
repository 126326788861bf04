"""What a service tells systemd: that it is ready, how it is doing, that it still works.

The protocol is one datagram a message to the socket that `NOTIFY_SOCKET` names. Without that variable nothing is sent,
so a process started by hand behaves the same.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger(__name__)


class Notifier:
    """Speaks to the service manager that started this process.

    A message that cannot be sent is logged once and otherwise let go: whoever listens no more will act by itself.

    Args:
        address: Path of the manager's socket, an abstract one with a leading "@"; empty for none.
        watchdog_s: The manager ends this process when it says nothing for so long; 0 for never.
    """

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s
        self._socket: socket.socket | None = None
        self._status = ""
        self._complained = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, *, pid: int | None = None) -> Notifier:
        """The notifier of the manager that started this process, or one that says nothing to nobody.

        Args:
            environ: The process's own by default.
            pid: Of this process; a watchdog meant for another one is not ours.
        """
        given = os.environ if environ is None else environ
        usec, whose = given.get("WATCHDOG_USEC", ""), given.get("WATCHDOG_PID", "")
        ours = not whose or whose == str(os.getpid() if pid is None else pid)
        return cls(given.get("NOTIFY_SOCKET", ""), int(usec) * 1e-6 if ours and usec.isdecimal() else 0.0)

    @property
    def listened_to(self) -> bool:
        """Whether there is a manager."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The service has started."""
        self._status = status
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """How it is doing, in a few words; said when they change."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={_line(status)}")

    def watchdog(self) -> None:
        """The service works."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str = "stopping") -> None:
        """The service ends."""
        self._status = status
        self._send(f"STOPPING=1\nSTATUS={_line(status)}")

    def close(self) -> None:
        """Let the socket go."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._complained:
                logger.warning("the service manager does not listen: %s", error)
            self._complained = True


def _line(text: str) -> str:
    return " ".join(text.split())
