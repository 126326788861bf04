"""Sealed sessions, read only: what training, exports and people work with, without the database."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.store.manifest import (
    INDEX,
    MANIFEST,
    TIME,
    Manifest,
    StreamEntry,
    column_names,
    read_manifest,
)
from embridge_cloud.store.ranges import Range
from embridge_shared.errors import DataError, Reason
from embridge_shared.session import BandChanged, CueShown, Event, GestureDecoded, Repetition, Session
from embridge_shared.signal import Arrivals, StreamSpec

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)


class NumberedEvent(msgspec.Struct, frozen=True):
    """An event and its number in the session."""

    seq: int
    event: Event


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one stream.

    Attributes:
        index: Sample indices, int64 (n,); a jump is loss.
        t_ns: Unix time of each, int64 (n,).
        values: Raw samples, (n, channels), of the stream's dtype.
    """

    index: NDArray[np.int64]
    t_ns: NDArray[np.int64]
    values: NDArray[Any]


class SealedSession:
    """One sealed session.

    Args:
        directory: Its folder.

    Attributes:
        directory: Its folder.
        manifest: What it says of itself.

    Raises:
        DataError: The folder holds no readable manifest.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest: Manifest = read_manifest(directory)

    @property
    def session(self) -> Session:
        """Who, what, where."""
        return self.manifest.session

    @property
    def id(self) -> UUID:
        """Its id."""
        return self.manifest.session.id

    @property
    def content_hash(self) -> str:
        """Digest over all samples."""
        return self.manifest.content_hash

    def entry(self, name: str) -> StreamEntry:
        """What the manifest says of the stream `name`.

        Raises:
            DataError: The session has no such stream.
        """
        for entry in self.manifest.streams:
            if entry.name == name:
                return entry
        names = ", ".join(e.name for e in self.manifest.streams)
        raise DataError(
            f"session {self.id} has no stream {name!r}", reason=Reason.UNKNOWN_STREAM, hint=f"It has {names}."
        )

    def spec(self, name: str) -> StreamSpec:
        """Channels, rate, type and scale of the stream `name`."""
        return self.session.streams[self.entry(name).stream]

    def stream(self, name: str) -> pl.LazyFrame:
        """Lazy frame of a stream: `index` int64, `t_ns` int64, then one column of raw samples a channel."""
        import polars as pl

        return pl.scan_parquet(self.directory / self.entry(name).file)

    def samples(self, name: str, start_ns: int | None = None, end_ns: int | None = None) -> Samples:
        """Samples of a stream with start_ns <= t < end_ns; everything by default."""
        import polars as pl

        frame = self.stream(name)
        if start_ns is not None:
            frame = frame.filter(pl.col(TIME) >= start_ns)
        if end_ns is not None:
            frame = frame.filter(pl.col(TIME) < end_ns)
        found = frame.collect()
        spec = self.spec(name)
        values = np.empty((found.height, spec.n_channels), spec.dtype.numpy)
        for i, column in enumerate(column_names(spec)):
            values[:, i] = found[column].to_numpy()
        return Samples(found[INDEX].to_numpy(), found[TIME].to_numpy(), values)

    def arrivals(self, name: str) -> Arrivals:
        """When the packets of a stream reached the edge."""
        import polars as pl

        found = pl.read_parquet(self.directory / self.entry(name).arrivals.file)
        return Arrivals(found["index"].to_numpy(), found["host_ns"].to_numpy())

    def gaps(self, name: str) -> tuple[Range, ...]:
        """Ranges of indices the device lost."""
        return self.entry(name).gaps

    def events(self) -> list[NumberedEvent]:
        """All events in order.

        Raises:
            DataError: The file is damaged or missing.
        """
        path = self.directory / self.manifest.events.file
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[NumberedEvent])
        except FileNotFoundError:
            raise DataError(f"{path} is missing", reason=Reason.NOT_FOUND) from None
        except (msgspec.DecodeError, UnicodeDecodeError, DataError) as error:
            raise DataError(f"{path} is damaged: {error}", reason=Reason.MALFORMED) from error

    def quality(self) -> pl.LazyFrame | None:
        """What was seen of the signal while it was recorded, one row a window and channel; None where nothing was.

        Columns: seq, stream, channel, first, n, t_ns, grade, one a metric, reasons.
        """
        import polars as pl

        entry = self.manifest.quality
        return None if entry is None else pl.scan_parquet(self.directory / entry.file)

    def bands(self) -> list[BandChanged]:
        """What its devices went through while it was recorded."""
        return [e.event for e in self.events() if isinstance(e.event, BandChanged)]

    def decoded(self) -> list[GestureDecoded]:
        """What live decoding saw begin, last and end."""
        return [e.event for e in self.events() if isinstance(e.event, GestureDecoded)]

    def cues(self) -> list[CueShown]:
        """What the participant was asked for."""
        return [e.event for e in self.events() if isinstance(e.event, CueShown)]

    def repetitions(self) -> list[Repetition]:
        """What the participant did, rejected repetitions included."""
        return [e.event for e in self.events() if isinstance(e.event, Repetition)]

    def verify(self) -> None:
        """Recompute every digest, count and order (`store.verification`).

        Raises:
            DataError: Something is not as it was sealed; the message lists all of it.
        """
        from embridge_cloud.store.verification import faults

        found = faults(self)
        if found:
            raise DataError(
                f"session {self.id}: " + "; ".join(f"{f.where} {f.what}" for f in found) + ".",
                reason=Reason.HASH_MISMATCH,
                hint="Restore the folder from a copy; do not train on it.",
            )


class Catalogue:
    """The sealed sessions under a folder; needs no database, so any process may ask.

    Args:
        directory: The folder that holds one folder a session.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def ids(self) -> list[UUID]:
        """Ids of all sealed sessions."""
        found = []
        for path in self.directory.iterdir() if self.directory.is_dir() else ():
            if path.name.startswith(".") or not (path / MANIFEST).is_file():
                continue
            try:
                found.append(UUID(path.name))
            except ValueError:
                logger.warning("%s is no session folder", path)
        return sorted(found)

    def get(self, session: UUID) -> SealedSession:
        """One session.

        Raises:
            DataError: It is not sealed, or its manifest is damaged.
        """
        try:
            return SealedSession(self.directory / str(session))
        except DataError as error:
            if error.reason is Reason.NOT_FOUND:
                raise DataError(
                    f"session {session} is not sealed here ({self.directory}).",
                    reason=Reason.NOT_FOUND,
                    hint="`embridge session list` shows what is.",
                ) from None
            raise

    def sessions(self) -> list[SealedSession]:
        """All sessions, oldest first; those with a damaged manifest are logged and left out."""
        found = []
        for session in self.ids():
            try:
                found.append(self.get(session))
            except DataError as error:
                logger.warning("left out: %s", error)
        return sorted(found, key=lambda s: (s.session.started_ns, s.id))
