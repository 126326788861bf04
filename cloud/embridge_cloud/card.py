"""The model card that travels in a release."""

from __future__ import annotations

from embridge_shared.decision import DecisionConfig
from embridge_shared.release import Manifest

_NONE = "{}: nobody fitted how to decide; scores are recorded alone.\n"
_SHOWN = 12
_SEEN = {True: "yes", False: "**no, pose alone**"}


def model_card(manifest: Manifest) -> str:
    """Markdown that tells an operator what a release is, what it was made of and what it was measured to do."""
    p = manifest.preprocess
    rows = "\n".join(
        f"| `{g.label}` | {g.title} | {_SEEN[g.emg_seen]} | {g.prototypes} | {g.provenance} |"
        for g in manifest.gestures
    )
    figures = "\n".join(f"| {name} | {value:.4g} |" for name, value in sorted(manifest.metrics.items()))
    return f"""# {manifest.release}

Decodes {len(manifest.gestures)} gestures from {manifest.channels} EMG channels, in windows of {p.window_s:.2f} s every
{p.hop_s:.2f} s, at a feature rate of {p.front_end.rate_hz:g} Hz.

| label | gesture | EMG in training | prototypes | from |
|---|---|---|---|---|
{rows}

## Made of

{len(manifest.lineage.sessions)} sessions of {len(manifest.lineage.participants)} participants; snapshot
`{manifest.lineage.snapshot}`; recipe `{manifest.lineage.config}`; seed {manifest.lineage.seed}; code {manifest.code};
parent {f"`{manifest.parent}`" if manifest.parent else "none"}.

Participants, by codes that only who holds the sessions can read: {_some(manifest.lineage.participants)}.
Sessions: {_some(manifest.lineage.sessions)}.

Head: **{manifest.head}**. {manifest.head_reason}

## Measured

| figure | value |
|---|---|
{figures}

## Decides

{_decides("Scores", manifest.decision)}
{_decides("A model made the wearer's own", manifest.wearer_decision)}
Figures named `decision.…` were measured on people who chose no threshold: false activations an hour of rest,
share of performances told, share of what was told that was right, seconds to the right gesture, calibration error.

## Limits

A wearer needs a calibration (rest and known gestures) before decoding. Scores are similarities; probabilities come of
them by the temperature and the floor above. Whether it became a release was decided on people of whom nothing is in
here: the gate's own card is kept beside the job that made it.
A `learn.linear_l2` above 0 says that the queries build on a closed-form linear path, which goes beyond the published
method and carries much of the result on gestures whose EMG was never recorded.
"""


def _some(names: tuple[str, ...]) -> str:
    """The first of many names; the manifest has all."""
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN]) or "none"
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more in the manifest"


def _decides(what: str, decision: DecisionConfig | None) -> str:
    if decision is None:
        return _NONE.format(what)
    return (
        f"{what}: temperature {decision.temperature:.3g}, floor {decision.floor:.3g}, rest below "
        f"{decision.rest_below:.3f}, accepted from {decision.otherwise:.3f}, for {decision.target_per_hour:g} false "
        f"activations an hour.\n"
    )
