"""What edges and cloud must agree on about updates: where an edge stands, how it fares, and how a rollout goes on."""

from __future__ import annotations

from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from embridge_shared.errors import ConfigError


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class UpdatePhase(StrEnum):
    """Where an edge stands with the release it was asked to run; each is safe to lose power in."""

    IDLE = "idle"
    """Nothing was asked for, or it runs already and is committed."""
    DOWNLOADING = "downloading"
    TESTING = "testing"
    """Signature, hash and contents are checked, golden vectors are replayed on this machine."""
    SHADOW = "shadow"
    """It decodes beside the release in force; nobody is told what it says."""
    WAITING = "waiting"
    """It is ready; a session records and keeps its release."""
    PROBATION = "probation"
    """It runs; crashes or bad health go back to the one before without asking anyone."""
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    """It ran and the one before runs again."""
    REFUSED = "refused"
    """It never ran: not signed, tampered with, incompatible, or its self-test failed. Another try is of no use."""
    FAILED = "failed"
    """It never ran: no network, no room. It is tried again."""


class UpdateState(_Part, frozen=True, kw_only=True):
    """An edge's word on its update.

    Attributes:
        phase: Where it stands.
        release: Which release that is about; empty before any.
        digest: sha256 of its bundle.
        rollout: Who asked for it.
        done: Bytes held of the download.
        size: Bytes of the download.
        reason: A `Reason` value when something went wrong.
        detail: What went wrong, a sentence; or what is waited for.
        attempts: Tries so far.
        since_ns: Unix time of this phase's begin, ns.
    """

    phase: UpdatePhase = UpdatePhase.IDLE
    release: str = ""
    digest: str = ""
    rollout: str = ""
    done: int = 0
    size: int = 0
    reason: str = ""
    detail: str = ""
    attempts: int = 0
    since_ns: int = 0

    def __str__(self) -> str:
        """A few words for people."""
        text = str(self.phase).replace("_", " ")
        if self.phase is UpdatePhase.DOWNLOADING and self.size:
            text += f" {100 * self.done // self.size} %"
        return f"{text}: {self.detail}" if self.detail else text


class ReleaseHealth(_Part, frozen=True, kw_only=True):
    """How the release in force fares on an edge, since it was activated there.

    Attributes:
        release: Which one.
        windows: Windows decoded.
        rate: Windows decoded of those that were due, 0 to 1.
        latency_p50_ms: From a window's last sample at hand to its scores, ms.
        latency_p99_ms: The same, 99th percentile.
        confidence: Mean probability of the best gesture.
        shadow_confidence: The same of the release before, on the windows both saw; None without a shadow run.
        agreement: Share of the windows both saw that both decode alike; None without a shadow run.
        broken: Windows whose scores were not finite.
        crashes: Starts of the agent that ended without a word while it was on probation.
        self_test_ms: Golden vectors: time a window, ms.
    """

    release: str
    windows: int = 0
    rate: float = 1.0
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    confidence: float | None = None
    shadow_confidence: float | None = None
    agreement: float | None = None
    broken: int = 0
    crashes: int = 0
    self_test_ms: float | None = None


class Trial(_Part, frozen=True, kw_only=True):
    """How an edge tries a release before it is committed.

    Attributes:
        shadow_windows: Windows it decodes beside the one in force; 0 for none.
        shadow_s: At most so long; an edge where nothing is decoded goes on after it.
        probation_s: It runs so long before it is committed.
        max_crashes: So many ends without a word on probation, and the one before runs again.
        max_p99_ms: It goes back when its latency is worse.
        min_rate: It goes back when fewer of the due windows were decoded.
        max_confidence_loss: It goes back when its mean confidence is lower than in the shadow run by more.
        min_windows: Latency, rate and confidence count from so many windows on.
    """

    shadow_windows: int = 0
    shadow_s: float = 60.0
    probation_s: float = 60.0
    max_crashes: int = 2
    max_p99_ms: float = 250.0
    min_rate: float = 0.8
    max_confidence_loss: float = 0.25
    min_windows: int = 50


