"""Arrays as .npy of one version and byte order, read without allocating what a header claims."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import DTypeLike, NDArray

from embridge_shared.errors import DataError, Reason


def pack_array(array: NDArray[np.floating], dtype: DTypeLike = "<f4") -> bytes:
    """An array as .npy 1.0, little endian, in C order; equal arrays give equal bytes."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.ascontiguousarray(array, dtype), version=(1, 0), allow_pickle=False)
    return out.getvalue()


def unpack_array(data: bytes, shape: tuple[int, ...] | None = None, dtype: DTypeLike = "<f4") -> NDArray[np.floating]:
    """Read `pack_array` back.

    Args:
        data: The .npy.
        shape: What is due, -1 for any length of an axis; None for any shape.
        dtype: What is due.

    Raises:
        DataError: MALFORMED: it is no such file, or holds what is not finite; WRONG_SHAPE: another shape or type.
    """
    stream = io.BytesIO(data)
    due = np.dtype(dtype)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0")
        found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        raise DataError(f"an array: {error}", reason=Reason.MALFORMED) from error
    body = data[stream.tell() :]
    fits = shape is None or (len(found) == len(shape) and all(n in (-1, f) for n, f in zip(shape, found, strict=True)))
    if fortran or kind != due or not fits or len(body) != due.itemsize * int(np.prod(found, dtype=object)):
        raise DataError(f"an array {found} of {kind} where {shape or due} is due", reason=Reason.WRONG_SHAPE)
    array: NDArray[np.floating] = np.frombuffer(body, due).reshape(found)
    if not np.isfinite(array).all():
        raise DataError("an array that is not finite", reason=Reason.MALFORMED)
    return array
