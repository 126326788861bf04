"""What a study is held against, and how it was made: bars, published tables, command and environment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from embridge_cloud.study import reference
from embridge_cloud.study.reference import CEILINGS, CONTROLS, Bar, Published
from embridge_cloud.study.report_blocks import (
    DASH,
    Block,
    Bullets,
    Code,
    Number,
    Section,
    Table,
    Text,
    fixed,
    spread,
)
from embridge_cloud.study.report_data import Study, deviation
from embridge_cloud.study.rows import Row


def bars(study: Study) -> Section:
    """What had to be reached and what was."""
    body, missed = [], []
    for bar in reference.BARS:
        row = _row_of(study, bar)
        verdict = _verdict(bar, row)
        measured = DASH if row is None else fixed(_distance(row) if bar.family == "shuffled" else row.balanced_accuracy)
        if verdict.startswith("missed"):
            missed.append(bar.quantity)
        number = Number(
            measured, "" if row is None else spread(deviation(row), row.ci95 if bar.family != "shuffled" else None)
        )
        limits = (fixed(bar.must, 2), fixed(bar.stretch, 2))
        body.append((bar.quantity, verdict, number, *limits, DASH if row is None else row.method))
    head = ("quantity", "verdict", "measured", "must", "stretch", "method")
    said = f"**Missed:** {'; '.join(missed)}." if missed else "Every bar that was measured is reached."
    said += (
        " Where several methods may meet a bar, the highest counts, so those figures are slightly favoured; "
        "the bars were set for NinaPro DB1, exercise 1."
    )
    table = Table("Bars and what was measured, strict poses", head, tuple(body), frozenset({0, 1, 5}))
    return Section("bars", "Bars", (Text(said), table))


def _row_of(study: Study, bar: Bar) -> Row | None:
    """The row a bar is about: of one method, or the highest of a family."""
    shipped = study.choice.method if study.choice else ""
    among: Iterable[str] = {
        "deep": [m for m in study.methods if reference.is_aligned(m)],
        "shipped": [shipped],
        "ceiling": CEILINGS,
        "any": study.methods,
    }.get(bar.family, [bar.family])
    if bar.family == "shuffled":
        found = [r for r in study.rows(bar.regime) if r.protocol == bar.protocol and r.method in CONTROLS]
        return max(found, key=_distance, default=None)
    return study.best(bar.protocol, among, bar.regime)


def _distance(row: Row) -> float:
    return abs(row.balanced_accuracy - row.chance)


def _verdict(bar: Bar, row: Row | None) -> str:
    if row is None:
        return "not measured"
    if bar.family == "shuffled":
        over = _distance(row) - bar.must
        return "reached" if over <= 0 else f"missed by {fixed(over)}"
    low = min(row.per_fold.items(), key=lambda item: item[1], default=None)
    if bar.floor is not None and low is not None and low[1] < bar.floor:
        return f"missed: fold {low[0]} has {fixed(low[1])}, under {fixed(bar.floor, 2)}"
    if row.balanced_accuracy < bar.must:
        return f"missed by {fixed(bar.must - row.balanced_accuracy)}"
    return "stretch reached" if bar.stretch is not None and row.balanced_accuracy >= bar.stretch else "reached"


def papers(study: Study) -> Section:
    """The published tables with this study's figures beside them."""
    said = Text(
        "**These figures cannot be compared with each other.** The papers use emg2pose: 2 kHz wrist EMG, 158 training "
        "users, 4 seen and 4 unseen stages. The figures beside them are of other recordings, sensors, gestures and "
        "class counts, and the methods are trained as the preset says, which in small presets is not the published "
        "configuration (a linear path, another temperature); only their order may be read side by side."
    )
    tables = [
        _published(study, reference.EMG2POSE_TABLE, "EMBridge, table 2 (emg2pose), beside this study's new wearers"),
        _published(study, reference.ABLATION_TABLE, "EMBridge, table 3 (ablation), beside this study's new wearers"),
    ]
    ninapro = Text(
        "On NinaPro the paper states zero-shot figures alone: EMBridge 0.692 seen and 0.447 unseen, CPEP 0.604 and "
        "0.413, on other classes and a split it does not describe."
    )
    return Section("papers", "Beside the papers", (said, *tables, ninapro))


def _published(study: Study, rows: Sequence[Published], caption: str) -> Table:
    head = ["method"]
    for protocol in reference.PAPER_COLUMNS:
        head += [f"{protocol}, paper", f"{protocol}, here"]
    body = []
    for line in rows:
        ours = next((m for m in line.methods if any(r.method == m for r in study.rows())), None)
        cells: list[str | Number] = [line.label if ours is None else f"{line.label}; here `{ours}`"]
        for protocol, value in zip(reference.PAPER_COLUMNS, line.values, strict=True):
            row = study.row(ours, protocol) if ours else None
            cells += [Number(fixed(value)), Number(fixed(row.balanced_accuracy)) if row else Number(DASH)]
        body.append(tuple(cells))
    return Table(caption, tuple(head), tuple(body))


def making(study: Study) -> Section:
    """How the figures came about and how to make them again."""
    r = study.results
    blocks: list[Block] = []
    if r.command:
        blocks += [Text("This command repeats the study:"), Code(r.command)]
    facts: list[tuple[str, Any]] = [
        ("data", r.data), ("suite", r.suite), ("commit", r.commit),
        ("wall time", f"{r.wall_s / 60:.1f} min" if r.wall_s is not None else ""),
        *((name, _flat(value)) for name, value in r.environment.items() if name != "commit"),
    ]  # fmt: skip
    known = tuple((name.replace("_", " "), str(value)) for name, value in facts if value not in ("", None))
    if known:
        blocks.append(Table("Environment", ("what", "value"), known, frozenset({0, 1})))
    times = _times_table(study)
    blocks += [times] if times else []
    if r.failures:
        blocks.append(Text("**Some jobs failed** and are in no table:"))
        blocks.append(Bullets(tuple(f"{job} in {run}: {why}" for job, run, why in r.failures)))
    return Section("making", "How this was made", tuple(blocks) or (Text("The benchmark noted nothing."),))


def _flat(value: Any) -> Any:
    """Names with their values in one line."""
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value


def _times_table(study: Study) -> Table | None:
    """Mean time of a fit with its evaluation."""
    found: dict[tuple[str, str], Row] = {}
    for row in study.results.rows:
        if row.share == 1:
            found.setdefault((row.method, f"{row.regime}, {row.pose_regime}"), row)
    body = tuple((m, regime, Number(fixed(r.wall_s, 2)), Number(str(r.runs))) for (m, regime), r in found.items())
    head = ("method", "regime", "wall time of a run, s", "runs")
    return Table("Wall time of a fit with its evaluation", head, body, frozenset({0, 1})) if body else None
