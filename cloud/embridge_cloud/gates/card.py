"""The card of a candidate: what was decided and why, with pictures, as one page and as Markdown beside the job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from embridge_cloud import plots
from embridge_cloud.gates.figures import Heard
from embridge_cloud.gates.files import CARD_PAGE, CARD_TEXT
from embridge_cloud.study.report_blocks import DASH, Block, Page, Picture, Section, Table, Text, fixed
from embridge_cloud.study.report_render import to_html, to_markdown
from embridge_cloud.study.report_svg import standalone, to_svg
from embridge_shared.archive import write_atomically
from embridge_shared.decision import DecisionConfig
from embridge_shared.fleet import GateCheck, GateReport
from embridge_shared.release import Bundle

CARD_PICTURES: Final = "card-pictures"

_BINS = 10
_WIDTH = 4.9
_LOSSES: Final = (
    ("masked pre-training", ("emg_mae", "pose_mae")),
    ("alignment", ("align", "nce", "cascle", "mprl")),
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a card is drawn from.

    Attributes:
        candidate: What the candidate said of the panel; None without one.
        champion: What the champion said; None without one.
        decision: How the candidate's scores become probabilities.
        groups: Gestures by "seen", "unseen" and "all".
        bundle: The candidate.
        history: Loss curves, one value a step.
    """

    candidate: Heard | None
    champion: Heard | None
    decision: DecisionConfig | None
    groups: Mapping[str, tuple[str, ...]]
    bundle: Bundle
    history: Mapping[str, Sequence[float]]


def write_card(folder: Path, report: GateReport, evidence: Evidence) -> None:
    """Write the card of a candidate beside its job.

    Args:
        folder: Of the job.
        report: What was decided.
        evidence: What it rests on.
    """
    page = _page(report, evidence)
    write_atomically(folder / CARD_PAGE, to_html(page).encode())
    write_atomically(folder / CARD_TEXT, to_markdown(page, CARD_PICTURES).encode())
    pictures = folder / CARD_PICTURES
    pictures.mkdir(exist_ok=True)
    for picture in (b for s in page.sections for b in s.blocks if isinstance(b, Picture)):
        write_atomically(pictures / f"{picture.name}.svg", standalone(picture.svg).encode())


def _page(report: GateReport, evidence: Evidence) -> Page:
    beside = f"beside {report.champion}" if report.champion else "the first of its line"
    lead = f"**{'Accepted' if report.accepted else 'Refused'}**, {beside}, judged on {report.participants} people."
    sections = [
        Section("decision", "Decision", (Text(report.reason), _table(report.checks))),
        Section("people", "People", tuple(_people(evidence))),
        Section("gestures", "Gestures", tuple(_confusions(evidence))),
        Section("probabilities", "Probabilities", tuple(_reliability(evidence))),
        Section("training", "Training", tuple(_losses(evidence))),
        Section("made", "Made of", tuple(_made(report, evidence))),
    ]
    return Page(report.candidate, lead, tuple(s for s in sections if s.blocks))


def _table(checks: Sequence[GateCheck]) -> Table:
    rows = tuple(
        (
            c.title,
            _verdict(c),
            fixed(c.candidate),
            fixed(c.champion),
            fixed(c.low),
            fixed(c.high),
            fixed(c.limit),
            c.why,
        )
        for c in checks
    )
    head = ("what", "holds", "candidate", "champion", "low", "high", "limit", "why")
    caption = (
        "What was looked at. Low and high are the ends of the difference's interval over people, or of the figure's."
    )
    return Table(caption, head, rows, frozenset({0, 1, 7}))


def _verdict(check: GateCheck) -> str:
    return "yes" if check.passed else "**no**" if check.required else "no (told only)"


