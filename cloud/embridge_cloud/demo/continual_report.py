"""What came of the drops: accuracy after each on the wearers of each, what was refused, what was forgotten."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_cloud import plots
from embridge_cloud.demo.continual import Step
from embridge_cloud.demo.drops import Arrivals
from embridge_cloud.gates.contender import Contender
from embridge_cloud.gates.figures import Heard
from embridge_cloud.gates.panel import Panel, empanel, prove_strangers
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.fleet import RolloutState

MATRIX: Final = "drops.png"
_GROUPS: Final = ("all", "seen", "unseen")


def continual_figures(arrivals: Arrivals, steps: Sequence[Step], sealed: Path, out: Path) -> dict[str, Any]:
    """The part of `report.json` that is about drops, and its picture in `out`.

    The release in force after drop i decodes the held-out wearers of drop j, each in the recording made when their drop
    arrived; quantised, window by window, as an edge does. Wearers of drops that come later are new to it.

    Args:
        arrivals: Who recorded when.
        steps: What became of each drop.
        sealed: Folder of sealed sessions.
        out: Where the picture goes.

    Raises:
        LeakageError: A release learnt from somebody who is held out.
    """
    tables = _tables(arrivals, steps, sealed)
    whole = tables["all"]
    plots.matrix(
        out / MATRIX,
        whole,
        [f"after drop {s.drop.number} ({s.in_force or 'none'})" for s in steps],
        [f"wearers of drop {s.drop.number}" for s in steps],
        title="Balanced accuracy over all gestures",
    )
    return {
        "accuracy_by_drop": _rounded(whole),
        "accuracy_by_drop_seen": _rounded(tables["seen"]),
        "accuracy_by_drop_unseen": _rounded(tables["unseen"]),
        "forgetting": round(forgetting(whole), 4),
        "backward_transfer": round(backward_transfer(whole), 4),
        "refused": [s.release for s in steps if not s.gate.accepted],
        "rolled_back": [s.release for s in steps if s.rollout is not None and s.rollout.state is RolloutState.ABORTED],
        "spoilt": [s.drop.number for s in steps if s.drop.spoilt],
        "drops": [_step(s) for s in steps],
    }


def forgetting(accuracy: NDArray[np.float64]) -> float:
    """By how much the last row is below the best there was, over the wearers of all drops but the last.

    Args:
        accuracy: After drop i, on the wearers of drop j (n, n).
    """
    if len(accuracy) < 2:
        return 0.0
    best = np.array([accuracy[j:-1, j].max() for j in range(len(accuracy) - 1)])
    return float((best - accuracy[-1, :-1]).mean())


def backward_transfer(accuracy: NDArray[np.float64]) -> float:
    """What later drops gave to the wearers of earlier ones: the last row less the diagonal."""
    if len(accuracy) < 2:
        return 0.0
    return float((accuracy[-1, :-1] - np.diagonal(accuracy)[:-1]).mean())


def _tables(arrivals: Arrivals, steps: Sequence[Step], sealed: Path) -> dict[str, NDArray[np.float64]]:
    catalogue = Catalogue(sealed)
    recipe = arrivals.world.recipe
    panel = empanel(catalogue, recipe.held_out, recipe.unseen, decoded=False)
    groups = {"all": (*recipe.seen, *recipe.unseen), "seen": recipe.seen, "unseen": recipe.unseen}
    said: dict[str, Heard] = {}
    tables = {name: np.full((len(steps), len(steps)), np.nan) for name in _GROUPS}
    for i, step in enumerate(steps):
        if step.bundle is None:
            continue
        if step.in_force not in said:
            said[step.in_force] = _listen(step.bundle, panel, catalogue)
        for j, other in enumerate(steps):
            wearers = said[step.in_force].of(other.drop.judges)
            for name, labels in groups.items():
                tables[name][i, j] = wearers.accuracies(labels).mean()
    return tables


def _listen(bundle: Path, panel: Panel, catalogue: Catalogue) -> Heard:
    contender = Contender.read(bundle)
    prove_strangers(panel, [contender.bundle.manifest], catalogue)
    stretches = panel.stretches(contender.taken, contender.labels)
    return Heard(contender.labels, panel.people, tuple(contender.listen(stretches)))


def _rounded(table: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in table]


def _step(step: Step) -> dict[str, Any]:
    rollout = step.rollout
    return {
        "drop": step.drop.number,
        "spoilt": step.drop.spoilt,
        "release": step.release,
        "accepted": step.gate.accepted,
        "reason": step.gate.reason,
        "judged_on": step.gate.participants,
        "suspicious": step.suspicious,
        "rollout": None if rollout is None else {
            "id": rollout.id,
            "state": str(rollout.state),
            "reason": rollout.reason,
            "waves": [w.name for w in rollout.policy.waves],
            "edges": {p.edge: {"wave": p.wave, "phase": str(p.phase)} for p in rollout.edges},
        },
        "in_force": step.in_force,
    }  # fmt: skip


def continual_section(found: dict[str, Any]) -> str:
    """The part of the page that is about drops, HTML."""
    rows = "".join(
        f"<tr><td>{d['drop']}{' (prompts mixed up)' if d['spoilt'] else ''}</td><td>{html.escape(d['release'])}</td>"
        f"<td>{'accepted' if d['accepted'] else 'refused'}</td><td>{len(d['suspicious'])}</td>"
        f"<td>{d['rollout']['state'] if d['rollout'] else '–'}</td><td>{html.escape(d['in_force'] or '–')}</td></tr>"
        for d in found["drops"]
    )
    reasons = "".join(
        f"<li><b>{html.escape(d['release'])}</b>: {html.escape(d['reason'])}</li>" for d in found["drops"]
    )
    return f"""<h2>Drop by drop</h2>
<table><tr><th>drop</th><th>candidate</th><th>gate</th><th>sessions named</th><th>rollout</th>
<th>in force afterwards</th></tr>{rows}</table>
<p>Forgetting {found["forgetting"]:+.3f}: by so much the last release is worse than the best before it on wearers of
earlier drops. Refused: {", ".join(found["refused"]) or "none"};
rolled back: {", ".join(found["rolled_back"]) or "none"}.</p>
<figure><img src="{MATRIX}" alt="Accuracy after each drop on the wearers of each drop">
<figcaption>After each drop (rows), held-out wearers of each drop (columns); to the right of the diagonal they had not
arrived yet</figcaption></figure>
<ul>{reasons}</ul>"""
