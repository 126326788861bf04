"""`embridge gesture add | remove | similar`: the verbs that need an edge and its release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from embridge_edge.decode.alike import Alike
    from embridge_edge.vocabulary import Vocabulary
    from embridge_shared.gesture_spec import GestureSpec
    from embridge_shared.pose_file import Posture

app = typer.Typer(
    help="The gesture vocabulary.", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)

_TEMPLATE = "--from-template"

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StateDir = Annotated[Path | None, typer.Option(help="State directory of the edge.")]
ReleaseFile = Annotated[
    Path | None, typer.Option("--release", help="Compare under this release file; by default the one the edge runs.")
]
Participant = Annotated[str | None, typer.Option(help="Whose gesture it is, by pseudonym; by default everyone's.")]


class _Add(TyperCommand):
    """Lets `--from-template` stand without a value: the template of the gesture's own name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        if _TEMPLATE in given:
            at = given.index(_TEMPLATE)
            if at + 1 == len(given) or given[at + 1].startswith("-"):
                given.insert(at + 1, "")
        return super().parse_args(ctx, given)


@app.command(cls=_Add)
def add(
    name: Annotated[str, typer.Argument(help="What the decoder shall call it.")],
    pose: Annotated[
        Path | None,
        typer.Option("--from-pose", "--from", help="Take the posture from this JSON file.", metavar="POSE.JSON"),
    ] = None,
    recording: Annotated[
        str | None,
        typer.Option(
            "--from-recording",
            help="Take the mean posture from t0 to t1, s, of a take of this edge or a sealed session's folder.",
            metavar="SESSION@t0..t1",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(_TEMPLATE, help="Take a hand shape of the vocabulary; that of the same NAME where none is named."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title for people.")] = None,
    hint: Annotated[str | None, typer.Option(help="How to make it, in one sentence.")] = None,
    participant: Participant = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="For everyone on this edge; the default.")] = False,
    glove: Annotated[
        Path | None, typer.Option(help="The wearer's glove calibration, for counts of a glove.", metavar="FILE")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace one of the same name; keep one too near another.")
    ] = False,
    release: ReleaseFile = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Add a gesture by its hand pose. No EMG of it is needed; sessions that begin from now on decode it."""
    import dataclasses

    from embridge_shared.errors import OperatorError

    if everyone and participant is not None:
        raise OperatorError("a gesture is one participant's or everyone's.", hint="Give one of the two.")
    words = _vocabulary(state_dir, release)
    spec = _spec(name, (pose, recording, template), (title, hint), glove, state_dir)
    done = words.add(spec, participant=participant, force=force)
    if as_json:
        body = {**dataclasses.asdict(done), "source": spec.source}
        typer.echo(json.dumps(body, ensure_ascii=False, indent=2))
    for pair in done.doubtful:
        typer.echo(f"warning: {pair}", err=True)
    whose = f"for {participant}" if participant else "for everyone on this edge"
    typer.echo(f"added {name}, from {spec.source}, {whose}; the next session decodes it.", err=True)
    if not done.release:
        typer.echo("no release is installed here yet: it was compared by shape alone.", err=True)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="An added gesture.")],
    participant: Participant = None,
    state_dir: StateDir = None,
) -> None:
    """Take an added gesture away; a participant's can be brought back with `embridge enrol undo`."""
    _vocabulary(state_dir, None, compare=False).remove(name, participant=participant)
    typer.echo(f"removed {name}.", err=True)


@app.command()
def similar(
    names: Annotated[
        list[str] | None, typer.Argument(help="Gestures to compare; by default all that are decoded.")
    ] = None,
    participant: Participant = None,
    release: ReleaseFile = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Compare gestures as the release sees them, and warn of pairs that cannot be told apart.

    Without a release, joint angles are compared.
    """
    words = _vocabulary(state_dir, release)
    found = words.compare(tuple(names or ()), participant=participant)
    by = words.bundle.manifest.release if words.bundle is not None else "joint angles"
    typer.echo(json.dumps(_document(found, by), indent=2) if as_json else _table(found))
    typer.echo(f"compared by {by}", err=True)
    for pair in found.doubtful():
        word = "may be taken for each other" if pair.apart else "cannot be told apart"
        typer.echo(f"warning: {word}: {pair}", err=True)


def _vocabulary(state_dir: Path | None, release: Path | None, *, compare: bool = True) -> Vocabulary:
    from embridge_edge.update.slots import FOLDER, Slots
    from embridge_edge.vocabulary import Vocabulary
    from embridge_shared.clock import SystemClock
    from embridge_shared.release import read_bundle
    from embridge_shared.settings import load

    config = load().edge
    folder = state_dir or config.state_dir
    bundle = None
    if release is not None:
        bundle = read_bundle(release)
    elif compare and (folder / FOLDER).is_dir():
        bundle = Slots(folder / FOLDER).load()
    return Vocabulary(folder, edge=config.name, clock=SystemClock(), bundle=bundle)


def _spec(
    name: str,
    sources: tuple[Path | None, str | None, str | None],
    words: tuple[str | None, str | None],
    glove: Path | None,
    state_dir: Path | None,
) -> GestureSpec:
    from embridge_shared.clock import SystemClock
    from embridge_shared.gesture_spec import GestureSpec, check_label

    check_label(name)
    found, source = _posture(name, sources, glove, state_dir)
    title, hint = (
        given if given is not None else own for given, own in zip(words, (found.title, found.hint), strict=True)
    )
    return GestureSpec(
        label=name,
        title=title,
        hint=hint,
        posture=tuple(found.pose.tolist()),
        spread=None if found.spread is None else tuple(found.spread.tolist()),
        source=source,
        created_ns=SystemClock().wall_ns(),
    )


def _posture(
    name: str, sources: tuple[Path | None, str | None, str | None], glove: Path | None, state_dir: Path | None
) -> tuple[Posture, str]:
    """The posture that was asked for, and where it is from."""
    from embridge_edge.pose.gloves import load_calibration
    from embridge_edge.recorded_pose import Moment, posture_at
    from embridge_shared.errors import OperatorError
    from embridge_shared.gestures import find
    from embridge_shared.pose_file import Posture, read_pose
    from embridge_shared.settings import load

    pose, recording, template = sources
    if sum(s is not None for s in sources) != 1:
        raise OperatorError(
            "a gesture's posture comes from one place.",
            hint=f"Give --from FILE, --from-recording SESSION@t0..t1 or {_TEMPLATE} [TEMPLATE].",
        )
    calibration = load_calibration(glove) if glove is not None else None
    if pose is not None:
        return read_pose(pose, glove=calibration), f"pose {pose.name}"
    if recording is not None:
        config = load().edge
        moment = Moment.parse(recording)
        spool = (state_dir or config.state_dir) / "spool.db"
        found = posture_at(moment, spool, max_bytes=config.spool_max_bytes, glove=calibration)
        return found, f"recording {Path(moment.session).name}@{moment.begin_s:g}..{moment.end_s:g}"
    (known,) = find([template or name])
    return Posture(known.pose, title=known.title, hint=known.hint), f"template {known.name}"


def _document(found: Alike, by: str) -> dict[str, Any]:
    import dataclasses

    matrices = {"similarity": found.cosine, "mixed": found.mixed, "expected_confusion": found.mistaken}
    return {
        "by": by,
        "gestures": list(found.labels),
        **{
            name: None if m is None else [[round(float(v), 4) for v in row] for row in m]
            for name, m in matrices.items()
        },
        "warnings": [{**dataclasses.asdict(p), "apart": p.apart} for p in found.doubtful()],
    }


def _table(found: Alike) -> str:
    """Similarity in percent; one column a gesture, numbered as the rows are."""
    wide = max(len(n) for n in found.labels)
    head = " " * (wide + 5) + " ".join(f"{i + 1:>4}" for i in range(len(found.labels)))
    rows = [
        f"{i + 1:>3}  {name:<{wide}}" + " ".join(f"{100 * v:>4.0f}" for v in row)
        for i, (name, row) in enumerate(zip(found.labels, found.cosine, strict=True))
    ]
    return "\n".join([head, *rows])
