"""Checks of the machine: Python, packages, settings, files, disk, clock, services."""

from __future__ import annotations

import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from embridge_shared.disk import DiskLevel, level, mib
from embridge_shared.doctor import ntp
from embridge_shared.doctor.model import Check, Finding, Part, Situation
from embridge_shared.settings import CREDENTIALS, Settings, config_files, sections

_PREFIX: Final = "EMBRIDGE_"
_OTHER_VARIABLES: Final = frozenset({"EMBRIDGE_CONFIG", "EMBRIDGE_TEST_DATA"})
_SECRETS: Final = re.compile(rb"^\s*(password|token)\s*=\s*[\"'][^\"']", re.MULTILINE)
_UNITS: Final = {Part.EDGE: "embridge-edge.service", Part.CLOUD: "embridge-cloud.service"}
_OFFSET_WARN_S: Final = 0.1


def python(_: Situation) -> Iterator[Finding]:
    """The interpreter and the distribution."""
    said = f"Python {sys.version.split()[0]} on {sys.platform}, embridge {metadata.version('embridge')}"
    if struct.calcsize("P") < 8:
        yield Finding.fail(f"{said}, 32 bit", "Use a 64-bit system: sample counts need it.")
    else:
        yield Finding.ok(said)


def packages(situation: Situation) -> Iterator[Finding]:
    """What the extras of this machine's parts ask for is installed."""
    for part in sorted(situation.parts):
        wanted = [r for r in metadata.requires("embridge") or () if f'extra == "{part}"' in r.replace("'", '"')]
        missing = [name for name in map(_package, wanted) if not _installed(name)]
        if missing:
            said = f"the extra {part} lacks {', '.join(missing)}"
            yield Finding.fail(said, f'Install it with: pip install "embridge[{part}]"')
        else:
            yield Finding.ok(f"the extra {part} is complete: {len(wanted)} packages")


def _package(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0] if found is not None else requirement


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def settings(situation: Situation) -> Iterator[Finding]:
    """Files and environment are understood, and secrets are not there for everybody."""
    if situation.settings is None:
        yield Finding.fail(situation.fault, "`embridge config schema` lists every key and what it takes.")
        return
    files = [p for p in config_files() if p.is_file()]
    yield Finding.ok(f"read from {', '.join(map(str, files))}" if files else "defaults alone: no file is read")
    for path in files:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o004 and _SECRETS.search(path.read_bytes()):
            yield Finding.fail(
                f"every user of this machine may read the secret in {path} (mode {mode:04o})",
                f"`chmod 640 {path}`, or give it as a credential; then change the secret.",
            )
    unknown = sorted(v for v in situation.environ if v.startswith(_PREFIX) and not _is_setting(v))
    if unknown:
        yield Finding.warn(f"nothing reads {', '.join(unknown)}", "Correct the name: EMBRIDGE_<SECTION>__<KEY>.")
    folder = situation.environ.get(CREDENTIALS)
    if folder and not Path(folder).is_dir():
        yield Finding.warn(f"{CREDENTIALS} names {folder}, which is no folder", "Unset it, or make the folder.")


def _is_setting(variable: str) -> bool:
    section, _, key = variable.removeprefix(_PREFIX).lower().partition("__")
    model = sections().get(section)
    return variable in _OTHER_VARIABLES or (model is not None and (not key or key in model.model_fields))


def folders(situation: Situation) -> Iterator[Finding]:
    """The state folders can be written, by this service alone."""
    for part, folder in state_folders(situation):
        place = _nearest(folder)
        if not os.access(place, os.W_OK | os.X_OK):
            owner = place.stat().st_uid
            yield Finding.fail(
                f"user {os.geteuid()} may not write {place}, which belongs to user {owner}",
                f"Run this as the service's user, or `chown` the folder, or set {part}.state_dir.",
            )
        elif not folder.exists():
            yield Finding.ok(f"{folder} is made at the first start")
        elif folder.stat().st_mode & 0o007:
            mode = stat.S_IMODE(folder.stat().st_mode)
            yield Finding.warn(f"every user of this machine may look into {folder} (mode {mode:04o})",
                               f"`chmod 750 {folder}`: it holds recordings.")  # fmt: skip
        else:
            yield Finding.ok(f"{folder} can be written")


