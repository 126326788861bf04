"""The certificate authority of a site: keys, certificates and the list of those that are revoked.

Keys are ECDSA on P-256. A certificate says what it is for: one that was made for an edge cannot serve as a broker's. A
term begins a day early, for clocks differ.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from embridge_shared.errors import DataError, OperatorError, Reason

_SKEW: Final = timedelta(days=1)
_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key alone, PKCS#8, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def pem(self) -> bytes:
        """Certificate and key in one file, so that a renewal replaces both at once."""
        return self.certificate_pem + self.key_pem


def make_authority(name: str, *, days: int, now: datetime) -> Identity:
    """A new authority.

    Args:
        name: Of the site.
        days: How long it lasts.
        now: The time.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} CA")])
    certificate = (
        _builder(subject, subject, key.public_key(), now - _SKEW, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key)


def load_authority(certificate_pem: bytes, key_pem: bytes) -> Identity:
    """Read an authority.

    Raises:
        DataError: The key is none, or not that of the certificate.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise DataError(f"the authority's files cannot be read: {error}", reason=Reason.MALFORMED) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise DataError("the authority's key is not that of its certificate", reason=Reason.SIGNATURE)
    return Identity(certificate, key)


def issue(
    authority: Identity, common_name: str, *, days: int, now: datetime, hosts: Sequence[str] = (), serves: bool = False
) -> Identity:
    """A new key and a certificate for it; it never outlives the authority.

    Args:
        authority: Signs it.
        common_name: Whom it names.
        days: How long it lasts.
        now: The time.
        hosts: Names and addresses it may be reached under.
        serves: It is a server's; else a client's.

    Raises:
        OperatorError: A host is no name and no address, or the authority has ended.
    """
    end = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    if end <= now:
        raise OperatorError("the site's authority has ended", hint="Make a new site: `embridge site init`.")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    use = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(subject, authority.certificate.subject, key.public_key(), now - _SKEW, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(above, critical=False)
    )
    if hosts:
        names = [general_name(host) for host in dict.fromkeys(hosts)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Identity(builder.sign(authority.key, hashes.SHA256()), key)


def revocations(authority: Identity, revoked: Iterable[tuple[int, datetime]], *, number: int, dated: datetime) -> bytes:
    """The list of revoked certificates, PEM.

    It holds as long as the authority does: one that ran out would shut everybody out.

    Args:
        authority: Signs it.
        revoked: Serial numbers and when.
        number: Grows with every list.
        dated: Later than the last list's, by a second at least; a broker takes the latest.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(dated)
        .next_update(authority.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    for serial, when in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def list_date(now: datetime, last: datetime | None) -> datetime:
    """The date of a new list of revocations: in the past for every broker's clock, and after the last one."""
    dated = (now - _SKEW).replace(microsecond=0)
    return dated if last is None else max(dated, last + timedelta(seconds=1))


def general_name(host: str) -> x509.GeneralName:
    """A host as a certificate has it.

    Raises:
        OperatorError: It is no name and no address.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if _HOST.fullmatch(host):
            return x509.DNSName(host)
    raise OperatorError(f"{host!r} is no host name and no address", hint="Give it as in broker.example or 10.0.0.5.")


def at(t_ns: int) -> datetime:
    """A Unix time, ns, as the certificates have it: whole seconds."""
    return datetime.fromtimestamp(t_ns // 1_000_000_000, UTC)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
