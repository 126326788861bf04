"""`embridge session export`, `import` and `verify`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from embridge_shared.errors import DataError, OperatorError, Reason

if TYPE_CHECKING:
    from embridge_cloud.store.sealed import Catalogue
    from embridge_cloud.store.verification import Fault
    from embridge_shared.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Folder = Annotated[Path | None, typer.Option("--dir", help="Folder of sealed sessions; by default the cloud's own.")]


class _Out(StrEnum):
    """What can be written; as `outgoing.ExportFormat`, without what that imports."""

    BIDS = "bids"
    EMG2POSE = "emg2pose"
    PARQUET = "parquet"


class _In(StrEnum):
    """What can be read; as `incoming.ImportFormat`."""

    BIDS = "bids"
    EMG2POSE = "emg2pose"
    NINAPRO = "ninapro"
    PARQUET = "parquet"
    XDF = "xdf"
    LSL_RECORDER = "lsl-recorder"


class _Purpose(StrEnum):
    TRAINING = "training"
    CALIBRATION = "calibration"
    EVALUATION = "evaluation"
    ENROLMENT = "enrolment"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("export")(export_sessions)
    app.command("import")(import_sessions)
    app.command("verify")(verify)


def export_sessions(
    format: Annotated[_Out, typer.Option("--format", help="What to write.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; new or empty.")],
    sessions: Annotated[
        list[str] | None, typer.Argument(help="Session ids, or as much of their starts as is unique.")
    ] = None,
    participant: Annotated[
        list[str] | None, typer.Option("--participant", help="Only of this participant; may be given again.")
    ] = None,
    protocol: Annotated[
        list[str] | None, typer.Option("--protocol", help="Only of this protocol; may be given again.")
    ] = None,
    title: Annotated[str, typer.Option(help="Name of a BIDS dataset.")] = "EMBridge sessions",
    directory: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Write sealed sessions in a format of others, samples exact, after asking whether their participants agreed.

    The export is put on record before anything is written, so that it is found when a participant withdraws.
    """
    from embridge_cloud.exchange.outgoing import Choice, ExportFormat, export, noting
    from embridge_cloud.store.sealed import Catalogue
    from embridge_shared import settings
    from embridge_shared.clock import SystemClock

    configuration = settings.load()
    catalogue = _catalogue(directory, configuration)
    choice = Choice(tuple(sessions or ()), tuple(participant or ()), tuple(protocol or ()))
    chosen = choice.of(catalogue)
    own = Catalogue(configuration.cloud.state_dir / "sealed").directory
    note = noting(configuration, SystemClock().wall_ns)
    if catalogue.directory.resolve() != own.resolve():
        typer.echo(f"Not put on record: {catalogue.directory} is not the store of these settings.", err=True)
        note = _unnoted
    export(chosen, catalogue, format=ExportFormat(format.value), out=out, note=note, title=title)
    if as_json:
        rows = [
            {"session": str(s.id), "participant": s.session.participant.id, "content_hash": s.content_hash}
            for s in chosen
        ]
        typer.echo(json.dumps({"format": format.value, "path": str(out.absolute()), "sessions": rows}))
        return
    for s in chosen:
        typer.echo(f"{s.id}  {s.session.participant.id}")
    typer.echo(f"{len(chosen)} sessions written to {out} as {format.value}", err=True)


def _unnoted(*_: Any) -> None:
    """Sessions of no store of ours are on nobody's record."""


