"""What an edge is given when it is provisioned, as one file: a plain tar that the site writes and the edge reads.

    edge.json    who it is and where the broker is
    ca.crt       the site's authority
    client.pem   its certificate and its private key
    root.json    the root of trust in releases; absent where the site has no registry yet

The file holds a private key: move it over a way you trust, and remove it once it is installed.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Final

import msgspec

from embridge_shared.errors import DataError, Reason

AUTHORITY: Final = "ca.crt"
CLIENT: Final = "client.pem"
DESCRIPTION: Final = "edge.json"
ROOT: Final = "root.json"
SUFFIX: Final = ".edge.tar"
MAX_BYTES: Final = 1 << 20

_NEEDED: Final = frozenset({AUTHORITY, CLIENT, DESCRIPTION})
_KNOWN: Final = _NEEDED | {ROOT}


class EdgeSite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who an edge is and where its broker is.

    Attributes:
        edge: Its name, the common name of its certificate.
        site: Name of the site.
        host: Name or address of the broker.
        port: Its port.
        schema: Version of this description.
    """

    edge: str
    site: str
    host: str
    port: int
    schema: int = 1


def pack(site: EdgeSite, *, authority: bytes, client: bytes, root: bytes | None) -> bytes:
    """Write a bundle.

    Args:
        site: Who and where.
        authority: The authority's certificate, PEM.
        client: The edge's certificate and key, PEM.
        root: Root metadata of the update repository, if there is one.
    """
    members = {DESCRIPTION: msgspec.json.encode(site), AUTHORITY: authority, CLIENT: client}
    if root is not None:
        members[ROOT] = root
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def unpack(data: bytes) -> tuple[EdgeSite, Mapping[str, bytes]]:
    """Read a bundle. Nothing is written, and every byte must be as `pack` writes it.

    Returns:
        Who and where, and the contents of the other files by name.

    Raises:
        DataError: FOREIGN, MALFORMED or TRUNCATED.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"a bundle of {len(data)} bytes is none of ours", reason=Reason.FOREIGN)
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for entry in tar:
                if entry.name not in _KNOWN or entry.name in members or entry.type != tarfile.REGTYPE:
                    raise DataError(f"{entry.name!r} has no place in a bundle", reason=Reason.MALFORMED)
                file = tar.extractfile(entry)
                members[entry.name] = file.read(MAX_BYTES) if file is not None else b""
                if len(members[entry.name]) != entry.size:
                    raise DataError(f"the bundle ends inside {entry.name!r}", reason=Reason.TRUNCATED)
    except (tarfile.TarError, ValueError, OverflowError, OSError) as error:
        raise DataError(f"the bundle cannot be read: {error}", reason=Reason.FOREIGN) from error
    if missing := sorted(_NEEDED - members.keys()):
        raise DataError(f"the bundle lacks {', '.join(missing)}", reason=Reason.TRUNCATED)
    try:
        site = msgspec.json.decode(members.pop(DESCRIPTION), type=EdgeSite)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the bundle's {DESCRIPTION}: {error}", reason=Reason.MALFORMED) from error
    if site.schema != 1 or not 1 <= site.port <= 65535:
        raise DataError(
            f"a bundle of schema {site.schema} for port {site.port}",
            reason=Reason.UNSUPPORTED_VERSION,
            hint="Update this side.",
        )
    if pack(site, authority=members[AUTHORITY], client=members[CLIENT], root=members.get(ROOT)) != data:
        raise DataError("the bundle is not as it was made", reason=Reason.MALFORMED, hint="Copy it again.")
    return site, members
