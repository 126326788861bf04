"""What a sealed session says of itself: `session.json`, content hashes and column names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.store.ranges import Range, RangeSet
from embridge_shared.errors import DataError, Reason
from embridge_shared.session import Session, SessionClosed
from embridge_shared.signal import StreamSpec

SCHEMA = 1
MANIFEST = "session.json"
QUALITY = "quality.parquet"
INDEX = "index"
TIME = "t_ns"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class FileEntry(_Part, frozen=True, kw_only=True):
    """A file of a sealed session: its name, digest, size and number of records."""

    file: str
    sha256: str
    bytes: int
    rows: int


class StreamEntry(_Part, frozen=True, kw_only=True):
    """A sealed stream.

    Attributes:
        stream: Ordinal in the session.
        name: Its name.
        file: Parquet file.
        sha256: Digest of that file.
        bytes: Its size.
        rows: Samples it holds.
        chunks: Chunks they came in.
        total: Index after the last sample that was recorded.
        gaps: Ranges of 0..total that were lost on the way to the edge.
        content: Digest of the samples and their indices, whatever file they are in.
        arrivals: File of (index, host_ns) pairs.
        inferred: Those of `gaps` whose length is an estimate by time, where the device does not count.
    """

    stream: int
    name: str
    file: str
    sha256: str
    bytes: int
    rows: int
    chunks: int
    total: int
    gaps: tuple[Range, ...]
    content: str
    arrivals: FileEntry
    inferred: tuple[Range, ...] = ()

    def stored(self) -> list[Range]:
        """The ranges it holds."""
        return RangeSet(self.gaps).missing(0, self.total)


class Manifest(_Part, frozen=True, kw_only=True):
    """A sealed session.

    Attributes:
        session: Its description.
        closed: How it ended.
        streams: In ordinal order.
        events: File of its events, but what was seen of its quality.
        quality: File of what was seen of its quality while it was recorded; None where nothing was.
        content_hash: Digest over the streams' contents: equal for equal samples.
        sealed_ns: Unix time of the seal, ns.
        software: Version that sealed it.
        schema: Version of this file.
    """

    session: Session
    closed: SessionClosed
    streams: tuple[StreamEntry, ...]
    events: FileEntry
    content_hash: str
    sealed_ns: int
    software: str
    quality: FileEntry | None = None
    schema: int = SCHEMA


class ContentDigest:
    """Digest of a stream's samples that does not depend on how they were cut into chunks or files."""

    def __init__(self, spec: StreamSpec) -> None:
        self._head = f"{spec.name}|{spec.dtype.value}|{spec.n_channels}"
        self._samples = hashlib.sha256()
        self._runs = RangeSet()

    def update(self, first: int, samples: NDArray[Any]) -> None:
        """Add the contiguous samples (n, channels) that start at index `first`; in order of index."""
        self._samples.update(np.ascontiguousarray(samples).data)
        self._runs.add(first, first + len(samples))

    def hexdigest(self) -> str:
        """The digest."""
        runs = ",".join(f"{a}-{b}" for a, b in self._runs)
        return hashlib.sha256(f"{self._head}|{runs}|{self._samples.hexdigest()}".encode()).hexdigest()


def content_hash(session: UUID, contents: Sequence[str]) -> str:
    """Digest of a session from the digests of its streams in ordinal order."""
    return hashlib.sha256("|".join([str(session), *contents]).encode()).hexdigest()


def column_names(spec: StreamSpec) -> list[str]:
    """Names of a stream's sample columns: its channels, numbered where their names would collide."""
    names = list(spec.channels)
    if len({*names, INDEX, TIME}) == len(names) + 2:
        return names
    return [f"{i}:{name}" for i, name in enumerate(names)]


def file_sha256(path: Path) -> str:
    """Digest of a file.

    Raises:
        DataError: It is not there.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"{path} is missing", reason=Reason.NOT_FOUND) from None


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a sealed session.

    Raises:
        DataError: There is none, it is damaged, or of a later version.
    """
    path = directory / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{directory} is no sealed session", reason=Reason.NOT_FOUND) from None
    except (msgspec.DecodeError, UnicodeDecodeError, DataError) as error:
        raise DataError(f"{path} is damaged: {error}", reason=Reason.MALFORMED) from error
    if manifest.schema != SCHEMA:
        raise DataError(
            f"{path} has schema {manifest.schema}, this version knows {SCHEMA}",
            reason=Reason.UNSUPPORTED_VERSION,
            hint="Update EMBridge.",
        )
    return manifest
