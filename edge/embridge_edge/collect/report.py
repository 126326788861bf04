"""What became of a collected session, for the operator and beside the spool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from embridge_edge.collect.leader import Leader
from embridge_edge.collect.protocol import Kind
from embridge_edge.collect.steps import Attempt, Outcome
from embridge_edge.digest import Digest, StreamDigest
from embridge_edge.erasures import DIGESTS
from embridge_shared.quality import Grade

SUFFIX: Final = ".collected.json"


class GestureTally(msgspec.Struct, frozen=True, kw_only=True):
    """One gesture: repetitions accepted, rejected since the agent started last, left out."""

    gesture: str
    accepted: int = 0
    rejected: int = 0
    skipped: int = 0


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """A collected session in figures.

    Attributes:
        name: Of the session.
        session: Its id.
        participant: Pseudonym.
        protocol: Name and version.
        donning: Which time the band was on.
        placements: How often the protocol wants it on.
        reason: "complete", or why it ended early.
        asked: Repetitions the protocol asks for.
        accepted: Repetitions that count.
        rejected: Attempts that do not; they stay, with their reason.
        skipped: Repetitions left out.
        gestures: Each gesture.
        why: Reasons of the rejected attempts since the agent started last, with how often.
        streams: What was recorded.
        grade: Of the worst stream.
        wall_s: Since the recording began, or went on, s.
        payload_bytes: Spooled, compressed.
        reasons: Why it was begun although the preflight warned.
    """

    name: str
    session: UUID
    participant: str
    protocol: str
    donning: int
    placements: int
    reason: str
    asked: int
    accepted: int
    rejected: int
    skipped: int
    gestures: tuple[GestureTally, ...]
    why: tuple[tuple[str, int], ...]
    streams: tuple[StreamDigest, ...]
    grade: Grade
    wall_s: float
    payload_bytes: int
    reasons: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """It for people."""
        yield f"{self.name}: {self.protocol}, {self.reason}"
        yield f"{self.accepted} of {self.asked} repetitions accepted, {self.rejected} rejected, {self.skipped} left out"
        for stream in self.streams:
            total = stream.samples + stream.lost
            share = 100.0 * stream.lost / total if total else 0.0
            yield f"{stream.name}: {stream.samples} samples, {stream.lost} lost ({share:.2f} %)"
        yield f"quality {self.grade.value}; {self.wall_s / 60:.1f} min; {self.payload_bytes / 1e6:.1f} MB spooled"
        for why, n in self.why:
            yield f"rejected {n} times: {why}"
        short = [t for t in self.gestures if t.skipped]
        if short:
            yield "left out: " + ", ".join(f"{t.gesture} {t.skipped}" for t in short)
        if self.donning < self.placements:
            yield f"next: take the band off and put it on again, placement {self.donning + 1} of {self.placements}"


def collected(leader: Leader, digest: Digest, *, payload_bytes: int, reasons: Sequence[str] = ()) -> Collected:
    """What became of a session.

    Args:
        leader: Led it to its end.
        digest: What the agent says of it.
        payload_bytes: Spooled.
        reasons: Why it was begun although the preflight warned.
    """
    at, setup = leader.conductor, leader.setup
    outcomes = at.outcomes
    real = [i for i, t in enumerate(at.trials) if t.kind is Kind.GESTURE]
    tallies = _tallies(leader, real)
    return Collected(
        name=setup.name,
        session=digest.session,
        participant=setup.participant,
        protocol=setup.protocol.ref,
        donning=setup.donning,
        placements=setup.protocol.placements,
        reason=digest.reason,
        asked=len(real),
        accepted=sum(outcomes.get(i) is Outcome.ACCEPTED for i in real),
        rejected=leader.rejected,
        skipped=sum(outcomes.get(i) is Outcome.SKIPPED for i in real),
        gestures=tallies,
        why=tuple(Counter(map(_kind, filter(lambda a: a.rejected, leader.history))).most_common()),
        streams=digest.streams,
        grade=max((q.grade for q in digest.quality), key=list(Grade).index, default=Grade.UNKNOWN),
        wall_s=digest.wall_s,
        payload_bytes=payload_bytes,
        reasons=tuple(reasons),
    )


def _tallies(leader: Leader, real: Sequence[int]) -> tuple[GestureTally, ...]:
    trials, outcomes = leader.conductor.trials, leader.conductor.outcomes
    rejected = Counter(trials[a.index].gesture for a in leader.history if a.rejected)
    accepted = Counter(trials[i].gesture for i in real if outcomes.get(i) is Outcome.ACCEPTED)
    skipped = Counter(trials[i].gesture for i in real if outcomes.get(i) is Outcome.SKIPPED)
    return tuple(
        GestureTally(gesture=g, accepted=accepted[g], rejected=rejected[g], skipped=skipped[g])
        for g in leader.setup.protocol.gestures
    )


def _kind(attempt: Attempt) -> str:
    """What kind of reason an attempt was rejected for: without the values that decided."""
    head, _, rest = attempt.rejected.partition(": ")
    return attempt.rejected if head in ("operator", "interrupted") and rest else head


def write(state_dir: Path, report: Collected) -> None:
    """Leave it beside the spool.

    Raises:
        OSError: It cannot be written.
    """
    folder = state_dir / DIGESTS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{report.name}{SUFFIX}").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
