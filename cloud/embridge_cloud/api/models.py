"""What is answered, typed: the OpenAPI document is made from these.

Rows that come from the store pass on columns of a later schema as they are.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from embridge_cloud.api.roles import Role

Moment = Annotated[datetime, AfterValidator(lambda t: t if t.tzinfo else t.replace(tzinfo=UTC))]
"""A time in UTC; the store's own times name no zone."""


class Answer(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Row(Answer):
    """Base of rows of the store."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="allow")


class Problem(Answer):
    """What every error answers with."""

    error: str
    """What happened."""
    reason: str
    """Machine-readable cause, as in "not_found"."""
    hint: str
    """What to do next; may be empty."""


class Alive(Answer):
    """The process runs."""

    state: str
    """Where the ingester stands."""


class Readiness(Answer):
    """Whether the process does what it is there for."""

    ready: bool
    """Every check holds."""
    state: str
    """Where the ingester stands."""
    checks: dict[str, bool]
    """What was looked at: "ingester", "broker", "database", "disk", "loop"."""
    details: dict[str, str] = Field(default_factory=dict)
    """What was found, a check; only for who shows a token."""
    last_error: str = ""
    """The last thing that went wrong; only for who shows a token."""


class Session(Row):
    """A session as the list shows it."""

    session: UUID
    """Its id."""
    edge: str
    """Who recorded it."""
    participant: str
    """Pseudonym."""
    side: str
    """Arm: "left" or "right"."""
    position: str
    """Where on the arm."""
    purpose: str
    """"training", "calibration" or "evaluation"."""
    protocol: str
    """Name and version."""
    split: str
    """Part of an evaluation it belongs to, as in "held_out_participant"; empty where that is undecided."""
    donning: int
    """Which time the band was put on, from 1; 0 where nobody counted."""
    source: str
    """Where its samples come from."""
    release: str
    """The release that decoded meanwhile, or empty."""
    state: str
    """"open", "ended" or "sealed"."""
    started_at: Moment
    """When it began, by the edge's clock."""
    ended_at: Moment | None
    """When it ended, by the edge's clock."""
    end_reason: str | None
    """Why it ended."""
    streams: int | None
    """Number of streams; with `samples` and what follows unset until they are known."""
    samples: int | None
    """Stored, all streams together."""
    missing: int | None
    """Not stored up to the known end."""
    declared_lost: int | None
    """Of these, what the edge says will never come."""
    bytes: int | None
    """Size in the store."""
    events: int
    """Events stored."""
    cues: int
    """Gestures asked for."""
    accepted: int
    """Repetitions accepted."""
    rejected: int
    """Repetitions rejected; they stay, with their reason."""
    content_hash: str | None
    """sha256 over the sealed session."""


class Stream(Row):
    """A stream of a session and what is held of it."""

    stream: int
    """Its ordinal."""
    name: str
    """As in "emg"."""
    modality: str
    """As in "emg" or "hand_pose"."""
    channels: int
    """Number of channels."""
    rate_hz: float
    """Nominal rate."""
    samples: int
    """Stored."""
    missing: int
    """Not stored up to the known end."""
    until: int
    """Index after the last stored sample."""
    awaited: list[tuple[int, int]]
    """Ranges [first, end) that may still come."""


class Cue(Row):
    """A gesture somebody was asked to make."""

    seq: int
    gesture: str
    repetition: int
    start_ns: int
    end_ns: int


class Repetition(Cue):
    """A gesture somebody made."""

    status: str
    """"accepted" or "rejected"."""
    reason: str
    """Why it was rejected."""


class SessionDetail(Row):
    """One session with its streams, cues and repetitions; its other fields are those of the list."""

    session: UUID
    state: str
    totals: list[int] | None
    """Index after the last sample of each stream, once it has ended."""
    streams: list[Stream]
    cues: list[Cue]
    repetitions: list[Repetition]


class SealOrder(BaseModel):
    """Asks for a session to be sealed as it is."""

    force: bool = False
    """Seal it although something never arrived; that is declared lost."""
    reason: str = Field(default="", max_length=500)
    """Why nothing more will come; needed with `force`."""


class SealAnswer(BaseModel):
    """A session is being sealed."""

    session: UUID
    closed: bool
    """Its edge had ended it."""
    lacking: dict[str, list[tuple[int, int]]]
    """What never arrived, by stream: ranges of samples, and of events under "events"."""


class Edge(Row):
    """Last known state of an edge."""

    edge: str
    online: bool
    agent: str
    """Version of its software."""
    release: str
    """The release that decodes, or empty."""
    digest: str | None
    """sha256 of that release's bundle."""
    update: dict[str, Any] | None
    """Where it stands with the release it was asked to run."""
    health: dict[str, Any] | None
    """How the release in force fares there."""
    recording: UUID | None
    """The session being recorded."""
    spooled: int
    """Chunks and events that wait for a commit."""
    spooled_bytes: int
    """Their size."""
    seen_at: Moment
    """When it last spoke."""


class Quarantined(Row):
    """A message the store could not place."""

    id: str
    received_at: Moment
    topic: str
    edge: str
    session: UUID | None
    stream: int | None
    first: int | None
    reason: str
    detail: str
    bytes: int


class QuarantineGroup(Row):
    """Messages in quarantine for one reason."""

    reason: str
    edge: str
    session: UUID | None
    messages: int
    bytes: int
    first_at: Moment
    last_at: Moment


class Quarantine(Answer):
    """What the store could not place."""

    bytes: int
    """Size of all of it."""
    skipped: int
    """Messages that were not kept, for it was full."""
    summary: list[QuarantineGroup]
    messages: list[Quarantined]
    """The newest first; payloads stay in the database."""


class Ingest(Row):
    """Counters since the process started."""

    messages: int
    bytes: int
    chunks: int
    samples: int
    events: int
    duplicates: int
    held: int
    refused: int
    foreign: int
    state: str
    connected: bool
    connections: int
    commits: int
    commit_ms_last: float
    commit_ms_worst: float
    commit_ms_mean: float
    reports: int
    sealed: int
    unsealable: list[str]
    """Complete sessions whose sealing failed; tried again every minute."""
    last_error: str


class Job(Answer):
    """A training run."""

    id: str
    """As in "realign-3"."""
    kind: str
    """"realign"."""
    state: str
    """"queued", "running", "done", "refused", "failed" or "cancelled"."""
    stage: str
    """What it is doing."""
    step: int
    """Steps done of this stage."""
    total: int
    """Steps of this stage."""
    loss: float
    """Latest loss."""
    eta_s: float | None
    """Until the end of this stage, s; null while nobody can tell."""
    asked_ns: int
    """Unix time it was asked for, ns."""
    started_ns: int
    """Unix time, ns; 0 while it waits."""
    ended_ns: int
    """Unix time, ns; 0 while it runs."""
    attempts: int
    """How often its child was started."""
    by: str
    """Who asked for it; "schedule" where nobody did."""
    why: str
    """What for."""
    line: str
    """Line of releases."""
    version: int
    """Of the candidate; 0 before it is known."""
    champion: str
    """The release it continues or is held against; empty for the first."""
    generation: int
    """Of the pose space."""
    warm: bool
    """It goes on from the champion's weights."""
    snapshot: str
    """Hash of its data."""
    sessions: int
    """How many sessions it learns from."""
    new_sessions: int
    """Of these, not in the champion."""
    left_out: dict[str, str]
    """Why sessions were left out, by id."""
    accepted: bool | None
    """What the gates said; null before."""
    error: str
    """Why it failed, or was refused."""
    forced_by: str
    """Who published it all the same."""
    release: str
    """The release it made, once it is published."""


class ScheduleStanding(Answer):
    """When realignments begin by themselves."""

    schedule: dict[str, Any]
    """enabled, line, sessions, participants, minutes, settle_s, timetable, timezone, quiet, min_interval_s, misfire_s
    and rollout; as [realign] of the settings."""
    waiting: dict[str, Any]
    """sessions, participants, minutes and latest_ns of what nobody has learnt from."""
    why: str
    """What was decided last, and why."""
    next_ns: int
    """Unix time of the timetable's next time, ns; 0 without one."""
    begun_ns: int
    """Unix time it last began something, ns; 0 before."""
    failed: str
    """Why it could not begin when it last tried; empty if it could."""


class RolloutPolicy(Row):
    """How a release reaches the fleet."""

    waves: list[dict[str, Any]]
    """Each with name, share, soak_s and approve."""
    success: float
    """Share of a wave that must have committed before it soaks."""
    max_errors: float
    """Share of the edges asked so far that may have failed."""
    error_floor: int
    """So many errors never stop it."""
    retries: int
    """Tries of an edge that fail before it counts as an error."""
    patience_s: float
    """An edge that is connected and says nothing for so long counts as an error."""
    on_error: str
    """"roll_back" or "pause"."""
    trial: dict[str, Any]
    """How each edge tries the release before it keeps it."""


class WaveTally(Answer):
    """How a wave of a rollout stands."""

    name: str
    """As in "canary"."""
    edges: int
    """Of this wave alone, those that take part."""
    asked: int
    """Of these, how many were asked."""
    committed: int
    """How many keep the release."""
    errors: int
    """How many count as an error."""
    offline: int
    """How many of those asked are not connected and have not committed."""
    waits: int
    """Sessions record on so many, which are ready."""


class EdgeProgress(Answer):
    """An edge in a rollout."""

    edge: str
    wave: int
    """Number of its wave, from 0."""
    asked_ns: int
    """Unix time it was asked, ns; 0 before."""
    from_release: str
    """What it ran then."""
    phase: str
    """What it last said of this release, as in "downloading" or "committed"."""
    error: str
    """Why it counts as an error; empty if it does not."""
    detail: str
    """Its last words."""
    retries: int
    """Tries that failed."""
    heard_ns: int
    """Unix time of its last words, ns."""
    online_ns: int
    """Unix time since when it is connected, ns; 0 while it is not."""
    left: str
    """Why it takes no part; empty if it does."""
    forgiven: bool
    """Somebody went on in spite of its error."""


class Rollout(Answer):
    """A release on its way to the fleet."""

    id: str
    """As in "r-0007"; empty in answers to a dry run."""
    release: str
    digest: str
    """sha256 of its bundle."""
    policy: RolloutPolicy
    cohort: str
    """Edges of this cohort only; empty for all."""
    state: str
    """"waiting", "running", "soaking", "paused", "rolling_back", "done" or "aborted"."""
    wave: int
    """Number of the wave under way, from 0."""
    since_ns: int
    """Unix time of this state's begin, ns."""
    started_ns: int
    """Unix time of its begin, ns."""
    ended_ns: int
    """Unix time of its end, ns; 0 before."""
    started_by: str
    """Who asked for it."""
    reason: str
    """Why it is paused, rolled back or aborted."""
    edges: list[EdgeProgress]
    """All that it concerns; none in lists."""
    closed: bool
    """The edges were named one by one: none that appears later joins."""
    before: str
    """What it was before it was paused."""
    tally: list[WaveTally]
    """Its waves."""


class Shadow(Row):
    """An edge: what was decided about it, and what it reports."""

    edge: str
    cohort: str
    """Group it belongs to; empty for none."""
    pinned: str
    """The release it keeps whatever is rolled out; empty for none."""
    pinned_why: str
    """Why, and by whom."""
    release: str
    """The release it was last asked to run; empty for none."""
    rollout: str
    """By which rollout; empty where somebody did."""
    recording: UUID | None
    """The session it records: an update waits for its end."""
    reported: dict[str, Any] | None
    """Its last state."""
    heard_ns: int
    """Unix time of its last state, ns; 0 before any."""


class Release(Row):
    """A published release."""

    name: str
    """As in "embridge-3"."""
    line: str
    """Line of releases."""
    version: int
    """Within the line."""
    digest: str
    """sha256 of the bundle."""
    size: int
    """Bytes."""
    min_agent: str
    """Oldest agent that can run it."""
    preprocess: str
    """Hash of its preprocessing."""
    recalled: str
    """Why it was withdrawn; empty while it was not."""


class ReleaseDetail(Answer):
    """A published release with all that is known of it."""

    published: Release
    """Its entry in the registry."""
    manifest: dict[str, Any]
    """What its bundle says of itself."""
    gate: dict[str, Any] | None
    """How it was judged; unset where its job is gone or no gate judged it."""
    lineage: list[dict[str, Any]]
    """It and its parents, the newest first, with the sessions and people of each."""
    recalled: str
    """Why it was withdrawn; empty while it was not."""


class TokenInfo(Answer):
    """A token as everybody may know it."""

    id: str
    """Its public part."""
    name: str
    role: Role
    created_at: Moment
    expires_at: Moment | None
    expired: bool


class NewToken(Answer):
    """A request for a token."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Who will have it; the audit log will say so."""
    role: Role
    days: float | None = Field(default=None, gt=0, le=3650)
    """Its term; without end by default."""


class MadeToken(Answer):
    """A token that was made."""

    token: str
    """To be kept secret; it is shown this once."""
    info: TokenInfo


class Whoami(Answer):
    """Whose token was shown."""

    name: str
    role: Role


class AuditRow(Answer):
    """A row of the audit log."""

    seq: int
    at: Moment
    actor: str
    action: str
    subject: str
    detail: dict[str, str | int | float]
    digest: str
    """Of this row and the one before it."""