def _nearest(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def state_folders(situation: Situation) -> list[tuple[Part, Path]]:
    """The state folders of this machine's parts."""
    loaded = known(situation)
    places = {Part.EDGE: loaded.edge.state_dir, Part.CLOUD: loaded.cloud.state_dir}
    return [(part, places[part]) for part in sorted(situation.parts & places.keys())]


def known(situation: Situation) -> Settings:
    """The settings of a check that is not blind."""
    assert situation.settings is not None
    return situation.settings


def disk(situation: Situation) -> Iterator[Finding]:
    """There is room for what will be recorded."""
    loaded = known(situation)
    reserves = {Part.EDGE: loaded.edge.reserve_bytes, Part.CLOUD: loaded.cloud.reserve_bytes}
    for part, folder in state_folders(situation):
        free, reserve = situation.free(folder), reserves[part]
        said = f"{mib(free)} free for {folder}, {mib(reserve)} of it are kept back"
        found = level(free, reserve)
        if found is DiskLevel.FULL:
            yield Finding.fail(f"{said}: nothing is taken any more", "Free space, or move the folder to a larger disk.")
        elif found is DiskLevel.LOW:
            yield Finding.warn(said, "Free space soon; below the reserve nothing is taken.")
        else:
            yield Finding.ok(said)
        if part is Part.EDGE and loaded.edge.spool_max_bytes > free - reserve:
            yield Finding.warn(
                f"the spool may grow to {mib(loaded.edge.spool_max_bytes)}, and there is less room than that",
                "Lower edge.spool_max_bytes, or give it a larger disk: an outage ends the recording earlier.",
            )


def clock(situation: Situation) -> Iterator[Finding]:
    """The machine's clock follows the world's."""
    year = 1970 + situation.clock.wall_ns() / 31_556_952e9
    if not 2024 < year < 2100:
        yield Finding.fail(f"this machine says it is the year {year:.0f}", "Set the clock: `timedatectl set-ntp true`.")
        return
    state = ntp.read()
    told = situation.tool("timedatectl", "show", "--property=NTP", "--value")
    service = {"yes": "a time service runs", "no": "no time service runs"}.get((told or "").strip(), "")
    if state is None:
        yield Finding.warn(f"the kernel does not tell whether its clock is kept right{_and(service)}",
                           "See `timedatectl` or `chronyc tracking`.")  # fmt: skip
    elif not state.synchronised:
        yield Finding.warn(
            f"nothing keeps the clock right{_and(service)}", "`apt install chrony`, and let UDP 123 out."
        )
    elif abs(state.offset_s) > _OFFSET_WARN_S:
        yield Finding.warn(
            f"the clock is {state.offset_s * 1e3:+.0f} ms off and being corrected", "Wait a few minutes."
        )
    else:
        yield Finding.ok(f"kept right, {state.offset_s * 1e3:+.2f} ms off, at most {state.bound_s * 1e3:.0f} ms")


def _and(text: str) -> str:
    return f"; {text}" if text else ""


def services(situation: Situation) -> Iterator[Finding]:
    """What systemd says of the units."""
    if not (situation.system / "run/systemd/system").is_dir():
        yield Finding.ok("no systemd runs here")
        return
    for part in sorted(situation.parts & _UNITS.keys()):
        yield _service(situation, _UNITS[part])


def _service(situation: Situation, unit: str) -> Finding:
    wanted = "LoadState,ActiveState,SubState,Result,NRestarts,UnitFileState,StatusText"
    told = situation.tool("systemctl", "show", unit, f"--property={wanted}") or ""
    got = dict(line.partition("=")[::2] for line in told.splitlines())
    state, status = got.get("ActiveState", ""), got.get("StatusText", "")
    said = f"{unit} is {state} ({got.get('SubState', '')}){': ' + status if status else ''}"
    if got.get("LoadState") != "loaded":
        return Finding.ok(f"{unit} is not installed")
    if state == "failed":
        return Finding.fail(f"{said}, {got.get('Result')}", f"`journalctl -u {unit} -n 50` tells why.")
    if "not fed" in status:
        return Finding.fail(said, f"systemd will start it anew; `journalctl -u {unit}` tells more.")
    if state != "active":
        return Finding.warn(said, f"`systemctl enable --now {unit}` starts it.")
    if got.get("UnitFileState") == "disabled":
        return Finding.warn(f"{said}, and not started at boot", f"`systemctl enable {unit}`.")
    if int(got.get("NRestarts", "0") or 0) > 0:
        return Finding.warn(f"{said}, started anew {got['NRestarts']} times", f"`journalctl -u {unit}` tells why.")
    return Finding.ok(said)


CHECKS: Final = (
    Check("python", Part.MACHINE, python, blind=True),
    Check("packages", Part.MACHINE, packages, blind=True),
    Check("settings", Part.MACHINE, settings, blind=True),
    Check("folders", Part.MACHINE, folders),
    Check("disk", Part.MACHINE, disk),
    Check("clock", Part.MACHINE, clock, blind=True),
    Check("services", Part.MACHINE, services, blind=True),
)
