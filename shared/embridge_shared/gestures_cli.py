"""`embridge gesture`: look at the gesture vocabulary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from embridge_shared.gestures import Gesture

app = typer.Typer(
    help="The gesture vocabulary.", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _brief(gesture: Gesture) -> dict[str, str]:
    return {"name": gesture.name, "title": gesture.title, "family": str(gesture.family), "hint": gesture.hint}


@app.command("list")
def list_gestures(
    family: Annotated[str | None, typer.Option(help="Only this family: hand, sign, pinch, grasp, finger.")] = None,
    as_json: Json = False,
) -> None:
    """List the gestures that can be recorded, enrolled and decoded."""
    from embridge_shared.errors import OperatorError
    from embridge_shared.gestures import Family, vocabulary

    if family is not None and family not in list(Family):
        raise OperatorError(
            f"There is no gesture family {family!r}.", hint=f"Families: {', '.join(f.value for f in Family)}."
        )
    chosen = [g for g in vocabulary().values() if family in (None, g.family)]
    if as_json:
        typer.echo(json.dumps([_brief(g) for g in chosen], ensure_ascii=False, indent=2))
        return
    for gesture in chosen:
        typer.echo(f"{gesture.name:<18} {gesture.family.value:<7} {gesture.hint}")


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Name of the gesture.")], as_json: Json = False) -> None:
    """Show one gesture: its joint angles and the shapes most like it."""
    import numpy as np

    from embridge_shared.gestures import find, similarity, vocabulary
    from embridge_shared.hand import JOINTS

    (gesture,) = find([name])
    everything = list(vocabulary().values())
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
