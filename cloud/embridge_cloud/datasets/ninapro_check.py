"""What a folder of NinaPro files holds and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embridge_cloud.datasets.base import Progress, Segment
from embridge_cloud.datasets.check import Report
from embridge_cloud.datasets.ninapro import NinaproDataset, detect, scan, to_recording
from embridge_shared import ninapro
from embridge_shared.errors import DataError
from embridge_shared.ninapro import BASES, FileName, NinaproBase, NinaproFile

_NAMED = "Rename it to what the publisher calls it: S1_E1_A1.mat."


def check(folder: Path, variant: str, progress: Progress) -> Report:
    """Read every file of a folder.

    Args:
        folder: The folder.
        variant: Name of the base, or empty to let the files say.
        progress: Told (files done, files, file).
    """
    report = Report()
    files = scan(folder)
    base = _base(report, folder, variant)
    _try_open(report, folder, base)
    for done, (path, name) in enumerate(files.items()):
        progress(done, len(files), path.name)
        if name is None:
            report.warn(path.name, "the name does not say participant and exercise; the file is left out", _NAMED)
            continue
        try:
            file = ninapro.read(path)
            _look(report, file, name, base)
            report.files += 1
        except DataError as error:
            report.error(path.name, error.message, error.hint or "Leave the file out.")
    _missing(report, {p: n for p, n in files.items() if n is not None}, base)
    return report


def _base(report: Report, folder: Path, variant: str) -> NinaproBase | None:
    if variant:
        return BASES[variant]
    try:
        return detect(folder)
    except DataError as error:
        report.error("", error.message, error.hint)
        return None


def _try_open(report: Report, folder: Path, base: NinaproBase | None) -> None:
    if base is None:
        return
    try:
        report.facts = NinaproDataset(folder, base).facts
        report.spec = f"ninapro-{base.name}:{folder}"
    except DataError as error:
        report.error("", error.message, error.hint)


def _look(report: Report, file: NinaproFile, name: FileName, base: NinaproBase | None) -> None:
    """One file: against its name, against its base, and its samples."""
    if (file.subject, file.exercise) != (name.subject, name.exercise):
        report.warn(
            file.name,
            f"says inside that it is participant {file.subject}, exercise {file.exercise}",
            "The contents count; check that the file was not renamed.",
        )
    lengths = {k: s[0] for k, s in file.variables.items() if s[:1] and k in ("emg", "glove", *ninapro.LABELS)}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{k} {n}" for k, n in lengths.items())
        report.note(file.name, f"arrays differ in length ({shown})", "All are cut to the shortest.")
    buffers = int(((file.label > 0) & (file.repetition == 0)).sum())
    if buffers:
        report.note(file.name, f"{buffers} samples of a movement belong to no repetition", "They are not cut.")
    if base is None:
        return
    recording = to_recording(file, base)
    report.add(recording)
    if file.glove is not None and not np.isfinite(file.glove).all():
        report.warn(file.name, "the glove has samples that are not numbers", "Windows over them are left out.")
    for gesture, trials in _trials(recording.segments).items():
        if len(trials) != base.repetitions:
            report.note(file.name, f"{gesture} has {len(trials)} repetitions, not {base.repetitions}")


def _trials(segments: tuple[Segment, ...]) -> dict[str, set[int]]:
    """Repetitions by gesture."""
    found: dict[str, set[int]] = {}
    for s in segments:
        found.setdefault(s.gesture, set()).update({s.repetition} - {0})
    return found


def _missing(report: Report, files: dict[Path, FileName], base: NinaproBase | None) -> None:
    """Participants that lack an exercise or an acquisition that others have."""
    parts = {(n.exercise, n.acquisition) for n in files.values()}
    for subject in sorted({n.subject for n in files.values()}):
        lacking = parts - {(n.exercise, n.acquisition) for n in files.values() if n.subject == subject}
        if lacking:
            shown = ", ".join(f"E{e}_A{a}" for e, a in sorted(lacking))
            report.warn(f"S{subject}", f"{shown} missing", "Fetch it, or expect unequal classes.")
    if base is not None and len(base.exercises) > len({e for e, _ in parts}) and parts:
        present = ", ".join(str(e) for e in sorted({e for e, _ in parts}))
        report.note("", f"exercise {present} only; {base.name.upper()} has {len(base.exercises)}")
