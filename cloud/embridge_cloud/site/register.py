"""What a site is and what it has issued: `site.json`. It holds no secret."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.tls import WARN_DAYS

FILE: Final = "site.json"
SCHEMA: Final = 1
_DAY_NS: Final = 86_400_000_000_000


class Role(StrEnum):
    """What a certificate is for."""

    BROKER = "broker"
    HTTP = "http"
    CLOUD = "cloud"
    EDGE = "edge"


class Standing(StrEnum):
    """Where a certificate stands."""

    VALID = "valid"
    ENDING = "ends soon"
    ENDED = "ended"
    REPLACED = "replaced"
    REVOKED = "revoked"


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Issued(_Part, frozen=True, kw_only=True):
    """A certificate.

    Attributes:
        serial: Its number, hexadecimal.
        role: What it is for.
        name: Its common name.
        issued_ns: Unix time it was made, ns.
        ends_ns: Unix time it ends, ns.
        revoked_ns: Unix time it was revoked, ns; 0 while it is not.
        reason: Why it was revoked.
    """

    serial: str
    role: Role
    name: str
    issued_ns: int
    ends_ns: int
    revoked_ns: int = 0
    reason: str = ""


class Layout(_Part, frozen=True, kw_only=True):
    """Where things are at work.

    Attributes:
        broker_hosts: Names and addresses of the broker; edges are told the first.
        broker_port: Its port.
        bind: Address it listens on; empty for all.
        broker_folder: Where the broker finds its files.
        max_connections: It takes.
        cloud_hosts: Names and addresses of the cloud's HTTP interface; edges are told the first.
        http_port: Its port.
        cloud_folder: Where the cloud process finds its files.
        days: How long a certificate lasts.
    """

    broker_hosts: tuple[str, ...]
    broker_port: int = 8883
    bind: str = ""
    broker_folder: str
    max_connections: int = 4096
    cloud_hosts: tuple[str, ...]
    http_port: int = 8470
    cloud_folder: str
    days: int = 365


class Register(_Part, frozen=True, kw_only=True):
    """A site and what it has issued.

    Attributes:
        schema: Version of this file.
        site: Its name.
        layout: Where things are at work.
        issued: Every certificate, the oldest first.
        list_number: Of the list of revocations.
        listed_ns: Date of that list, Unix time, ns.
    """

    schema: int = SCHEMA
    site: str
    layout: Layout
    issued: tuple[Issued, ...] = ()
    list_number: int = 0
    listed_ns: int = 0

    def newest(self, role: Role, name: str) -> Issued | None:
        """The last certificate made for a name that is not revoked."""
        return next((c for c in reversed(self.issued) if (c.role, c.name) == (role, name) and not c.revoked_ns), None)

    def standing(self, certificate: Issued, now_ns: int) -> Standing:
        """Where a certificate stands."""
        if certificate.revoked_ns:
            return Standing.REVOKED
        if certificate.ends_ns <= now_ns:
            return Standing.ENDED
        if self.newest(certificate.role, certificate.name) != certificate:
            return Standing.REPLACED
        return Standing.ENDING if certificate.ends_ns - now_ns < WARN_DAYS * _DAY_NS else Standing.VALID

    def barred(self) -> list[str]:
        """Clients of the broker that hold no certificate which is not revoked."""
        clients = {(c.role, c.name) for c in self.issued if c.role in (Role.EDGE, Role.CLOUD)}
        return sorted(name for role, name in clients if self.newest(role, name) is None)


def read(folder: Path) -> Register:
    """Read a site's register.

    Raises:
        OperatorError: NOT_FOUND: there is no site.
        DataError: MALFORMED: the file is damaged.
    """
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Register)
    except FileNotFoundError:
        raise OperatorError(
            f"there is no site in {folder}",
            reason=Reason.NOT_FOUND,
            hint="Name its folder with --site, or make one: `embridge site init`.",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{folder / FILE} is damaged: {error}", reason=Reason.MALFORMED, hint="Restore it from a backup."
        ) from error


def write(folder: Path, register: Register) -> None:
    """Replace a site's register."""
    text = msgspec.json.format(msgspec.json.encode(register), indent=2)
    write_atomically(folder / FILE, text + b"\n", mode=0o600)
