"""What a folder holds and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from embridge_cloud.datasets.base import Facts, PairedRecording

_SHOWN: Final = 3


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # cannot be learnt from
    WARNING = "warning"  # can, but look at it
    NOTE = "note"  # as published


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or odd.

    Attributes:
        severity: How bad.
        where: File, or empty for the folder.
        what: What.
        hint: What to do.
    """

    severity: Severity
    where: str
    what: str
    hint: str = ""


@dataclass(slots=True)
class Report:
    """The outcome of a check.

    Attributes:
        spec: What to give to `--data`; empty where the folder cannot be opened.
        facts: Of the base; None where it is not known.
        files: Files read.
        seconds: Recorded time by participant.
        movement_s: Time inside repetitions by gesture.
        repetitions: Trials by gesture; one broken by a missing pose counts once.
        channels: Numbers of EMG channels met.
        pose_channels: Numbers of pose channels met.
        rates_hz: EMG rates met.
        pose_rates_hz: Pose rates met.
        invalid_pose_s: Time without a valid pose.
        findings: In order of discovery.
        details: Whatever else a plugin wants shown, by title.
    """

    spec: str = ""
    facts: Facts | None = None
    files: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    movement_s: dict[str, float] = field(default_factory=dict)
    repetitions: dict[str, int] = field(default_factory=dict)
    channels: set[int] = field(default_factory=set)
    pose_channels: set[int] = field(default_factory=set)
    rates_hz: set[float] = field(default_factory=set)
    pose_rates_hz: set[float] = field(default_factory=set)
    invalid_pose_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """True where something can be learnt from the folder as it lies."""
        return bool(self.spec) and bool(self.seconds) and not any(f.severity is Severity.ERROR for f in self.findings)

    @property
    def hours(self) -> float:
        """Recorded time, h."""
        return sum(self.seconds.values()) / 3600

    def gathered(self) -> list[tuple[Severity, str, str, str]]:
        """Findings, the worst first, those that say the same of several files as one: (severity, where, what, hint)."""
        groups: dict[tuple[Severity, str, str], list[str]] = {}
        for f in self.findings:
            groups.setdefault((f.severity, f.what, f.hint), []).append(f.where)
        order = list(Severity)
        return [
            (severity, _places(where), what, hint)
            for (severity, what, hint), where in sorted(groups.items(), key=lambda g: order.index(g[0][0]))
        ]

    def error(self, where: str, what: str, hint: str = "") -> None:
        """Note what makes the folder unusable."""
        self.findings.append(Finding(Severity.ERROR, where, what, hint))

    def warn(self, where: str, what: str, hint: str = "") -> None:
        """Note what should be looked at."""
        self.findings.append(Finding(Severity.WARNING, where, what, hint))

    def note(self, where: str, what: str, hint: str = "") -> None:
        """Note what is odd as published."""
        self.findings.append(Finding(Severity.NOTE, where, what, hint))

    def add(self, recording: PairedRecording) -> None:
        """Count a recording in, and look at its samples."""
        name, rate_hz = recording.participant, recording.emg_rate_hz
        self.seconds[name] = self.seconds.get(name, 0.0) + recording.seconds
        self.rates_hz.add(rate_hz)
        self.channels.add(recording.emg.shape[1])
        for s in recording.segments:
            if s.repetition > 0:
                self.movement_s[s.gesture] = self.movement_s.get(s.gesture, 0.0) + (s.stop - s.start) / rate_hz
        for gesture, _ in dict.fromkeys((s.gesture, s.repetition) for s in recording.segments if s.repetition > 0):
            self.repetitions[gesture] = self.repetitions.get(gesture, 0) + 1
        constant = np.flatnonzero(np.ptp(recording.emg, axis=0) == 0)
        if len(constant):
            self.warn(
                recording.session,
                f"EMG channels {', '.join(map(str, constant))} are constant",
                "A dead electrode; the wearer's scale keeps it small, but leave the participant out of a report.",
            )
        if not recording.segments:
            self.warn(recording.session, "no movement is labelled", "Nothing can be cut from it.")
        if recording.pose is None:
            self.warn(recording.session, "there is no pose", "It can be tested on, not aligned with.")
            return
        self.pose_rates_hz.add(recording.pose_rate_hz)
        self.pose_channels.add(recording.pose.shape[1])
        if recording.pose_valid is not None:
            self.invalid_pose_s += float((~recording.pose_valid).sum()) / recording.pose_rate_hz
        still = np.flatnonzero(np.nanmax(recording.pose, axis=0) == np.nanmin(recording.pose, axis=0))
        if len(still):
            self.warn(
                recording.session,
                f"pose channels {', '.join(map(str, still))} are constant",
                "A broken sensor: distances between poses do not see it.",
            )


def _places(where: list[str]) -> str:
    shown = ", ".join(where[:_SHOWN])
    return f"{shown} and {len(where) - _SHOWN} more" if len(where) > _SHOWN else shown
