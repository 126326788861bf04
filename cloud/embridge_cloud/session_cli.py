"""`embridge session`: sealed sessions, read from their folders."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from embridge_cloud.exchange import commands
from embridge_shared.errors import EmbridgeError, ExitCode, OperatorError, Reason

if TYPE_CHECKING:
    from embridge_cloud.store.manifest import StreamEntry
    from embridge_cloud.store.sealed import Catalogue, SealedSession
    from embridge_shared.quality import Summary
    from embridge_shared.session import BandChanged, GestureDecoded

app = typer.Typer(no_args_is_help=True, help="Sealed sessions.", rich_markup_mode=None, pretty_exceptions_enable=False)
commands.register(app)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Folder = Annotated[Path | None, typer.Option("--dir", help="Folder of sealed sessions; by default the cloud's own.")]
Which = Annotated[str, typer.Argument(help="Session id, or as much of its start as is unique.")]


@app.command("list")
def list_sessions(directory: Folder = None, as_json: AsJson = False) -> None:
    """List sealed sessions, oldest first."""
    catalogue = _catalogue(directory)
    rows = [_summary(s) for s in catalogue.sessions()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo(f"No session is sealed in {catalogue.directory} yet.", err=True)
    for row in rows:
        typer.echo(
            f"{row['session']}  {row['started_at']}  {row['duration_s']:8.1f} s  {row['participant']:<10} "
            f"{row['purpose']:<11} {row['accepted']:3d} accepted {row['rejected']:3d} rejected  "
            f"lost {row['lost']:6d}  {', '.join(row['streams'])}"
        )


@app.command()
def show(session: Which, directory: Folder = None, as_json: AsJson = False) -> None:
    """Show one session: its streams, gaps, repetitions, what was decoded live, and what its bands went through."""
    import msgspec

    found = _pick(_catalogue(directory), session)
    body = {
        **_summary(found),
        "manifest": msgspec.to_builtins(found.manifest),
        "cues": msgspec.to_builtins(found.cues()),
        "repetitions": msgspec.to_builtins(found.repetitions()),
        "bands": msgspec.to_builtins(found.bands()),
        "decoded": msgspec.to_builtins(found.decoded()),
    }
    if as_json:
        typer.echo(json.dumps(body))
        return
    typer.echo(f"session     {found.id}\nfolder      {found.directory}\ncontent     {found.content_hash}")
    for key in ("edge", "participant", "purpose", "protocol", "source", "started_at", "duration_s", "ended"):
        typer.echo(f"{key:<11} {body[key]}")
    for entry in found.manifest.streams:
        spec = found.spec(entry.name)
        typer.echo(
            f"stream      {entry.name}: {spec.n_channels} × {spec.rate_hz:g} Hz {spec.dtype.value}, "
            f"{entry.rows} samples, {_lost(entry)}, {entry.bytes} bytes"
        )
    for change in found.bands():
        typer.echo(_changed(found, change))
    for line in _decoded(found.decoded()):
        typer.echo(line)
    for rep in found.repetitions():
        note = f" ({rep.reason})" if rep.reason else ""
        seconds = (rep.start_ns - found.session.started_ns) * 1e-9
        typer.echo(f"repetition  {seconds:8.2f} s  {rep.gesture} {rep.repetition}: {rep.status.value}{note}")


def _lost(entry: StreamEntry) -> str:
    lost = f"{entry.total - entry.rows} lost in {len(entry.gaps)} gaps"
    if not entry.inferred:
        return lost
    estimated = sum(b - a for a, b in entry.inferred)
    return f"{lost}, {estimated} of them in {len(entry.inferred)} gaps whose length is an estimate by time"


def _decoded(events: list[GestureDecoded]) -> list[str]:
    """A line a gesture that live decoding saw."""
    from statistics import median

    lines = []
    for gesture in sorted({e.gesture for e in events}):
        begun = [e for e in events if e.gesture == gesture and e.change == "onset"]
        lasted = [e.lasted_s for e in events if e.gesture == gesture and e.change == "release"]
        long = f", {median(lasted):.1f} s each" if lasted else ""
        sure = f", probability {median(e.probability for e in begun):.2f}" if begun else ""
        lines.append(f"decoded     {gesture}: {len(begun)} ×{long}{sure}")
    return lines


def _changed(found: SealedSession, change: BandChanged) -> str:
    band = change.band
    why = f": {band.reason}" if band.reason else ""
    action = f". {band.action}" if band.action else ""
    return (
        f"band        {(change.t_ns - found.session.started_ns) * 1e-9:8.2f} s  {band.stream} {band.phase}{why}{action}"
    )


@app.command()
def quality(
    session: Annotated[str, typer.Argument(help="Session id or the start of one, or a .mat, .hdf5 or .parquet file.")],
    directory: Folder = None,
    rate_hz: Annotated[float | None, typer.Option(min=1.0, help="Of a recording that does not tell.")] = None,
    device: Annotated[str, typer.Option(help='What made a recording, as in "myo": some have a known range.')] = "",
    live: Annotated[bool, typer.Option("--live", help="What the edge saw while it recorded, instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what every channel was worth, why, and what to do about it.

    A channel is bad, or warned of, where it was so in a tenth of the windows; a window is two seconds long, and one
    begins every second. Without --live all stored samples are judged anew.
    """
    from embridge_shared import quality as shared_quality

    if Path(session).suffix in (".mat", ".parquet", ".hdf5"):
        from embridge_cloud.quality import recording, wearing_quality

        found = {w.name: wearing_quality(w) for w in recording(Path(session), rate_hz=rate_hz, device=device)}
    else:
        sealed = _pick(_catalogue(directory), session)
        if live:
            _live(sealed, as_json=as_json)
            return
        from embridge_cloud.quality import session_quality

        found = session_quality(sealed)
    if as_json:
        typer.echo(json.dumps([_judged(name, summary) for name, summary in found.items()], ensure_ascii=False))
        return
    for name, summary in found.items():
        if not summary.windows:
            typer.echo(f"{name}: too short to judge, a window is {shared_quality.WINDOW_S:g} s long")
            continue
        good = sum(c.grade is shared_quality.Grade.GOOD for c in summary.channels())
        typer.echo(f"{name}: {good} of {summary.spec.n_channels} channels are good over {summary.windows} windows")
        for line in summary.lines():
            typer.echo(line)


