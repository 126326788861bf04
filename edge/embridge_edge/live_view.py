"""What `embridge live` shows: one calm line for people, or JSON lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import typer

from embridge_edge.decode.decision import Decided
from embridge_edge.outputs import messages
from embridge_edge.outputs.base import Output, Pace
from embridge_edge.outputs.messages import Notice
from embridge_shared.decision import UNKNOWN
from embridge_shared.gestures import REST_LABEL
from embridge_shared.session import GestureChange

_HZ: Final = 8.0
_BAR: Final = 10
_WIDTH: Final = 18
_STAGES: Final = {
    "connecting": "connecting …",
    "calibrating": "no calibration yet: rest a moment, then make every gesture once or twice …",
    "decoding": "decoding",
}


class View(Output):
    """Shows decisions. Use it as a context manager around everything else that writes."""

    name = "view"

    def __enter__(self) -> Self:
        """Take the terminal."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""

    def stage(self, name: str) -> None:
        """Say what goes on."""
        typer.echo(_STAGES[name], err=True)

    def notice(self, notice: Notice) -> None:
        """Say it."""
        typer.echo(_noticed(notice), err=True)

    def pressed(self, text: str) -> None:
        """Say what a dry run would press."""
        typer.echo(f"would press: {text}", err=True)

    def serves(self, urls: Sequence[str]) -> None:
        """Say where decisions are served."""
        for url in urls:
            typer.echo(f"decisions at {url}", err=True)

    def end(self, latencies_s: Sequence[float], outputs: Sequence[str]) -> None:
        """Sum up."""
        if latencies_s:
            p50, p99 = 1e3 * np.percentile(latencies_s, [50, 99])
            typer.echo(f"{len(latencies_s)} windows, {p50:.1f} ms each, 99 of 100 within {p99:.1f} ms", err=True)
        for line in outputs:
            typer.echo(line, err=True)


class JsonView(View):
    """Every change and every decision as a line of JSON on standard output."""

    def __init__(self) -> None:
        self._last: Decided | None = None

    async def tell(self, decided: Decided) -> None:
        """Print it."""
        last, self._last = self._last, decided
        if last is None or last.labels != decided.labels:
            typer.echo(messages.encode(messages.hello_of(decided, "", 1e9)))
        for gesture in messages.gestures_of(decided):
            typer.echo(messages.encode(gesture))
        typer.echo(messages.encode(messages.update_of(decided)))

    def notice(self, notice: Notice) -> None:
        """Print it."""
        typer.echo(messages.encode(notice))


class EventView(View):
    """Every gesture that ends or is held as a line on standard output, for a pipe or a log."""

    async def tell(self, decided: Decided) -> None:
        """Print what changed."""
        for event in decided.decision.events:
            lasted = f" after {event.lasted_s:.2f} s" if event.kind is not GestureChange.ONSET else ""
            typer.echo(f"{event.kind.value:8} {event.label} {event.probability:.2f}{lasted}")


class LineView(View):
    """One line that is drawn anew, a few times a second."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)
        self._pace = Pace(_HZ)
        self._said = ""

    def __enter__(self) -> Self:
        """Take the line."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last line standing."""
        self._live.stop()

    async def tell(self, decided: Decided) -> None:
        """Draw."""
        for event in decided.decision.events:
            if event.kind is GestureChange.RELEASE:
                self._said = f"{event.label} for {event.lasted_s:.1f} s"
        if self._pace.due(decided.t_ns) or decided.decision.events:
            self._live.update(_line(decided, self._said), refresh=True)


def opened(*, as_json: bool) -> View:
    """The view that fits: JSON lines, one line of a terminal, or a line a gesture."""
    if as_json:
        return JsonView()
    return LineView() if sys.stderr.isatty() and sys.stdout.isatty() else EventView()


def _line(decided: Decided, said: str) -> Any:
    from rich.text import Text

    d = decided.decision
    on = d.label not in (REST_LABEL, UNKNOWN)
    line = Text()
    line.append(f"{d.label:<{_WIDTH}}", style="bold" if on else "dim")
    full = round(_BAR * d.probability) if on else 0
    line.append("█" * full + "·" * (_BAR - full), style="green" if on else "dim")
    line.append(f" {d.probability:.2f}" if on else "     ")
    if d.label == UNKNOWN:
        line.append(f"  most like {d.best}", style="dim")
    elif said:
        line.append(f"  last: {said}", style="dim")
    return line


def _noticed(notice: Notice) -> str:
    text = notice.text if notice.text.endswith(".") else f"{notice.text}."
    return f"{notice.about}: {text} {notice.hint}".rstrip()
