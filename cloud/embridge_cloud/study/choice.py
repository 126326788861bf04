"""The choice of the head a release ships, by evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from embridge_cloud.study.compare import Difference
from embridge_cloud.study.rows import Row
from embridge_shared.errors import DataError, Reason


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The head a release ships, and why.

    Attributes:
        method: The head.
        reason: In a sentence.
        table: Candidates, best first, with what they were judged by.
    """

    method: str
    reason: str
    table: tuple[dict[str, Any], ...]


def pick_head(
    rows: Iterable[Row],
    *,
    candidates: Sequence[str] = (),
    differences: Iterable[Difference] = (),
    shippable: Callable[[str], bool] | None = None,
) -> Choice:
    """The head that decodes unseen gestures of held-out participants best.

    Rows must come from people and gestures that the release is not judged on: pseudo-unseen gestures of the train
    side, or a study of its own. Trial votes break no tie; seen gestures do, and then the order of the candidates.

    Args:
        rows: Of a study.
        candidates: Methods to choose among, the simplest first; by default every method with the rows needed.
        differences: Paired, for the reason given.
        shippable: Further condition.

    Raises:
        DataError: No candidate has a row of unseen and of seen gestures.
    """
    wanted = {"zs-unseen": "unseen", "zs-seen": "seen", "gzs-harmonic": "harmonic"}
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        plain = row.regime == "new-wearer" and row.pose_regime == "strict" and row.share == 1
        allowed = (not candidates or row.method in candidates) and (shippable is None or shippable(row.method))
        if plain and allowed and row.protocol in wanted:
            entry = found.setdefault(row.method, {"method": row.method})
            entry[wanted[row.protocol]] = row.balanced_accuracy
            if row.protocol == "zs-unseen":
                entry |= {"ci95": row.ci95, "runs": row.runs, "chance": row.chance}
    whole = [e for e in found.values() if {"unseen", "seen"} <= e.keys()]
    if not whole:
        raise DataError(
            "no head has rows of seen and of unseen gestures",
            reason=Reason.TOO_LITTLE_DATA,
            hint="Run the benchmark with the methods that may ship.",
        )
    rank = {m: i for i, m in enumerate(candidates)}
    whole.sort(key=lambda e: (-round(e["unseen"], 4), -e["seen"], rank.get(e["method"], len(rank))))
    best = whole[0]
    plural = "s" if best["runs"] > 1 else ""
    low, high = best["ci95"]
    spread = f", 95 % {low:.3f} to {high:.3f}" if low < high else ""
    reason = (
        f"{best['method']} decodes unseen gestures of held-out wearers best: {best['unseen']:.3f} over "
        f"{best['runs']} run{plural} (chance {best['chance']:.3f}{spread})"
    )
    if len(whole) > 1:
        second = whole[1]
        verdict = _verdict(best["method"], second["method"], differences)
        reason += f"; next is {second['method']} with {second['unseen']:.3f}{verdict}"
    return Choice(method=best["method"], reason=reason + ".", table=tuple(whole))


def _verdict(a: str, b: str, differences: Iterable[Difference]) -> str:
    """What the paired difference says of the two, if it was taken."""
    for d in differences:
        if {d.a, d.b} == {a, b} and d.protocol == "zs-unseen" and d.regime == "new-wearer":
            said = "separable" if d.separable else "not separable"
            return f", {said} ({abs(d.mean):.3f} ± {max(d.se, d.se_participants):.3f})"
    return ""