class Wave(_Part, frozen=True, kw_only=True):
    """A wave of a rollout.

    Attributes:
        name: As in "canary".
        share: Of the edges concerned, all waves up to this one together, 0 to 1; at least one edge.
        soak_s: Waited after enough of it succeeded, in which errors still count.
        approve: Somebody must say that it may begin.
    """

    name: str
    share: float
    soak_s: float = 60.0
    approve: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0 or self.soak_s < 0.0:
            raise ConfigError(f"wave {self.name!r} has a share of {self.share} and soaks for {self.soak_s} s")


DEFAULT_WAVES: Final = (
    Wave(name="canary", share=0.05),
    Wave(name="early", share=0.25),
    Wave(name="all", share=1.0),
)


class RolloutPolicy(_Part, frozen=True, kw_only=True):
    """How a release reaches the fleet.

    Attributes:
        waves: In their order; the last one has a share of 1.
        success: Share of a wave that must have committed before it soaks.
        max_errors: Share of the edges asked so far that may have refused, rolled back or failed for good.
        error_floor: So many errors stop it only when there are more; 0 stops at the first one past `max_errors`.
        retries: Tries of an edge that fails before it counts as an error.
        patience_s: An edge that is online and says nothing of it for so long counts as an error.
        max_p99_ms: An edge whose latency is worse counts as an error.
        min_rate: So does one that decodes fewer of the due windows.
        max_confidence_loss: So does one whose confidence fell by more since the shadow run.
        trial: How each edge tries it.
        on_error: "roll_back": recall the release and return every edge that took it; "pause": wait for somebody.
    """

    waves: tuple[Wave, ...] = DEFAULT_WAVES
    success: float = 0.95
    max_errors: float = 0.02
    error_floor: int = 0
    retries: int = 3
    patience_s: float = 3600.0
    max_p99_ms: float = 250.0
    min_rate: float = 0.8
    max_confidence_loss: float = 0.25
    trial: Trial = Trial()
    on_error: str = "roll_back"

    def __post_init__(self) -> None:
        shares = [wave.share for wave in self.waves]
        if not shares or shares != sorted(set(shares)) or shares[-1] != 1.0:
            raise ConfigError("the waves of a rollout grow and end with a share of 1")
        if self.on_error not in ("roll_back", "pause"):
            raise ConfigError(f"on_error is {self.on_error!r}", hint='Use "roll_back" or "pause".')


class RolloutState(StrEnum):
    """Where a rollout stands."""

    WAITING = "waiting"
    """For somebody to approve the next wave."""
    RUNNING = "running"
    SOAKING = "soaking"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    """The release is recalled; edges that took it return to the one before."""
    DONE = "done"
    ABORTED = "aborted"
    """Stopped for good, all that took it have returned, or it was stopped without."""


class EdgeProgress(_Part, frozen=True, kw_only=True):
    """An edge in a rollout.

    Attributes:
        edge: Its name.
        wave: Number of its wave, from 0.
        asked_ns: Unix time it was asked, ns; 0 before.
        from_release: What it ran then.
        phase: What it last said of this release.
        error: Why it counts as an error; empty if it does not.
        detail: Its last words.
        retries: Tries that failed.
        heard_ns: Unix time of them, ns.
        online_ns: Unix time since when it is connected, ns; 0 while it is not.
        left: Why it takes no part: pinned, of another cohort, asked by another rollout; empty if it does.
        forgiven: Somebody went on in spite of its error: it no longer counts, neither way.
    """

    edge: str
    wave: int
    asked_ns: int = 0
    from_release: str = ""
    phase: UpdatePhase = UpdatePhase.IDLE
    error: str = ""
    detail: str = ""
    retries: int = 0
    heard_ns: int = 0
    online_ns: int = 0
    left: str = ""
    forgiven: bool = False


class WaveTally(_Part, frozen=True, kw_only=True):
    """How a wave of a rollout stands.

    Attributes:
        name: As in "canary".
        edges: Of this wave alone, those that take part.
        asked: Of these, how many were asked.
        committed: How many keep the release.
        errors: How many count as an error.
        offline: How many of those asked are not connected and have not committed.
        waits: Sessions record on so many, which are ready.
    """

    name: str
    edges: int = 0
    asked: int = 0
    committed: int = 0
    errors: int = 0
    offline: int = 0
    waits: int = 0


