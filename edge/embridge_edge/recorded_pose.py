"""Hand postures out of recordings: what an edge has taken and not yet delivered, or a sealed session's folder.

What sealed sessions look like is the cloud's business; a package that can read them says so through the entry-point
group `embridge.postures`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_edge.spool import KnownSession, Spool
from embridge_shared.errors import ConfigError, DataError, OperatorError, Reason
from embridge_shared.hand import GloveCalibration, glove_to_joints, ik_failures
from embridge_shared.pose_file import Posture, average
from embridge_shared.session import Session
from embridge_shared.signal import Modality
from embridge_shared.wire.codec import decode

GROUP: Final = "embridge.postures"

_MOMENT: Final = re.compile(r"(?P<what>.+)@(?P<begin>\d+(\.\d+)?)\.\.(?P<end>\d+(\.\d+)?)")
_LEAST_FRAMES: Final = 5

Frames = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Seconds since the session's start (n,), and joint angles, rad (n, 20)."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch of a recording.

    Attributes:
        session: Its name or id here, or the folder of a sealed session.
        begin_s: Since the session's start, s.
        end_s: Likewise.
    """

    session: str
    begin_s: float
    end_s: float

    @classmethod
    def parse(cls, text: str) -> Moment:
        """Read "SESSION@t0..t1", times in seconds since the session's start.

        Raises:
            OperatorError: It is no such thing.
        """
        found = _MOMENT.fullmatch(text)
        if found is None or float(found["begin"]) >= float(found["end"]):
            raise OperatorError(
                f"{text!r} names no stretch of a recording.",
                hint="Write SESSION@t0..t1 in seconds since its start, as in wave@12.5..14.",
            )
        return cls(found["what"], float(found["begin"]), float(found["end"]))


def posture_at(
    moment: Moment, spool: Path, *, max_bytes: int = 8 << 30, glove: GloveCalibration | None = None
) -> Posture:
    """The mean posture over a stretch of a recording, failed frames left out.

    Args:
        moment: Which.
        spool: The edge's.
        max_bytes: Of the spool.
        glove: Calibration, where the recording holds counts of a glove and the edge's own take is meant.

    Raises:
        OperatorError: NOT_FOUND: there is no such recording.
        ConfigError: MISSING_EXTRA: nothing installed reads sealed sessions.
        DataError: It has no hand pose, or too little of it then.
    """
    folder = Path(moment.session)
    t_s, poses = _sealed(folder) if folder.is_dir() else _taken(moment.session, spool, max_bytes, glove)
    inside = (t_s >= moment.begin_s) & (t_s < moment.end_s)
    name = f"{moment.session}@{moment.begin_s:g}..{moment.end_s:g}"
    if not len(t_s):
        raise DataError(f"{moment.session} holds no hand pose.", reason=Reason.TOO_LITTLE_DATA)
    if inside.sum() < _LEAST_FRAMES:
        raise DataError(
            f"{name} holds {inside.sum()} pose frames.",
            reason=Reason.TOO_LITTLE_DATA,
            hint=f"The recording's poses lie between {t_s.min():.1f} s and {t_s.max():.1f} s.",
        )
    return average(poses[inside], name)


def _sealed(folder: Path) -> Frames:
    readers = entry_points(group=GROUP)
    if not readers:
        raise ConfigError(
            "nothing installed here reads sealed sessions.",
            reason=Reason.MISSING_EXTRA,
            hint='Install it with: pip install "embridge[cloud]", or export the posture where the cloud runs.',
        )
    reader: Callable[[Path], Frames] = next(iter(readers)).load()
    return reader(folder)


def _taken(name: str, path: Path, max_bytes: int, glove: GloveCalibration | None) -> Frames:
    """Poses of a take that waits in the spool."""
    found: KnownSession | None = None
    chunks = []
    if path.is_file():
        spool = Spool(path, max_bytes)
        try:
            found = next((s for s in spool.sessions() if name in (s.name, str(s.session))), None)
            if found is not None:
                session = msgspec.msgpack.decode(found.description, type=Session)
                at = next((i for i, s in enumerate(session.streams) if s.modality in _POSES), None)
                chunks = [] if at is None else [decode(i.payload) for i in spool.of_stream(found.session, at)]
        finally:
            spool.close()
    if found is None:
        raise OperatorError(
            f"this edge took no recording called {name!r}, and there is no such folder.",
            reason=Reason.NOT_FOUND,
            hint="`embridge edge status` lists its sessions; of a sealed session give the folder.",
        )
    if at is None:
        raise DataError(f"{name} has no stream of hand poses.", reason=Reason.TOO_LITTLE_DATA)
    spec = session.streams[at]
    if not chunks:
        raise OperatorError(
            f"{name} was delivered, and this edge keeps it no longer.",
            reason=Reason.NOT_FOUND,
            hint="Give the folder of the sealed session, where the cloud runs.",
        )
    period_ns = 1e9 / spec.rate_hz
    t_ns = np.concatenate([c.t0_ns - session.started_ns + np.arange(len(c.samples)) * period_ns for c in chunks])
    values = np.concatenate([c.samples for c in chunks]).astype(np.float64) * spec.scale
    if spec.modality is Modality.GLOVE:
        if glove is None:
            raise OperatorError(
                f"{name} holds counts of a glove.", hint="Give the wearer's calibration with --glove FILE."
            )
        return t_ns * 1e-9, glove_to_joints(values, glove)
    good = ~ik_failures(values)
    return t_ns[good] * 1e-9, values[good]


_POSES: Final = (Modality.POSE, Modality.GLOVE)
