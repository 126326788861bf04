"""`embridge gesture`: look at the gesture vocabulary, and at what was added to it on this edge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from embridge_shared.gestures import Gesture

app = typer.Typer(
    help="The gesture vocabulary.", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StateDir = Annotated[Path | None, typer.Option(help="State directory of the edge.")]
Name = Annotated[str, typer.Argument(help="Name of the gesture.")]
Out = Annotated[Path | None, typer.Option(help="File to write; by default to standard output.")]


def _known(state_dir: Path | None) -> dict[str, Gesture]:
    """The vocabulary and what was added for everyone here."""
    from embridge_shared.gesture_spec import known
    from embridge_shared.settings import load

    return known(state_dir or load().edge.state_dir)


def _find(name: str, state_dir: Path | None) -> Gesture:
    from embridge_shared.gestures import find

    found = _known(state_dir).get(name)
    return found if found is not None else find([name])[0]


def _put(text: str, out: Path | None) -> None:
    from embridge_shared.archive import write_atomically

    if out is None:
        typer.echo(text, nl=False)
        return
    write_atomically(out, text.encode())
    typer.echo(f"wrote {out}", err=True)


def _brief(gesture: Gesture) -> dict[str, str]:
    return {"name": gesture.name, "title": gesture.title, "family": str(gesture.family), "hint": gesture.hint}


@app.command("list")
def list_gestures(
    family: Annotated[
        str | None, typer.Option(help="Only this family: hand, sign, pinch, grasp, finger; own: added here.")
    ] = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the gestures that can be recorded, enrolled and decoded."""
    from embridge_shared.errors import OperatorError
    from embridge_shared.gestures import Family

    if family is not None and family not in list(Family):
        raise OperatorError(
            f"There is no gesture family {family!r}.", hint=f"Families: {', '.join(f.value for f in Family)}."
        )
    chosen = [g for g in _known(state_dir).values() if family in (None, g.family)]
    if as_json:
        typer.echo(json.dumps([_brief(g) for g in chosen], ensure_ascii=False, indent=2))
        return
    for gesture in chosen:
        typer.echo(f"{gesture.name:<18} {gesture.family.value:<7} {gesture.hint}")


@app.command("show")
def show(name: Name, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show one gesture: its joint angles and the shapes most like it."""
    import numpy as np

    from embridge_shared.gestures import similarity
    from embridge_shared.hand import JOINTS

    gesture = _find(name, state_dir)
    everything = list(_known(state_dir).values())
    row = similarity(everything)[[g.name for g in everything].index(name)]
    near = [(everything[i].name, round(float(row[i]), 2)) for i in np.argsort(-row) if everything[i].name != name]
    degrees = {joint: round(float(angle), 1) for joint, angle in zip(JOINTS, np.rad2deg(gesture.pose), strict=True)}
    if as_json:
        document = {**_brief(gesture), "pose_deg": degrees, "nearest": dict(near[:3])}
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
        return
    typer.echo(f"{gesture.title} ({gesture.name}, {gesture.family.value})\n{gesture.hint}\n")
    for joint, angle in degrees.items():
        typer.echo(f"  {joint:<15} {angle:>6.0f}°")
    typer.echo("\nMost alike: " + ", ".join(f"{other} {value:.2f}" for other, value in near[:3]))


@app.command("export")
def export(name: Name, out: Out = None, state_dir: StateDir = None) -> None:
    """Write a gesture as a pose file, to change and to add under another name."""
    from embridge_shared.pose_file import write_pose

    _put(write_pose(_find(name, state_dir)).decode(), out)


@app.command("picture")
def picture(
    name: Name,
    out: Out = None,
    side: Annotated[Literal["left", "right"], typer.Option(help="Which hand.")] = "right",
    view: Annotated[Literal["palm", "side", "both"], typer.Option(help="From where.")] = "both",
    state_dir: StateDir = None,
) -> None:
    """Draw a gesture as SVG, legible on light and dark pages."""
    from embridge_shared.hand.picture import VIEWS, draw
    from embridge_shared.session import Side

    gesture = _find(name, state_dir)
    views = VIEWS if view == "both" else (view,)
    _put(draw(gesture.pose, title=gesture.title, side=Side(side), views=views), out)


@app.command("gallery")
def gallery(
    folder: Annotated[Path, typer.Argument(help="Gets a picture a gesture, NAME.svg.")],
    page: Annotated[
        Path | None, typer.Option(help="Markdown page that shows them all; by default gestures.md in the folder.")
    ] = None,
) -> None:
    """Draw the whole vocabulary that ships with EMBridge."""
    from embridge_shared.gallery import write_gallery

    n = write_gallery(page or folder / "gestures.md", folder)
    typer.echo(f"wrote {n} pictures to {folder}", err=True)
