"""TLS towards the broker, the same on both ends: what may go in clear, who may read a key, when a certificate ends."""

from __future__ import annotations

import ipaddress
import logging
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from embridge_shared.errors import ConfigError, Reason
from embridge_shared.settings import MqttSettings

logger = logging.getLogger(__name__)

WARN_DAYS: Final = 30
"""A certificate that ends within so many days is spoken of."""

_DAY_NS: Final = 86_400_000_000_000


def is_loopback(host: str) -> bool:
    """Whether an address names this machine and no other; a name but `localhost` does not."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def tls_context(mqtt: MqttSettings) -> ssl.SSLContext | None:
    """The TLS context the settings ask for, or None for a plain connection.

    Raises:
        ConfigError: A certificate or key cannot be loaded, everybody on this machine may read the key, or a plain
            connection would leave this machine and `mqtt.insecure` does not allow it.
    """
    if mqtt.ca_file is None:
        _check_plain(mqtt)
        return None
    private = mqtt.key_file or mqtt.cert_file
    try:
        context = ssl.create_default_context(cafile=str(mqtt.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if mqtt.cert_file is not None and private is not None:
            check_private(private)
            context.load_cert_chain(mqtt.cert_file, mqtt.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"mqtt TLS files: {error}", hint="Check mqtt.ca_file, cert_file and key_file.") from error
    return context


def check_private(path: Path) -> None:
    """Check who may read a private key.

    A group that may read it is warned of and no more: so look the credentials that systemd hands to a service.

    Raises:
        ConfigError: INSECURE: every user of this machine may read or change it.
        OSError: It is not there.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007:
        raise ConfigError(
            f"every user of this machine may read or change the private key {path} (mode {mode:04o})",
            reason=Reason.INSECURE,
            hint=f"`chmod 600 {path}`; if others may have read it, revoke its certificate.",
        )
    if mode & 0o020 or (mode & 0o040 and path.stat().st_gid != 0):
        logger.warning("a group may use the private key %s (mode %04o): `chmod 600` it", path, mode)


def expires_at(cert_file: Path) -> datetime:
    """When the first certificate in a PEM file ends.

    Raises:
        ConfigError: The file cannot be read or holds no certificate.
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(cert_file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise ConfigError(f"{cert_file} holds no certificate: {error}", hint="Check mqtt.cert_file.") from error


def common_name(cert_file: Path) -> str:
    """The common name of the first certificate in a PEM file, or nothing.

    Raises:
        ConfigError: The file cannot be read or holds no certificate.
    """
    from cryptography import x509

    try:
        subject = x509.load_pem_x509_certificate(cert_file.read_bytes()).subject
    except (OSError, ValueError) as error:
        raise ConfigError(f"{cert_file} holds no certificate: {error}", hint="Check mqtt.cert_file.") from error
    return next((str(a.value) for a in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)), "")


def expiry_ns(mqtt: MqttSettings) -> int:
    """When the certificate shown to the broker ends, Unix time, ns; 0 without one.

    Raises:
        ConfigError: The file cannot be read or holds no certificate.
    """
    if mqtt.ca_file is None or mqtt.cert_file is None:
        return 0
    return int(expires_at(mqtt.cert_file).timestamp()) * 1_000_000_000


def expiry_warning(what: str, end_ns: int, now_ns: int) -> str:
    """What to say of a certificate that ends soon or has ended, or nothing.

    Args:
        what: Names it, as in "the certificate towards the broker".
        end_ns: Unix time it ends, ns; 0 for none.
        now_ns: Unix time, ns.
    """
    days = (end_ns - now_ns) / _DAY_NS
    if not end_ns or days > WARN_DAYS:
        return ""
    day = datetime.fromtimestamp(end_ns // 1_000_000_000, UTC).date().isoformat()
    if days <= 0:
        return f"{what} ended on {day}: nobody accepts it any more; renew it"
    return f"{what} ends on {day}, in {days:.0f} days: renew it"


def _check_plain(mqtt: MqttSettings) -> None:
    if mqtt.insecure or is_loopback(mqtt.host):
        return
    raise ConfigError(
        f"samples and passwords would leave this machine in clear towards {mqtt.host}:{mqtt.port}",
        reason=Reason.INSECURE,
        hint="Set mqtt.ca_file (`embridge site` makes the certificates), or mqtt.insecure = true where nobody listens.",
    )