@app.command()
def seal(
    session: Annotated[str, typer.Argument(help="Id of a session that is not sealed.")],
    force: Annotated[
        bool, typer.Option("--force", help="Although something never arrived: it is declared lost.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why nothing more will come; stays with the recording.")] = "",
    url: Annotated[
        str | None, typer.Option(help="The cloud's HTTP interface; by default that of the settings.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Seal a session that its edge will never complete, and say what it lacks.

    Sessions that are complete are sealed by themselves. What an edge still holds of one that was sealed by force is
    refused, and kept in the edge's spool and in the quarantine.
    """
    from embridge_shared.cloud_client import connect

    try:
        found = connect(url).post(f"/api/sessions/{_id(session)}/seal", {"force": force, "reason": reason})
    except EmbridgeError as error:
        if error.reason is Reason.TOO_LITTLE_DATA:
            error.exit_code = ExitCode.REJECTED
        raise
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, ranges in found["lacking"].items():
        spans = ", ".join(f"{a}..{b}" for a, b in ranges)
        typer.echo(f"{name:<10} {sum(b - a for a, b in ranges)} never arrived: {spans}")
    typer.echo(f"session {found['session']} is being sealed.", err=True)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise OperatorError(
            f"{text!r} is no id of a session",
            reason=Reason.INVALID,
            hint="GET /api/sessions lists those that are open.",
        ) from None


@app.command()
def clock(session: Which, directory: Folder = None, as_json: AsJson = False) -> None:
    """Show how the clocks of a session ran: each device's by its arrivals, the edge's wall clock by its readings."""
    from embridge_cloud.wallclock import discipline

    found = _pick(_catalogue(directory), session)
    streams = [_clock(found, entry.name) for entry in found.manifest.streams]
    wall = discipline(found)
    if as_json:
        steps = [{"at_s": (at - found.session.host_ns) * 1e-9, "by_s": by * 1e-9} for at, by in wall.steps]
        wall_row = {"readings": len(wall.host_ns), "slew_ppm": wall.slew_ppm, "steps": steps}
        typer.echo(json.dumps({"streams": streams, "wall": wall_row}))
        return
    for row in streams:
        if not row["fitted"]:
            typer.echo(f"{row['stream']:<10} {row['packets']} packets, too few to fit; times are the edge's")
            continue
        typer.echo(
            f"{row['stream']:<10} {row['packets']} packets, {row['skew_ppm']:+.1f} ppm, half of them more than "
            f"{row['delay_ms']:.1f} ms late, count begun anew {row['breaks']} times, "
            f"edge's stamps {row['edge_mean_ms']:+.2f} ± {row['edge_sd_ms']:.2f} ms off"
        )
    typer.echo(f"{'wall clock':<10} {len(wall.host_ns)} readings, slewed by {wall.slew_ppm:+.1f} ppm")
    for at, by in wall.steps:
        typer.echo(f"{'':<10} stepped by {by * 1e-9:+.3f} s before {(at - found.session.host_ns) * 1e-9:.0f} s")


def _clock(sealed: SealedSession, name: str) -> dict[str, Any]:
    from embridge_cloud import clockfit

    arrivals, rate_hz = sealed.arrivals(name), sealed.spec(name).rate_hz
    fitted = clockfit.fit(arrivals, rate_hz)
    if fitted is None:
        return {"stream": name, "packets": len(arrivals), "fitted": False}
    samples = sealed.samples(name)
    off_ms = (samples.t_ns - clockfit.times_ns(sealed, name, samples)) * 1e-6
    return {
        "stream": name,
        "packets": len(arrivals),
        "fitted": True,
        "skew_ppm": fitted.skew_ppm(rate_hz),
        "delay_ms": fitted.delay_ms,
        "breaks": len(fitted.pieces) - 1,
        "edge_mean_ms": float(off_ms.mean()),
        "edge_sd_ms": float(off_ms.std()),
    }


def _judged(name: str, summary: Summary) -> dict[str, Any]:
    import msgspec

    return {
        "stream": name,
        "windows": summary.windows,
        "grade": summary.grade.value,
        "channels": msgspec.to_builtins(summary.channels()),
        "not_computed": {m.value: why for m, why in summary.skipped.items()},
    }


def _live(sealed: SealedSession, *, as_json: bool) -> None:
    """Print what the edge saw."""
    frame = sealed.quality()
    rows = [] if frame is None else frame.collect().to_dicts()
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not rows:
        typer.echo("The edge judged nothing while it recorded; without --live it is judged now.", err=True)
    for row in rows:
        if row["grade"] in ("warn", "bad"):
            seconds = (row["t_ns"] - sealed.session.started_ns) * 1e-9
            typer.echo(f"{seconds:8.1f} s  {row['stream']} {row['channel']:<8} {row['grade']:<5} {row['reasons']}")


def _catalogue(directory: Path | None) -> Catalogue:
    from embridge_cloud.store.sealed import Catalogue
    from embridge_shared import settings

    if directory is not None and not directory.is_dir():
        raise OperatorError(
            f"there is no folder {directory}.", reason=Reason.NOT_FOUND, hint="Sealed sessions lie in STATE_DIR/sealed."
        )
    return Catalogue(directory or settings.load().cloud.state_dir / "sealed")


def _pick(catalogue: Catalogue, text: str) -> SealedSession:
    try:
        return catalogue.get(UUID(text))
    except ValueError:
        found = [i for i in catalogue.ids() if str(i).startswith(text.lower())]
    if len(found) == 1:
        return catalogue.get(found[0])
    raise OperatorError(
        f"{len(found)} sessions start with {text!r}.",
        reason=Reason.NOT_FOUND,
        hint="`embridge session list` shows them.",
    )


def _summary(sealed: SealedSession) -> dict[str, Any]:
    session, closed = sealed.session, sealed.manifest.closed
    repetitions = sealed.repetitions()
    accepted = sum(r.status.value == "accepted" for r in repetitions)
    started = datetime.fromtimestamp(session.started_ns * 1e-9, UTC)
    return {
        "session": str(session.id),
        "edge": session.edge,
        "participant": session.participant.id,
        "purpose": session.purpose.value,
        "protocol": session.protocol,
        "source": session.source,
        "started_at": started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "duration_s": round(
            max((s.total / sealed.spec(s.name).rate_hz for s in sealed.manifest.streams), default=0.0), 3
        ),
        "ended": closed.reason,
        "streams": [s.name for s in sealed.manifest.streams],
        "samples": sum(s.rows for s in sealed.manifest.streams),
        "lost": sum(s.total - s.rows for s in sealed.manifest.streams),
        "accepted": accepted,
        "rejected": len(repetitions) - accepted,
        "content_hash": sealed.content_hash,
    }
