"""Pose sources in a session plan: what follows the hand while a band is recorded.

[session.pose]
kind = "udp"
port = 9763
rate_hz = 120.0
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import StrEnum

import msgspec

from embridge_shared.errors import ConfigError
from embridge_shared.session import Side


class Measured(StrEnum):
    """What a source sends."""

    JOINTS = "joints"  # 20 joint angles in the order of embridge_shared.hand.JOINTS
    GLOVE = "glove"  # 22 sensor counts in the order of embridge_shared.hand.CYBERGLOVE_SENSORS


class Angle(StrEnum):
    """Unit of joint angles."""

    RADIANS = "rad"
    DEGREES = "deg"


class _Pose(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What every pose source on a plan has.

    Attributes:
        rate_hz: Frames a second it sends.
        measured: "joints" or "glove".
        unit: Of joint angles, "rad" or "deg".
        calibration: File that `embridge pose calibrate` wrote, relative to the plan: glove counts are recorded as
            joint angles. Without one they are recorded as they are.
        wait_s: The session does not begin if nothing has come after so long.
    """

    rate_hz: float = 60.0
    measured: Measured = Measured.JOINTS
    unit: Angle = Angle.RADIANS
    calibration: str = ""
    wait_s: float = 10.0


class LslPoseSource(_Pose, frozen=True, kw_only=True, tag="lsl"):
    """An LSL stream.

    Attributes:
        stream: Its name; any when empty.
        type: Its content type.
        address: Its source id; any when empty.
    """

    stream: str = ""
    type: str = "MoCap"
    address: str = ""


class UdpPoseSource(_Pose, frozen=True, kw_only=True, tag="udp"):
    """JSON datagrams.

    Attributes:
        host: Address to listen on; "0.0.0.0" hears the network.
        port: Port to listen on.
    """

    host: str = "127.0.0.1"
    port: int = 9763


class OscPoseSource(_Pose, frozen=True, kw_only=True, tag="osc"):
    """OSC messages over UDP.

    Attributes:
        host: Address to listen on; "0.0.0.0" hears the network.
        port: Port to listen on.
        address: OSC address of the messages; those to others are not for us.
    """

    host: str = "127.0.0.1"
    port: int = 9000
    address: str = "/embridge/pose"


class CameraPoseSource(_Pose, frozen=True, kw_only=True, tag="camera"):
    """A camera and MediaPipe.

    Attributes:
        model: Hand landmarker, a `.task` file; relative to the plan.
        device: Number of the camera.
        side: Which hand it sees.
    """

    model: str
    device: int = 0
    side: Side = Side.RIGHT


AnyPose = LslPoseSource | UdpPoseSource | OscPoseSource | CameraPoseSource


def problems(source: AnyPose) -> Iterator[str]:
    """What is wrong with a source, in words."""
    if not 0 < source.rate_hz < math.inf:
        yield "rate_hz must be positive"
    if not 0 < source.wait_s < math.inf:
        yield "wait_s must be positive"
    if isinstance(source, UdpPoseSource | OscPoseSource) and not 0 <= source.port <= 65535:
        yield "port must be 0 to 65535"
    if isinstance(source, OscPoseSource) and not source.address.startswith("/"):
        yield 'an OSC address begins with "/"'
    if source.measured is Measured.GLOVE and isinstance(source, CameraPoseSource):
        yield "a camera measures joints"
    if source.calibration and source.measured is not Measured.GLOVE:
        yield 'a calibration is for measured = "glove"'


def check(source: AnyPose, where: str) -> None:
    """Refuse a source that cannot be opened.

    Raises:
        ConfigError: What is wrong with it.
    """
    for problem in problems(source):
        raise ConfigError(f"{where}: {problem}")
