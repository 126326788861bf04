"""`embridge live`: what the hand does, now."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from embridge_edge.live_run import LiveRun
    from embridge_edge.live_view import View
    from embridge_edge.outputs.catalogue import Means
    from embridge_edge.plan import SessionPlan
    from embridge_shared.clock import Clock
    from embridge_shared.settings import Settings

_GESTURES: Final = ("open", "fist", "point", "peace")

app = typer.Typer(rich_markup_mode=None)

_SOURCE_HELP = (
    "KIND, KIND@ADDRESS, uart:PROFILE.toml, replay:RECORDING, synthetic:WEARER, "
    "or PLAN.toml, of which the first session counts."
)
_RECORD_HELP = "Record it as a session that is delivered; what is typed meanwhile labels the last movement."
_BESIDE_HELP = "With --record: let the release that ran before decode too, and compare."
_OUTPUT_HELP = "websocket[:PORT], osc[:HOST:PORT], lsl or keys:MAPPING.toml; may be given more than once."


@app.command()
def live(
    source: Annotated[str, typer.Argument(help=_SOURCE_HELP)],
    release: Annotated[Path | None, typer.Option(help="Bundle to decode with; by default the installed one.")] = None,
    participant: Annotated[str, typer.Option(help="Wearer whose calibration and gestures serve.")] = "",
    calibrate: Annotated[float, typer.Option(min=5, help="Length of the calibration of who has none, s.")] = 15.0,
    output: Annotated[list[str] | None, typer.Option(help=_OUTPUT_HELP)] = None,
    page: Annotated[Path | None, typer.Option(help="HTML file that the WebSocket server hands out at `/`.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print which keys would be pressed.")] = False,
    false_per_hour: Annotated[
        float | None, typer.Option(help="False activations an hour to put up with; the release's by default.")
    ] = None,
    adapter: Annotated[str, typer.Option(help="Bluetooth adapter; edge.adapter by default.")] = "",
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long; until Ctrl-C by default.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where releases and calibrations live.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    record: Annotated[bool, typer.Option("--record", help=_RECORD_HELP)] = False,
    beside: Annotated[bool, typer.Option("--beside", help=_BESIDE_HELP)] = False,
) -> None:
    """Decode a band and show what the hand does; without --record nothing is kept, and no broker or cloud is needed."""
    from embridge_edge.live_view import opened
    from embridge_edge.outputs.catalogue import Means
    from embridge_shared import logs, settings
    from embridge_shared.clock import SystemClock
    from embridge_shared.errors import OperatorError

    edge = {k: v for k, v in {"state_dir": state_dir, "adapter": adapter or None}.items() if v is not None}
    out = {"websocket_page": page} if page is not None else {}
    config = settings.load(
        **({"edge": edge} if edge else {}),
        **({"outputs": {**out, **({"keys_dry_run": True} if dry_run else {})}} if out or dry_run else {}),
    )
    logs.configure_for(config)
    if config.log.level == "INFO":
        # What people should know is shown; the log says only what is wrong.
        logging.getLogger("embridge_edge").setLevel(logging.WARNING)
    words = tuple(output) if output is not None else config.outputs.enabled
    clock = SystemClock()
    plan, base = _plan(source, participant, seconds, false_per_hour)
    if beside and not record:
        raise OperatorError("--beside compares on what is recorded.", hint="Add --record.")
    if record:
        _recorded(plan, base, config, clock, seconds=seconds, beside=beside, as_json=as_json, release=release)
        return
    run = _run(plan, base, release, config, clock, known=bool(plan.participant), calibrate_s=calibrate)
    view = opened(as_json=as_json)
    means = Means(config.outputs, config.edge.name, clock, show=view.pressed)
    with view:
        asyncio.run(_decode(run, words, means, view, seconds))


def _recorded(
    plan: SessionPlan,
    base: Path,
    config: Settings,
    clock: Clock,
    *,
    seconds: float | None,
    beside: bool,
    as_json: bool,
    release: Path | None,
) -> None:
    from embridge_edge.live_record import record
    from embridge_edge.live_view import opened
    from embridge_shared.errors import OperatorError

    if release is not None:
        raise OperatorError(
            "what is recorded is decoded by the release that runs on this edge.", hint="Leave --release out."
        )
    with opened(as_json=as_json) as view:
        record(plan, base, config, clock, view, seconds=seconds, beside=beside)


def _plan(
    source: str, participant: str, seconds: float | None, false_per_hour: float | None
) -> tuple[SessionPlan, Path]:
    """What words on the command line ask for, and the folder that its paths start from."""
    from embridge_edge.bands.naming import parse
    from embridge_edge.plan import ReplaySource, SessionPlan, SyntheticSource, check_participant, load
    from embridge_shared.errors import ConfigError

    if participant:
        check_participant(participant, "--participant")

    def planned(what: Any, base: Path = Path()) -> tuple[SessionPlan, Path]:
        plan = SessionPlan(
            name="live", participant=participant, source=what, decode=True, false_per_hour=false_per_hour
        )
        return plan, base

    kind, _, rest = source.partition(":")
    if source.endswith(".toml") and kind != "uart":
        return planned(load(Path(source)).session[0].source, Path(source).parent)
    if kind == "replay" and rest:
        return planned(ReplaySource(path=rest, pose=False))
    if kind != "synthetic":
        return planned(parse([source], duration_s=seconds).bands[0])
    if not rest.isdecimal():
        raise ConfigError(f"{source!r} names no simulated wearer", hint='Give their seed, as in "synthetic:1".')
    return planned(
        SyntheticSource(wearer=int(rest), performance=1, gestures=_GESTURES, repetitions=6, shuffled=True, pose=False)
    )


def _run(
    plan: SessionPlan,
    base: Path,
    release: Path | None,
    config: Settings,
    clock: Clock,
    *,
    known: bool,
    calibrate_s: float,
) -> LiveRun:
    from embridge_edge.decode.added import with_added
    from embridge_edge.decode.runtime import Decoder
    from embridge_edge.enrol.desk import bundle_here
    from embridge_edge.live_run import LiveRun

    decoder = Decoder(bundle_here(config.edge.state_dir, release), int8=config.edge.int8)
    if known:
        decoder = with_added(decoder, config.edge.state_dir, plan.participant)
    return LiveRun(plan, decoder, config.edge, clock=clock, base=base, known=known, calibrate_s=calibrate_s)


async def _decode(run: LiveRun, words: tuple[str, ...], means: Means, view: View, seconds: float | None) -> None:
    """Decode until the source ends, the time is over or a signal comes; a second signal ends at once."""
    import signal

    from embridge_edge.decode.decision import Sinks
    from embridge_edge.live_run import Told
    from embridge_edge.outputs.base import Outputs
    from embridge_edge.outputs.catalogue import open_outputs

    sinks = Sinks()
    loop = asyncio.get_running_loop()
    async with Outputs([view, *open_outputs(words, means)], clock=means.clock) as outputs:
        sinks.add(outputs)
        view.serves([lane.output.where for lane in outputs.lanes if lane.output.where])
        task = asyncio.create_task(run.run(sinks, Told(outputs.notice, view.stage)), name="live")
        stop = _stopper(run, task)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        timer = None if seconds is None else loop.call_later(seconds, stop)
        try:
            await asyncio.wait([task])
        finally:
            if timer is not None:
                timer.cancel()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
    if not task.cancelled():
        task.result()
    view.end(run.latencies_s, [lane.sum_up() for lane in outputs.lanes[1:]])


def _stopper(run: LiveRun, task: asyncio.Task[None]) -> Callable[[], None]:
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            task.cancel()
        else:
            asked = True
            run.stop()
            # A band that is gone sends nothing more, and would be waited for.
            asyncio.get_running_loop().call_later(1.0, task.cancel)

    return stop
