"""What `embridge doctor` looks at on an edge."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from embridge_edge.band_plan import BandsSource
from embridge_edge.lock import is_running
from embridge_edge.plan import Plan, ReplaySource, SyntheticSource
from embridge_edge.plan import load as load_plan
from embridge_shared.broker_visit import Visit, knock
from embridge_shared.disk import mib
from embridge_shared.doctor.machine import known
from embridge_shared.doctor.model import Check, Finding, Part, Situation
from embridge_shared.errors import ConfigError, DataError, NetworkError
from embridge_shared.session import SessionOpened
from embridge_shared.wire import codec, topics
from embridge_shared.wire.messages import EventMessage, unpack

_FULL: Final = 0.5
_OLD_S: Final = 3600.0
_NOT_BLUETOOTH: Final = frozenset({"lsl", "uart", "brainflow"})
# y = x + x, float32 (2,): the smallest graph that shows that models run here; opset 13, IR 8.
_TWICE: Final = bytes.fromhex(
    "08083a350a0e0a01780a017812017922034164641201745a0f0a0178120a0a08080112040a020802620f0a0179120a0a0808011204"
    "0a02080242040a00100d"
)


def broker_rights(situation: Situation) -> Iterator[Finding]:
    """The broker lets this edge say and hear what it must, and nothing of others."""
    settings = known(situation)
    name = topics.check_edge(settings.edge.name)
    if is_running(settings.edge.state_dir):
        knock(settings.mqtt, situation.timeout_s)
        yield Finding.ok("the agent runs and holds its place at the broker, which takes its certificate")
        return
    try:
        with Visit(settings.mqtt, f"edge-{name}", situation.timeout_s) as visit:
            yield from _rights(visit, name)
    except NetworkError as error:
        yield Finding.warn(f"not tried: {error.message}", error.hint or "See the check of the broker.")


def _rights(visit: Visit, name: str) -> Iterator[Finding]:
    token = secrets.token_bytes(16)
    if not visit.hears_itself(topics.check_topic(name), token):
        yield Finding.fail(
            f"the broker takes {name}, but what it publishes below its own name does not come back",
            "Is the broker's access list that of `embridge site`, and is edge.name the certificate's name?",
        )
        return
    yield Finding.ok(f"the broker takes {name}, who may publish and read below its own name")
    stranger = f"{name[:32]}.{token.hex()[:8]}"
    with suppress(NetworkError):  # a broker may hang up on who asks for too much
        if not visit.hears_itself(topics.check_topic(stranger), token[::-1]):
            return
        yield Finding.warn(
            "the broker lets this edge use the topics of others",
            "Give the broker an access list; `embridge site init` makes one.",
        )


def spool(situation: Situation) -> Iterator[Finding]:
    """What waits for the cloud, how long, and what the cloud refused."""
    settings = known(situation).edge
    path = settings.state_dir / "spool.db"
    if not path.is_file():
        yield Finding.ok("there is none yet: nothing was recorded")
        return
    items, size, refused, oldest = _spooled(path)
    said = f"{items} items, {mib(size)} wait for the cloud"
    age_s = (situation.clock.wall_ns() - oldest) * 1e-9 if oldest is not None else 0.0
    if size > _FULL * settings.spool_max_bytes:
        yield Finding.fail(f"{said}: {size / settings.spool_max_bytes:.0%} of what it may hold",
                           "Restore the connection, or raise edge.spool_max_bytes.")  # fmt: skip
    elif age_s > _OLD_S:
        yield Finding.warn(
            f"{said}, the oldest for {age_s / 3600:.1f} h", "See the broker, and `GET /ready` of the cloud."
        )
    else:
        yield Finding.ok(said)
    if refused:
        yield Finding.warn(f"the cloud refused {refused} items", "`embridge edge status` tells which and why.")


def _spooled(path: Path) -> tuple[int, int, int, int | None]:
    """Items, bytes, refused items, and when the session of the oldest item began, Unix time, ns."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2.0)) as db:
            items, size = db.execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM items").fetchone()
            (refused,) = db.execute("SELECT count(*) FROM refused").fetchone()
            first = db.execute("SELECT session, payload, stream FROM items ORDER BY id LIMIT 1").fetchone()
            known_as = (
                first and db.execute("SELECT description FROM sessions WHERE session = ?", (first[0],)).fetchone()
            )
    except sqlite3.Error as error:
        raise DataError(
            f"{path} cannot be read: {error}", hint="Move it aside; `sqlite3 spool.db .recover` may bring it back."
        ) from error
    return items, size, refused, _when(first[1], first[2], known_as[0]) if known_as else None


