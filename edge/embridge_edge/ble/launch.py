"""Run any program that uses bleak on another radio, unchanged:

python -m embridge_edge.ble.launch tcp-client:127.0.0.1:9000 program.py [arguments]
python -m embridge_edge.ble.launch usb:0 -m package [arguments]
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Sequence

import bleak
from bleak.backends import BleakBackend

from embridge_edge.ble.adapter import Adapter, make_adapter
from embridge_shared.errors import EmbridgeError, OperatorError

_USAGE = "usage: python -m embridge_edge.ble.launch ADAPTER (PROGRAM | -m MODULE) [ARGUMENTS]"
_LOOKED_UP = ("get_platform_client_backend_type", "get_platform_scanner_backend_type")


def use_for_bleak(adapter: Adapter) -> Callable[[], None]:
    """Let bleak use an adapter wherever no backend is asked for; what puts it back.

    Args:
        adapter: The adapter; it opens when it is first used, in the loop that uses it.

    Raises:
        OperatorError: It is the platform's own, which bleak uses anyway.
    """
    client, scanner = adapter.client_backend, adapter.scanner_backend
    if client is None or scanner is None:
        raise OperatorError(f"bleak uses {adapter.name} without help", hint="Start the program as usual.")
    before = {name: getattr(bleak, name) for name in _LOOKED_UP}
    for name, backend in zip(_LOOKED_UP, (client, scanner), strict=True):
        # Programs compare the identifier with those of the platforms; this stack keeps to what BlueZ does.
        setattr(bleak, name, lambda backend=backend: (backend, BleakBackend.BLUEZ_DBUS))

    def undo() -> None:
        for name, value in before.items():
            setattr(bleak, name, value)

    return undo


def main(arguments: Sequence[str]) -> int:
    """Run a program on an adapter; the exit code."""
    if len(arguments) < 2 or (arguments[1] == "-m" and len(arguments) < 3):
        sys.stderr.write(_USAGE + "\n")
        return 2
    module = arguments[1] == "-m"
    target, rest = arguments[1 + module], arguments[2 + module :]
    try:
        use_for_bleak(make_adapter(arguments[0]))
    except EmbridgeError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    sys.argv = [target, *rest]
    if module:
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(target, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