class Rollout(_Part, frozen=True, kw_only=True):
    """A release on its way to the fleet.

    Attributes:
        id: As in "r-0007".
        release: Which one.
        digest: sha256 of its bundle.
        policy: How.
        cohort: Edges of this cohort only; empty for all.
        state: Where it stands.
        wave: Number of the wave under way, from 0.
        since_ns: Unix time of this state's begin, ns.
        started_ns: Unix time of its begin, ns.
        ended_ns: Unix time of its end, ns; 0 before.
        started_by: Who asked for it.
        reason: Why it is paused, rolled back or aborted.
        edges: All that it concerns; empty in lists of rollouts.
        closed: The edges were named one by one: none that appears later joins.
        before: What it was before it was paused.
        tally: Its waves; filled in when it is told, empty in files.
    """

    id: str
    release: str
    digest: str
    policy: RolloutPolicy
    cohort: str = ""
    state: RolloutState = RolloutState.RUNNING
    wave: int = 0
    since_ns: int = 0
    started_ns: int = 0
    ended_ns: int = 0
    started_by: str = ""
    reason: str = ""
    edges: tuple[EdgeProgress, ...] = ()
    closed: bool = False
    before: RolloutState = RolloutState.RUNNING
    tally: tuple[WaveTally, ...] = ()


class RolloutRequest(_Part, frozen=True, kw_only=True):
    """A wish to roll a release out.

    Attributes:
        release: Which one.
        policy: How; that of the cloud's settings by default.
        cohort: Edges of this cohort only; empty for all.
        edges: These only; empty for all of the cohort.
        dry_run: Say what would happen, and do nothing.
    """

    release: str
    policy: RolloutPolicy | None = None
    cohort: str = ""
    edges: tuple[str, ...] = ()
    dry_run: bool = False


class EdgeRecord(_Part, frozen=True, kw_only=True):
    """What the cloud has decided about an edge: the desired half of its shadow.

    Attributes:
        edge: Its name.
        cohort: Group it belongs to, as in "lab-2"; empty for none.
        pinned: The release it keeps whatever is rolled out; empty for none.
        pinned_why: Why, and by whom.
        release: The release it was last asked to run.
        rollout: By which rollout.
        recording: The session it records: an update waits for its end.
    """

    edge: str
    cohort: str = ""
    pinned: str = ""
    pinned_why: str = ""
    release: str = ""
    rollout: str = ""
    recording: UUID | None = None


class GateCheck(_Part, frozen=True, kw_only=True):
    """One thing a candidate must not be worse in.

    Attributes:
        name: As in "unseen.accuracy".
        title: For people.
        candidate: Its figure.
        champion: The champion's on the same data; None without one.
        low: Lower end of the interval of the difference candidate - champion, or of the candidate's own figure.
        high: Upper end.
        limit: What is compared with `low`, or with `high` where less is better.
        better: "more" or "less".
        passed: Whether it holds.
        required: One that does not hold refuses the candidate; else it is only told.
        why: A sentence with the figures.
    """

    name: str
    title: str
    candidate: float
    champion: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    better: str = "more"
    passed: bool = True
    required: bool = True
    why: str = ""


class GateReport(_Part, frozen=True, kw_only=True):
    """Whether a candidate may become a release, and why.

    Attributes:
        candidate: Its name.
        champion: The release it was held against; empty for the first.
        accepted: The decision.
        reason: It, in a sentence.
        checks: Each thing that was looked at.
        participants: Held-out people it was judged on.
        snapshot: Hash of the data the candidate was made of.
        seed: Of the bootstrap.
        decided_ns: Unix time, ns.
        forced_by: Who overruled a refusal; empty for nobody.
        forced_why: Their reason.
    """

    candidate: str
    champion: str = ""
    accepted: bool
    reason: str
    checks: tuple[GateCheck, ...] = ()
    participants: int = 0
    snapshot: str = ""
    seed: int = 0
    decided_ns: int = 0
    forced_by: str = ""
    forced_why: str = ""
