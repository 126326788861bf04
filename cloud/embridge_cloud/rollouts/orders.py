"""Which release an edge is to run, and the message that tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from embridge_cloud.rollouts.judge import RUNS
from embridge_cloud.rollouts.roster import Shadow
from embridge_cloud.rollouts.shelf import number
from embridge_cloud.rollouts.views import EdgeView
from embridge_shared.errors import OperatorError, Reason
from embridge_shared.fleet import EdgeProgress, Rollout, RolloutState, Trial
from embridge_shared.manifest import Published
from embridge_shared.wire import topics
from embridge_shared.wire.messages import Desired, EdgeState, pack

replace = msgspec.structs.replace


@dataclass(frozen=True, slots=True)
class Releases:
    """What is published.

    Attributes:
        known: Releases by name.
    """

    known: Mapping[str, Published]

    def usable(self, name: str) -> bool:
        """Whether a release is published and not recalled."""
        return name in self.known and not self.known[name].recalled

    def need(self, name: str) -> Published:
        """A release that may be run.

        Raises:
            OperatorError: NOT_FOUND; RECALLED.
        """
        if name not in self.known:
            raise OperatorError(
                f"there is no release {name!r}", reason=Reason.NOT_FOUND, hint="`embridge release list` shows them."
            )
        found = self.known[name]
        if found.recalled:
            raise OperatorError(
                f"{name} is recalled: {found.recalled}", reason=Reason.RECALLED, hint="Roll out another release."
            )
        return found

    def champion(self, line: str) -> str:
        """The newest release of a line that is not recalled; empty for none."""
        fit = [p for p in self.known.values() if p.line == line and not p.recalled]
        return max(fit, key=lambda p: p.version).name if fit else ""

    def newer(self, running: str, release: str) -> bool:
        """Whether an edge that runs `running` would go back with `release`: it refuses that."""
        if not self.usable(running) or release not in self.known:
            return False
        a, b = self.known[running], self.known[release]
        return a.line == b.line and a.version > b.version


def target(rollout: Rollout, progress: EdgeProgress, releases: Releases) -> str:
    """The release an edge that a rollout has asked is to run now; empty for none."""
    recalled = not releases.usable(rollout.release)
    stays = rollout.state is not RolloutState.ABORTED or progress.phase in RUNS
    if not recalled and rollout.state is not RolloutState.ROLLING_BACK and stays:
        return rollout.release
    before = progress.from_release
    if before != rollout.release and releases.usable(before):
        return before
    if not recalled or rollout.release not in releases.known:
        return ""
    # With nothing to go back to it is asked once more, so that it learns of the recall.
    return releases.champion(releases.known[rollout.release].line) or rollout.release


def view_of(shadow: Shadow, *, barred: str = "") -> EdgeView:
    """An edge as the engine sees it."""
    state = shadow.reported or EdgeState(edge=shadow.desired.edge, online=False)
    return EdgeView(
        edge=shadow.desired.edge,
        online=state.online,
        release=state.release,
        digest=state.digest,
        update=state.update,
        health=state.health,
        heard_ns=shadow.heard_ns,
        barred=barred,
    )


def barred(shadow: Shadow, rollout: Rollout, releases: Releases, *, asked: bool) -> str:
    """Why an edge may take no part in a rollout; empty if it may.

    Args:
        shadow: The edge.
        rollout: The rollout.
        releases: What is published.
        asked: It was asked already, so what it runs is no reason any more.
    """
    record = shadow.desired
    if record.pinned:
        return f"pinned to {record.pinned}"
    if rollout.cohort and record.cohort != rollout.cohort:
        return f"in cohort {record.cohort}" if record.cohort else "in no cohort"
    if number(record.rollout) > number(rollout.id):
        return f"asked by {record.rollout}"
    running = shadow.reported.release if shadow.reported is not None else ""
    if not asked and releases.newer(running, rollout.release):
        return f"runs {running}, which is newer"
    return ""


def message(shadow: Shadow, releases: Releases, *, url: str, trial: Trial | None) -> tuple[str, bytes]:
    """Topic and payload that tell an edge what to run; an empty payload takes back what it was told."""
    record = shadow.desired
    topic = topics.desired_topic(record.edge)
    if record.release not in releases.known:
        return topic, b""
    desired = Desired(
        release=record.release,
        digest=releases.known[record.release].digest,
        url=url,
        rollout=record.rollout,
        trial=trial,
    )
    return topic, pack(desired)