def _people(evidence: Evidence) -> Iterator[Block]:
    if evidence.candidate is None:
        return
    labels = evidence.groups["all"]
    own = evidence.candidate.accuracies(labels)
    other = None if evidence.champion is None else evidence.champion.accuracies(labels)
    people = evidence.candidate.people
    figure, ax = _axes(0.34 * len(people) + 1.0)
    at = np.arange(len(people))
    if other is None:
        ax.barh(at, own, 0.7, color=plots.ACCENT, label="candidate")
    else:
        ax.barh(at - 0.2, own, 0.38, color=plots.ACCENT, label="candidate")
        ax.barh(at + 0.2, other, 0.38, color=plots.WARM, hatch="//", edgecolor=plots.PAPER, label="champion")
    ax.axvline(1 / len(labels), color=plots.INK, lw=0.8, ls=(0, (2, 2)))
    ax.set_yticks(at, people)
    ax.set(xlim=(0, 1), xlabel="balanced accuracy, all gestures; dashed: chance", ylim=(len(people) - 0.5, -0.5))
    ax.legend(fontsize=7, frameon=False, loc="lower right")
    yield Picture(
        "people", to_svg(figure, "people"), "Balanced accuracy of each held-out person", "Each held-out person."
    )
    rows = tuple(
        (
            person,
            fixed(own[i]),
            DASH if other is None else fixed(other[i]),
            DASH if other is None else fixed(own[i] - other[i]),
        )
        for i, person in enumerate(people)
    )
    yield Table("Balanced accuracy by person, all gestures", ("person", "candidate", "champion", "difference"), rows)


def _confusions(evidence: Evidence) -> Iterator[Block]:
    if evidence.candidate is None:
        return
    titles = {"seen": "whose EMG was learnt", "unseen": "whose EMG nobody recorded"}
    for name, title in titles.items():
        if name not in evidence.groups:
            continue
        labels = evidence.groups[name]
        counts = evidence.candidate.confusion(labels)
        figure, ax = _axes(_WIDTH if len(labels) > 5 else 3.4)
        words = [g.replace("_", " ") for g in labels]
        plots.shares(ax, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), words, words)
        ax.set(xlabel="decoded", ylabel="performed")
        yield Picture(
            f"confusion-{name}", to_svg(figure, f"confusion-{name}"),
            f"Confusion of gestures {title}", f"Gestures {title}: performed by decoded.",
        )  # fmt: skip


def _reliability(evidence: Evidence) -> Iterator[Block]:
    """Of windows with probability p a share p should be right."""
    if evidence.candidate is None or evidence.decision is None:
        return
    said = evidence.candidate.sureness(evidence.decision)
    sure, right = (np.concatenate([s[i] for s in said]) for i in (0, 1))
    order = np.argsort(sure, kind="stable")
    parts = [p for p in np.array_split(order, _BINS) if len(p)]
    if not parts:
        return
    figure, ax = _axes(3.4)
    ax.plot([0, 1], [0, 1], color=plots.INK, lw=0.8, ls=(0, (2, 2)))
    ax.plot([sure[p].mean() for p in parts], [right[p].mean() for p in parts], "o-", color=plots.ACCENT, lw=1.3, ms=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the likeliest gesture", ylabel="share that is right")
    yield Picture(
        "reliability", to_svg(figure, "reliability"), "Share that is right by probability",
        f"Tenths of {len(sure)} windows by probability; on the dashed line probabilities mean what they say.",
    )  # fmt: skip


def _losses(evidence: Evidence) -> Iterator[Block]:
    for title, names in _LOSSES:
        lines = {n: (range(len(evidence.history[n])), evidence.history[n]) for n in names if evidence.history.get(n)}
        if lines:
            figure, ax = _axes(2.9)
            plots.courses(ax, lines)
            ax.set(xlabel="step", ylabel="loss")
            name = title.replace(" ", "-")
            yield Picture(name, to_svg(figure, name), f"Loss of {title} by step", f"Loss, {title}.")


def _made(report: GateReport, evidence: Evidence) -> Iterator[Block]:
    m = evidence.bundle.manifest
    yield Text(
        f"`{m.release}` (`{evidence.bundle.digest}`), head {m.head}: {m.head_reason} Parent "
        f"{f'`{m.parent}`' if m.parent else 'none'}; snapshot `{m.lineage.snapshot}` of {len(m.lineage.sessions)} "
        f"sessions of {len(m.lineage.participants)} participants; recipe `{m.lineage.config}`; seed {m.lineage.seed}; "
        f"code {m.code}. Bootstrap seed {report.seed}."
    )


def _axes(height: float) -> tuple[Figure, Any]:
    figure = plots.new_figure(_WIDTH, height)
    return figure, figure.subplots()
