"""Signal quality: what every channel is worth, second by second, why, and what to do about it.

The edge runs it while it records and the cloud over stored sessions: the same code, so the same verdicts.
"""

from __future__ import annotations

from embridge_shared.quality.grades import ADVICE, LIMITS, TITLES, Grade, Limit, Metric, worst
from embridge_shared.quality.judge import Judge, Verdict
from embridge_shared.quality.profile import Profile, SignalKind
from embridge_shared.quality.summary import ChannelSummary, MetricSummary, Summary
from embridge_shared.quality.windows import HOP_S, LOSS_S, WINDOW_S, Window, Windows, assess

__all__ = [
    "ADVICE",
    "HOP_S",
    "LIMITS",
    "LOSS_S",
    "TITLES",
    "WINDOW_S",
    "ChannelSummary",
    "Grade",
    "Judge",
    "Limit",
    "Metric",
    "MetricSummary",
    "Profile",
    "SignalKind",
    "Summary",
    "Verdict",
    "Window",
    "Windows",
    "assess",
    "worst",
]
