"""EMG as EDF or BDF, every sample as it was stored."""

from __future__ import annotations

import datetime as dt
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud.store.ranges import Range
from embridge_shared.errors import DataError, Reason
from embridge_shared.signal import SampleType, StreamSpec

if TYPE_CHECKING:
    import edfio

RANGES: Final = {".edf": (-32768, 32767), ".bdf": (-8388608, 8388607)}
"""Digital values a sample may have."""
UNITS: Final = {"µV": "uV", "μV": "uV", "mV": "mV", "V": "V"}
"""How units of this project are written in EDF and BIDS."""
_RECORD_BYTES: Final = 61_440
_RECORDS_S: Final = (1.0, 0.5, 0.25, 0.2, 0.1, 0.05, 0.02, 0.01)
_LABEL: Final = 16


@dataclass(frozen=True, slots=True)
class Digital:
    """Samples as a file holds them.

    Attributes:
        suffix: ".edf" or ".bdf".
        values: Digital values, int16 or int32 (n, channels).
        scale: Digital value times this is the stream's unit.
        exact: The stream's samples come back from them bit by bit.
    """

    suffix: str
    values: NDArray[Any]
    scale: float
    exact: bool


def digitise(spec: StreamSpec, values: NDArray[Any]) -> Digital:
    """Bring samples into a form a file can hold: integers that fit as they are, anything else over 24 bits.

    Args:
        spec: The stream.
        values: Raw samples (n, channels).
    """
    if spec.dtype is SampleType.INT16:
        return Digital(".edf", values.astype(np.int16), spec.scale, exact=True)
    low, high = RANGES[".bdf"]
    if spec.dtype is SampleType.INT32 and (not values.size or (values.min() >= low and values.max() <= high)):
        return Digital(".bdf", values.astype(np.int32), spec.scale, exact=True)
    wide = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    step = float(np.abs(wide).max(initial=0.0)) / high or 1.0
    return Digital(".bdf", np.rint(wide / step).astype(np.int32), step * spec.scale, exact=False)


def labels(spec: StreamSpec) -> list[str]:
    """Channel names that EDF can hold: 16 printable ASCII characters, no two alike."""
    names = ["".join(c for c in name if " " < c <= "~")[:_LABEL] for name in spec.channels]
    if len(set(names)) == len(names) and all(names):
        return names
    return [f"ch{i:02d}" for i in range(spec.n_channels)]


def write(
    path: Path,
    spec: StreamSpec,
    digital: Digital,
    *,
    index: NDArray[np.int64],
    gaps: tuple[Range, ...],
    started: dt.datetime,
) -> int:
    """Write one stream; lost samples and the rest of the last record are 0, lost ones annotated as such.

    Args:
        path: The file, with the suffix of `digital`.
        spec: The stream.
        digital: Its samples.
        index: Their indices, int64 (n,).
        gaps: Ranges of indices that were lost.
        started: When the sample of index 0 was taken.

    Returns:
        Samples in the file, lost ones and padding included.

    Raises:
        DataError: What was written does not read as it should.
    """
    import edfio

    bdf = digital.suffix == ".bdf"
    total = int(index[-1]) + 1 if len(index) else 0
    n_record, record_s = _record(spec, 3 if bdf else 2)
    length = max(1, -(-total // n_record)) * n_record
    dense = np.zeros((spec.n_channels, length), np.int32 if bdf else np.int16)
    dense[:, index] = digital.values.T
    low, high = RANGES[digital.suffix]
    make = edfio.BdfSignal.from_digital if bdf else edfio.EdfSignal.from_digital
    signals: list[Any] = [
        make(
            dense[i],
            n_record / record_s,
            label=label,
            physical_dimension=UNITS.get(spec.unit, ""),
            physical_range=(_eight(low * digital.scale), _eight(high * digital.scale)),
            digital_range=(low, high),
        )
        for i, label in enumerate(labels(spec))
    ]
    notes = [edfio.EdfAnnotation(a / spec.rate_hz, (b - a) / spec.rate_hz, "BAD_gap") for a, b in gaps]
    (edfio.Bdf if bdf else edfio.Edf)(
        signals,
        recording=edfio.Recording(startdate=started.date()),
        starttime=started.time(),
        data_record_duration=record_s,
        annotations=notes,
    ).write(path)
    found: tuple[Any, ...] = read(path).signals
    if not all(np.array_equal(s.digital, d) for s, d in zip(found, dense, strict=True)):
        raise DataError(f"{path.name} does not hold what was written", reason=Reason.PARITY)
    return length


def read(path: Path) -> edfio.Edf | edfio.Bdf:
    """Open an EDF or BDF file.

    Raises:
        DataError: It is missing, damaged or something else.
    """
    import edfio

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return edfio.read_bdf(path) if path.suffix.lower() == ".bdf" else edfio.read_edf(path)
    except UserWarning as error:
        raise DataError(f"{path.name} is damaged: {error}", reason=Reason.TRUNCATED) from error
    except FileNotFoundError:
        raise DataError(f"there is no file {path}", reason=Reason.NOT_FOUND) from None
    except (OSError, ValueError, IndexError, UnicodeDecodeError, KeyError, ArithmeticError) as error:
        raise DataError(
            f"{path.name} is damaged or no {path.suffix[1:].upper()} file: {error}", reason=Reason.MALFORMED
        ) from error


def stack(file: edfio.Edf | edfio.Bdf, wanted: list[str]) -> NDArray[Any]:
    """Digital values of channels by label, int16 or int32 (n, channels).

    Raises:
        DataError: A channel is missing, or they are of different lengths.
    """
    by_label = {s.label: s for s in file.signals}
    lacking = [w for w in wanted if w not in by_label]
    if lacking:
        raise DataError(f"there is no channel {lacking[0]!r} in the file", reason=Reason.WRONG_SHAPE)
    found = [by_label[w].digital for w in wanted]
    if len({len(f) for f in found}) != 1:
        raise DataError("its channels are of different lengths", reason=Reason.WRONG_SHAPE)
    return np.ascontiguousarray(np.stack(found, axis=1))


def _record(spec: StreamSpec, width: int) -> tuple[int, float]:
    """Samples and seconds of a data record: whole samples, and not more bytes than EDF advises."""
    for seconds in _RECORDS_S:
        n = spec.rate_hz * seconds
        if n >= 1 and n == int(n) and n * spec.n_channels * width <= _RECORD_BYTES:
            return int(n), seconds
    n = max(1, min(round(spec.rate_hz), _RECORD_BYTES // (spec.n_channels * width)))
    return n, float(f"{n / spec.rate_hz:.6g}"[:8])


def _eight(value: float) -> float:
    """The nearest number that eight characters can hold, as an EDF header needs."""
    for digits in range(8, 0, -1):
        text = f"{value:.{digits}g}"
        if "e" not in text and len(text) <= 8:
            return float(text)
        short = f"{value:.{digits}f}"
        if len(short) <= 8 and float(short):
            return float(short)
    return float(round(value))
