"""Helpers of all codecs: checked lengths, UUIDs, sample blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge_shared.errors import DeviceError, Reason

_BLUETOOTH_BASE = "0000{:04x}-0000-1000-8000-00805f9b34fb"


def uuid16(short: int) -> str:
    """The full form of a 16-bit Bluetooth UUID."""
    return _BLUETOOTH_BASE.format(short)


BATTERY_LEVEL = uuid16(0x2A19)
"""Battery level, u8 percent, read and notify."""
FIRMWARE_REVISION = uuid16(0x2A26)
"""Firmware revision, text, read."""
SOFTWARE_REVISION = uuid16(0x2A28)
"""Software revision, text, read."""


def malformed(what: str, data: bytes) -> DeviceError:
    """The error for bytes that are not `what`; it quotes their beginning."""
    shown = data[:8].hex(" ") + (" …" if len(data) > 8 else "")
    return DeviceError(
        f"{len(data)} bytes are no {what} ({shown})",
        reason=Reason.MALFORMED,
        hint="If every packet looks like this, the firmware is another than this driver speaks.",
    )


def need(what: str, data: bytes, length: int) -> None:
    """Check that `data` has exactly `length` bytes.

    Raises:
        DeviceError: It has not.
    """
    if len(data) != length:
        raise malformed(what, data)


def interleaved(data: bytes, dtype: str, channels: int) -> NDArray[Any]:
    """Samples (n, channels) from bytes that hold them one instant after the other.

    The bytes must hold whole samples; callers check that first.
    """
    return np.frombuffer(data, dtype).reshape(-1, channels)