def _when(payload: bytes, stream: int, description: bytes) -> int | None:
    import msgspec

    from embridge_shared.session import Session

    session = msgspec.msgpack.decode(description, type=Session)
    if stream < 0:
        event = unpack(payload, EventMessage).event
        return session.started_ns if isinstance(event, SessionOpened) else getattr(event, "t_ns", session.started_ns)
    chunk = codec.decode(payload)
    return session.started_ns + round(chunk.first / session.streams[stream].rate_hz * 1e9)


def updates(situation: Situation) -> Iterator[Finding]:
    """The root of trust is there, and what is trusted is fresh."""
    settings = known(situation).edge
    if settings.update_root is None:
        yield Finding.warn("edge.update_root is not set: this edge takes no releases",
                           "Install a bundle that holds the root, or copy the cloud's `1.root.json`.")  # fmt: skip
        return
    root = _metadata(settings.update_root)
    if root is None or root.get("_type") != "root":
        yield Finding.fail(f"{settings.update_root} is no root metadata", "Copy the cloud's `1.root.json` again.")
        return
    yield from _fresh("the root of trust", root, situation)
    seen = sorted(settings.state_dir.glob("update/**/timestamp.json"))
    if not seen:
        yield Finding.ok("no release was fetched yet")
    for path in seen:
        yield from _fresh("what the repository last said", _metadata(path) or {}, situation)


def _metadata(path: Path) -> dict[str, Any] | None:
    try:
        signed = json.loads(path.read_bytes()).get("signed")
    except ValueError:
        return None
    return signed if isinstance(signed, dict) else None


def _fresh(what: str, signed: dict[str, Any], situation: Situation) -> Iterator[Finding]:
    try:
        ends = datetime.fromisoformat(str(signed["expires"]).replace("Z", "+00:00")).astimezone(UTC)
    except (KeyError, ValueError):
        yield Finding.fail(f"{what} has no end", "Remove the edge's `update` folder; it is fetched again.")
        return
    days = ends.timestamp() / 86_400 - situation.clock.wall_ns() / 86_400e9
    if days <= 0:
        yield Finding.warn(
            f"{what} ended {-days:.1f} days ago", "Start the cloud, which signs daily; check the clocks."
        )
    else:
        yield Finding.ok(f"{what} is good for {days:.0f} days")


def release(situation: Situation) -> Iterator[Finding]:
    """The release in force is whole."""
    from embridge_edge.update.slots import FOLDER, Slots

    folder = known(situation).edge.state_dir / FOLDER
    if not folder.is_dir():
        yield Finding.ok("no release is in force: sessions that decode wait for one")
        return
    slots = Slots(folder)
    current = slots.current()
    if current is None:
        yield Finding.ok("no release is in force: sessions that decode wait for one")
        return
    slots.load()
    yield Finding.ok(f"{current.name} is in force and whole")


