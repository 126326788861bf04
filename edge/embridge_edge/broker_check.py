"""Asks the broker whether it takes this edge, and finds out why not.

It speaks for itself, without a client library: the alerts of TLS tell why a certificate is refused.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Final

from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_shared.settings import MqttSettings, Settings
from embridge_shared.tls import tls_context

_TIMEOUT_S: Final = 10.0
_QUIET_S: Final = 1.0
_ANSWERS: Final = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not like the client id",
    3: "it is not available",
    4: "user name or password are wrong",
    5: "this edge is not authorised",
}
_ALERTS: Final = {
    "REVOKED": "its certificate was revoked: provision it anew (`embridge site edge`)",
    "EXPIRED": "its certificate has ended: renew it (`embridge site edge --renew`)",
    "UNKNOWN_CA": "its certificate is of another site: install the right bundle (`embridge edge install`)",
    "CERTIFICATE_REQUIRED": "it shows no certificate: install a bundle (`embridge edge install`)",
    "BAD_CERTIFICATE": "its certificate is not one for a client",
}


def ask_broker(settings: Settings, *, log_in: bool = True) -> None:
    """Connect as this edge, and leave again.

    Args:
        settings: The broker and who the edge is.
        log_in: Log in too; leave it out while the agent runs, whose place this would take.

    Raises:
        ConfigError: The certificates cannot be used or are refused; the message says why.
        NetworkError: The broker cannot be reached.
    """
    mqtt = settings.mqtt
    context = tls_context(mqtt)
    try:
        with socket.create_connection((mqtt.host, mqtt.port), timeout=_TIMEOUT_S) as link:
            if context is None:
                _talk(link, settings, log_in=log_in)
                return
            with context.wrap_socket(link, server_hostname=mqtt.host) as secured:
                _talk(secured, settings, log_in=log_in)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            f"the broker at {mqtt.host}:{mqtt.port} is not who it should be: {error.verify_message}",
            reason=Reason.INSECURE,
            hint="Is mqtt.host a name in its certificate, mqtt.ca_file its site's, and this machine's clock right?",
        ) from error
    except ssl.SSLError as error:
        raise _refused(
            mqtt, next((why for alert, why in _ALERTS.items() if alert in str(error)), str(error))
        ) from error
    except TimeoutError as error:
        raise NetworkError(
            f"the broker at {mqtt.host}:{mqtt.port} does not answer", reason=Reason.TIMEOUT, hint="Is it a broker?"
        ) from error
    except OSError as error:
        raise NetworkError(
            f"the broker at {mqtt.host}:{mqtt.port}: {error.strerror or error}",
            reason=Reason.UNREACHABLE,
            hint="Is it running, and are mqtt.host and mqtt.port right?",
        ) from error


def _talk(link: socket.socket, settings: Settings, *, log_in: bool) -> None:
    if isinstance(link, ssl.SSLSocket):
        # With TLS 1.3 a certificate is refused after the handshake: in what is read next, unless one writes first.
        link.settimeout(_QUIET_S)
        with contextlib.suppress(TimeoutError):
            link.recv(1)
            raise _refused(settings.mqtt, "it closed the connection")
        link.settimeout(_TIMEOUT_S)
    if not log_in:
        return
    link.sendall(connect_packet(settings))
    answer = link.recv(4)
    if len(answer) != 4 or answer[0] != 0x20:
        raise _refused(settings.mqtt, "it closed the connection" if not answer else "it does not speak MQTT")
    if answer[3]:
        raise _refused(settings.mqtt, _ANSWERS.get(answer[3], f"it answers {answer[3]}"))
    link.sendall(b"\xe0\x00")


def connect_packet(settings: Settings) -> bytes:
    """An MQTT 3.1.1 CONNECT of this edge, with a clean session."""
    mqtt = settings.mqtt
    password = mqtt.password.get_secret_value()
    flags = 0x02 | (0x80 if mqtt.username else 0) | (0x40 if password else 0)
    body = _text("MQTT") + bytes([4, flags]) + struct.pack(">H", mqtt.keepalive_s)
    for part in (f"edge-{settings.edge.name}", mqtt.username, password):
        body += _text(part) if part else b""
    length, digits = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        digits += bytes([digit | (0x80 if length else 0)])
        if not length:
            return b"\x10" + digits + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def _refused(mqtt: MqttSettings, why: str) -> ConfigError:
    return ConfigError(f"the broker at {mqtt.host}:{mqtt.port} refuses this edge: {why}", reason=Reason.UNAUTHENTICATED)
