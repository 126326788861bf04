"""Installs what a site gives an edge: checks the bundle, writes its files, overwrites nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from embridge_edge.spool import Spool
from embridge_shared import provision
from embridge_shared.archive import write_atomically
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.provision import AUTHORITY, CLIENT, MAX_BYTES, ROOT, EdgeSite
from embridge_shared.session import Session
from embridge_shared.wire.topics import check_edge

SETTINGS: Final = "embridge.toml"


@dataclass(frozen=True, slots=True)
class Installed:
    """What was installed where.

    Attributes:
        site: Who the edge is.
        folder: Where its files are.
        settings: The settings file.
        releases: It has the root of trust that releases need.
    """

    site: EdgeSite
    folder: Path
    settings: Path
    releases: bool


def install(
    bundle: Path, folder: Path, *, now_ns: int, settings_name: str = SETTINGS, renew: bool = False
) -> Installed:
    """Install a bundle; the same one again changes nothing.

    The settings file is written last: until then no command takes the folder for an edge's.

    Args:
        bundle: The file the site made.
        folder: Where to.
        now_ns: Unix time, ns.
        settings_name: Name of the settings file in it.
        renew: Replace the certificate of the edge that is installed there.

    Raises:
        DataError: The bundle is none, or its certificate, key, authority and name do not belong together.
        OperatorError: Something else is there already; or there is nothing to renew.
    """
    site, files = provision.unpack(_read(bundle))
    check(site, files, now_ns=now_ns)
    folder = folder.absolute()
    wanted = dict(files) | {settings_name: settings_text(site, folder, releases=ROOT in files).encode()}
    present = {name: (folder / name).read_bytes() for name in wanted if (folder / name).exists()}
    if renew:
        _check_renewal(folder, site, files, present)
        write_atomically(folder / CLIENT, files[CLIENT], mode=0o600)
        if ROOT in present:
            return Installed(site, folder, folder / settings_name, releases=True)
        present.pop(CLIENT)
        present.pop(settings_name, None)
    _check_vacant(folder, wanted, present)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (AUTHORITY, ROOT, CLIENT, settings_name):
        if name in wanted and name not in present:
            write_atomically(folder / name, wanted[name], mode=0o600)
    return Installed(site, folder, folder / settings_name, releases=ROOT in files)


def check(site: EdgeSite, files: Mapping[str, bytes], *, now_ns: int) -> None:
    """Check that the parts of a bundle belong together.

    Raises:
        DataError: They do not, or the certificate has ended.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        check_edge(site.edge)
        authority = x509.load_pem_x509_certificate(files[AUTHORITY])
        certificate = x509.load_pem_x509_certificate(files[CLIENT])
        key = load_pem_private_key(files[CLIENT], password=None)
        certificate.verify_directly_issued_by(authority)
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except (ConfigError, ValueError, TypeError, InvalidSignature) as error:
        raise DataError(
            f"the bundle's certificates do not belong together: {error or 'not signed by its authority'}",
            reason=Reason.SIGNATURE,
            hint="Have it made again: `embridge site edge`.",
        ) from error
    if key.public_key() != certificate.public_key():
        raise DataError("the bundle's key is not that of its certificate", reason=Reason.SIGNATURE)
    if [n.value for n in names] != [site.edge]:
        raise DataError(f"the bundle's certificate does not name {site.edge}", reason=Reason.WRONG_EDGE)
    if certificate.not_valid_after_utc.timestamp() * 1e9 <= now_ns:
        raise DataError("the bundle's certificate has ended", reason=Reason.INVALID, hint="Have it made again.")


def settings_text(site: EdgeSite, folder: Path, *, releases: bool) -> str:
    """The settings of a provisioned edge."""
    mqtt = {"host": site.host, "port": site.port} | {
        "ca_file": str(folder / AUTHORITY),
        "cert_file": str(folder / CLIENT),
    }
    edge = {"name": site.edge, "update_ca_file": str(folder / AUTHORITY)}
    if releases:
        edge["update_root"] = str(folder / ROOT)
    parts = (
        f"[{section}]\n"
        + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
        for section, values in (("mqtt", mqtt), ("edge", edge))
    )
    return f"# Made by `embridge edge install` for site {json.dumps(site.site)}.\n\n" + "\n".join(parts)


def strangers(state_dir: Path, name: str, spool_max_bytes: int) -> list[str]:
    """Sessions in a spool that were recorded under another name and are not delivered: no broker would take them.

    Args:
        state_dir: Of the agent.
        name: Of the edge.
        spool_max_bytes: As the settings say.
    """
    path = state_dir / "spool.db"
    if not path.is_file():
        return []
    spool = Spool(path, spool_max_bytes)
    try:
        known = [(s, msgspec.msgpack.decode(s.description, type=Session)) for s in spool.sessions() if not s.sealed]
    finally:
        spool.close()
    return [f"{s.name} of {session.edge}" for s, session in known if session.edge != name]


def _read(bundle: Path) -> bytes:
    with bundle.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _check_renewal(folder: Path, site: EdgeSite, files: Mapping[str, bytes], present: Mapping[str, bytes]) -> None:
    from cryptography import x509

    if CLIENT not in present or present.get(AUTHORITY) != files[AUTHORITY]:
        raise OperatorError(
            f"{folder} holds no edge of the site {site.site}",
            reason=Reason.NOT_FOUND,
            hint="Name its folder with --dir, or install the bundle without --renew.",
        )
    subject = x509.load_pem_x509_certificate(present[CLIENT]).subject
    if [a.value for a in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)] != [site.edge]:
        raise OperatorError(f"{folder} holds another edge than {site.edge}", reason=Reason.WRONG_EDGE)


def _check_vacant(folder: Path, wanted: Mapping[str, bytes], present: Mapping[str, bytes]) -> None:
    other = sorted(name for name, data in present.items() if data != wanted[name])
    if other:
        raise OperatorError(
            f"{folder} holds {', '.join(other)} already",
            hint="Nothing is overwritten: give another folder with --dir, or renew the same edge with --renew.",
        )
