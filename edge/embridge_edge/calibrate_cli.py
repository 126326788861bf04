"""`embridge calibrate`: about a minute of known gestures adapts the decoder to a wearer."""

from __future__ import annotations

from typing import Annotated

import typer

from embridge_edge.enrol_cli import (
    Adapter,
    AsJson,
    BandWord,
    Forearm,
    Performance,
    Rate,
    ReleaseFile,
    Replay,
    Speed,
    State,
    Who,
    Yes,
)

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def calibrate(
    participant: Who,
    gestures: Annotated[
        list[str] | None, typer.Option("--gesture", help="Only this; again for each. Four unlike ones by default.")
    ] = None,
    repetitions: Annotated[int, typer.Option("--repetitions", "-n", min=1, max=10, help="Of each gesture.")] = 2,
    band: BandWord = "",
    adapter: Adapter = "",
    forearm: Forearm = None,
    replay: Replay = None,
    rate: Rate = None,
    performance: Performance = 0,
    speed: Speed = 1.0,
    release: ReleaseFile = None,
    state_dir: State = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Adapt the decoder to a wearer: about a minute of known gestures, no glove.

    Fits the wearer's scale and keeps the repetitions; `embridge enrol undo` takes them back.
    """
    from embridge_edge.enrol.sitting_cli import Asked
    from embridge_edge.enrol.sitting_cli import calibrate as run

    run(
        Asked(
            participant, band, adapter, forearm, performance, "", speed, release, state_dir, yes, as_json, replay, rate
        ),
        tuple(gestures or ()),
        repetitions=repetitions,
    )
