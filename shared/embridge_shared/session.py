"""Sessions: who wore what where, what they were asked to do, and what they did."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import msgspec

from embridge_shared.enrolment import Entry
from embridge_shared.quality.grades import Grade, Metric
from embridge_shared.signal import StreamSpec


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Side(StrEnum):
    """Which arm."""

    LEFT = "left"
    RIGHT = "right"


class Purpose(StrEnum):
    """What a session was recorded for; it decides what may be learnt from it."""

    TRAINING = "training"
    CALIBRATION = "calibration"
    EVALUATION = "evaluation"
    ENROLMENT = "enrolment"


class Split(StrEnum):
    """Which part of an evaluation a session belongs to, decided before it is recorded.

    Only `UNDECIDED` and `TRAIN` may be trained on.
    """

    UNDECIDED = ""
    TRAIN = "train"
    HELD_OUT_PARTICIPANT = "held_out_participant"
    HELD_OUT_SESSION = "held_out_session"
    HELD_OUT_PLACEMENT = "held_out_placement"

    @property
    def held_out(self) -> bool:
        """Nothing may be learnt from it."""
        return self not in (Split.UNDECIDED, Split.TRAIN)


class RepetitionStatus(StrEnum):
    """A rejected repetition stays, with its reason; nothing is deleted."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Participant(_Record, frozen=True, kw_only=True):
    """A person, by the code their consent form carries; never a name.

    Attributes:
        id: Pseudonym.
        consent_version: Version of the consent text they signed.
    """

    id: str
    consent_version: str = "unstated"


class Placement(_Record, frozen=True, kw_only=True):
    """Where the band sits.

    Attributes:
        side: Which arm.
        position: Where on the arm, as in "forearm, proximal third".
        rotation_deg: Angle of electrode 0 from the ulna, seen from the hand; None when not measured.
        donning: Which time in a row of sessions the band was put on, from 1; 0 where nobody counted.
    """

    side: Side = Side.RIGHT
    position: str = "forearm"
    rotation_deg: float | None = None
    donning: int = 0


class Session(_Record, frozen=True, kw_only=True):
    """One recording of one participant by one edge.

    Attributes:
        id: Unique; made by the edge, so it works alone.
        edge: Name of the edge agent, its certificate's common name.
        participant: Who.
        placement: Where the band sat.
        purpose: What for.
        protocol: Name and version of the prompts, as in "fingers-12/1".
        streams: In ordinal order.
        started_ns: Unix time, ns.
        host_ns: The edge's monotonic clock at `started_ns`, ns: the anchor of the arrival pairs.
        source: What fed it when it was no live device: "replay:NAME" or "synthetic:SEED".
        release: The release that decoded during it, or empty.
        split: Which part of an evaluation it belongs to.
    """

    id: UUID
    edge: str
    participant: Participant
    placement: Placement = Placement()
    purpose: Purpose = Purpose.TRAINING
    protocol: str = ""
    streams: tuple[StreamSpec, ...]
    started_ns: int
    host_ns: int
    source: str = ""
    release: str = ""
    split: Split = Split.UNDECIDED


class SessionOpened(_Record, frozen=True, kw_only=True, tag="session_opened"):
    """Event 0 of every session."""

    session: Session


class CueShown(_Record, frozen=True, kw_only=True, tag="cue"):
    """The participant was asked for a gesture.

    Attributes:
        gesture: Label in the vocabulary.
        repetition: Counted from 1 within the gesture.
        start_ns: Unix time the prompt appeared, ns.
        end_ns: Unix time it went away, ns.
    """

    gesture: str
    repetition: int
    start_ns: int
    end_ns: int


class Repetition(_Record, frozen=True, kw_only=True, tag="repetition"):
    """The participant did it: bounds of the movement itself, not of the prompt.

    Attributes:
        gesture: Label in the vocabulary.
        repetition: Counted from 1 within the gesture.
        start_ns: Unix time of the onset, ns.
        end_ns: Unix time of the return to rest, ns.
        status: Accepted or rejected.
        reason: Why rejected.
    """

    gesture: str
    repetition: int
    start_ns: int
    end_ns: int
    status: RepetitionStatus = RepetitionStatus.ACCEPTED
    reason: str = ""


class Marker(_Record, frozen=True, kw_only=True, tag="marker"):
    """Anything worth a note at a moment."""

    text: str
    t_ns: int


class ClockRead(_Record, frozen=True, kw_only=True, tag="clock"):
    """The edge's two clocks at one moment: how its wall clock was set while it recorded.

    Attributes:
        t_ns: Unix time, ns.
        host_ns: The monotonic clock, ns, that arrivals are stamped with.
    """

    t_ns: int
    host_ns: int


