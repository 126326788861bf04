"""What a study found: headline, results, paired differences, controls."""

from __future__ import annotations

from collections.abc import Sequence

from embridge_cloud.study import report_figures
from embridge_cloud.study.compare import Difference
from embridge_cloud.study.reference import CEILINGS, CONTROLS
from embridge_cloud.study.report_blocks import (
    DASH,
    Block,
    Bullets,
    Number,
    Picture,
    Section,
    Table,
    Text,
    fixed,
    listed,
    signed,
    spread,
)
from embridge_cloud.study.report_data import NEW, STRICT, Study, deviation
from embridge_cloud.study.rows import Row

COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Zero-shot, seen and unseen gestures apart",
        ("zs-seen", "zs-unseen", "zs-seen-trial", "zs-unseen-trial", "zs-seen-proto", "zs-unseen-proto"),
    ),
    ("Generalised zero-shot, all gestures competing", ("gzs-seen", "gzs-unseen", "gzs-harmonic")),
    (
        "With labelled EMG: probes, a classifier, enrolment",
        ("lp-seen", "lp-unseen", "supervised", "few-shot-1", "few-shot-3", "few-shot-5"),
    ),
)
AT_CHANCE = 0.03
JUDGED = ("zs-seen", "zs-unseen", "gzs-harmonic", "lp-seen", "lp-unseen")
SWITCHED = ("zs-unseen", "zs-seen", "gzs-harmonic")
MOST = 24
COMPARED = ("zs-unseen", "zs-seen", "gzs-harmonic", "lp-seen")

_READS = (
    "Balanced accuracy of windows (of trials in `-trial`): mean over runs, ± standard deviation over runs, "
    "[95 % interval over participants]. The highest of a column is bold, which does not say that it is separable from "
    "the next."
)


def headline(study: Study) -> Section:
    """Which head ships and why, in sentences somebody without the background understands."""
    choice = study.choice
    if choice is None:
        return Section("headline", "In short", (Text("No head can be chosen: the benchmark holds no zero-shot rows."),))
    said = [f"**{choice.method}** ships. {_capital(choice.reason)}", *_plainly(study, choice.method)]
    apart = _apart(study, choice.method)
    if len(choice.table) > 1:
        apart.append(
            f"The head is the highest of {len(choice.table)} on the very runs shown here, so its own figure is "
            "slightly favoured."
        )
    blocks: list[Block] = [Text(" ".join(said))]
    if apart:
        blocks.append(Bullets(tuple(apart)))
    return Section("headline", "In short", tuple(blocks))


def _plainly(study: Study, method: str) -> list[str]:
    """What the shipped head does for somebody new, and what a few minutes of calibration add."""
    said = []
    unseen, seen = study.row(method, "zs-unseen"), study.row(method, "zs-seen")
    if unseen and seen:
        said.append(
            f"For somebody it never met it names a gesture whose EMG nobody recorded {_times(unseen)} and one it knows "
            f"{_times(seen)}."
        )
    calibrated = study.best("zs-seen", study.methods, "calibrated-wearer")
    enrolled = study.best("few-shot-3", study.methods)
    parts = []
    if calibrated:
        parts.append(f"known gestures reach {fixed(calibrated.balanced_accuracy)} once the wearer has calibrated")
    if enrolled:
        parts.append(f"new ones {fixed(enrolled.balanced_accuracy)} after three repetitions of each")
    if parts:
        said.append(f"{_capital(' and '.join(parts))}.")
    return said


def _times(row: Row) -> str:
    return f"{100 * row.balanced_accuracy:.0f} times of 100 (guessing: {100 * row.chance:.3g})"