def runtime(_: Situation) -> Iterator[Finding]:
    """ONNX Runtime runs a model on this machine."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(_TWICE, options, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.array([1.5, -2.0], np.float32)})
    if answer.tolist() == [3.0, -4.0]:
        yield Finding.ok(f"ONNX Runtime {onnxruntime.__version__} computes")
    else:
        yield Finding.fail(f"ONNX Runtime {onnxruntime.__version__} says 1.5 + 1.5 is {answer.tolist()[0]}",
                           "Install another build of onnxruntime for this processor.")  # fmt: skip


def plan(situation: Situation) -> Iterator[Finding]:
    """The plan can be read."""
    path = known(situation).edge.plan
    if path is None:
        yield Finding.ok("edge.plan is not set: the agent delivers and records nothing by itself")
        return
    found = load_plan(path)
    yield Finding.ok(f"{path} asks for {len(found.session)} sessions")


def bluetooth(situation: Situation) -> Iterator[Finding]:
    """There is a Bluetooth adapter that this user may use, where the plan needs one."""
    needed = _kinds(_plan(situation)) - _NOT_BLUETOOTH
    adapters = sorted(p.name for p in (situation.system / "sys/class/bluetooth").glob("hci[0-9]*") if ":" not in p.name)
    worse = Finding.fail if needed else Finding.warn
    if not adapters:
        if needed:
            yield Finding.fail(f"there is no Bluetooth adapter, and the plan records {', '.join(sorted(needed))}",
                               "Plug one in; `lsusb` and `dmesg` tell whether the system sees it.")  # fmt: skip
        else:
            yield Finding.ok("there is no Bluetooth adapter, and the plan asks for none")
        return
    yield Finding.ok(f"adapters: {', '.join(adapters)}")
    blocked = [p.parent.name for p in (situation.system / "sys/class/rfkill").glob("*/type")
               if p.read_text().strip() == "bluetooth" and "1" in _blocks(p.parent)]  # fmt: skip
    if blocked:
        yield worse("Bluetooth is switched off (rfkill)", "`rfkill unblock bluetooth`, or the switch of the machine.")
    bus = situation.system / "run/dbus/system_bus_socket"
    if not bus.exists():
        yield worse("there is no system bus, so BlueZ cannot be asked", "`apt install bluez dbus`, and start both.")
    elif not os.access(bus, os.W_OK):
        yield worse(f"user {os.geteuid()} may not speak to the system bus", "Add the user to the group `bluetooth`.")


def _blocks(folder: Path) -> set[str]:
    found = set()
    for name in ("soft", "hard"):
        with suppress(OSError):
            found.add((folder / name).read_text().strip())
    return found


def lsl(situation: Situation) -> Iterator[Finding]:
    """LSL is there where it is asked for, and its clock is this machine's."""
    found = _plan(situation)
    wanted = known(situation).edge.lsl_out or "lsl" in _kinds(found) or any(s.lsl_out for s in found.session)
    if find_spec("pylsl") is None:
        if wanted:
            yield Finding.fail("the plan asks for LSL, and pylsl is not installed", 'pip install "embridge[lsl]"')
        else:
            yield Finding.ok("LSL is not asked for")
        return
    try:
        import pylsl
    except (OSError, RuntimeError) as error:
        worse = Finding.fail if wanted else Finding.warn
        yield worse(f"pylsl finds no library: {error}", "`apt install liblsl`, or set PYLSL_LIB to the library.")
        return
    offset_s = pylsl.local_clock() - situation.clock.monotonic_ns() * 1e-9
    yield Finding.ok(f"liblsl {pylsl.library_version() / 100:.2f}; its clock is {offset_s:+.3f} s from the agent's")


def _plan(situation: Situation) -> Plan:
    path = known(situation).edge.plan
    if path is None:
        return Plan(session=())
    try:
        return load_plan(path)
    except (ConfigError, OSError):  # told by the check of the plan
        return Plan(session=())


def _kinds(plan: Plan) -> set[str]:
    """Kinds of the real bands a plan records."""
    kinds: set[str] = set()
    for session in plan.session:
        source = session.source
        if isinstance(source, ReplaySource | SyntheticSource):
            continue
        bands = source.bands if isinstance(source, BandsSource) else (source,)
        kinds |= {str(b.__struct_config__.tag) for b in bands}
    return kinds


CHECKS: Final = (
    Check("plan", Part.EDGE, plan),
    Check("rights", Part.EDGE, broker_rights),
    Check("spool", Part.EDGE, spool),
    Check("updates", Part.EDGE, updates),
    Check("release", Part.EDGE, release),
    Check("runtime", Part.EDGE, runtime, blind=True),
    Check("bluetooth", Part.EDGE, bluetooth),
    Check("lsl", Part.EDGE, lsl),
)
