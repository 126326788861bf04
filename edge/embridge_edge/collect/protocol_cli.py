"""`embridge protocol`: what participants can be asked to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from embridge_edge.collect.protocol import Protocol

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

Word = Annotated[str, typer.Argument(metavar="PROTOCOL", help="Name of a built-in one, or a file that ends in .toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@app.callback()
def protocol() -> None:
    """Protocols: which gestures, how often, how long, in which order."""


@app.command("list")
def listing(as_json: AsJson = False) -> None:
    """The protocols that come with EMBridge."""
    from embridge_edge.collect.protocol import built_in

    found = [_load(name) for name in built_in()]
    if as_json:
        _dump([_figures(p) for p in found])
        return
    for p in found:
        typer.echo(
            f"{p.ref:<16} {p.title:<24} {len(p.gestures):>2} gestures, {p.repetitions_total:>3} repetitions, "
            f"{p.duration_s / 60:>4.0f} min, {p.placements} placement{'s' if p.placements > 1 else ''}"
        )


@app.command()
def show(
    word: Word,
    donning: Annotated[int, typer.Option("--placement", min=1, help="Which time the band is put on.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Everything a session of a protocol asks for, in its order."""
    from embridge_edge.collect.protocol import trials

    p = _load(word)
    asked = trials(p, donning)
    if as_json:
        import dataclasses

        _dump({**_figures(p), "trials": [dataclasses.asdict(t) for t in asked]})
        return
    typer.echo(f"{p.ref}  {p.title}\n{p.about}" if p.about else f"{p.ref}  {p.title}")
    split = p.split.value or "undecided"
    typer.echo(f"{p.purpose}, split {split}, {p.placements} placements, {p.duration_s / 60:.0f} min a session")
    block = 0
    for t in asked:
        if t.block != block:
            block = t.block
            typer.echo(f"block {block} of {p.blocks}")
        typer.echo(f"  {t.gesture:<18} {t.repetition:>3}   {t.prepare_s:.2f} + {t.hold_s:.2f} + {t.rest_s:.2f} s")


@app.command()
def check(word: Word) -> None:
    """Read a protocol and say whether it can be used; ends with an error that names every problem."""
    p = _load(word)
    typer.echo(f"{p.ref} is fine: {p.repetitions_total} repetitions, {p.duration_s / 60:.0f} min a session", err=True)


def known_here() -> Iterable[str]:
    """Labels that somebody can be shown on this edge."""
    from embridge_shared.gesture_spec import known
    from embridge_shared.settings import load

    return known(load().edge.state_dir)


def _load(word: str) -> Protocol:
    from embridge_edge.collect.protocol import load

    return load(word, known_here())


def _figures(p: Protocol) -> dict[str, object]:
    import msgspec

    found: dict[str, object] = msgspec.to_builtins(p)
    return {**found, "repetitions_total": p.repetitions_total, "duration_s": p.duration_s}


def _dump(what: object) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(what).decode())