def _apart(study: Study, method: str) -> list[str]:
    """What the data can and cannot tell apart, around the shipped head."""
    said = []
    plain = [d for d in study.compared if (d.regime, d.pose_regime) == (NEW, STRICT)]
    for protocol, words in (("zs-unseen", "On unseen gestures"), ("zs-seen", "On seen gestures")):
        own = [d for d in plain if d.protocol == protocol and method == d.a]
        if not own:
            continue
        others = {flag: [d.b for d in own if d.separable is flag] for flag in (False, True)}
        parts = [f"**not separable** from {listed(others[False])}"] if others[False] else []
        parts += [f"separable from {listed(others[True])}"] if others[True] else []
        said.append(f"{words}, {method} is {', and '.join(parts)}.")
    chosen = next((s for s in study.results.scan if s.method == method), None) or next(iter(study.results.scan), None)
    if chosen and len(chosen.values) > 1:
        ordered = sorted(chosen.values)
        low, high = (ordered[round(q * (len(ordered) - 1))] for q in (0.05, 0.95))
        said.append(
            f"Which gestures are unseen matters: over {len(ordered)} sets of them, {chosen.method} moves from "
            f"{fixed(low)} (5 % of the sets are below) to {fixed(high)} (5 % are above)."
        )
    return said


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def results(study: Study) -> list[Section]:
    """One section a pair of regimes, so that no table mixes them."""
    made: list[Section] = []
    for regime, pose_regime in study.regimes:
        rows = [r for r in study.rows(regime, pose_regime) if r.method not in study.switches]
        if not rows:
            continue
        key = f"results-{regime}-{pose_regime}"
        about = f"{regime.replace('-', ' ')}, {pose_regime} poses"
        title = f"Results: {about}"
        tables = [t for words, protocols in COLUMNS if (t := _table(rows, protocols, f"{words}; {about}")) is not None]
        notes = [*((Text(_READS),) if not made else ()), Text(_about(rows))]
        made.append(Section(key, title, (*notes, *tables)))
    return made or [Section("results", "Results", (Text("The benchmark holds no rows."),))]


def switches(study: Study) -> list[Section]:
    """What each change beyond the paper is worth, against the method it changes; nothing where there are none."""
    if not study.switches:
        return []
    head = ["switch", "regime", "runs"]
    for protocol in SWITCHED:
        head += [protocol, "minus the base", "verdict"]
    made = (_switch(study, name, regimes) for regimes in study.regimes for name in study.switches)
    said = Text(
        "Each switch changes one thing. Read the difference from the unchanged method on the same runs, with its "
        "larger standard error: the means themselves may be of fewer runs than those above."
    )
    words = frozenset({0, 1, *range(5, len(head), 3)})
    table = Table("Switches beyond the paper", tuple(head), tuple(row for row in made if row), words)
    return [Section("switches", "Beyond the paper: switches", (said, table))]


def _switch(study: Study, name: str, regimes: tuple[str, str]) -> tuple[str | Number, ...]:
    """One switch in one pair of regimes; empty where it has no rows."""
    rows = {p: r for p in SWITCHED if (r := study.row(name, p, *regimes)) is not None}
    if not rows:
        return ()
    cells: list[str | Number] = [name, ", ".join(regimes), Number(str(max(r.runs for r in rows.values())))]
    for protocol in SWITCHED:
        cells.append(_number(rows.get(protocol), None))
        d = study.difference(name, name.partition(":")[0], protocol, regimes)
        if d is None:
            cells += [Number(DASH), DASH]
        else:
            cells += [Number(signed(d.mean), f"± {fixed(max(d.se, d.se_participants))}"), d.verdict]
    return tuple(cells)


def _about(rows: Sequence[Row]) -> str:
    people = {p for r in rows for p in r.per_participant}
    sets = dict.fromkeys(s for r in rows for s in r.unseen_sets)
    seeds = sorted({s for r in rows for s in r.seeds})
    said = f"{len(people)} held-out participants, {len(sets)} sets of unseen gestures, "
    said += f"seeds {listed([*map(str, seeds)])}; up to {max(r.runs for r in rows)} runs a cell."
    if any(r.reference for r in rows):
        said += " `lp-unseen` is a reference and no zero-shot result: its probe reads labels of unseen gestures' EMG."
    return said


def _table(rows: Sequence[Row], protocols: Sequence[str], caption: str) -> Table | None:
    """Methods by protocols; chance above, ceilings and controls below."""
    cells = {(r.method, r.protocol): r for r in rows if r.protocol in protocols}
    shown = [p for p in protocols if any(k[1] == p for k in cells)]
    if not shown:
        return None
    methods = list(dict.fromkeys(m for m, _ in cells))
    methods.sort(key=lambda m: (m in CONTROLS, m in CEILINGS))
    competing = [m for m in methods if m not in CONTROLS | CEILINGS]
    runs = {m: str(max(r.runs for (n, _), r in cells.items() if n == m)) for m in methods}
    top = {p: max((cells[m, p].balanced_accuracy for m in competing if (m, p) in cells), default=None) for p in shown}
    chance = {p: next(r.chance for (_, q), r in cells.items() if q == p) for p in shown}
    body: list[tuple[str | Number, ...]] = [("chance", Number(DASH), *(Number(fixed(chance[p])) for p in shown))]
    for m in methods:
        name = f"{m} (control)" if m in CONTROLS else f"{m} (ceiling: queries are poses)" if m in CEILINGS else m
        body.append(
            (name, Number(runs[m]), *(_number(cells.get((m, p)), top[p] if m in competing else None) for p in shown))
        )
    return Table(caption, ("method", "runs", *shown), tuple(body))


