"""Arrays as .npy of one version and byte order, read without allocating what a header claims."""

from __future__ import annotations

import io
import re
from typing import Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from embridge_shared.errors import DataError, Reason

_PREFIX: Final = 10
_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<kind>[<>|][a-zA-Z]\d{1,4})', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>|\d{1,15},|\d{1,15}(?:, \d{1,15}){1,31})\), \} *\n",
    re.DOTALL,
)


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
    due = np.dtype(dtype)
    # NumPy reads a header as Python source, and a damaged one raises whatever Python's parsers do.
    header = _HEADER.match(data)
    if header is None or header.end() != _PREFIX + int.from_bytes(data[_PREFIX - 2 : _PREFIX], "little"):
        raise DataError("an array without a header of version 1.0", reason=Reason.MALFORMED)
    kind, fortran = header["kind"].decode(), header["fortran"] == b"True"
    found = tuple(int(n) for n in header["shape"].replace(b",", b" ").split())
    body = data[header.end() :]
    fits = shape is None or (len(found) == len(shape) and all(n in (-1, f) for n, f in zip(shape, found, strict=True)))
    if fortran or kind != due.str or not fits or len(body) != due.itemsize * int(np.prod(found, dtype=object)):
        raise DataError(f"an array {found} of {kind} where {shape or due} is due", reason=Reason.WRONG_SHAPE)
    array: NDArray[np.floating] = np.frombuffer(body, due).reshape(found)
    if not np.isfinite(array).all():
        raise DataError("an array that is not finite", reason=Reason.MALFORMED)
    return array
