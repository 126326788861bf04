"""A site on disk: make it, provision edges, renew, revoke."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from embridge_cloud.site import authority, layout, mosquitto, register
from embridge_cloud.site.authority import Identity
from embridge_cloud.site.register import Issued, Layout, Register, Role, Standing
from embridge_shared import provision
from embridge_shared.archive import sync_folder, write_atomically
from embridge_shared.clock import Clock
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.provision import EdgeSite
from embridge_shared.wire.topics import check_edge, ingest_filters

CA_DAYS: Final = 3650
_CERTIFICATE: Final = "ca.crt"
_KEY: Final = "ca.key"


class Site:
    """A site.

    Args:
        folder: Holds `site.json`.
        clock: Dates certificates.
        ca: Where the authority's key lies now; by default in the site's folder.
    """

    def __init__(self, folder: Path, clock: Clock, *, ca: Path | None = None) -> None:
        self.folder = folder
        self._clock = clock
        self._ca = ca if ca is not None else folder / layout.AUTHORITY

    @property
    def register(self) -> Register:
        """What was issued.

        Raises:
            OperatorError: NOT_FOUND: there is no site.
            DataError: The register is damaged.
        """
        return register.read(self.folder)

    def standing(self) -> list[tuple[Issued, Standing]]:
        """Every certificate and where it stands, the oldest first."""
        found, now_ns = self.register, self._clock.wall_ns()
        return [(c, found.standing(c, now_ns)) for c in found.issued]

    def edge(self, name: str, *, root: bytes | None, renew: bool = False, days: int | None = None) -> bytes:
        """Make an edge's certificate.

        Args:
            name: Of the edge.
            root: Root metadata of the update repository, if there is one.
            renew: It has one already and is to get another.
            days: How long it lasts; by default as the site says.

        Returns:
            The bundle for the edge; the site keeps no copy of its key.

        Raises:
            ConfigError: It cannot name an edge.
            OperatorError: It has a certificate already, or has none to renew; or the authority's key is not there.
        """
        check_edge(name)
        with self._locked() as found:
            _check_new(found, name, renew=renew)
            identity, changed = self._issue(found, Role.EDGE, name, days=days)
            self._save(changed)
        site = EdgeSite(edge=name, site=found.site, host=found.layout.broker_hosts[0], port=found.layout.broker_port)
        return provision.pack(site, authority=self._authority_pem(), client=identity.pem, root=root)

    def ingester(self, first: int, last: int) -> Path:
        """Make a further cloud process that ingests some shards; the broker must read its access list again.

        Args:
            first: First shard.
            last: Last shard.

        Returns:
            The folder of its files.

        Raises:
            ConfigError: The range is empty or outside 0..255.
            OperatorError: There is one already, or the authority's key is not there.
        """
        ingest_filters(first, last)
        name = f"@ingest-{first}-{last}"
        folder = self.folder.absolute() / name.removeprefix("@")
        with self._locked() as found:
            if found.newest(Role.CLOUD, name) is not None and folder.exists():
                raise OperatorError(f"{folder} is there already", hint="`embridge site renew` renews it.")
            identity, changed = self._issue(found, Role.CLOUD, name)
            self._save(changed)
            layout.write_ingester(
                folder,
                layout=found.layout,
                authority=self._authority_pem(),
                client=identity.pem,
                shards=(first, last),
            )
        return folder

    def renew(self, *, within_days: int) -> list[Issued]:
        """Renew what ends within so many days of broker and cloud; the files in the site's folder are replaced.

        Raises:
            OperatorError: The authority's key is not there.
        """
        horizon_ns = self._clock.wall_ns() + within_days * 86_400_000_000_000
        files: dict[Path, Identity] = {}
        with self._locked() as found:
            changed = found
            for role, name, path in self._own(found):
                newest = found.newest(role, name)
                if newest is None or newest.ends_ns <= horizon_ns:
                    files[path], changed = self._issue(changed, role, name)
            self._save(changed)
            for path, identity in files.items():
                layout.write_secret(path, identity.pem)
        return list(changed.issued[len(found.issued) :])

    def revoke(self, name: str, reason: str, *, replaced_only: bool = False) -> list[Issued]:
        """Revoke the certificates of a name; the broker must be told to read its files again.

        Args:
            name: Common name.
            reason: Why.
            replaced_only: Only those that a newer one has replaced.

        Returns:
            What was revoked now; the list is written anew even where that is nothing.

        Raises:
            OperatorError: NOT_FOUND: nothing was issued to it; or the authority's key is not there.
        """
        with self._locked() as found:
            if not any(c.name == name for c in found.issued):
                raise OperatorError(
                    f"this site never made a certificate for {name!r}",
                    reason=Reason.NOT_FOUND,
                    hint="`embridge site list` shows them.",
                )
            now_ns = self._clock.wall_ns()
            chosen = {
                c.serial
                for c in found.issued
                if c.name == name and not c.revoked_ns and not (replaced_only and found.newest(c.role, name) == c)
            }
            issued = tuple(
                msgspec.structs.replace(c, revoked_ns=now_ns, reason=reason) if c.serial in chosen else c
                for c in found.issued
            )
            self._save(msgspec.structs.replace(found, issued=issued))
        return [c for c in issued if c.serial in chosen]

    def _own(self, found: Register) -> list[tuple[Role, str, Path]]:
        """What is not an edge's, and where it lies."""
        further = sorted({c.name for c in found.issued if mosquitto.INGESTER.fullmatch(c.name)})
        return [
            *((Role.CLOUD, name, self.folder / name.removeprefix("@") / layout.CLIENT) for name in further),
            (Role.BROKER, found.layout.broker_hosts[0], self.folder / layout.BROKER / mosquitto.SERVER),
            (Role.CLOUD, layout.CLOUD_NAME, self.folder / layout.CLOUD / layout.CLIENT),
            (Role.HTTP, found.layout.cloud_hosts[0], self.folder / layout.CLOUD / layout.HTTP),
        ]

    def _issue(self, found: Register, role: Role, name: str, *, days: int | None = None) -> tuple[Identity, Register]:
        """A new identity, and the register that has it."""
        now_ns = self._clock.wall_ns()
        hosts = {Role.BROKER: found.layout.broker_hosts, Role.HTTP: found.layout.cloud_hosts}.get(role, ())
        identity = authority.issue(
            self._authority(),
            name,
            days=days if days is not None else found.layout.days,
            now=authority.at(now_ns),
            hosts=(*hosts, "localhost", "127.0.0.1", "::1") if hosts else (),
            serves=bool(hosts),
        )
        made = Issued(
            serial=f"{identity.certificate.serial_number:x}",
            role=role,
            name=name,
            issued_ns=now_ns,
            ends_ns=_ns(identity.certificate.not_valid_after_utc),
        )
        return identity, msgspec.structs.replace(found, issued=(*found.issued, made))

    def _save(self, found: Register) -> None:
        """Write the register, and after it what the broker reads of it."""
        last = authority.at(found.listed_ns) if found.listed_ns else None
        dated = authority.list_date(authority.at(self._clock.wall_ns()), last)
        found = msgspec.structs.replace(found, list_number=found.list_number + 1, listed_ns=_ns(dated))
        revoked = [(int(c.serial, 16), authority.at(c.revoked_ns)) for c in found.issued if c.revoked_ns]
        crl = authority.revocations(self._authority(), revoked, number=found.list_number, dated=dated)
        register.write(self.folder, found)
        folder = self.folder / layout.BROKER
        layout.write_secret(folder / mosquitto.REVOKED, crl)
        clouds = sorted({c.name for c in found.issued if c.role is Role.CLOUD})
        acl = mosquitto.access_list(found, clouds)
        layout.write_secret(folder / mosquitto.ACL, acl.encode())

    def _authority(self) -> Identity:
        try:
            key = (self._ca / _KEY).read_bytes()
        except FileNotFoundError:
            raise OperatorError(
                f"the authority's key is not in {self._ca}",
                reason=Reason.NOT_FOUND,
                hint="Bring its medium and name the folder with --ca.",
            ) from None
        return authority.load_authority(self._authority_pem(), key)

    def _authority_pem(self) -> bytes:
        return (self.folder / layout.BROKER / mosquitto.AUTHORITY).read_bytes()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Register]:
        register.read(self.folder)
        with (self.folder / "site.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield register.read(self.folder)


def make(
    folder: Path, name: str, plan: Layout, *, clock: Clock, ca: Path | None = None, ca_days: int = CA_DAYS
) -> Site:
    """Make a site; it is there whole or not at all.

    Args:
        folder: It must not exist, or be empty.
        name: Of the site.
        plan: Where things are at work.
        clock: Dates certificates.
        ca: Where the authority goes; by default into the site's folder.
        ca_days: How long the authority lasts.

    Raises:
        OperatorError: Something is there already, or a host is none.
    """
    layout.check_plain("the name of a site", name)
    ca = ca.absolute() if ca is not None else None
    for place in (folder, ca):
        if place is not None and place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise OperatorError(f"{place} is there already", hint="Nothing is overwritten: choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _fill(part, name, plan, clock=clock, ca=ca, ca_days=ca_days)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    return Site(folder, clock, ca=ca)


def _fill(part: Path, name: str, plan: Layout, *, clock: Clock, ca: Path | None, ca_days: int) -> None:
    site = Site(part, clock, ca=ca)
    root = authority.make_authority(name, days=ca_days, now=authority.at(clock.wall_ns()))
    keys = layout.make_folder(site._ca)
    layout.write_secret(keys / _KEY, root.key_pem)
    write_atomically(keys / _CERTIFICATE, root.certificate_pem)
    found = Register(site=name, layout=plan)
    layout.make_folder(part / layout.BROKER)
    layout.write_secret(part / layout.BROKER / mosquitto.AUTHORITY, root.certificate_pem)
    made: dict[Role, bytes] = {}
    for role, common_name, _ in site._own(found):
        identity, found = site._issue(found, role, common_name)
        made[role] = identity.pem
    layout.write_broker(part / layout.BROKER, layout=plan, authority=root.certificate_pem, server=made[Role.BROKER])
    layout.write_cloud(
        part / layout.CLOUD,
        layout=plan,
        authority=root.certificate_pem,
        client=made[Role.CLOUD],
        http=made[Role.HTTP],
    )
    site._save(found)


def update_root(registry: Path) -> bytes | None:
    """The newest root metadata of an update repository, or None where there is none."""
    found = {int(p.name.split(".")[0]): p for p in registry.glob("repository/metadata/*.root.json")}
    return found[max(found)].read_bytes() if found else None


def check_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    """Hosts that a certificate can name, each once.

    Raises:
        OperatorError: One is none.
    """
    for host in hosts:
        authority.general_name(host)
    return tuple(dict.fromkeys(hosts))


def _check_new(found: Register, name: str, *, renew: bool) -> None:
    newest = found.newest(Role.EDGE, name)
    if newest is not None and not renew:
        raise OperatorError(
            f"{name} has a certificate already",
            hint="Renew it with --renew; if its key is lost, `embridge site revoke` it first.",
        )
    if newest is None and renew:
        raise OperatorError(f"{name} has no certificate to renew", reason=Reason.NOT_FOUND, hint="Leave --renew out.")


def _ns(when: datetime) -> int:
    return int(when.timestamp()) * 1_000_000_000