class BandState(_Record, frozen=True, kw_only=True):
    """A wristband as the edge that holds it sees it.

    Attributes:
        stream: Name of its EMG stream.
        kind: Its driver, as in "myo".
        address: Where it was found, or empty.
        phase: Where the link stands: "scanning", "streaming", "reconnecting", "lost", …
        reason: Why.
        action: What to do next, or empty.
        battery: Charge, percent.
        rssi_dbm: Strength of the signal received.
        mtu: ATT MTU, bytes.
        interval_ms: Connection interval.
        phy: "1M", "2M" or "coded".
        received: Samples that came.
        lost: Samples that did not.
        garbage: Packets that made no sense.
        connects: Connections so far.
    """

    stream: str
    kind: str
    address: str = ""
    phase: str = ""
    reason: str = ""
    action: str = ""
    battery: int | None = None
    rssi_dbm: int | None = None
    mtu: int | None = None
    interval_ms: float | None = None
    phy: str | None = None
    received: int = 0
    lost: int = 0
    garbage: int = 0
    connects: int = 0


class BandChanged(_Record, frozen=True, kw_only=True, tag="band"):
    """A device entered another state: it was connected, streams, fell silent, was lost, came back.

    Attributes:
        t_ns: Unix time, ns; before the session's start for what led to it.
        band: What was known of it then.
    """

    t_ns: int
    band: BandState


class QualityFinding(_Record, frozen=True, kw_only=True):
    """Why a channel is not good.

    Attributes:
        channel: Its place in the stream.
        metric: What told.
        grade: How bad.
        reason: In words.
    """

    channel: int
    metric: Metric
    grade: Grade
    reason: str


class QualitySeen(_Record, frozen=True, kw_only=True, tag="quality"):
    """What the channels of a stream were worth over a stretch of it.

    Attributes:
        stream: Ordinal of the stream.
        first: Index of the first sample.
        n: Samples it spans.
        t_ns: Unix time of the first sample, ns.
        values: Each metric that could be computed, a value a channel; None where it could not.
        findings: What is not good.
    """

    stream: int
    first: int
    n: int
    t_ns: int
    values: dict[Metric, tuple[float | None, ...]]
    findings: tuple[QualityFinding, ...] = ()


class GesturesChanged(_Record, frozen=True, kw_only=True, tag="gestures"):
    """The participant's own gestures changed: an entry of their journal (`embridge_shared.enrolment`)."""

    entry: Entry


class GestureChange(StrEnum):
    """What happened to a gesture."""

    ONSET = "onset"
    HOLD = "hold"
    RELEASE = "release"


class GestureDecoded(_Record, frozen=True, kw_only=True, tag="decoded"):
    """A gesture that live decoding saw began, has been held, or ended.

    A gesture whose release is missing ended where the recording was cut off.

    Attributes:
        change: Which.
        gesture: Its label.
        t_ns: Unix time of the newest sample that decided, ns.
        number: Of the window that decided: its index in the streams of scores and decisions.
        probability: Of the gesture then, among all known ones.
        lasted_s: Since it began, s.
    """

    change: GestureChange
    gesture: str
    t_ns: int
    number: int
    probability: float
    lasted_s: float = 0.0


class WearingChanged(_Record, frozen=True, kw_only=True, tag="wearing"):
    """How the band sits was found, or how well the wearer's calibration holds changed.

    Attributes:
        t_ns: Unix time, ns.
        level: "ok", "watch", "re-don", "re-enrol", or "unknown".
        said: Why.
        advice: What to do next, or empty.
        farther: Mean log of how many times farther windows lie from the wearer's gestures than they should; None where
            nobody knows.
        electrodes: How far features had to be turned to sit as in the calibration; None where nobody knows.
        ring: Channels of the band that turn, in order around the arm, where a turn is applied.
        applied: How far features of the decoder are turned from now on, electrodes; None where nothing changed. The
            recorded samples never are.
        gain: What each turned channel of the decoder's features is multiplied by, where a turn is applied.
    """

    t_ns: int
    level: str
    said: str
    advice: str = ""
    farther: float | None = None
    electrodes: float | None = None
    ring: tuple[int, ...] = ()
    applied: float | None = None
    gain: tuple[float, ...] = ()


INCOMPLETE = "incomplete: "
"""How the reason of a session begins that was ended without all of it, by an operator; no edge may say so."""


class SessionClosed(_Record, frozen=True, kw_only=True, tag="session_closed"):
    """The last event: what a complete session must hold.

    Attributes:
        t_ns: Unix time, ns.
        totals: Index after the last sample of each stream, in ordinal order.
        reason: "complete", or why it ended early.
    """

    t_ns: int
    totals: tuple[int, ...]
    reason: str = "complete"


Event = (
    SessionOpened
    | CueShown
    | Repetition
    | Marker
    | ClockRead
    | BandChanged
    | QualitySeen
    | GesturesChanged
    | GestureDecoded
    | WearingChanged
    | SessionClosed
)
