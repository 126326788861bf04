"""A recorded session as words: its row, its detail, its timeline, what its channels were worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from embridge_tui import text
from embridge_tui.model import Edge, Entered, Gap, Judged, Session, SessionDetail, Stream
from embridge_tui.widgets.records import Row

GLYPHS: Final = {"open": "▶ open", "ended": "◐ ended", "sealed": "✓ sealed"}
_BAR: Final = 4
_LINE: Final = 60
_GAPS: Final = 20


def worth(judged: Sequence[Judged]) -> float | None:
    """Share of the judged windows that nothing was wrong with, 0 to 1; None where none was judged."""
    windows = sum(row.windows for row in judged)
    return 1.0 - sum(row.warn + row.bad for row in judged) / windows if windows else None


def duration(session: Session | SessionDetail) -> str:
    """How long it lasted, in minutes and seconds."""
    if session.ended_at is None:
        return "…"
    seconds = max(0, round((session.ended_at - session.started_at).total_seconds()))
    return f"{seconds // 60}:{seconds % 60:02d}"


def row(session: Session, *, quality: float | None, held: int) -> Row:
    """A session in the list.

    Args:
        session: It.
        quality: Its worth; None where it is not known.
        held: Messages of it that the store could not place.
    """
    cells = (
        text.moment(session.started_at),
        text.plain(session.participant),
        text.plain(session.protocol),
        f"{session.accepted}/{session.rejected}",
        duration(session),
        "-" if quality is None else f"{text.bar(quality, _BAR)} .{round(quality * 100):02d}" if quality < 0.995 else
        f"{text.bar(1.0, _BAR)} 1.0",
        text.size(session.bytes or 0) if session.bytes else "-",
        sync(session, held),
    )  # fmt: skip
    return str(session.session), cells


def sync(session: Session, held: int) -> str:
    """How much of it the cloud holds."""
    missing, lost = session.missing or 0, session.declared_lost or 0
    if held:
        return f"⚠ {held} held"
    if session.state == "sealed":
        return f"✓ ▲{text.count(missing)}" if missing else "✓ sealed"
    if session.state == "ended" and missing > lost:
        share = (session.samples or 0) / max(1, (session.samples or 0) + missing - lost)
        return f"{text.bar(share, _BAR)} {100 * share:3.0f}%"
    return GLYPHS.get(session.state, text.plain(session.state))


def queue(edges: Sequence[Edge]) -> str:
    """What edges still hold."""
    items, size = sum(edge.spooled for edge in edges), sum(edge.spooled_bytes for edge in edges)
    if not items:
        return "nothing waits at the edges"
    where = [edge.edge for edge in edges if edge.spooled]
    return text.plain(f"{text.count(items)} items, {text.size(size)} wait at {', '.join(where[:3])}")


def describe(session: SessionDetail) -> str:
    """A session in lines: where it stands, its streams, and its gestures counted."""
    ended = f": {session.end_reason}" if session.end_reason else ""
    gestures = session.by_gesture()
    totals = [sum(column) for column in zip(*gestures.values(), strict=True)] or [0, 0, 0]
    lines = [
        f"{session.session}",
        text.plain(f"{session.participant} · {session.purpose} · {session.protocol}"),
        text.plain(f"{GLYPHS.get(session.state, session.state)}{ended} · from {session.edge}"),
        f"{totals[0]} cues, {totals[1]} accepted, {totals[2]} rejected",
    ]
    for stream in session.streams:
        lines += _stream(stream)
    width = max([8, *(len(name) for name in gestures)])
    lines += ["", f"{'gesture':<{width}}  cues  accepted  rejected"]
    lines += [f"{text.plain(name):<{width}}  {c:>4}  {a:>8}  {r:>8}" for name, (c, a, r) in gestures.items()]
    reasons = sorted({r.reason for r in session.repetitions if r.status == "rejected" and r.reason})
    if reasons:
        lines.append(text.plain(f"rejected for: {', '.join(reasons)}"))
    return "\n".join(lines)


def page(session: SessionDetail, judged: Sequence[Judged], gaps: Sequence[Gap], bands: Sequence[Entered]) -> str:
    """All that is known of a session, in lines.

    Args:
        session: It.
        judged: What its channels were worth.
        gaps: What never came.
        bands: What its bands went through.
    """
    worn = ", ".join(part for part in (session.side, session.position) if part)
    lines = [describe(session), ""]
    lines += [f"worn       {worn}"] if worn else []
    lines += [f"lasted     {duration(session)}"]
    lines += [f"decoded by {session.release}"] if session.release else []
    lines += [f"content    {session.content_hash}"] if session.content_hash else []
    lines += ["", *timeline(session), "", *repetitions(session), "", *channels(judged)]
    lines += ["", *_gaps(gaps)]
    if bands:
        lines += ["", "bands"]
        lines += [f"{e.entered_at:%H:%M:%S}  {e.phase:<13} {e.reason}. {e.action}".rstrip(" .") for e in bands]
    return "\n".join(lines)


def timeline(session: SessionDetail) -> list[str]:
    """The repetitions along a line: ✓ accepted, ✕ rejected, · nothing asked."""
    made = [r for r in session.repetitions if r.end_ns > r.start_ns]
    if not made:
        return ["timeline: no repetition has times"]
    first, last = min(r.start_ns for r in made), max(r.end_ns for r in made)
    line = ["·"] * _LINE
    for r in sorted(made, key=lambda r: r.status == "rejected"):
        begin, end = (round((t - first) / max(1, last - first) * (_LINE - 1)) for t in (r.start_ns, r.end_ns))
        for x in range(begin, max(begin, end - 1) + 1):
            line[x] = "✕" if r.status == "rejected" else "✓"
    return [f"timeline, {(last - first) * 1e-9:.0f} s from the first to the last repetition", "".join(line)]


def repetitions(session: SessionDetail) -> list[str]:
    """Every repetition with its verdict."""
    lines = [f"repetitions: {len(session.repetitions)}"]
    begin = min((r.start_ns for r in session.repetitions), default=0)
    for number, r in enumerate(session.repetitions, 1):
        verdict = "✓" if r.status == "accepted" else f"✕ {r.reason or r.status}"
        lines.append(f"{number:>4}  {(r.start_ns - begin) * 1e-9:7.1f} s  {r.gesture:<20} {verdict}")
    return lines


def channels(judged: Sequence[Judged]) -> list[str]:
    """What each channel was worth."""
    share = worth(judged)
    if share is None:
        return ["quality: nobody judged it"]
    marks = {"good": "●", "warn": "▲", "bad": "✕"}
    lines = [f"quality: {100 * share:.0f} % of the windows without a fault"]
    for c in judged:
        why = f"  {c.reasons}" if c.reasons and c.grade != "good" else ""
        lines.append(
            f"{marks.get(c.grade, '?')} {c.stream} {c.channel}: {c.bad} bad, {c.warn} warned of {c.windows}{why}"
        )
    return lines


def _gaps(gaps: Sequence[Gap]) -> list[str]:
    if not gaps:
        return ["gaps: none"]
    lines = [f"gaps: {len(gaps)}, {sum(g.seconds for g in gaps):.2f} s in all"]
    lines += [
        f"  {g.stream} from sample {g.first}: {g.n} samples, {g.seconds:.3f} s{', an estimate' if g.inferred else ''}"
        for g in gaps[:_GAPS]
    ]
    return [*lines, *([f"  and {len(gaps) - _GAPS} more"] if len(gaps) > _GAPS else [])]


def _stream(stream: Stream) -> list[str]:
    whole = stream.samples + stream.missing
    share = f", {100 * stream.missing / whole:.1f} %" if stream.missing else ""
    awaited = ""
    if stream.awaited:
        awaited = f", {stream.awaited_samples} awaited, {len(stream.awaited)} gaps"
    mark = "▲" if stream.missing else "✓"
    head = f"{stream.name} {stream.channels} ch {stream.rate_hz:g} Hz · {stream.device}"
    return [text.plain(head), f"  {mark} {stream.samples} stored, {stream.missing} missing{share}{awaited}"]
