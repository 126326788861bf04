"""The sections of a report that are mostly drawings: sets of gestures, people, confusions, maps, curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np

from embridge_cloud.study import report_figures
from embridge_cloud.study.artefacts import Artefacts, Curve
from embridge_cloud.study.outcome import Outcome
from embridge_cloud.study.report_blocks import (
    Block,
    Picture,
    Section,
    Table,
    Text,
    fixed,
    line,
    listed,
    signed,
)
from embridge_cloud.study.report_data import Study
from embridge_cloud.study.rows import Row

_MOST = 6
_CURVES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("pre-training", "masked error", ("emg_mae", "pose_mae")),
    ("alignment", "loss", ("align", "nce", "cascle", "mprl")),
    ("temperature", "tau", ("tau",)),
    ("soft targets and queries", "nats", ("target_entropy", "query_usage")),
    ("what targets and queries hold", "share, cosine", ("neighbour_mass", "query_cosine")),
)
_WORDS = {"before": "after masked pre-training alone", "after": "after the alignment"}


def gesture_sets(study: Study) -> Section:
    """How much the choice of unseen gestures moves a result."""
    blocks: list[Block] = []
    rows = [r for r in study.rows() if r.protocol == "zs-unseen" and r.method in study.methods and len(r.per_fold) > 1]
    if rows:
        rows.sort(key=lambda r: -r.balanced_accuracy)
        alt = "; ".join(f"{r.method} {_folds(r.per_fold)}" for r in rows)
        drawing = report_figures.fold_dots("folds", {r.method: r.per_fold for r in rows}, rows[0].chance)
        caption = "Zero-shot unseen, new wearer: one letter a set of unseen gestures, a bar at their mean."
        blocks.append(Picture("folds", drawing, f"Accuracy of each fold. {alt}.", caption))
    for i, found in enumerate(s for s in study.results.scan if len(s.values) > 1):
        values = np.asarray(found.values, float)
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        said = (
            f"{found.method} over {len(values)} sets of unseen gestures: mean {fixed(values.mean())}, sd "
            f"{fixed(values.std())}, 5 % {fixed(low)}, median {fixed(middle)}, 95 % {fixed(high)}"
        )
        marked = f" Marked: {_folds(found.folds)}." if found.folds else ""
        drawing = report_figures.scan(f"scan-{i}", values, found.chance, found.folds)
        blocks.append(Picture(f"scan-{i}", drawing, f"Histogram. {said}.{marked}", f"{said}.{marked}"))
    if rows:
        names = list(dict.fromkeys(f for r in rows for f in r.per_fold))
        body = tuple(line(r.method, map(r.per_fold.get, names)) for r in rows)
        blocks.append(Table("Zero-shot unseen by fold, new wearer", ("method", *names), body))
    if not study.results.scan:
        blocks.append(Text("No scan over all sets: the benchmark wrote none."))
    return Section("sets", "Which gestures are unseen", tuple(blocks))


def _folds(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {fixed(value)}" for name, value in sorted(found.items()))


def people(study: Study) -> Section:
    """Every held-out participant, and who is served worst."""
    title = "Participants"
    method = study.choice.method if study.choice else ""
    rows = [r for p in ("zs-unseen", "zs-seen") if (r := study.row(method, p)) is not None and r.per_participant]
    if not rows:
        return Section("people", title, (Text("No figures by participant: the benchmark wrote none."),))
    blocks: list[Block] = [Text(" ".join(_worst(r) for r in rows))]
    for r in rows:
        ordered = sorted(r.per_participant.items(), key=lambda item: -item[1])
        alt = f"{r.method}, {r.protocol}: " + ", ".join(f"{p} {fixed(v)}" for p, v in ordered)
        drawing = report_figures.people(f"people-{r.protocol}", r.per_participant, r.chance)
        caption = f"{r.method}, {r.protocol}, new wearer, mean over folds."
        blocks.append(Picture(f"people-{r.protocol}", drawing, alt, caption))
    blocks.append(_people_table(rows))
    gain = _gain(study)
    blocks += [Text(gain)] if gain else []
    return Section("people", title, tuple(blocks))


def _worst(row: Row) -> str:
    name, value = min(row.per_participant.items(), key=lambda item: item[1])
    values = sorted(row.per_participant.values())
    decile = float(np.mean(values[: max(1, round(len(values) / 10))]))
    below = sum(v < row.chance for v in values)
    return (
        f"In {row.protocol}, {row.method} serves participant {name} worst, {fixed(value)}; the worst tenth has "
        f"{fixed(decile)}, and {below} of {len(values)} lie below chance ({fixed(row.chance)})."
    )


def _people_table(rows: Sequence[Row]) -> Table:
    ordered = sorted(rows[0].per_participant, key=lambda p: rows[0].per_participant[p])
    head = ["participant"]
    for r in rows:
        head += [f"{r.protocol}", f"{r.protocol}, macro-F1"]
    body = []
    for p in ordered:
        cells = [(r.per_participant.get(p), r.f1_per_participant.get(p)) for r in rows]
        body.append(line(p, (v for pair in cells for v in pair)))
    return Table(f"{rows[0].method} by participant, the worst first", tuple(head), tuple(body))


def _gain(study: Study) -> str:
    """Relative gain in F1 over CPEP, both ways it can be taken."""
    ours, theirs = study.row("embridge", "zs-unseen"), study.row("cpep", "zs-unseen")
    if ours is None or theirs is None:
        return ""
    shared = sorted(ours.f1_per_participant.keys() & theirs.f1_per_participant.keys())
    a = np.array([ours.f1_per_participant[p] for p in shared])
    b = np.array([theirs.f1_per_participant[p] for p in shared])
    if not len(shared) or (b <= 0).any():
        return ""
    return (
        f"Macro-F1 of embridge over cpep on unseen gestures, {len(shared)} participants: "
        f"{signed(100 * (a.mean() / b.mean() - 1), 1)} % as a ratio of means, "
        f"{signed(100 * ((a / b).mean() - 1), 1)} % as a mean of ratios (on other data, the paper's figures make "
        "+14.2 % and it states +16.0 %)."
    )


def confusions(study: Study) -> Section:
    """What the shipped head takes for what."""
    title = "Confusions"
    method = study.choice.method if study.choice else ""
    outcomes = [o for o in study.outcomes_of(method) if o.figures]
    if not outcomes:
        return Section("confusions", title, (Text("No confusion matrices: the folder holds no outcomes of the head."),))
    outcomes.sort(key=lambda o: o.run.fold.name)
    folds = [(name, list(own)) for name, own in groupby(outcomes, key=lambda o: o.run.fold.name)]
    wanted = [("zs-unseen", "unseen gestures", fold) for fold in folds]
    wanted += [("zs-seen", "seen gestures", folds[0]), ("gzs-unseen", "all gestures compete", folds[0])]
    blocks: list[Block] = [
        Text(f"{method}, new wearer, all held-out participants; shares of what was performed. * unseen gesture.")
    ]
    for protocol, words, (fold, own) in wanted:
        picture = _confusion(protocol, f"{words}, fold {fold}", own)
        blocks += [picture] if picture else []
    return Section("confusions", title, tuple(blocks))


def _confusion(protocol: str, words: str, outcomes: Iterable[Outcome]) -> Picture | None:
    """Counts of all runs of one fold; generalised ones of seen and unseen windows together."""
    outcomes = list(outcomes)
    names = ("gzs-seen", "gzs-unseen") if protocol.startswith("gzs") else (protocol,)
    figures = [f for o in outcomes for f in o.figures if f.protocol in names]
    if not figures:
        return None
    gestures = figures[0].gestures
    counts = np.sum([f.confusion for f in figures if f.gestures == gestures], axis=0).astype(float)
    unseen = outcomes[0].run.fold.unseen
    share = np.diagonal(counts) / np.maximum(counts.sum(axis=1), 1)
    alt = f"Recalls, {words}: " + ", ".join(
        f"{g.replace('_', ' ')} {fixed(v, 2)}" for g, v in zip(gestures, share, strict=True)
    )
    key = f"confusion-{words.replace(' ', '-').replace(',', '')}"
    drawing = report_figures.confusion(key, gestures, counts, unseen if len(gestures) > len(unseen) else ())
    return Picture(key, drawing, alt, f"{words[:1].upper()}{words[1:]}: mean recall {fixed(share.mean())}.")


def embeddings(study: Study) -> Section:
    """EMG and poses in one plane, before and after the alignment."""
    title = "Embeddings before and after alignment"
    found = study.drawn("maps", _preferred(study))
    if found is None:
        return Section("embeddings", title, (Text("No maps: no run left its embeddings."),))
    blocks: list[Block] = [
        Text(
            f"{_whose(found)} Principal axes of EMG windows and poses together; no label is used to find them. Poses "
            "are outlined, EMG windows are small; a gesture's number stands at the middle of its poses. Stars and "
            "crosses are gestures whose EMG was never seen."
        )
    ]
    for m in sorted(found.maps, key=lambda m: m.stage != "before"):
        emg, poses = m.pose.count(False), m.pose.count(True)
        alt = f"{emg} EMG windows and {poses} poses of {len(m.gestures)} gestures, {_WORDS[m.stage]}."
        drawing = report_figures.embedding(f"map-{m.stage}", m, found.unseen)
        caption = f"{_WORDS[m.stage][:1].upper()}{_WORDS[m.stage][1:]}: {emg} EMG windows, {poses} poses."
        blocks.append(Picture(f"map-{m.stage}", drawing, alt, caption))
    return Section("embeddings", title, tuple(blocks))


def _preferred(study: Study) -> tuple[str, ...]:
    return ("embridge", *((study.choice.method,) if study.choice else ()))


def _whose(found: Artefacts) -> str:
    held = f", held out {listed(found.held_out)}" if found.held_out else ""
    fold = f", fold {found.unseen_set}" if found.unseen_set else ""
    return f"Of one run of {found.method}{fold}{held}, seed {found.seed}."


def communities(study: Study) -> Section:
    """Which gestures share the communities that make soft targets."""
    title = "Communities of poses"
    found = study.drawn("communities", _preferred(study))
    if found is None or found.communities is None or not any(map(any, found.communities.counts)):
        return Section("communities", title, (Text("No communities: no run left any."),))
    made = found.communities
    counts = np.asarray(made.counts, float)
    purity = counts.max(axis=0).sum() / counts.sum()
    rows = [i for i in range(len(made.gestures)) if counts[i].sum()]
    alt = f"Share of the poses in communities led by their gesture: {fixed(purity)}. " + ", ".join(
        f"{made.gestures[i].replace('_', ' ')} in {int((counts[i] > 0).sum())}" for i in rows
    )
    caption = (
        f"{_whose(found)} Each row is a gesture, darker where more of its training poses are; "
        f"{fixed(purity)} of the poses lie in a community that their gesture leads."
    )
    drawing = report_figures.communities("communities", made, found.unseen)
    return Section("communities", title, (Picture("communities", drawing, alt, caption, wide=True),))


def training(study: Study) -> Section:
    """Losses and what tells whether they work."""
    found = study.drawn("curves", _preferred(study))
    if found is None:
        return Section("training", "Training", (Text("No training curves: no run left any."),))
    blocks: list[Block] = [Text(_whose(found))]
    rest = {c.name: c for c in found.curves}
    panels = [(title, unit, [rest.pop(n) for n in names if n in rest]) for title, unit, names in _CURVES]
    panels.append(("validation", "balanced accuracy", [rest.pop(n) for n in list(rest) if n.startswith("val_")]))
    panels.append(("others", "value", list(rest.values())))
    for title, unit, curves in panels:
        if curves:
            alt = f"{title}: " + "; ".join(map(_course, curves))
            drawing = report_figures.curves(f"curves-{title.replace(' ', '-')}", curves, unit)
            blocks.append(
                Picture(f"curves-{title.replace(' ', '-')}", drawing, alt, f"{title[:1].upper()}{title[1:]}.")
            )
    return Section("training", "Training", tuple(blocks))


def _course(curve: Curve) -> str:
    return f"{curve.name} from {curve.values[0]:.3g} to {curve.values[-1]:.3g} in {curve.steps[-1]} steps"


def efficiency(study: Study) -> Section:
    """What repetitions of new gestures and further participants are worth."""
    shots = [r for r in study.rows() if r.protocol.startswith("few-shot-") and r.method in study.methods]
    found: dict[str, dict[float, Row]] = {}
    for r in shots:
        found.setdefault(r.method, {})[float(r.protocol.rpartition("-")[2])] = r
    few = _course_blocks("few-shot", "repetitions of each new gesture", "Four new gestures enrolled, new wearer", found)
    blocks: list[Block] = few or [Text("No enrolment curve: the benchmark measured none.")]
    shared = [r for r in study.results.rows if r.method in study.methods and (r.regime, r.pose_regime) == study.plain]
    for protocol in ("zs-unseen", "zs-seen"):
        parts = {r.method for r in shared if r.share < 1 and r.protocol == protocol}
        found = {}
        for r in shared:
            if r.method in parts and r.protocol == protocol:
                found.setdefault(r.method, {})[100 * r.share] = r
        blocks += _course_blocks(
            f"data-{protocol}", "% of the train participants", f"Data efficiency, {protocol}, new wearer", found
        )
    if not any(r.share < 1 for r in shared):
        blocks.append(Text("No data-efficiency curve: the benchmark trained on all participants only."))
    blocks.sort(key=lambda b: not isinstance(b, Picture))
    return Section("efficiency", "Enrolment and data efficiency", tuple(blocks))


def _course_blocks(key: str, xlabel: str, caption: str, found: Mapping[str, Mapping[float, Row]]) -> list[Block]:
    """A drawing of the best methods and a table of all."""
    places = sorted({x for own in found.values() for x in own})
    if len(places) < 2:
        return []
    ranked = sorted(found, key=lambda m: -found[m][max(found[m])].balanced_accuracy)
    lines = {m: (xs := sorted(found[m]), [found[m][x].balanced_accuracy for x in xs]) for m in ranked[:_MOST]}
    chances = {r.chance for own in found.values() for r in own.values()}
    drawing = report_figures.courses(key, lines, xlabel=xlabel, chance=min(chances) if len(chances) == 1 else None)
    alt = f"{caption}: " + "; ".join(f"{m} {', '.join(map(fixed, ys))}" for m, (_, ys) in lines.items())
    more = f" The best {_MOST} are drawn." if len(ranked) > _MOST else ""
    body = tuple(line(m, (found[m][x].balanced_accuracy if x in found[m] else None for x in places)) for m in ranked)
    table = Table(f"{caption}; by {xlabel}", ("method", *(f"{x:g}" for x in places)), body)
    return [Picture(key, drawing, alt, f"{caption}.{more}"), table]
