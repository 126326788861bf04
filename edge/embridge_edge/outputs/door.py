"""Who may connect to the WebSocket server: a page of a foreign site, in a browser on this machine, may not.

Any page a browser shows can open a WebSocket to this machine. Its browser says from where the page came, and under
which name it asked for this machine; both are checked, the second against names that were made to lead here.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

from embridge_shared.errors import ConfigError, Reason

_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client sends first.

    Attributes:
        path: With its query.
        host: Name it asked for, with the port.
        origin: Page that asks; None for programs that are no browser.
        authorization: The header, or empty.
    """

    path: str
    host: str
    origin: str | None = None
    authorization: str = ""

    def wish(self, name: str) -> str:
        """A value of the query; empty where there is none."""
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]


@dataclass(frozen=True, slots=True)
class Door:
    """Tells who may come in.

    Attributes:
        token: What everybody must show; empty asks nothing.
        origins: Foreign pages that may connect, as in "https://panel.example".
        hosts: Further names this machine may be asked by.
    """

    token: str = ""
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def refusal(self, asked: Asked) -> str:
        """Why somebody may not come in; empty when they may."""
        host = _name(asked.host)
        if host not in _LOCAL and host not in self.hosts:
            return "asked for under a name that is not this server's; add it to outputs.websocket_hosts"
        if asked.origin is not None and not self._welcome(asked.origin, asked.host):
            return "a page of another site; add it to outputs.websocket_origins"
        if self.token and not hmac.compare_digest(_shown(asked).encode(), self.token.encode()):
            return "the token is missing or wrong"
        return ""

    def _welcome(self, origin: str, host: str) -> bool:
        # A page that this server handed out itself comes from the name and port it was asked for.
        return origin in self.origins or urlsplit(origin).netloc.lower() == host.lower()


def check_address(host: str, token: str) -> None:
    """Refuse to be heard beyond this machine without a token.

    Raises:
        ConfigError: INSECURE.
    """
    if is_local(host) or token:
        return
    raise ConfigError(
        f"the WebSocket server would listen on {host!r}, which others can reach, and asks for no token",
        reason=Reason.INSECURE,
        hint="Set outputs.websocket_token, or listen on 127.0.0.1.",
    )


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _shown(asked: Asked) -> str:
    scheme, _, given = asked.authorization.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else asked.wish("token")
