"""Windows of one modality as places in long recordings: what overlaps is kept once, and read when it is asked for."""

from __future__ import annotations

import hashlib
from typing import Any, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

CHUNK = 1024


class Slices:
    """Looks like float32 (N, T, C); indexing copies the windows asked for, in one operation.

    Args:
        samples: float32 (total, C), recordings one after the other, often mapped from a file.
        at: int64 (N,), first sample of each window.
        length: T.
        hashes: uint8 (N, 32), SHA-256 of each window.
    """

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(
        self, samples: NDArray[np.float32], at: NDArray[np.int64], *, length: int, hashes: NDArray[np.uint8]
    ) -> None:
        self._samples, self._at, self._length = samples, at, length
        self.hashes = hashes
        step, item = samples.strides
        places = max(0, len(samples) - length + 1)
        self._every = as_strided(
            samples, (places, length, samples.shape[1]), (step, step, item), subok=False, writeable=False
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, T, C)."""
        return len(self._at), self._length, self._samples.shape[1]

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        picked: NDArray[np.float32] = self._every[self._at[key]]
        return picked

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Slices:
        """The windows a mask or an index array names, still unread."""
        return Slices(self._samples, self._at[rows], length=self._length, hashes=self.hashes[rows])


def select_rows(value: NDArray[Any] | Slices, rows: NDArray[np.bool_] | NDArray[np.int64]) -> NDArray[Any]:
    """Rows of an array; of `Slices`, without reading them."""
    if isinstance(value, Slices):
        return cast("NDArray[Any]", value.take(rows))
    return value[rows]


def some_rows(value: NDArray[np.float32], limit: int) -> NDArray[np.float32]:
    """An array as it is; of `Slices`, at most `limit` windows evenly spread over them."""
    if isinstance(value, Slices):
        return value[np.linspace(0, len(value) - 1, min(limit, len(value))).round().astype(np.int64)]
    return value


def window_hashes(value: NDArray[np.float32]) -> NDArray[np.uint8]:
    """SHA-256 of each window, uint8 (N, 32)."""
    if isinstance(value, Slices):
        return value.hashes
    joined = b"".join(hashlib.sha256(np.ascontiguousarray(window).data).digest() for window in value)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def is_finite(value: NDArray[np.float32]) -> bool:
    """Whether every value is a number; those of `Slices` were looked at when they were written."""
    if isinstance(value, Slices):
        return True
    return all(bool(np.isfinite(value[i : i + CHUNK]).all()) for i in range(0, len(value), CHUNK))
