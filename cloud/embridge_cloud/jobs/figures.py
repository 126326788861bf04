"""Jobs for a monitor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from embridge_cloud.api.metrics import gauge, gauges
from embridge_cloud.jobs.model import JobState
from embridge_cloud.jobs.runner import Jobs
from embridge_cloud.jobs.scheduler import Scheduler

_MADE = (JobState.DONE, JobState.REFUSED)


class JobFigures(Collector):
    """Figures of jobs and of what waits for the next one.

    Args:
        jobs: What runs them.
        scheduler: What begins them.
    """

    def __init__(self, jobs: Jobs, scheduler: Scheduler) -> None:
        self._jobs = jobs
        self._scheduler = scheduler

    def describe(self) -> Iterable[Metric]:
        """Nothing: its families depend on what there is."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Families of figures."""
        jobs = self._jobs.shelf.all()
        states = Counter(job.state for job in jobs)
        yield gauges("jobs", "Jobs by state.", ["state"], {(s.value,): states[s] for s in JobState})
        made = [(j.ended_ns - j.started_ns) * 1e-9 for j in jobs if j.state in _MADE]
        yield _last("job_last_seconds", "Length of the last job that came to a decision.", made)
        done = [j.ended_ns * 1e-9 for j in jobs if j.state is JobState.DONE]
        yield _last("job_last_success_timestamp_seconds", "When a release was last made, Unix time.", done)
        running = [j for j in jobs if j.state is JobState.RUNNING]
        yield gauge("job_attempts", "Attempts of the job that runs.", running[0].attempts if running else 0)
        standing = self._scheduler.standing()
        waiting = standing.waiting
        yield gauge("realign_enabled", "1 while realignments begin by themselves.", float(standing.schedule.enabled))
        yield gauge("realign_blocked", "1 while the schedule could not begin one.", float(bool(standing.failed)))
        yield gauge("realign_waiting_sessions", "New sessions that nobody has learnt from.", waiting.sessions)
        yield gauge("realign_waiting_participants", "New people that nobody has learnt from.", waiting.participants)
        yield gauge("realign_waiting_minutes", "Minutes of EMG with hand pose in them.", waiting.minutes)


def _last(name: str, text: str, values: Sequence[float]) -> Metric:
    """A gauge of the last of some values; without one while there are none."""
    return gauges(name, text, [], {(): values[-1]} if values else {})
