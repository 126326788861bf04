"""`embridge tui --demo`: a cloud with an embedded broker of its own, on an empty machine; all of it ends with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from embridge_shared.errors import OperatorError, Reason
from embridge_shared.settings import Settings, load

_START_S: Final = 60.0
_STOP_S: Final = 20.0
_LOOK_S: Final = 0.05


@contextlib.contextmanager
def demonstration(folder: Path | None = None) -> Iterator[Settings]:
    """Start a cloud process; the settings of an edge beside it, with a virtual band.

    Args:
        folder: Where everything is kept; a temporary folder that goes by default.

    Raises:
        OperatorError: The cloud process did not start; the message holds its last words.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="embridge-tui-")))
        folder.mkdir(parents=True, exist_ok=True)
        ready = folder / "ready.json"
        ready.unlink(missing_ok=True)
        cloud = stack.enter_context(_process(folder, ready))
        deadline_s = time.monotonic() + _START_S
        while not ready.is_file():
            if cloud.poll() is not None or time.monotonic() > deadline_s:
                words = " / ".join((folder / "cloud.log").read_text(errors="replace").splitlines()[-3:])
                raise OperatorError(
                    f"the cloud process did not start: {words or 'no words'}",
                    reason=Reason.UNREACHABLE,
                    hint=f"{folder / 'cloud.log'} says more.",
                )
            time.sleep(_LOOK_S)
        yield _settings(folder, json.loads(ready.read_text()))


@contextlib.contextmanager
def _process(folder: Path, ready: Path) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ["cloud", "run", "--embedded-broker", "--mqtt-port", "0", "--http-port", "0"]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("EMBRIDGE_")},
        "EMBRIDGE_CLOUD__STATE_DIR": str(folder / "cloud"),
        "XDG_CONFIG_HOME": str(folder),
    }
    with (folder / "cloud.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "embridge_shared.cli", *arguments, "--ready-file", str(ready)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _settings(folder: Path, ready: dict[str, str]) -> Settings:
    root = folder / "cloud" / "registry" / "repository" / "metadata" / "1.root.json"
    known = load()
    edge = known.edge.model_copy(update={"state_dir": folder / "edge", "name": "edge-demo", "update_root": root})
    mqtt = known.mqtt.model_copy(update={"host": ready["mqtt_host"], "port": int(ready["mqtt_port"])})
    api = known.api.model_copy(update={"url": ready["http_url"], "token_file": Path(ready["token_file"])})
    cloud = known.cloud.model_copy(update={"state_dir": folder / "cloud"})
    return known.model_copy(update={"edge": edge, "mqtt": mqtt, "api": api, "cloud": cloud})
