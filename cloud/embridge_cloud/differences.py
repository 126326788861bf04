"""What changed between two releases."""

from __future__ import annotations

import msgspec

from embridge_shared.manifest import Manifest
from embridge_shared.preprocess import config_hash

_SMALL = 1e-9


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not the same.

    Attributes:
        what: As in "gestures" or "metrics.parity.cosine".
        before: In the first release, as text.
        after: In the second.
    """

    what: str
    before: str
    after: str


def differences(first: Manifest, second: Manifest) -> tuple[Changed, ...]:
    """What is not the same in two manifests, the weightiest first: what it decodes, from what, how well."""
    found = [
        *_pairs(first, second),
        *_sets("gestures", [g.label for g in first.gestures], [g.label for g in second.gestures]),
        *_sets(
            "gestures with EMG",
            [g.label for g in first.gestures if g.emg_seen],
            [g.label for g in second.gestures if g.emg_seen],
        ),
        *_sets("sessions", first.lineage.sessions, second.lineage.sessions, count=True),
        *_numbers(first.metrics, second.metrics),
    ]
    return tuple(found)


def _pairs(first: Manifest, second: Manifest) -> list[Changed]:
    """Single values."""

    def of(m: Manifest) -> dict[str, str]:
        decision = m.decision
        return {
            "head": m.head,
            "preprocessing": config_hash(m.preprocess)[:12],
            "window": f"{m.preprocess.window_s:g} s every {m.preprocess.hop_s:g} s",
            "channels": str(m.channels),
            "queries": f"{m.queries} of {m.dim}",
            "prototypes": f"{len(m.rows)}, best {m.k} count",
            "oldest agent": m.min_agent,
            "code": m.code,
            "size": f"{sum(f.size for f in m.files.values())} bytes",
            "recipe": m.lineage.config[:12],
            "seed": str(m.lineage.seed),
            "snapshot": m.lineage.snapshot[:12],
            "participants": str(len(m.lineage.participants)),
            "decisions": "none" if decision is None else f"T {decision.temperature:.3g}, from {decision.otherwise:.3f}",
        }

    before, after = of(first), of(second)
    return [Changed(what=k, before=before[k], after=after[k]) for k in before if before[k] != after[k]]


def _sets(
    what: str, first: list[str] | tuple[str, ...], second: list[str] | tuple[str, ...], *, count: bool = False
) -> list[Changed]:
    """What only one of them has."""
    gone, new = sorted(set(first) - set(second)), sorted(set(second) - set(first))
    if not gone and not new:
        return []
    if count:
        return [Changed(what=what, before=f"{len(first)}", after=f"{len(second)}: {len(new)} new, {len(gone)} gone")]
    return [Changed(what=what, before=", ".join(gone) or "–", after=", ".join(new) or "–")]


def _numbers(first: dict[str, float], second: dict[str, float]) -> list[Changed]:
    def shown(metrics: dict[str, float], name: str) -> str:
        return f"{metrics[name]:.4g}" if name in metrics else "–"

    return [
        Changed(what=f"metrics.{name}", before=shown(first, name), after=shown(second, name))
        for name in sorted({*first, *second})
        if name not in first or name not in second or abs(first[name] - second[name]) > _SMALL
    ]
