"""Devices that press keys: one the kernel makes of us, and one that only says what it would do."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from embridge_edge.outputs.mapping import Mapping
from embridge_shared.errors import ConfigError, OperatorError, Reason

logger = logging.getLogger(__name__)

NODE: Final = Path("/dev/uinput")
DEVICE: Final = "EMBridge gestures"


class KeyDevice(ABC):
    """A keyboard with a mouse."""

    @abstractmethod
    def keys(self, names: tuple[str, ...], *, down: bool) -> None:
        """Put keys down, or let them go, all at once."""

    @abstractmethod
    def wheel(self, notches: int) -> None:
        """Turn the wheel; up is positive."""

    @abstractmethod
    def move(self, right: int, down: int) -> None:
        """Move the pointer."""

    @abstractmethod
    def close(self) -> None:
        """Vanish; keys that are down go up."""


class DryDevice(KeyDevice):
    """Says what it would do.

    Args:
        say: Is given a line each.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def keys(self, names: tuple[str, ...], *, down: bool) -> None:
        """Say it."""
        self._say(f"{'+'.join(names)} {'down' if down else 'up'}")

    def wheel(self, notches: int) -> None:
        """Say it."""
        self._say(f"wheel {notches:+d}")

    def move(self, right: int, down: int) -> None:
        """Say it."""
        self._say(f"pointer {right:+d} {down:+d}")

    def close(self) -> None:
        """Nothing to let go of."""


class UinputDevice(KeyDevice):
    """A device of Linux's uinput. The kernel lets all of its keys go when this process ends, however it ends.

    Args:
        mapping: What it must be able to do.

    Raises:
        ConfigError: MISSING_EXTRA: python-evdev is not installed; a key is not known.
        OperatorError: This machine has no uinput, or it may not be used.
    """

    def __init__(self, mapping: Mapping) -> None:
        evdev = _load_evdev()
        _check_node(NODE)
        self._codes = evdev.ecodes
        able: dict[int, list[int]] = {self._codes.EV_KEY: [_code(self._codes, key) for key in mapping.keys]}
        if mapping.moves or any(key.startswith("BTN_") for key in mapping.keys):
            # Desktops take a device for a mouse only when it has a button and moves.
            able[self._codes.EV_REL] = [self._codes.REL_X, self._codes.REL_Y, self._codes.REL_WHEEL]
            able[self._codes.EV_KEY] = sorted({*able[self._codes.EV_KEY], self._codes.BTN_LEFT})
        try:
            self._device = evdev.UInput(able, name=DEVICE)
        except (OSError, evdev.UInputError) as error:
            raise OperatorError(f"{NODE} makes no device: {error}", hint=_RIGHTS) from error

    def keys(self, names: tuple[str, ...], *, down: bool) -> None:
        """Press or let go."""
        for name in names if down else reversed(names):
            self._device.write(self._codes.EV_KEY, _code(self._codes, name), int(down))
        self._device.syn()

    def wheel(self, notches: int) -> None:
        """Turn the wheel."""
        self._device.write(self._codes.EV_REL, self._codes.REL_WHEEL, notches)
        self._device.syn()

    def move(self, right: int, down: int) -> None:
        """Move the pointer."""
        self._device.write(self._codes.EV_REL, self._codes.REL_X, right)
        self._device.write(self._codes.EV_REL, self._codes.REL_Y, down)
        self._device.syn()

    def close(self) -> None:
        """Take the device away."""
        self._device.close()


def log_line(text: str) -> None:
    """Say what would be pressed in the log."""
    logger.info("would press: %s", text)


_RIGHTS: Final = (
    'Give yourself the right: `echo \'KERNEL=="uinput", GROUP="input", MODE="0660"\' | sudo tee '
    "/etc/udev/rules.d/60-uinput.rules`, `sudo usermod -aG input $USER`, and log in anew; `--dry-run` prints instead."
)


def _check_node(node: Path) -> None:
    if not node.exists():
        raise OperatorError(
            f"there is no {node}: this machine has no virtual keyboards",
            reason=Reason.NOT_FOUND,
            hint="On Linux load them with `sudo modprobe uinput`, in a container hand the device in; "
            "`--dry-run` prints what would be pressed.",
        )
    if not os.access(node, os.W_OK):
        raise OperatorError(f"{node} may not be used by this user", reason=Reason.DENIED, hint=_RIGHTS)


def _code(ecodes: Any, name: str) -> int:
    code = ecodes.ecodes.get(name)
    if not isinstance(code, int):
        raise ConfigError(f"{name} is no key Linux knows", hint="`python -m evdev.evtest` shows the names of yours.")
    return code


def _load_evdev() -> Any:
    try:
        import evdev
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the virtual keyboard needs evdev, which is not installed",
            reason=Reason.MISSING_EXTRA,
            hint='Install it with: pip install "embridge[keys]"; it is built on the spot and needs a C compiler and '
            "the headers of Linux.",
        ) from error
    return evdev
