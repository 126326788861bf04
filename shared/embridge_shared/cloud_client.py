"""The way of every command to a cloud's HTTP interface: address, token, trust, and what an answer means.

A token is a secret, so it leaves only where it belongs: the one that a cloud process keeps for commands on its machine
is shown to that process alone, nothing is shown beyond this machine without TLS unless `api.insecure` says so, and no
redirect is followed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from embridge_shared.errors import ConfigError, EmbridgeError, NetworkError, OperatorError, Reason
from embridge_shared.settings import Settings, load

LOCAL_TOKEN: Final = Path("api") / "local.token"
"""Where a cloud process keeps the token for commands on its machine, under its state folder."""
LOCAL_URL: Final = LOCAL_TOKEN.with_name("local.url")
"""Where it says at which address it listens, for as long as it runs."""

_TIMEOUT_S = 10.0
_MAX_BYTES = 64 << 20
_BLOCK = 1 << 16
_TOKEN_HINT = "Set api.token or api.token_file; an admin makes one with `embridge token create`."  # noqa: S105


@dataclass(frozen=True, slots=True)
class CloudApi:
    """A cloud's HTTP interface.

    Attributes:
        address: Base URL, as in "http://127.0.0.1:8470".
        token: Shown with every request; empty for none.
        tls: What an https address is checked against; the system's certificates by default.
        timeout_s: How long one answer may take, all its bytes included.
        insecure: Show the token beyond this machine without TLS too.
    """

    address: str
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    timeout_s: float = _TIMEOUT_S
    insecure: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError(
                f"{self.address!r} is no address of an HTTP interface.", hint="Give one like http://127.0.0.1:8470."
            )
        object.__setattr__(self, "address", self.address.rstrip("/"))
        if self.token and parts.scheme == "http" and not self.insecure and not is_loopback(parts.hostname):
            raise ConfigError(
                f"a token would cross the network to {parts.hostname} unencrypted.",
                hint="Use https, or set api.insecure where the network itself is protected.",
            )

    def get(self, path: str) -> Any:
        """The JSON at `path`.

        Raises:
            OperatorError: The cloud refuses: its reason and hint.
            NetworkError: It does not answer, cannot, or is none.
        """
        return self._json(path, self.read(path))

    def post(self, path: str, body: Any = None) -> Any:
        """Send JSON (bytes as they are) and return the answer; raises as `get`."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self._json(path, self.read(path, method="POST", body=data))

    def put(self, path: str, body: Any) -> Any:
        """Replace what is at `path` with JSON and return the answer; raises as `get`."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._json(path, self.read(path, method="PUT", body=data))

    def delete(self, path: str) -> Any:
        """Delete what is at `path` and return the answer; raises as `get`."""
        return self._json(path, self.read(path, method="DELETE"))

    def read(self, path: str, *, method: str = "GET", body: bytes | None = None, also: int = 200) -> bytes:
        """The answer's bytes; raises as `get`.

        Args:
            path: With a leading slash.
            method: HTTP's.
            body: JSON to send.
            also: A status that is no error here.
        """
        deadline = time.monotonic() + self.timeout_s
        found = bytearray()
        try:
            with self._open(path, method, body, also=also) as answer:
                while block := answer.read1(_BLOCK):
                    found += block
                    if time.monotonic() > deadline:
                        raise TimeoutError
                    if len(found) > _MAX_BYTES:
                        raise self._foreign(f"{path} answers without an end")
        except TimeoutError as error:
            raise NetworkError(
                f"the cloud at {self.address} took more than {self.timeout_s:g} s to answer",
                reason=Reason.TIMEOUT,
                hint="See whether its machine is overloaded, or what its log says.",
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise NetworkError(
                f"{self.address} is not trusted: {error.verify_message}",
                reason=Reason.INSECURE,
                hint="Set api.ca_file to its site's ca.crt, or name the settings of its cloud with EMBRIDGE_CONFIG.",
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            raise NetworkError(
                f"no cloud answers at {self.address}: {_why(error)}",
                reason=Reason.UNREACHABLE,
                hint="Start `embridge cloud run`, or give its address with --url.",
            ) from error
        return bytes(found)

    def lines(self, path: str, *, last_id: str = "") -> Iterator[str]:
        """The lines of a stream of events as they come; its silence is limited by `timeout_s`. Raises as `get`.

        Args:
            path: With a leading slash.
            last_id: Of the last event the caller had: those after it come first.
        """
        try:
            with self._open(path, "GET", None, also=200, last_id=last_id) as answer:
                for line in answer:
                    yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, HTTPException) as error:
            raise NetworkError(
                f"the stream from {self.address} ended: {_why(error)}", reason=Reason.UNREACHABLE, hint="Ask again."
            ) from error

    @contextlib.contextmanager
    def _open(
        self, path: str, method: str, body: bytes | None, *, also: int, last_id: str = ""
    ) -> Iterator[HTTPResponse]:
        headers = {"Accept": "application/json", "User-Agent": "embridge"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = Request(self.address + path, data=body, headers=headers, method=method)  # noqa: S310
        try:
            answer = _opener(self).open(request, timeout=self.timeout_s)
        except HTTPError as error:
            if error.code != also:
                with error:
                    raise self._refused(path, error.code, error.read(_BLOCK)) from error
            answer = error
        except URLError as error:
            raise (error.reason if isinstance(error.reason, OSError) else error) from error
        with answer:
            yield answer

    def _json(self, path: str, body: bytes) -> Any:
        try:
            return json.loads(body) if body else None
        except ValueError as error:
            raise self._foreign(f"{path} is not what an EMBridge cloud answers: {error}") from error

    def _refused(self, path: str, code: int, body: bytes) -> EmbridgeError:
        try:
            said = json.loads(body)
            message, hint = str(said["error"]), str(said.get("hint", ""))
            reason = Reason(said["reason"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._foreign(f"{self.address}{path} answered {code}")
        if reason is Reason.UNAUTHENTICATED and not self.token:
            message, hint = f"the cloud at {self.address} asks for a token", _TOKEN_HINT
        kind = NetworkError if code >= 500 else OperatorError
        return kind(message, reason=reason, hint=hint)

    def _foreign(self, message: str) -> NetworkError:
        return NetworkError(message, reason=Reason.FOREIGN, hint="Is an `embridge cloud run` of this version there?")


def connect(url: str | None = None, *, settings: Settings | None = None, timeout_s: float = _TIMEOUT_S) -> CloudApi:
    """The interface that the settings name, with the token that belongs there.

    Args:
        url: Its address; by default `api.url`, or the cloud process of these settings.
        settings: By default those of this process.
        timeout_s: How long one answer may take.

    Raises:
        ConfigError: No address, or a file that cannot be read.
    """
    settings = settings or load()
    api, own = settings.api, _own_addresses(settings)
    address = (url or api.url or own[0]).rstrip("/")
    ours = address in own
    token = api.token.get_secret_value()
    if not token and api.token_file is not None:
        token = _text(api.token_file, "api.token_file")
    elif not token and ours:
        with contextlib.suppress(OSError):
            token = (settings.cloud.state_dir / LOCAL_TOKEN).read_text().strip()
    tls = _trust(settings, ours=ours) if address.startswith("https:") else None
    return CloudApi(address, token, tls, timeout_s, insecure=api.insecure)


def is_loopback(host: str) -> bool:
    """Whether a name or address is that of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _own_addresses(settings: Settings) -> list[str]:
    """Where the cloud process of these settings is reached: as it said itself, as the settings say, as edges do."""
    cloud = settings.cloud
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(cloud.http_host, cloud.http_host)  # noqa: S104
    scheme = "http" if cloud.http_cert_file is None else "https"
    found = [f"{scheme}://{f'[{host}]' if ':' in host else host}:{cloud.http_port}"]
    if cloud.public_url:
        found.append(cloud.public_url.rstrip("/"))
    with contextlib.suppress(OSError):
        found.insert(0, (cloud.state_dir / LOCAL_URL).read_text().strip())
    return found


def _trust(settings: Settings, *, ours: bool) -> ssl.SSLContext:
    """What a certificate is checked against; on the process's own machine its certificate is known as it is."""
    ca_file, own = settings.api.ca_file, settings.cloud.http_cert_file
    try:
        if ca_file is None and ours and own is not None and own.is_file():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            leaf = own.read_text().partition("-----END CERTIFICATE-----")
            context.load_verify_locations(cadata=leaf[0] + leaf[1])
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.check_hostname = False
            return context
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca_file or own} cannot be used: {error}.", hint="Check api.ca_file.") from error


def _text(path: Path, key: str) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint=f"Check {key}.") from error


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(api: CloudApi) -> OpenerDirector:
    handlers: list[Any] = [_NoRedirect, HTTPSHandler(context=api.tls)]
    if is_loopback(urlsplit(api.address).hostname or ""):
        handlers.append(ProxyHandler({}))
    return build_opener(*handlers)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
