"""Rollouts for a monitor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from embridge_cloud.api.metrics import counter, gauge, gauges
from embridge_cloud.rollouts.driver import Rollouts
from embridge_cloud.rollouts.engine import OPEN
from embridge_cloud.rollouts.tally import tally
from embridge_shared.clock import Clock
from embridge_shared.fleet import RolloutState, UpdatePhase


class RolloutFigures(Collector):
    """Figures of rollouts and of the releases that edges run.

    Args:
        rollouts: What runs them.
        clock: Time.
    """

    def __init__(self, rollouts: Rollouts, clock: Clock) -> None:
        self._rollouts = rollouts
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Nothing: its families depend on what there is."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Families of figures."""
        yield from self._edges()
        rollouts = self._rollouts.shelf.all()
        states = Counter(r.state for r in rollouts)
        yield gauges("rollouts", "Rollouts by state.", ["state"], {(s.value,): states[s] for s in RolloutState})
        under_way = [(r, tally(r)) for r in rollouts if r.state in OPEN]
        labels = ["rollout", "release"]
        waves = {(r.id, r.release): r.wave + 1.0 for r, _ in under_way}
        yield gauges("rollout_wave", "Wave under way, from 1.", labels, waves)
        counts = {
            (r.id, r.release, what): float(sum(getattr(wave, what) for wave in waves))
            for r, waves in under_way
            for what in ("edges", "asked", "committed", "errors", "offline", "waits")
        }
        yield gauges("rollout_edges", "Edges of a rollout that is not over.", [*labels, "what"], counts)
        ages = {(r.id, r.release): self._oldest_s(r.id) for r, _ in under_way}
        yield gauges("rollout_oldest_answer_seconds", "Longest silence of an edge that was asked.", labels, ages)
        yield counter(
            "rollout_failures", "Rounds of rollouts that failed and were tried again.", self._rollouts.failures
        )

    def _edges(self) -> Iterator[Metric]:
        shadows = self._rollouts.roster.all()
        states = [s.reported for s in shadows if s.reported is not None]
        phases = Counter(state.update.phase for state in states)
        yield gauges(
            "edge_updates",
            "Edges by where their update stands.",
            ["phase"],
            {(p.value,): phases[p] for p in UpdatePhase},
        )
        running = Counter(state.release for state in states)
        yield gauges(
            "edge_releases",
            "Edges by the release that decodes there.",
            ["release"],
            {(name or "none",): n for name, n in running.items()},
        )
        yield gauge("edges_pinned", "Edges that are pinned to a release.", sum(1 for s in shadows if s.desired.pinned))

    def _oldest_s(self, name: str) -> float:
        """Time since the oldest last word of an edge that is connected, was asked and is not done, s."""
        found = [
            max(p.asked_ns, p.heard_ns, p.online_ns)
            for p in self._rollouts.shelf.get(name).edges
            if p.asked_ns and p.online_ns and not p.left and p.phase is not UpdatePhase.COMMITTED
        ]
        return (self._clock.wall_ns() - min(found)) * 1e-9 if found else 0.0