def _number(row: Row | None, top: float | None) -> Number:
    if row is None:
        return Number(DASH)
    return Number(fixed(row.balanced_accuracy), spread(deviation(row), row.ci95), strong=row.balanced_accuracy == top)


def differences(study: Study) -> Section:
    """What the runs can tell apart."""
    found = [d for d in study.compared if d.protocol in COMPARED]
    if not found:
        missing = Text("No paired differences: they need two runs of two methods.")
        return Section("differences", "What can be told apart", (missing,))
    blocks: list[Block] = [
        Text(
            "One method minus the other on the same runs, with standard errors (s.e.) over runs and over participants. "
            "A difference is called separable where it exceeds twice either of them and a sign test over runs is below "
            "0.05. Nothing is corrected for the number of comparisons. Shown are those of the head that ships and "
            "those between the published methods; `results.json` has all."
        )
    ]
    unseen = [d for d in found if (d.regime, d.pose_regime, d.protocol) == (NEW, STRICT, "zs-unseen")][:MOST]
    if unseen:
        named = [(f"{d.a} − {d.b}", d.mean, max(d.se, d.se_participants), d.separable) for d in unseen]
        said = ((n, signed(m), fixed(s), "separable" if k else "not separable") for n, m, s, k in named)
        alt = "Differences on unseen gestures: " + "; ".join(f"{n} {m} ± {s}, {k}" for n, m, s, k in said)
        caption = "Zero-shot unseen, new wearer: mean difference ± twice the larger standard error. Filled: separable."
        blocks.append(Picture("differences", report_figures.forest("differences", named), alt, caption))
    for regime, pose_regime in study.regimes:
        own = [d for p in COMPARED for d in found if (d.regime, d.pose_regime, d.protocol) == (regime, pose_regime, p)]
        if own:
            blocks.append(_difference_table(own, f"{regime.replace('-', ' ')}, {pose_regime} poses"))
    return Section("differences", "What can be told apart", tuple(blocks))


def _difference_table(found: Sequence[Difference], caption: str) -> Table:
    head = ("difference", "protocol", "verdict", "mean", "s.e. runs", "s.e. people", "ahead in", "sign test p")
    body = tuple(
        (f"{d.a} − {d.b}", d.protocol, d.verdict, Number(signed(d.mean)), Number(fixed(d.se)),
         Number(fixed(d.se_participants)), Number(f"{d.wins} of {d.runs}"),
         Number("<0.001" if d.sign_p < 0.0005 else fixed(d.sign_p)))
        for d in found
    )  # fmt: skip
    return Table(f"Paired differences, {caption}", head, body, frozenset({0, 1, 2}))


def controls(study: Study) -> Section:
    """The traps of the data, what was found in them, and leaks that were tried on purpose."""
    told = [c for c in study.results.controls if c.expected != "raises"]
    known = {c.name for c in told}
    body: list[tuple[str | Number, ...]] = []
    for row in study.rows():
        name = f"{row.method}, {row.protocol}"
        if row.method in CONTROLS and row.protocol in JUDGED and name not in known:
            value = Number(fixed(row.balanced_accuracy), spread(deviation(row), row.ci95))
            off = abs(row.balanced_accuracy - row.chance) > AT_CHANCE
            body.append((name, _mark(not off), value, Number(fixed(row.chance)), "pairs broken"))
    for c in told:
        value = Number(fixed(c.balanced_accuracy), spread(None, c.ci95 if any(c.ci95) else None))
        body.append((c.name, _mark(c.passed), value, Number(fixed(c.chance)), c.note or DASH))
    attempts = [c for c in study.results.controls if c.expected == "raises"]
    if not body and not attempts:
        return Section("controls", "Controls", (Text("No controls: the benchmark ran none."),))
    blocks: list[Block] = [
        Text(
            "Shuffled pairs: training met every gesture's EMG with the poses of all gestures alike, so nothing but a "
            f"leak can lift it from chance; {fixed(AT_CHANCE, 2)} either way is allowed, or twice the standard error "
            "over runs where that is more. The others ask what the data tell before anybody moves."
        )
    ]
    if body:
        head = ("control", "as expected", "measured", "chance", "what it means")
        blocks.append(Table("Controls", head, tuple(body), frozenset({0, 1, 4})))
    if attempts:
        tried = tuple((c.name, "raised" if c.passed else "**passed unnoticed**", c.note or DASH) for c in attempts)
        blocks.append(Table("Leaks tried on purpose", ("leak", "answer", "how"), tried, frozenset({0, 1, 2})))
    return Section("controls", "Controls", tuple(blocks))


def _mark(passed: bool) -> str:
    return "yes" if passed else "**no**"
