"""EMG-BIDS datasets: those EMBridge wrote come back as they were, others as far as BIDS tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.exchange import edf
from embridge_cloud.exchange.bids_export import MAP
from embridge_cloud.exchange.bids_foreign import read_foreign
from embridge_cloud.exchange.bids_names import OURS, SOURCE, StreamNote, read_json, read_table
from embridge_cloud.exchange.recording import Recording, StreamData, numbered
from embridge_cloud.store.manifest import Manifest, read_manifest
from embridge_cloud.store.ranges import RangeSet
from embridge_cloud.store.reader import Anchor
from embridge_cloud.store.sealed import SealedSession
from embridge_cloud.store.sealing import timeline
from embridge_shared.errors import DataError, Reason
from embridge_shared.signal import Modality


def read(root: Path) -> Iterator[Recording]:
    """Sessions of a dataset, one in memory at a time.

    Raises:
        DataError: It is no dataset with EMG, or damaged.
    """
    ours = sorted(p for p in (root / SOURCE).glob("*") if (p / MAP).is_file())
    if ours:
        yield from (_own(root, kept) for kept in ours)
        return
    files = sorted(p for p in root.rglob("*_emg.*") if p.suffix.lower() in edf.RANGES and not _aside(root, p))
    if not files:
        raise DataError(
            f"{root} is no EMG-BIDS dataset: no file is named like *_emg.edf",
            reason=Reason.NOT_FOUND,
            hint="Give the folder of dataset_description.json.",
        )
    yield from (read_foreign(root, path) for path in files)


def _aside(root: Path, path: Path) -> bool:
    return path.relative_to(root).parts[0] in ("sourcedata", "derivatives", "code")


def _own(root: Path, kept: Path) -> Recording:
    manifest = read_manifest(kept)
    _check_names(manifest)
    sealed = SealedSession(kept)
    files = read_json(kept / MAP)
    streams = []
    for entry in manifest.streams:
        whole, arrivals = (kept / entry.file).is_file(), sealed.arrivals(entry.name)
        if whole:
            samples = sealed.samples(entry.name)
            index, t_ns, values = samples.index, samples.t_ns, samples.values
        else:
            index, t_ns, values = _from_bids(root, str(files.get(entry.name, "")), manifest, entry.stream)
        streams.append(StreamData(index, t_ns, values, arrivals, tuple(entry.inferred)))
    frame = sealed.quality()
    rows = [] if frame is None else frame.collect().to_dicts()
    events = numbered(manifest.session, sealed.events(), rows)
    return Recording(manifest.session, tuple(streams), events, manifest.content_hash)


def _check_names(manifest: Manifest) -> None:
    """Files of a session lie in its folder, whatever its manifest says."""
    names = [manifest.events.file, *(n for s in manifest.streams for n in (s.file, s.arrivals.file))]
    names += [] if manifest.quality is None else [manifest.quality.file]
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{name!r} is no file of a session", reason=Reason.MALFORMED)


def _from_bids(
    root: Path, name: str, manifest: Manifest, stream: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Indices, times and samples of a stream that a BIDS file holds exactly."""
    spec = manifest.session.streams[stream]
    path = (root / name).resolve()
    if not name or not path.is_relative_to(root.resolve()):
        raise DataError(f"stream {spec.name} of session {manifest.session.id} is in no file of {root}")
    note = _note(path.with_suffix(".json"))
    if note.stream != spec or note.session != str(manifest.session.id):
        raise DataError(f"{path.name} is not stream {spec.name} of its session", reason=Reason.FOREIGN)
    index = _held(note)
    if spec.modality is Modality.EMG:
        dense = edf.stack(edf.read(path), edf.labels(spec))
    else:
        dense = _motion_values(path)[1].to_numpy()
    if len(dense) < note.total:
        raise DataError(f"{path.name} holds {len(dense)} of {note.total} samples", reason=Reason.TRUNCATED)
    values = np.ascontiguousarray(dense[index].astype(spec.dtype.numpy))
    return index, _times(note, index, spec.rate_hz), values


def _note(path: Path) -> StreamNote:
    try:
        return msgspec.convert(read_json(path).get(OURS), StreamNote)
    except msgspec.ValidationError as error:
        raise DataError(f'{path.name} has no sound "{OURS}": {error}', reason=Reason.MALFORMED) from error


def _held(note: StreamNote) -> NDArray[np.int64]:
    parts = [np.arange(a, b, dtype=np.int64) for a, b in RangeSet(note.gaps).missing(0, note.total)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _times(note: StreamNote, index: NDArray[np.int64], rate_hz: float) -> NDArray[np.int64]:
    """Times drawn from the clock map."""
    firsts, started = note.clock.index, int(note.started_ns)
    if not len(index):
        return np.zeros(0, np.int64)
    if not firsts or len(firsts) != len(note.clock.ns) or firsts[0] != index[0]:
        raise DataError("the clock in the sidecar does not begin with the stream", reason=Reason.MALFORMED)
    anchors = [Anchor(a, 1, 0, started + ns) for a, ns in zip(firsts, note.clock.ns, strict=True)]
    anchors[-1] = anchors[-1]._replace(n=note.total - anchors[-1].first)
    return timeline(anchors, index, rate_hz)


def _motion_values(path: Path) -> tuple[list[dict[str, str]], Any]:
    """Channels of a motion file and its values as a frame, without its latency."""
    import polars as pl

    channels = read_table(_beside(path, "channels.tsv"))
    try:
        frame = pl.read_csv(path, separator="\t", has_header=False, null_values=["n/a"], infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path.name} is no table: {error}", reason=Reason.MALFORMED) from error
    if frame.width != len(channels):
        raise DataError(f"{path.name} has {frame.width} columns, not {len(channels)}", reason=Reason.WRONG_SHAPE)
    wanted = [i for i, c in enumerate(channels) if c.get("type") != "LATENCY"]
    values = frame.select([frame.columns[i] for i in wanted])
    whole = all(d.is_integer() for d in values.dtypes)
    return [channels[i] for i in wanted], values.fill_null(0 if whole else float("nan"))


def _beside(path: Path, suffix: str) -> Path:
    """The file of the same stem with another suffix, as in `_channels.tsv`."""
    return path.with_name(f"{path.stem.rpartition('_')[0]}_{suffix}")
