"""What a folder of emg2pose files holds and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from embridge_cloud.datasets.base import Progress
from embridge_cloud.datasets.check import Report
from embridge_cloud.datasets.emg2pose import Emg2PoseDataset, to_recording
from embridge_cloud.datasets.emg2pose_files import (
    FAITHFUL,
    METADATA,
    SUFFIX,
    Entry,
    Take,
    metadata_file,
    read_metadata,
    read_take,
    self_described,
    stage_of,
)
from embridge_shared.errors import DataError

_SHOWN = 5


def check(folder: Path, opened: Callable[[Path, str], Emg2PoseDataset], variant: str, progress: Progress) -> Report:
    """Read every file of a folder.

    Args:
        folder: The folder.
        opened: Opens it.
        variant: Of the data set.
        progress: Told (files done, files, file).
    """
    report = Report()
    dataset = None
    try:
        dataset = opened(folder, variant)
        report.facts, report.spec = dataset.facts, f"{dataset.name}:{folder}"
    except DataError as error:
        report.error("", error.message, error.hint)
    paths = sorted(folder.rglob(f"*{SUFFIX}"))
    entries = _entries(report, folder, paths)
    for done, path in enumerate(paths):
        progress(done, len(paths), path.name)
        try:
            take = read_take(path)
            entry = entries.get(path.stem) or self_described(path)
        except DataError as error:
            report.error(path.name, error.message, error.hint or "Leave the file out.")
            continue
        report.files += 1
        _look(report, take, entry, listed=path.stem in entries or not entries)
    if dataset is not None:
        _summarise(report, dataset)
    return report


def _entries(report: Report, folder: Path, paths: list[Path]) -> dict[str, Entry]:
    listed = metadata_file(folder)
    if listed is None:
        report.warn("", f"there is no {METADATA}", "Without it there are no splits and no held-out stages: fetch it.")
        return {}
    try:
        entries = {e.filename: e for e in read_metadata(listed)}
    except DataError:
        return {}
    strangers = [p.name for p in paths if p.stem not in entries]
    if strangers:
        shown = ", ".join(strangers[:_SHOWN]) + (" …" if len(strangers) > _SHOWN else "")
        report.warn("", f"{len(strangers)} files are not in {METADATA}: {shown}", "They are left out.")
    absent = len(entries.keys() - {p.stem for p in paths})
    if absent:
        report.note("", f"{absent} of the {len(entries)} files in {METADATA} are not here", "A part is a data set too.")
    return entries


def _look(report: Report, take: Take, entry: Entry, *, listed: bool) -> None:
    """One file: its samples, and what it says of itself."""
    if listed:
        report.add(to_recording(take, entry, 1))
    if not take.valid.any():
        report.warn(entry.filename, "inverse kinematics failed throughout", "Nothing is cut from it.")
    user = str(take.attributes.get("user", entry.user))
    if user != entry.user:
        report.warn(entry.filename, f"says inside that its user is {user}, not {entry.user}", "The metadata count.")
    if stage_of(str(take.attributes.get("stage", entry.stage))) != stage_of(entry.stage):
        report.warn(entry.filename, f"says inside that its stage is {take.attributes['stage']}", "The metadata count.")


def _summarise(report: Report, dataset: Emg2PoseDataset) -> None:
    parts = Counter(e.part or "none" for e in dataset.entries)
    report.details["splits"] = ", ".join(f"{name} {n}" for name, n in sorted(parts.items()))
    report.details["held-out stages"] = ", ".join(dataset.held_out()) or "none"
    tasks = [f"{t.name} ({len(t.seen)} seen, {len(t.unseen)} unseen)" for t in dataset.tasks()]
    report.details["tasks"] = ", ".join(tasks) or "none"
    still = sum(not e.moving for e in dataset.entries)
    report.details["hands at rest"] = f"{still} of {len(dataset.entries)} files: the other hand was instructed"
    if not any(t.name == FAITHFUL for t in dataset.tasks()):
        report.note("", "not all eight stages of the published comparison are here", "Its table needs all of them.")
