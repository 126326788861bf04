"""Windows on disk, for sets that no memory holds.

A folder: `samples.npy` of each modality with every recording once, `at.npy` with the first sample of each window, the
other columns, and `windows.json` with names and digests. Windows that overlap share their samples: the writer compares
them byte by byte, so what is read is what was written, whoever cut it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.learn.data import Windows
from embridge_cloud.learn.slices import Slices, window_hashes
from embridge_shared.archive import write_atomically
from embridge_shared.errors import DataError, Reason

HEAD = "windows.json"
FORMAT = 1
_COLUMNS = ("label", "participant", "session", "repetition", "start_s")
_NAMES = {"label": "gestures", "participant": "participants", "session": "sessions"}
_MODALITIES = ("emg", "pose")


def write_windows(
    folder: Path,
    parts: Iterable[Windows],
    *,
    rates_hz: Mapping[str, float],
    about: Mapping[str, Any] | None = None,
) -> Windows:
    """Write sets one after the other, holding one in memory at a time, and open the whole.

    Args:
        folder: Made; it must hold no store yet.
        parts: Sets with vocabularies of their own; all have the same modalities and shapes.
        rates_hz: Of "emg" and "pose"; from them follows how far two windows overlap.
        about: How the windows came to be, as JSON can hold it.

    Raises:
        DataError: There is no set, sets differ in shape, or the folder holds a store.
    """
    if (folder / HEAD).exists():
        raise DataError(f"{folder} holds windows already", hint="Write into another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, dict[str, int]] = {name: {} for name in _NAMES.values()}
    columns: dict[str, list[NDArray[Any]]] = {c: [] for c in _COLUMNS}
    writers: dict[str, _Writer] = {}
    try:
        for part in parts:
            _add(part, writers, names, columns, folder=folder, rates_hz=rates_hz)
    finally:
        for writer in writers.values():
            writer.close()
    if not columns["label"]:
        raise DataError("there are no windows to keep", reason=Reason.TOO_LITTLE_DATA)
    for column, values in columns.items():
        np.save(folder / f"{column}.npy", np.concatenate(values))
    for name, writer in writers.items():
        np.save(folder / f"{name}.at.npy", np.concatenate(writer.at))
        np.save(folder / f"{name}.hashes.npy", np.concatenate(writer.hashes))
    lengths = {name: writer.length for name, writer in writers.items()}
    known = {k: list(v) for k, v in names.items()}
    head = {"format": FORMAT, "lengths": lengths, "names": known, "about": dict(about or {})}
    made = _assemble(folder, head)
    write_atomically(folder / HEAD, json.dumps(head | {"digest": made.digest()}, indent=1).encode())
    return made


def open_windows(folder: Path) -> Windows:
    """Open a store without reading its samples.

    Raises:
        DataError: There is no store, it is damaged or of another format.
    """
    try:
        head = json.loads((folder / HEAD).read_bytes())
        if head["format"] != FORMAT:
            raise DataError(
                f"{folder}: format {head['format']}, this version reads {FORMAT}", reason=Reason.UNSUPPORTED_VERSION
            )
        found = _assemble(folder, head)
        digest = head["digest"]
    except FileNotFoundError as error:
        raise DataError(
            f"no windows in {folder}: {Path(error.filename).name} is missing",
            reason=Reason.NOT_FOUND,
            hint="Write them with `embridge learn cut`.",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / HEAD} cannot be read: {error}", reason=Reason.MALFORMED) from None
    if found.digest() != digest:
        raise DataError(f"{folder} is not what was written", reason=Reason.HASH_MISMATCH, hint="Cut the windows again.")
    return found


def about_windows(folder: Path) -> dict[str, Any]:
    """How the windows of a store came to be, as its writer told."""
    about: dict[str, Any] = json.loads((folder / HEAD).read_bytes()).get("about", {})
    return about


def verify_windows(windows: Windows, *, chunk: int = 256) -> None:
    """Read every sample of a stored set and compare it with the digests.

    Raises:
        DataError: A window is not what was written.
    """
    for name in _MODALITIES:
        value = getattr(windows, name)
        for i in range(0, len(windows) if isinstance(value, Slices) else 0, chunk):
            if not np.array_equal(window_hashes(value[i : i + chunk]), value.hashes[i : i + chunk]):
                raise DataError(f"{name} of windows {i} and later is damaged", reason=Reason.HASH_MISMATCH)


def _assemble(folder: Path, head: Mapping[str, Any]) -> Windows:
    """The set a head describes."""
    values: dict[str, Any] = {f.name: None for f in fields(Windows)}
    values |= {name: tuple(head["names"][name]) for name in _NAMES.values()}
    values |= {column: np.load(folder / f"{column}.npy") for column in _COLUMNS}
    for name, length in head["lengths"].items():
        samples = np.load(folder / f"{name}.samples.npy", mmap_mode="r")
        at, hashes = np.load(folder / f"{name}.at.npy"), np.load(folder / f"{name}.hashes.npy")
        if len(at) and not 0 <= int(at.min()) <= int(at.max()) <= len(samples) - length:
            raise ValueError(f"{name} windows lie outside the samples")
        values[name] = Slices(samples, at, length=length, hashes=hashes)
    return Windows(**values)


def _add(
    part: Windows,
    writers: dict[str, _Writer],
    names: dict[str, dict[str, int]],
    columns: dict[str, list[NDArray[Any]]],
    *,
    folder: Path,
    rates_hz: Mapping[str, float],
) -> None:
    """Append one set, its windows in the order of time within each session."""
    part = part.select(np.lexsort((part.start_s, part.session)))
    present = {name for name in _MODALITIES if getattr(part, name) is not None}
    if not writers and not columns["label"]:
        for name in sorted(present):
            writers[name] = _Writer(folder / f"{name}.samples.npy", getattr(part, name).shape, rates_hz[name])
    if present != set(writers):
        raise DataError("sets differ in what they hold", reason=Reason.WRONG_SHAPE)
    for name, writer in writers.items():
        writer.add(getattr(part, name), part.session, part.start_s)
    for column in _COLUMNS:
        value = getattr(part, column)
        if column in _NAMES:
            known = names[_NAMES[column]]
            # the last place serves index -1
            place = [known.setdefault(n, len(known)) for n in getattr(part, _NAMES[column])]
            value = np.array([*place, -1], np.int64)[value]
        columns[column].append(value)


class _Writer:
    """Samples of one modality, written as they come."""

    def __init__(self, path: Path, shape: tuple[int, ...], rate_hz: float) -> None:
        _, self.length, self._channels = shape
        self._rate_hz = rate_hz
        self._written = 0
        self._file: IO[bytes] = path.open("wb+")
        self._head()
        self.at: list[NDArray[np.int64]] = []
        self.hashes: list[NDArray[np.uint8]] = []

    def _head(self) -> None:
        """Write the header; numpy leaves it room to grow."""
        self._file.seek(0)
        shape = (self._written, self._channels)
        head = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, head)

    def add(self, windows: NDArray[np.float32], session: NDArray[np.int64], start_s: NDArray[np.float64]) -> None:
        """Append windows that lie in order of session and time."""
        if windows.shape[1:] != (self.length, self._channels):
            raise DataError(f"windows of {windows.shape[1:]} among {(self.length, self._channels)}")
        at = np.empty(len(windows), np.int64)
        last: NDArray[np.float32] | None = None
        for i, window in enumerate(windows):
            new = self.length
            if last is not None and session[i] == session[i - 1]:
                ahead = round((start_s[i] - start_s[i - 1]) * self._rate_hz)
                if 0 <= ahead < self.length and np.array_equal(last[ahead:], window[: self.length - ahead]):
                    new = ahead
            self._file.write(np.ascontiguousarray(window[self.length - new :], "<f4").data)
            self._written += new
            at[i] = self._written - self.length
            last = window
        self.at.append(at)
        self.hashes.append(window_hashes(windows))

    def close(self) -> None:
        """Finish the file."""
        self._head()
        self._file.close()
