"""Session plans: what an agent shall record, as TOML or, from other programs, JSON.

    [[session]]
    name = "s1-training"
    participant = "s1"
    purpose = "training"

    [session.source]
    kind = "replay"
    path = "S1_A1_E1.mat"
    speed = 20.0

A plan can be started again after a crash: sessions that are done are skipped, one that was cut off goes on where it
stopped.
"""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path

import msgspec

from embridge_edge import band_plan
from embridge_edge.band_plan import AnyBand, BandsSource
from embridge_edge.forearm.electrodes import FaultKind
from embridge_edge.outputs import catalogue as outputs
from embridge_edge.pose import plan as pose_plan
from embridge_edge.pose.plan import AnyPose
from embridge_shared.errors import ConfigError, Reason
from embridge_shared.names import CODE_RULE, is_code
from embridge_shared.session import Placement, Purpose, Split


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which repetitions of a recording to replay; the rest of it becomes a gap.

    Attributes:
        gestures: Only these; all when empty.
        repetitions: Only these; all when empty.
        margin_s: Rest kept on both sides of each.
    """

    gestures: tuple[str, ...] = ()
    repetitions: tuple[int, ...] = ()
    margin_s: float = 1.0


class ReplaySource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="replay", tag_field="kind"
):
    """Play a recording file.

    Attributes:
        path: The file; relative to the plan.
        speed: 1 is real time, 0 as fast as possible.
        rate_hz: Where the file does not tell.
        pose: Play its pose too.
        select: What to play.
        written: What is written down instead of a gesture, where somebody mixed the prompts up.
    """

    path: str
    speed: float = 1.0
    rate_hz: float | None = None
    pose: bool = True
    select: Selection | None = None
    written: dict[str, str] = {}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something wrong with an electrode of a simulated band.

    Attributes:
        channel: Which electrode, 0 to 15.
        kind: "dead", "loose" or "clipping".
        start_s: From when on, s.
        end_s: Until when, s; to the end when absent.
    """

    channel: int
    kind: FaultKind
    start_s: float = 0.0
    end_s: float | None = None


class SyntheticSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="synthetic", tag_field="kind"
):
    """Let a simulated wearer perform gestures.

    Attributes:
        wearer: Seed of the wearer's anatomy; the same seed is the same person.
        performance: Seed of this performance: timing, variation, noise.
        gestures: What they perform.
        repetitions: How often each.
        shuffled: In random order.
        speed: 1 is real time, 0 as fast as possible.
        rotation_deg: How the band is turned today.
        pose: Record hand pose too.
        loss: Share of packets that never arrive.
        faults: What is wrong with the band.
        written: What is written down for each of `gestures`, where somebody mixed the prompts up; what is performed
            when empty.
    """

    wearer: int
    performance: int
    gestures: tuple[str, ...]
    repetitions: int = 4
    shuffled: bool = False
    speed: float = 1.0
    rotation_deg: float = 0.0
    pose: bool = True
    loss: float = 0.0
    faults: tuple[Fault, ...] = ()
    written: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.written and len(self.written) != len(self.gestures):
            raise ValueError(f"`written` names {len(self.written)} gestures, `gestures` names {len(self.gestures)}")


class QualityGate(StrEnum):
    """What is done before a session when the signal is poor."""

    OFF = "off"  # not looked at
    WARN = "warn"  # said, and recorded
    REQUIRE = "require"  # refused


class SessionPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One session to record.

    Attributes:
        name: Unique on this edge.
        participant: Pseudonym.
        source: Where samples come from.
        purpose: What the session is for.
        protocol: Name and version of the prompts.
        placement: Where the band sits.
        consent_version: The consent text the participant signed.
        decode: Decode live with the current release; the scores are recorded as a stream.
        hop_s: Time between two decisions; as in the settings when absent, s.
        false_per_hour: Decode for so many false activations an hour; as in the settings when absent.
        pose: Follow the hand too, beside a live band.
        lsl_out: Republish all streams and annotations as LSL outlets; as in the settings when absent.
        outputs: Where decisions go, as "websocket:8471" or "keys:FILE"; as in the settings when absent.
        quality_gate: What is done when the signal is poor before it begins.
        settle_s: How long the signal may take to become good, s.
        split: Which part of an evaluation it belongs to.
    """

    name: str
    participant: str
    source: ReplaySource | SyntheticSource | AnyBand | BandsSource
    purpose: Purpose = Purpose.TRAINING
    protocol: str = ""
    placement: Placement = Placement()
    consent_version: str = "unstated"
    decode: bool = False
    hop_s: float | None = None
    false_per_hour: float | None = None
    pose: AnyPose | None = None
    lsl_out: bool | None = None
    outputs: tuple[str, ...] | None = None
    quality_gate: QualityGate = QualityGate.OFF
    settle_s: float = 10.0
    split: Split = Split.UNDECIDED


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to record, in order."""

    session: tuple[SessionPlan, ...]


def check_participant(code: str, where: str) -> None:
    """Check that a participant's code can be recorded; the cloud takes no other.

    Raises:
        ConfigError: It cannot be part of a file name; the message says where it stands.
    """
    if not is_code(code):
        raise ConfigError(f"{where}: {code!r} cannot name a participant", hint=CODE_RULE)


def load(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ConfigError: It cannot be read or says something unknown; the message names it.
    """
    try:
        decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
        plan: Plan = decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise ConfigError(
            f"the plan {path} cannot be read: {error.strerror}", reason=Reason.NOT_FOUND, hint="Check its path."
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(
            f"the plan {path}: {error}", hint="The documentation of the edge agent lists every field of a plan."
        ) from error
    names = [s.name for s in plan.session]
    if len(set(names)) < len(names):
        raise ConfigError(f"the plan {path} uses a session name twice", hint="Names must be unique.")
    for entry in plan.session:
        check_participant(entry.participant, f"session {entry.name!r}")
        if not 0 < entry.settle_s < math.inf:
            raise ConfigError(f"session {entry.name!r}: settle_s must be positive")
        if entry.hop_s is not None and not 0 < entry.hop_s < math.inf:
            raise ConfigError(f"session {entry.name!r}: hop_s must be positive")
        if entry.false_per_hour is not None and not 0 < entry.false_per_hour < math.inf:
            raise ConfigError(f"session {entry.name!r}: false_per_hour must be positive")
        if entry.outputs is not None:
            outputs.check(entry.outputs, f"session {entry.name!r}")
        if entry.pose is not None:
            pose_plan.check(entry.pose, f"session {entry.name!r}")
        if not isinstance(entry.source, ReplaySource | SyntheticSource):
            band_plan.check(entry.source, f"session {entry.name!r}")
        elif entry.pose is not None:
            raise ConfigError(
                f"session {entry.name!r}: a pose source goes beside a live band",
                hint="Replayed and simulated sources bring their own pose.",
            )
        elif not 0 <= entry.source.speed < math.inf:
            raise ConfigError(f"session {entry.name!r}: speed must be 0 or more")
    return plan
