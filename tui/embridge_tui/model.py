"""What the screens show: the answers of the cloud's HTTP interface, checked and typed.

Unknown fields are ignored, so that a newer cloud can be looked at; missing or misshapen ones are refused.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from embridge_shared.fleet import EdgeRecord, GateReport, ReleaseHealth, Rollout, UpdateState


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the cloud ingests.

    Attributes:
        ready: Broker connected, database writable.
        state: Where the ingester stands.
        last_error: The last thing that went wrong.
    """

    ready: bool
    state: str
    last_error: str = ""


class Ingest(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the cloud process started.

    Attributes:
        chunks: Stored.
        samples: Stored.
        duplicates: Chunks that came again and were dropped.
        refused: Messages put into quarantine.
        sealed: Sessions sealed.
    """

    chunks: int
    samples: int
    duplicates: int
    refused: int
    sealed: int


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """What list and detail of a session share.

    Attributes:
        session: Its id.
        edge: Who recorded it.
        participant: Whose EMG it is.
        purpose: "training", "calibration", "evaluation" or "enrolment".
        protocol: Name and version.
        state: "open", "ended" or "sealed".
        started_at: UTC.
        end_reason: Why it ended; None while it is open.
        samples: Stored, all streams together; None before its streams are known.
        missing: Not stored up to the known end, all streams together.
        ended_at: UTC; None while it is open.
        bytes: Size in the store.
        declared_lost: Samples that will never come, as its edge said.
        content_hash: sha256 over the sealed session; None before.
        side: Arm: "left" or "right".
        position: Where on the arm.
        release: The release that decoded meanwhile, or empty.
    """

    session: UUID
    edge: str
    participant: str
    purpose: str
    protocol: str
    state: str
    started_at: datetime
    end_reason: str | None = None
    samples: int | None = None
    missing: int | None = None
    ended_at: datetime | None = None
    bytes: int | None = None
    declared_lost: int | None = None
    content_hash: str | None = None
    side: str = ""
    position: str = ""
    release: str = ""


class Session(_Head, frozen=True, kw_only=True):
    """A session as the list shows it.

    Attributes:
        cues: Cues so far.
        accepted: Repetitions accepted.
        rejected: Repetitions rejected; they stay, with their reason.
    """

    cues: int
    accepted: int
    rejected: int


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of a session and what is held of it.

    Attributes:
        name: As in "emg".
        channels: Number of channels.
        rate_hz: Nominal rate.
        device: What it was recorded with.
        samples: Stored.
        missing: Not stored up to the known end: lost by the link, or still on the way.
        awaited: Ranges [first, end) of sample indices that may still come.
    """

    name: str
    channels: int
    rate_hz: float
    device: str
    samples: int
    missing: int
    awaited: tuple[tuple[int, int], ...] = ()

    @property
    def awaited_samples(self) -> int:
        """Samples that may still come."""
        return sum(end - first for first, end in self.awaited)


class Cue(msgspec.Struct, frozen=True, kw_only=True):
    """A gesture somebody was asked to make; its times are Unix times, ns."""

    gesture: str
    start_ns: int = 0
    end_ns: int = 0


class Repetition(msgspec.Struct, frozen=True, kw_only=True):
    """A gesture somebody made; its times are Unix times, ns."""

    gesture: str
    status: str
    reason: str = ""
    start_ns: int = 0
    end_ns: int = 0


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel of a session was worth.

    Attributes:
        stream: As in "emg".
        channel: Its name, or its number.
        windows: Windows that were judged.
        warn: Of these, worth a look.
        bad: Of these, of no use.
        grade: "good", "warn" or "bad".
        reasons: The last ones.
    """

    stream: str | int
    channel: str | int
    windows: int
    warn: int
    bad: int
    grade: str
    reasons: str = ""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Samples that never came.

    Attributes:
        stream: As in "emg".
        first: Index of the first one.
        n: How many.
        seconds: How long.
        inferred: The length is an estimate.
    """

    stream: str
    first: int
    n: int
    seconds: float
    inferred: bool = False


class Entered(msgspec.Struct, frozen=True, kw_only=True):
    """A state that a band of a session entered."""

    entered_at: datetime
    phase: str = ""
    reason: str = ""
    action: str = ""


class SessionDetail(_Head, frozen=True, kw_only=True):
    """One session with its streams, cues and repetitions."""

    streams: tuple[Stream, ...]
    cues: tuple[Cue, ...]
    repetitions: tuple[Repetition, ...]

    def by_gesture(self) -> dict[str, tuple[int, int, int]]:
        """(cues, accepted, rejected) of every gesture, in the order they were first asked for."""
        cued = Counter(cue.gesture for cue in self.cues)
        made = Counter((r.gesture, r.status) for r in self.repetitions)
        names = dict.fromkeys([*cued, *(gesture for gesture, _ in made)])
        return {name: (cued[name], made[name, "accepted"], made[name, "rejected"]) for name in names}


class HeldGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Messages in quarantine for one reason."""

    session: UUID | None
    messages: int


class HeldMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that the store could not place."""

    session: UUID | None
    received_at: datetime
    reason: str
    detail: str
    bytes: int


class Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    """What the store could not place, counted and, the newest, one by one."""

    summary: tuple[HeldGroup, ...]
    messages: tuple[HeldMessage, ...] = ()


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """Last known state of an edge.

    Attributes:
        edge: Its name.
        online: Connected to the broker.
        release: The release that decodes, or empty.
        recording: The session being recorded.
        spooled: Chunks and events that wait for a commit.
        spooled_bytes: Their size.
        update: Where its updater stands.
        seen_at: When it last spoke; UTC.
    """

    edge: str
    online: bool
    release: str
    recording: UUID | None
    spooled: int
    spooled_bytes: int
    update: UpdateState | None = None
    seen_at: datetime


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge says of itself.

    Attributes:
        online: Connected to the broker.
        release: The release that decodes, or empty.
        spooled: Chunks and events that wait for a commit.
        update: Where its updater stands.
        health: How its release fares; None before anything was decoded.
    """

    online: bool
    release: str = ""
    spooled: int = 0
    update: UpdateState = UpdateState()
    health: ReleaseHealth | None = None


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A published release.

    Attributes:
        name: As in "embridge-3".
        version: Within its line.
        digest: sha256 of the bundle.
        size: Bytes.
        min_agent: Oldest agent that can run it.
        recalled: Why it was withdrawn; empty while it was not.
    """

    name: str
    version: int
    digest: str
    size: int
    min_agent: str
    recalled: str = ""


class ReleaseDetail(msgspec.Struct, frozen=True, kw_only=True):
    """A release with all that is known of it.

    Attributes:
        published: Its entry in the registry.
        manifest: What its bundle says of itself.
        lineage: It and its parents, the newest first.
        gate: How it was judged; None where nobody did.
        recalled: Why it was withdrawn; empty while it was not.
    """

    published: dict[str, Any]
    manifest: dict[str, Any]
    lineage: tuple[dict[str, Any], ...]
    gate: GateReport | None = None
    recalled: str = ""


class Shadow(EdgeRecord, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What was decided about an edge, and what it says.

    Attributes:
        reported: Its last state; None before any.
        heard_ns: Unix time of it, ns; 0 before any.
    """

    reported: Reported | None = None
    heard_ns: int = 0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A training run.

    Attributes:
        id: As in "realign-3".
        state: "queued", "running", "done", "refused", "failed" or "cancelled".
        stage: What it is doing.
        step: Steps done of this stage.
        total: Steps of this stage; 0 while unknown.
        loss: Latest loss.
        error: Why it failed, or was refused.
        release: The release it made.
        eta_s: Until the end of this stage, s; None while nobody can tell.
        by: Who asked for it.
        why: What for.
        champion: The release it continues, or is held against.
        sessions: How many sessions it learns from.
        new_sessions: Of these, not in the champion.
        accepted: What the gates said; None before.
        attempts: How often it was begun.
        left_out: Why sessions were left out, by id.
        forced_by: Who published it against its gates.
    """

    id: str
    state: str
    stage: str = ""
    step: int = 0
    total: int = 0
    loss: float = 0.0
    error: str = ""
    release: str = ""
    eta_s: float | None = None
    by: str = ""
    why: str = ""
    champion: str = ""
    sessions: int = 0
    new_sessions: int = 0
    accepted: bool | None = None
    attempts: int = 0
    left_out: dict[str, str] = {}
    forced_by: str = ""

    @property
    def open(self) -> bool:
        """It runs or waits."""
        return self.state in ("queued", "running")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the screens show of a cloud at one moment."""

    readiness: Readiness
    ingest: Ingest
    sessions: tuple[Session, ...]
    edges: tuple[Edge, ...]
    releases: tuple[Release, ...]
    jobs: tuple[Job, ...]
    rollouts: tuple[Rollout, ...] = ()
