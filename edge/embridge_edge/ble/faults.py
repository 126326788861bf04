"""What went wrong on a Bluetooth link, in words that tell what to do."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakCharacteristicNotFoundError,
    BleakDBusError,
    BleakDeviceNotFoundError,
    BleakError,
    BleakGATTProtocolError,
    BleakGATTProtocolErrorCode,
)

from embridge_shared.errors import ConfigError, DeviceError, EmbridgeError, Reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a link is not what it should be.

    Attributes:
        reason: Machine-readable cause.
        text: What happened.
        action: What to do next.
        fatal: Trying again is of no use.
    """

    reason: Reason
    text: str
    action: str
    fatal: bool = False

    def error(self) -> DeviceError:
        """The fault as an error."""
        return DeviceError(self.text, reason=self.reason, hint=self.action)


NOT_SEEN = Fault(
    Reason.NOT_FOUND,
    "the band does not advertise",
    "Switch it on, wake it and bring it nearer; if a phone or another computer holds it, disconnect it there.",
)
DROPPED = Fault(Reason.UNREACHABLE, "the link dropped", "Bring the band nearer; it is connected again by itself.")
SILENT = Fault(
    Reason.SILENT,
    "the band is connected but sends nothing",
    "It is connected anew by itself; if that does not help, switch the band off and on.",
)
OFF = Fault(
    Reason.ADAPTER_OFF,
    "Bluetooth is switched off on this computer",
    "Switch it on: `bluetoothctl power on`, or `rfkill unblock bluetooth`.",
)
NO_ADAPTER = Fault(
    Reason.ADAPTER_OFF,
    "this computer has no Bluetooth adapter that can connect to a band",
    "Plug one in, or name one with --adapter; `embridge band simulate` needs none.",
)
DENIED = Fault(
    Reason.DENIED,
    "this program may not use Bluetooth",
    "Allow it in the system's privacy settings; on Linux add the user to the group `bluetooth` and log in again.",
    fatal=True,
)

_UNAVAILABLE = {
    BleakBluetoothNotAvailableReason.POWERED_OFF: OFF,
    BleakBluetoothNotAvailableReason.NO_BLUETOOTH: NO_ADAPTER,
    BleakBluetoothNotAvailableReason.NO_BLE_CENTRAL_ROLE: NO_ADAPTER,
    BleakBluetoothNotAvailableReason.DENIED_BY_USER: DENIED,
    BleakBluetoothNotAvailableReason.DENIED_BY_SYSTEM: DENIED,
    BleakBluetoothNotAvailableReason.DENIED_BY_UNKNOWN: DENIED,
}
_PAIRING = {
    BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHENTICATION,
    BleakGATTProtocolErrorCode.INSUFFICIENT_AUTHORIZATION,
    BleakGATTProtocolErrorCode.INSUFFICIENT_ENCRYPTION,
}
_DBUS = {
    "org.bluez.Error.NotReady": OFF,
    "org.freedesktop.DBus.Error.AccessDenied": DENIED,
    "org.bluez.Error.NotAuthorized": DENIED,
    "org.freedesktop.DBus.Error.ServiceUnknown": Fault(
        Reason.ADAPTER_OFF, "the Bluetooth service does not run", "Start it: `systemctl start bluetooth`."
    ),
}


def blame(error: Exception, doing: str) -> Fault:
    """The fault an exception stands for.

    Args:
        error: What was raised.
        doing: What was being done, as in "connecting".
    """
    if isinstance(error, EmbridgeError):
        fatal = isinstance(error, ConfigError) or error.reason in (Reason.UNSUPPORTED_VERSION, Reason.FOREIGN)
        return Fault(error.reason, error.message, error.hint, fatal=fatal)
    if isinstance(error, BleakBluetoothNotAvailableError):
        return _UNAVAILABLE.get(error.reason, NO_ADAPTER)
    if isinstance(error, BleakDBusError) and error.dbus_error in _DBUS:
        return _DBUS[error.dbus_error]
    if isinstance(error, BleakDeviceNotFoundError):
        return NOT_SEEN
    if isinstance(error, BleakCharacteristicNotFoundError):
        return Fault(
            Reason.FOREIGN,
            f"the band has no characteristic {error.char_specifier}",
            "It is of another kind, or its firmware is too old: `embridge band info` lists what each kind needs.",
        )
    if isinstance(error, BleakGATTProtocolError) and error.code in _PAIRING:
        return Fault(Reason.DENIED, "the band wants to be paired first", "Pair it in the system's Bluetooth settings.")
    if isinstance(error, TimeoutError):
        return Fault(
            Reason.TIMEOUT,
            f"the band did not answer while {doing}",
            "Bring it nearer; if a phone or another computer holds it, disconnect it there.",
        )
    if isinstance(error, PermissionError):
        return DENIED
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return Fault(Reason.ADAPTER_OFF, "no Bluetooth service runs on this computer", NO_ADAPTER.action)
    if isinstance(error, BleakError | OSError):
        return Fault(
            Reason.UNREACHABLE,
            f"{doing} failed: {error or type(error).__name__}",
            "Bring the band nearer; it is tried again.",
        )
    logger.error("%s failed in a way nobody foresaw", doing, exc_info=error)
    return Fault(
        Reason.UNREACHABLE,
        f"{doing} failed: {error!r}",
        "It is tried again; if it stays like this, report it with the log.",
    )