def import_sessions(
    path: Annotated[Path, typer.Argument(help="Folder of the files; of XDF also one file.")],
    format: Annotated[_In, typer.Option("--format", help="What they are.")],
    participant: Annotated[str, typer.Option(help="Code of the participant, instead of the files' own.")] = "",
    consent: Annotated[str, typer.Option(help="Version of the consent text that covers them.")] = "",
    purpose: Annotated[_Purpose | None, typer.Option(help="What the sessions are for; training by default.")] = None,
    base: Annotated[str, typer.Option(help="NinaPro base, as in db7, where the files do not tell.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read everything, store nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring sessions from elsewhere into the store, through the ingester's own door, once however often it is run.

    Works while the cloud is stopped, and while it runs through its broker. Where a session comes from, the digest of
    its file and its licence stay with it as a marker.
    """
    from embridge_cloud.exchange.door import open_door
    from embridge_cloud.exchange.incoming import ImportFormat, named, read
    from embridge_shared import settings
    from embridge_shared.session import Purpose

    if base and format is not _In.NINAPRO:
        raise OperatorError("--base is of NinaPro.", hint="Leave it out.")
    found = read(path, ImportFormat(format.value), base=base)
    wanted = Purpose(purpose.value) if purpose else None
    ready = (named(r, participant=participant, consent_version=consent, purpose=wanted) for r in found)
    rows: list[dict[str, Any]] = []
    if dry_run:
        for recording in ready:
            rows.append(_imported(recording, "read", recording.content_hash, quiet=as_json))
    else:
        with open_door(settings.load()) as door:
            for recording in ready:
                outcome = door.bring(recording)
                rows.append(_imported(recording, outcome.arrival.value, outcome.content_hash, quiet=as_json))
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        typer.echo(f"{len(rows)} sessions {'read' if dry_run else 'in the store'}", err=True)


def _imported(recording: Any, arrival: str, content: str, *, quiet: bool) -> dict[str, Any]:
    session = recording.session
    samples = sum(len(d.index) for d in recording.streams)
    if not quiet:
        streams = ", ".join(f"{s.name} {s.n_channels} × {s.rate_hz:g} Hz" for s in session.streams)
        typer.echo(f"{session.id}  {arrival:<13}  {session.participant.id:<12} {samples:9d} samples  {streams}")
    return {
        "session": str(session.id),
        "arrival": arrival,
        "participant": session.participant.id,
        "source": session.source,
        "samples": samples,
        "content_hash": content,
    }


def verify(
    sessions: Annotated[list[str] | None, typer.Argument(help="Sessions; by default all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All sessions, as is the default.")] = False,
    directory: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Compute every digest, count and order of sealed sessions anew and name what is wrong.

    Files, samples, their continuity against the declared gaps, times, clock pairs, events, quality and the manifest
    itself. Ends with 1 where anything is wrong.
    """
    from embridge_shared import settings

    configuration = settings.load()
    catalogue = _catalogue(directory, configuration)
    if every and sessions:
        raise OperatorError("--all leaves no session to name.", hint="Leave one of them out.")
    record = _record(configuration) if directory is None else {}
    folders = sorted({*_folders(catalogue), *record})
    chosen = [_one(catalogue, folders, text) for text in sessions] if sessions else folders
    if not chosen:
        typer.echo(f"No session is sealed in {catalogue.directory} yet.", err=True)
    rows = []
    for session in chosen:
        faults = _faults(catalogue, session, record.get(session, ""))
        rows.append(
            {"session": str(session), "ok": not faults, "fault": _told(faults), "faults": [_row(f) for f in faults]}
        )
        if not as_json:
            typer.echo(f"{session}  {'ok' if not faults else ''}".rstrip())
            for fault in faults:
                typer.echo(f"  {fault.kind.value:<13} {fault.where} {fault.what}")
    if as_json:
        typer.echo(json.dumps(rows))
    bad = sum(not row["ok"] for row in rows)
    if bad:
        raise DataError(
            f"{bad} of {len(rows)} sessions are damaged.",
            reason=Reason.HASH_MISMATCH,
            hint="Restore their folders from a copy; do not train on them.",
        )


def _told(faults: list[Fault]) -> str:
    return "; ".join(f"{f.where} {f.what}" for f in faults)


def _row(fault: Fault) -> dict[str, str]:
    return {"kind": fault.kind.value, "where": fault.where, "what": fault.what}


def _record(configuration: Settings) -> dict[UUID, str]:
    """What the store of these settings says it has sealed, content hash by session; nothing where nobody can ask."""
    from embridge_cloud.context import CloudPaths
    from embridge_cloud.store.failures import StoreLockedError
    from embridge_cloud.store.hot import HotStore

    path = CloudPaths.of(configuration).hot
    if not path.is_file():
        return {}
    try:
        with HotStore(path) as store:
            return dict(store.read.rows("SELECT session, content_hash FROM sealed_sessions"))
    except StoreLockedError:
        typer.echo("The cloud runs, so folders are not compared with its record.", err=True)
        return {}


def _faults(catalogue: Catalogue, session: UUID, recorded: str) -> list[Fault]:
    """What is wrong with a session, a manifest that cannot be read included; `recorded` is its hash in the store."""
    from embridge_cloud.store.manifest import MANIFEST
    from embridge_cloud.store.sealed import SealedSession
    from embridge_cloud.store.verification import Fault, FaultKind, faults

    folder = catalogue.directory / str(session)
    if not (folder / MANIFEST).is_file():
        return [Fault(FaultKind.MISSING_FILE, MANIFEST, "is missing")]
    try:
        sealed = SealedSession(folder)
        found = faults(sealed)
        if recorded and sealed.content_hash != recorded:
            found.append(Fault(FaultKind.RECORD, MANIFEST, "its content is not what the store has on record"))
        return found
    except DataError as error:
        return [Fault(FaultKind.UNREADABLE, MANIFEST, error.message)]


def _folders(catalogue: Catalogue) -> list[UUID]:
    """Every folder that is named as a session is, a manifest in it or not."""
    found = []
    for path in catalogue.directory.iterdir() if catalogue.directory.is_dir() else ():
        try:
            found.append(UUID(path.name))
        except ValueError:
            continue
    return sorted(found)


def _one(catalogue: Catalogue, folders: list[UUID], text: str) -> UUID:
    found = [i for i in folders if str(i).startswith(text.lower())]
    if len(found) != 1:
        raise OperatorError(
            f"{len(found)} sessions of {catalogue.directory} start with {text!r}.",
            reason=Reason.NOT_FOUND,
            hint="`embridge session list` shows them.",
        )
    return found[0]


def _catalogue(directory: Path | None, configuration: Settings) -> Catalogue:
    from embridge_cloud.store.sealed import Catalogue

    if directory is not None and not directory.is_dir():
        raise OperatorError(
            f"there is no folder {directory}.", reason=Reason.NOT_FOUND, hint="Sealed sessions lie in STATE_DIR/sealed."
        )
    return Catalogue(directory or configuration.cloud.state_dir / "sealed")
