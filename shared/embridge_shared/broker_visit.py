"""Speaks just enough MQTT 3.1.1 to see whether a broker lets this identity in, and say and hear what it must.

Without a client library, so that a time-out is one, an answer can be told from silence, and the alerts of TLS tell why
a certificate is refused.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from typing import Final

from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_shared.settings import MqttSettings
from embridge_shared.tls import tls_context

_KINDS: Final = frozenset({0x20, 0x90, 0xD0, *range(0x30, 0x40)})  # what a broker may say to a visitor
_REFUSALS: Final = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not like the client id",
    3: "it is not available",
    4: "user name or password are wrong",
    5: "it is not authorised",
}
_ALERTS: Final = {
    "REVOKED": "its certificate was revoked: provision it anew (`embridge site edge`)",
    "EXPIRED": "its certificate has ended: renew it (`embridge site edge --renew`)",
    "UNKNOWN_CA": "its certificate is of another site: install the right bundle (`embridge edge install`)",
    "CERTIFICATE_REQUIRED": "it shows no certificate: install a bundle (`embridge edge install`)",
    "BAD_CERTIFICATE": "its certificate is not one for a client",
}
TIMEOUT_S: Final = 10.0
_QUIET_S: Final = 1.0


class Visit:
    """A connection to the broker, logged in. Use it as a context manager.

    Args:
        mqtt: The broker and who we are.
        name: Client id.
        timeout_s: For each step.

    Raises:
        ConfigError: The broker refuses us, or is not who it should be.
        NetworkError: It does not answer.
    """

    def __init__(self, mqtt: MqttSettings, name: str, timeout_s: float) -> None:
        self._mqtt = mqtt
        self._where = f"the broker at {mqtt.host}:{mqtt.port}"
        self._timeout_s = timeout_s
        self._link = link(mqtt, timeout_s)
        try:
            self._log_in(mqtt, name)
        except BaseException:
            self._link.close()
            raise

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._link.sendall(b"\xe0\x00")
        finally:
            self._link.close()

    def _log_in(self, mqtt: MqttSettings, name: str) -> None:
        _hear_alert(mqtt, self._link)
        self._link.settimeout(self._timeout_s)
        self._link.sendall(connect_packet(mqtt, name))
        kind, answer = self._receive(time.monotonic() + self._timeout_s)
        if kind != 0x20 or len(answer) != 2:
            raise NetworkError(f"{self._where} does not speak MQTT", reason=Reason.FOREIGN, hint="Check mqtt.port.")
        if answer[1]:
            raise ConfigError(
                f"{self._where} refuses {name!r}: {_REFUSALS.get(answer[1], f'it answers {answer[1]}')}",
                reason=Reason.UNAUTHENTICATED,
                hint="Check mqtt.username and mqtt.password, or the certificate and the broker's access list.",
            )

    def hears_itself(self, topic: str, payload: bytes) -> bool:
        """Whether what is published on a topic comes back."""
        self._link.sendall(_packet(0x82, struct.pack(">H", 1) + _text(topic) + b"\0"))
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            kind, answer = self._receive(deadline_s)
            if kind & 0xF0 == 0x90:
                break
        if answer[-1] == 0x80:
            return False
        self._link.sendall(_packet(0x30, _text(topic) + payload))
        try:
            while True:
                kind, answer = self._receive(deadline_s)
                if kind & 0xF0 == 0x30 and answer.endswith(payload):
                    return True
        except NetworkError as error:
            if error.reason is Reason.TIMEOUT:
                return False
            raise

    def _receive(self, deadline_s: float) -> tuple[int, bytes]:
        kind = self._exactly(1, deadline_s)[0]
        if kind not in _KINDS:
            raise NetworkError(f"{self._where} does not speak MQTT", reason=Reason.FOREIGN, hint="Check mqtt.port.")
        length, shift = 0, 0
        while True:
            digit = self._exactly(1, deadline_s)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return kind, self._exactly(length, deadline_s)
            if shift > 21:
                raise NetworkError(f"{self._where} does not speak MQTT", reason=Reason.FOREIGN)

    def _exactly(self, n: int, deadline_s: float) -> bytes:
        found = b""
        while len(found) < n:
            self._link.settimeout(max(0.01, deadline_s - time.monotonic()))
            try:
                part = self._link.recv(n - len(found))
            except TimeoutError as error:
                raise NetworkError(f"{self._where} does not answer", reason=Reason.TIMEOUT) from error
            except ssl.SSLError as error:
                raise _refused(self._mqtt, error) from error
            except OSError as error:
                raise NetworkError(f"{self._where} hangs up: {error.strerror or error}") from error
            if not part:
                raise NetworkError(
                    f"{self._where} hangs up", reason=Reason.UNREACHABLE, hint="Its log tells why it refuses us."
                )
            found += part
        return found


def link(mqtt: MqttSettings, timeout_s: float) -> socket.socket:
    """A connection to the broker, through TLS where the settings ask for it.

    Raises:
        ConfigError: The certificates cannot be used, or the broker is not who it should be.
        NetworkError: It does not answer.
    """
    where, context = f"{mqtt.host}:{mqtt.port}", tls_context(mqtt)
    try:
        raw = socket.create_connection((mqtt.host, mqtt.port), timeout=timeout_s)
        return raw if context is None else context.wrap_socket(raw, server_hostname=mqtt.host)
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            f"the broker at {where} is not who it should be: {error.verify_message}",
            reason=Reason.INSECURE,
            hint="Is mqtt.host a name in its certificate, mqtt.ca_file its site's, and this machine's clock right?",
        ) from error
    except ssl.SSLError as error:
        raise _refused(mqtt, error) from error
    except socket.gaierror as error:
        raise NetworkError(
            f"there is no {mqtt.host}: {error.strerror}",
            reason=Reason.UNREACHABLE,
            hint="Check mqtt.host and the name server.",
        ) from error
    except TimeoutError as error:
        raise NetworkError(
            f"{where} does not answer within {timeout_s:g} s",
            reason=Reason.TIMEOUT,
            hint="Is a firewall between here and the broker, or is its machine off?",
        ) from error
    except OSError as error:
        raise NetworkError(
            f"{where}: {error.strerror or error}",
            reason=Reason.UNREACHABLE,
            hint="Is the broker running, and are mqtt.host and mqtt.port right?",
        ) from error


def greet(mqtt: MqttSettings, name: str, timeout_s: float = TIMEOUT_S) -> None:
    """Log in under a name and leave again; raises as `Visit`."""
    with Visit(mqtt, name, timeout_s):
        pass


def knock(mqtt: MqttSettings, timeout_s: float = TIMEOUT_S) -> None:
    """Connect and leave again without logging in, which would take the place of who holds this identity.

    Raises:
        ConfigError: The certificates cannot be used or are refused; the message says why.
        NetworkError: The broker cannot be reached, or hangs up.
    """
    with link(mqtt, timeout_s) as found:
        _hear_alert(mqtt, found)


def _hear_alert(mqtt: MqttSettings, found: socket.socket) -> None:
    """With TLS 1.3 a certificate is refused after the handshake: in what is read next, unless one writes first."""
    if not isinstance(found, ssl.SSLSocket):
        return
    found.settimeout(_QUIET_S)
    try:
        with contextlib.suppress(TimeoutError):
            found.recv(1)
            raise NetworkError(f"the broker at {mqtt.host}:{mqtt.port} hangs up", reason=Reason.UNREACHABLE)
    except ssl.SSLError as error:
        raise _refused(mqtt, error) from error


def connect_packet(mqtt: MqttSettings, name: str) -> bytes:
    """An MQTT 3.1.1 CONNECT with a clean session."""
    password = mqtt.password.get_secret_value()
    flags = 0x02 | (0x80 if mqtt.username else 0) | (0x40 if password else 0)
    body = _text("MQTT") + bytes([4, flags]) + struct.pack(">H", mqtt.keepalive_s)
    for part in (name, mqtt.username, password):
        body += _text(part) if part else b""
    return _packet(0x10, body)


def _packet(kind: int, body: bytes) -> bytes:
    length, digits = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        digits += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([kind]) + digits + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def _refused(mqtt: MqttSettings, error: ssl.SSLError) -> ConfigError:
    """What an alert of the broker means; another failure of TLS is most often a port without it."""
    where = f"{mqtt.host}:{mqtt.port}"
    for alert, why in _ALERTS.items():
        if alert in str(error):
            return ConfigError(f"the broker at {where} refuses this identity: {why}", reason=Reason.UNAUTHENTICATED)
    return ConfigError(
        f"no TLS with {where}: {error.reason or error}", hint="Is mqtt.port the one that speaks TLS, as 8883 does?"
    )
