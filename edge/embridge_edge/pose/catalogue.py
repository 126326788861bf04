"""How a pose source of a plan is opened."""

from __future__ import annotations

from pathlib import Path

from embridge_edge.pose import plan as plans
from embridge_edge.pose.live import LivePose
from embridge_shared.clock import Clock


def open_pose(source: plans.AnyPose, base: Path, clock: Clock) -> LivePose:
    """The source of a plan's pose; nothing is listened to yet.

    Args:
        source: Which.
        base: Folder that paths start from.
        clock: Stamps.

    Raises:
        ConfigError: Something in the plan is wrong, an extra is not installed, or a model is missing.
        DataError: A calibration cannot be read.
    """
    plans.check(source, "the plan")
    match source:
        case plans.LslPoseSource():
            from embridge_edge.pose.lsl import LslPose

            return LslPose(source, base=base, clock=clock)
        case plans.CameraPoseSource():
            from embridge_edge.pose.camera import CameraPose

            return CameraPose(source, base=base, clock=clock)
        case plans.UdpPoseSource() | plans.OscPoseSource():
            from embridge_edge.pose.network import NetworkPose

            return NetworkPose(source, base=base, clock=clock)
