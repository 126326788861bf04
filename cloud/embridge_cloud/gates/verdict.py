"""The gate: a candidate against the release in force, on people nobody learnt from, decided and put in words."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from embridge_cloud.gates import checks, costs
from embridge_cloud.gates.card import Evidence, write_card
from embridge_cloud.gates.checks import Pair
from embridge_cloud.gates.contender import Contender
from embridge_cloud.gates.figures import Heard
from embridge_cloud.gates.files import Seen, keep_report, read_guard
from embridge_cloud.gates.intervals import People
from embridge_cloud.gates.panel import Panel, empanel, eras, named_groups, prove_strangers
from embridge_cloud.gates.policy import GatePolicy
from embridge_cloud.recipe import SUMMARY, Recipe, Summary
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.clock import Clock
from embridge_shared.errors import DataError, ModelError, Reason
from embridge_shared.fleet import GateCheck, GateReport
from embridge_shared.release import read_bundle

logger = logging.getLogger(__name__)

_LABELS: Final = "data.labels"


def judge(job_folder: Path, store: Path, *, champion: Path | None, policy: GatePolicy, clock: Clock) -> GateReport:
    """Decide whether a job's candidate may become a release; writes `gate.json`, a card and pictures beside it.

    Args:
        job_folder: A finished job: recipe, summary and bundle.
        store: Folder of sealed sessions.
        champion: Bundle of the release in force; None for the first of a line.
        policy: What the candidate must hold.
        clock: Dates the decision.

    Raises:
        DataError: The job's folder or a session is damaged.
        LeakageError: Somebody of the panel was learnt from.
        ModelError: A bundle is damaged or cannot be run.
    """
    recipe, summary = _job(job_folder)
    candidate = Contender.read(job_folder / summary.bundle)
    opponent = None if champion is None else Contender.read(champion)
    contenders = [c for c in (candidate, opponent) if c is not None]
    catalogue = Catalogue(store)
    unseen = {g.label for c in contenders for g in c.bundle.manifest.gestures if not g.emg_seen}
    panel = empanel(catalogue, recipe.held_out, sorted(unseen | set(recipe.unseen)))
    prove_strangers(panel, [c.bundle.manifest for c in contenders], catalogue)
    case = _Case(candidate, opponent, panel, policy, _chain(job_folder, opponent))
    found = (*case.checks(), *_labels(read_guard(job_folder), policy))
    report = GateReport(
        candidate=candidate.name,
        champion="" if opponent is None else opponent.name,
        accepted=all(c.passed for c in found if c.required) and not case.lacks,
        reason=_reason(case, found),
        checks=found,
        participants=len(panel.people),
        snapshot=summary.snapshot,
        seed=policy.seed,
        decided_ns=clock.wall_ns(),
    )
    keep_report(job_folder, report)
    write_card(job_folder, report, case.evidence(summary.history))
    logger.info("%s: %s", report.candidate, report.reason)
    return report


def _job(folder: Path) -> tuple[Recipe, Summary]:
    try:
        recipe = msgspec.json.decode((folder / "config.json").read_bytes(), type=Recipe)
        return recipe, msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no finished job: {error.filename} is missing", reason=Reason.NOT_FOUND
        ) from None
    except msgspec.DecodeError as error:
        raise DataError(f"{folder} is damaged: {error}", reason=Reason.MALFORMED) from error


def _chain(job_folder: Path, champion: Contender | None) -> tuple[int, ...]:
    """When the champion and the releases before it were made, Unix time, ns; as far back as jobs are kept."""
    bundles: dict[str, Path] = {}
    for path in sorted(job_folder.parent.glob(f"*/{SUMMARY}")):
        try:
            summary = msgspec.json.decode(path.read_bytes(), type=Summary)
        except msgspec.DecodeError:
            logger.warning("%s is damaged and left out", path)
            continue
        bundles[summary.digest] = path.parent / summary.bundle
    made, manifest = [], None if champion is None else champion.bundle.manifest
    while manifest is not None:
        made.append(manifest.created_ns)
        parent = bundles.pop(manifest.parent, None)
        try:
            manifest = None if parent is None else read_bundle(parent).manifest
        except ModelError as error:
            logger.warning("the line is known back to %s only: %s", manifest.release if manifest else parent, error)
            manifest = None
    return tuple(sorted(made))


@dataclass(frozen=True, slots=True)
class _Case:
    """All that a decision rests on."""

    candidate: Contender
    champion: Contender | None
    panel: Panel
    policy: GatePolicy
    made_ns: tuple[int, ...]
    _said: dict[str, Heard] = field(default_factory=dict)

    @property
    def lacks(self) -> str:
        """Why nothing can be decided; empty when it can."""
        people = len(self.panel.people)
        if self.champion is None:
            if people >= 2 or (people == 0 and self.policy.first_without_people):
                return ""
            return f"{people} held-out people are recorded, and two are the least"
        least = self.policy.min_people
        return "" if people >= least else f"{people} held-out people are recorded, and {least} are the least"

    def gestures(self) -> dict[str, tuple[str, ...]]:
        """Gestures both know: seen, unseen and all, those of which there are two or more."""
        common = [
            g for g in self.candidate.bundle.manifest.gestures
            if self.champion is None or g.label in self.champion.labels
        ]  # fmt: skip
        groups = {
            "seen": tuple(g.label for g in common if g.emg_seen),
            "unseen": tuple(g.label for g in common if not g.emg_seen),
            "all": tuple(g.label for g in common),
        }
        return {name: labels for name, labels in groups.items() if len(labels) >= 2}

    def said(self, contender: Contender) -> Heard:
        """What a contender says of the panel, asked once."""
        if contender.name not in self._said:
            stretches = self.panel.stretches(contender.taken, self._known())
            self._said[contender.name] = Heard(contender.labels, self.panel.people, tuple(contender.listen(stretches)))
        return self._said[contender.name]

    def _known(self) -> set[str]:
        return {label for c in (self.candidate, self.champion) if c is not None for label in c.labels}

    def checks(self) -> Iterator[GateCheck]:
        """Everything that is looked at."""
        yield from checks.golden(self.candidate)
        if self.champion is not None:
            yield checks.kept_gestures(self.candidate, self.champion)
        windows = [self._windows(c) for c in (self.candidate, self.champion) if c is not None]
        yield costs.quantised(self.candidate, windows[0], self.policy)
        yield from costs.costs(self.candidate, self.champion, windows, self.policy)
        if len(self.panel.people) >= 2:
            yield from self._on_people()
        elif self.champion is None:
            yield from checks.watched(self.candidate.bundle.manifest.metrics, self.policy)

    def _windows(self, contender: Contender) -> NDArray[np.float32]:
        stretches = self.panel.stretches(contender.taken, self._known())
        return costs.windows_of(contender, stretches, self.policy.costs.windows, self.policy.seed)

    def _on_people(self) -> Iterator[GateCheck]:
        p, champion = self.policy, self.champion
        draws = People.of(len(self.panel.people), confidence=p.confidence, resamples=p.resamples, seed=p.seed)
        pair = Pair(self.said(self.candidate), None if champion is None else self.said(champion), draws, p)
        groups = self.gestures()
        titles = {"seen": "gestures whose EMG was learnt", "unseen": "gestures nobody recorded", "all": "all gestures"}
        floors = {"seen": p.floors.seen, "unseen": p.floors.unseen}
        for name, labels in groups.items():
            yield pair.accuracy(name, titles[name], labels, getattr(p.margins, name), floors.get(name))
        if champion is not None:
            yield pair.worst(groups["all"])
            for name, people in self._earlier().items():
                yield pair.group(name, people, groups["all"])
        own = self.candidate.bundle.manifest.decision
        other = None if champion is None else champion.bundle.manifest.decision
        for check in (pair.calibration(own, other), pair.false_activations(own, other)):
            if check is not None:
                yield check

    def _earlier(self) -> dict[str, tuple[str, ...]]:
        """Groups that must not be forgotten, where they are not simply everybody."""
        if self.policy.groups:
            return named_groups(self.policy.groups, self.panel)
        found = eras(self.panel, self.made_ns)
        return {name: people for name, people in found.items() if people != self.panel.people}

    def evidence(self, history: dict[str, list[float]]) -> Evidence:
        """What pictures are made of."""
        people = len(self.panel.people) >= 2
        return Evidence(
            candidate=self.said(self.candidate) if people else None,
            champion=self.said(self.champion) if people and self.champion is not None else None,
            decision=self.candidate.bundle.manifest.decision,
            groups=self.gestures(),
            bundle=self.candidate.bundle,
            history=history,
        )


def _labels(seen: Sequence[Seen], policy: GatePolicy) -> Iterator[GateCheck]:
    """Whether the new recordings can be believed."""
    new = [s for s in seen if not s.trusted]
    if not new:
        return
    bad = [s for s in new if s.suspicious]
    share = len(bad) / len(new)
    named = "; ".join(f"{s.session} of {s.participant}: {s.suspicious}" for s in bad)
    yield GateCheck(
        name=_LABELS,
        title="new sessions that contradict themselves or the others",
        candidate=share,
        limit=policy.max_suspicious,
        better="less",
        passed=share <= policy.max_suspicious,
        why=f"{len(bad)} of {len(new)} new sessions are suspicious. {named}".strip(),
    )


def _reason(case: _Case, found: Sequence[GateCheck]) -> str:
    """The decision in words, with figures."""
    failed = [c for c in found if c.required and not c.passed]
    people = len(case.panel.people)
    if failed or case.lacks:
        faults = [f"{c.title}: {c.why}" for c in failed]
        return "Refused. " + " ".join([f"{case.lacks}." if case.lacks else "", *faults]).strip()
    if not people:
        return (
            "Accepted as the first of its line on its self-tests: nobody is held out and recorded yet, so nothing is "
            "known of new wearers."
        )
    told = [f"{c.title} {c.why}" for c in found if c.name.endswith(".accuracy")]
    power = _power(found)
    return f"Accepted on {people} people: {' '.join(told)}{power}"


def _power(found: Sequence[GateCheck]) -> str:
    """What a panel of that size cannot see."""
    overall = next((c for c in found if c.name == "all.accuracy" and c.champion is not None), None)
    if overall is None or overall.low is None or overall.champion is None:
        return ""
    width = overall.candidate - overall.champion - overall.low
    return f" Over all gestures this panel tells a difference of {width:.3f}, not a smaller one."
