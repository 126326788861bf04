"""Stored ZIP archives in one canonical form: the same members give the same bytes, on every machine.

Members lie in the given order, uncompressed, dated 1980-01-01, without extras or comments. `unpack` accepts that
form and nothing else: it rebuilds the archive from what it read and compares every byte, so no byte is left
unchecked, nothing can be appended or hidden, and nothing can unfold to more than the file's own size.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from embridge_shared.errors import DataError, Reason

MAX_BYTES: Final = 512 << 20

_LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<4sHHHHIIH")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DATE: Final = 0x21  # 1980-01-01
_MODE: Final = 0o100644 << 16


def pack(members: Mapping[str, bytes]) -> bytes:
    """Write an archive.

    Args:
        members: Contents by plain file name, in the order they will lie.

    Raises:
        DataError: A name is no plain file name, or the archive would be too large.
    """
    body, directory, offset = [], [], 0
    for name, data in members.items():
        if not _NAME.fullmatch(name):
            raise DataError(f"{name!r} cannot be a file in an archive", reason=Reason.MALFORMED)
        raw = name.encode("ascii")
        sizes = (0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(raw), 0)
        header = _LOCAL.pack(b"PK\x03\x04", 20, *sizes) + raw
        body += [header, data]
        directory.append(_CENTRAL.pack(b"PK\x01\x02", 0x0314, 20, *sizes, 0, 0, 0, _MODE, offset) + raw)
        offset += len(header) + len(data)
        if offset > MAX_BYTES:
            raise DataError(f"an archive holds at most {MAX_BYTES} bytes", reason=Reason.INVALID)
    listing = b"".join(directory)
    end = _END.pack(b"PK\x05\x06", 0, 0, len(members), len(members), len(listing), offset, 0)
    return b"".join([*body, listing, end])


def unpack(data: bytes) -> dict[str, bytes]:
    """Read an archive that `pack` wrote.

    Raises:
        DataError: FOREIGN, TRUNCATED, CHECKSUM, or MALFORMED where it is not in canonical form.
    """
    if not data.startswith(b"PK\x03\x04"):
        raise DataError("no archive", reason=Reason.FOREIGN if data else Reason.TRUNCATED)
    members: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == b"PK\x03\x04":
        name, content, at = _member(data, at)
        if name in members:
            raise DataError(f"{name!r} is in the archive twice", reason=Reason.MALFORMED)
        members[name] = content
    size = at + sum(_CENTRAL.size + len(name) for name in members) + _END.size
    if len(data) < size:
        raise DataError(f"the archive ends at byte {len(data)} of {size}", reason=Reason.TRUNCATED)
    if pack(members) != data:
        raise DataError("the archive is not in canonical form", reason=Reason.MALFORMED)
    return members


def _member(data: bytes, at: int) -> tuple[str, bytes, int]:
    head = data[at : at + _LOCAL.size]
    if len(head) < _LOCAL.size:
        raise DataError(f"the archive ends in a header at byte {at}", reason=Reason.TRUNCATED)
    *_, crc, _packed, size, n_name, _extra = _LOCAL.unpack(head)
    start = at + _LOCAL.size + n_name
    raw = data[at + _LOCAL.size : start]
    content = data[start : start + size]
    if len(raw) < n_name or len(content) < size:
        raise DataError(f"the archive ends inside the file at byte {at}", reason=Reason.TRUNCATED)
    name = raw.decode("ascii", "replace")
    if not _NAME.fullmatch(name):
        raise DataError(f"{name!r} cannot be a file in an archive", reason=Reason.MALFORMED)
    if zlib.crc32(content) != crc:
        raise DataError(f"{name!r} does not match its checksum", reason=Reason.CHECKSUM)
    return name, content, start + size


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one and nothing between.

    Args:
        path: Where; its folder is made when missing.
        data: Content.
        mode: Permissions of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
