"""`embridge enrol`: teach the wearer's own gestures, look at them, take them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _OrGesture(TyperGroup):
    """Takes a word that is no verb for the gesture to enrol: `embridge enrol NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["gesture", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_OrGesture,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Teach a wearer's own gestures, test them, and take them back.",
)

Who = Annotated[str, typer.Option("--participant", "-p", help="Pseudonym of the wearer.")]
State = Annotated[Path | None, typer.Option("--state-dir", help="State directory of the agent, which must not run.")]
ReleaseFile = Annotated[Path | None, typer.Option("--release", help="A release in a file; by default this edge's.")]
BandWord = Annotated[str, typer.Option("--band", help="KIND, KIND@ADDRESS or uart:PROFILE.toml.")]
Adapter = Annotated[str, typer.Option(help="Bluetooth adapter; edge.adapter by default.")]
Forearm = Annotated[int | None, typer.Option("--forearm", help="Let simulated wearer number SEED do it instead.")]
Replay = Annotated[Path | None, typer.Option("--replay", help="Take repetitions from a recording instead.")]
Rate = Annotated[float | None, typer.Option("--rate", help="Its sample rate, where the file does not tell, Hz.")]
Performance = Annotated[int, typer.Option(help="Seed of what the simulated wearer does this time.")]
Acts = Annotated[str, typer.Option(help="Hand shape the simulated wearer makes for gestures without one.")]
Speed = Annotated[float, typer.Option(min=0, help="Of the simulated wearer; 1 is real time, 0 as fast as possible.")]
Repetitions = Annotated[int, typer.Option("--repetitions", "-n", min=1, max=20, help="Repetitions that are wanted.")]
Yes = Annotated[bool, typer.Option("--yes", help="Keep what was taken without asking.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print events as JSON lines.")]


@app.command()
def gesture(
    name: Annotated[str, typer.Argument(help="Gesture: one of the release, of the library, or a new name.")],
    participant: Who,
    repetitions: Repetitions = 3,
    pose: Annotated[Path | None, typer.Option(help="A pose file that says what the hand does.")] = None,
    from_template: Annotated[str, typer.Option(help="A gesture of the library whose pose it has.")] = "",
    test: Annotated[bool, typer.Option("--test", help="Follow with a test round.")] = False,
    band: BandWord = "",
    adapter: Adapter = "",
    forearm: Forearm = None,
    replay: Replay = None,
    rate: Rate = None,
    performance: Performance = 1,
    acts: Acts = "",
    speed: Speed = 1.0,
    release: ReleaseFile = None,
    state_dir: State = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Enrol a gesture; `embridge enrol NAME` is short for it.

    A few repetitions are led through, each taken or refused with a reason, then kept if you agree. A new name needs no
    pose: it may then lie anywhere until it is performed.
    """
    from embridge_edge.enrol.sitting_cli import Asked, enrol

    enrol(
        Asked(
            participant,
            band,
            adapter,
            forearm,
            performance,
            acts,
            speed,
            release,
            state_dir,
            yes,
            as_json,
            replay,
            rate,
        ),
        name,
        repetitions=repetitions,
        pose=pose,
        template=from_template,
        test=test,
    )


@app.command("test")
def round_(
    participant: Who,
    each: Annotated[int, typer.Option(min=1, max=10, help="How often each gesture is asked for.")] = 3,
    names: Annotated[list[str] | None, typer.Option("--gesture", help="Only this; again for each.")] = None,
    seed: Annotated[int, typer.Option(help="Of the order of the prompts.")] = 0,
    band: BandWord = "",
    adapter: Adapter = "",
    forearm: Forearm = None,
    performance: Performance = 2,
    acts: Acts = "",
    speed: Speed = 1.0,
    release: ReleaseFile = None,
    state_dir: State = None,
    as_json: AsJson = False,
) -> None:
    """Ask for gestures in random order and say what is decided; nothing is kept but the recording."""
    from embridge_edge.enrol.sitting_cli import Asked, try_out

    try_out(
        Asked(participant, band, adapter, forearm, performance, acts, speed, release, state_dir, True, as_json),
        tuple(names or ()),
        each=each,
        seed=seed,
    )


@app.command("list")
def list_gestures(
    participant: Annotated[str, typer.Option("--participant", "-p", help="One wearer; all by default.")] = "",
    state_dir: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what wearers enrolled on this edge."""
    from embridge_edge.enrol.store import wearers

    folder = _folder(state_dir)
    rows = [row for who in ([participant] if participant else wearers(folder)) for row in _rows(folder, who)]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    if not rows:
        typer.echo("Nothing is enrolled here.", err=True)
    for row in rows:
        typer.echo(f"{row['participant']:<16} {_line(row)}")


@app.command()
def show(
    participant: Who, state_dir: State = None, as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False
) -> None:
    """Show a wearer's gestures, the journal, and what decodes for them."""
    import msgspec

    from embridge_edge.enrol.choice import load

    store = _store(state_dir, participant)
    choice = load(store)
    if as_json:
        document = {
            "gestures": _rows(_folder(state_dir), participant),
            "journal": [msgspec.to_builtins(e) for e in store.entries()],
            "serves": None if choice is None else msgspec.to_builtins(choice),
        }
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
        return
    for row in _rows(_folder(state_dir), participant):
        typer.echo(_line(row))
    for entry in store.entries():
        what = f"{len(entry.put)} repetitions" if entry.put else ", ".join((*entry.clear, *entry.undefine)) or "-"
        typer.echo(f"  {entry.stamp.lamport:4d}  {entry.verb.value:<9} {entry.stamp.edge:<12} {what}")
    if choice is not None and choice.serves:
        right = "" if choice.accuracy is None else f", {choice.accuracy:.2f} of their repetitions right"
        typer.echo(
            f"decodes: {choice.serves.value} of {choice.prior_of or choice.release}{right}. {choice.said}".rstrip()
        )


@app.command()
def undo(participant: Who, state_dir: State = None) -> None:
    """Take back the last change of a wearer's gestures."""
    _change(participant, state_dir, "undo")


@app.command()
def redo(participant: Who, state_dir: State = None) -> None:
    """Do again what was undone last."""
    _change(participant, state_dir, "redo")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Gesture.")], participant: Who, state_dir: State = None) -> None:
    """Take a gesture away with its repetitions; `embridge enrol undo` brings it back."""
    _change(participant, state_dir, "remove", name)


@app.command()
def merge(
    document: Annotated[Path, typer.Argument(help="What `embridge participant gestures --json` printed.")],
    participant: Who,
    state_dir: State = None,
) -> None:
    """Take in what other edges know of a wearer: definitions, removals, undoing.

    Repetitions that only another edge holds are known of and not decoded with.
    """
    import msgspec

    from embridge_edge.enrol.store import Shared
    from embridge_shared.errors import DataError, OperatorError, Reason

    try:
        found = msgspec.json.decode(document.read_bytes(), type=Shared)
    except OSError as error:
        raise OperatorError(f"{document} cannot be read: {error.strerror}.", reason=Reason.NOT_FOUND) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{document.name}: {error}.", reason=Reason.MALFORMED) from error
    if found.participant != participant:
        raise DataError(f"{document.name} is of another participant.", reason=Reason.FOREIGN)
    new = _store(state_dir, participant).merge(found.entries)
    typer.echo(f"{new} entries were new.", err=True)


def _change(participant: str, state_dir: Path | None, verb: str, *arguments: str) -> None:
    """Change a journal and put the entry into the spool."""
    import asyncio

    from embridge_edge.enrol.sitting import deliver
    from embridge_shared.clock import SystemClock

    store = _store(state_dir, participant)
    entry = getattr(store, verb)(*arguments)
    asyncio.run(deliver(store, _config(state_dir).edge, SystemClock()))
    left = ", ".join(store.held().labels) or "nothing"
    typer.echo(f"{entry.verb.value}: {participant} has {left}.", err=True)


def _rows(folder: Path, participant: str) -> list[dict[str, Any]]:
    store = _store(folder, participant)
    held = store.held()
    return [
        {
            "participant": participant,
            "label": label,
            "repetitions": len(held.of(label)),
            "here": sum(store.has(r.hash) for r in held.of(label)),
            "added": label in held.gestures,
            "source": _source(held.gestures.get(label)),
        }
        for label in held.labels
    ]


def _line(row: dict[str, Any]) -> str:
    away = row["repetitions"] - row["here"]
    where = f", {away} of them on another edge" if away else ""
    return f"{row['label']:<20} {row['repetitions']:3d} repetitions{where}  {row['source']}"


def _source(added: Any) -> str:
    if added is None:
        return "known gesture"
    return f"posture from {added.source}" if added.posture is not None else "no posture"


def _config(state_dir: Path | None) -> Any:
    from embridge_shared import settings

    return settings.load(**({"edge": {"state_dir": state_dir}} if state_dir is not None else {}))


def _folder(state_dir: Path | None) -> Path:
    return Path(_config(state_dir).edge.state_dir)


def _store(state_dir: Path | None, participant: str) -> Any:
    from embridge_edge.enrol.store import WearerStore
    from embridge_edge.plan import check_participant
    from embridge_shared.clock import SystemClock

    check_participant(participant, "--participant")
    config = _config(state_dir)
    return WearerStore(config.edge.state_dir, participant, edge=config.edge.name, clock=SystemClock())
