"""What a study leaves in its folder: `results.json`, beside one file an outcome and what pictures need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from embridge_cloud.study.choice import Choice
from embridge_cloud.study.compare import Difference
from embridge_cloud.study.rows import Row

RESULTS = "results.json"


class Scanned(msgspec.Struct, frozen=True, kw_only=True):
    """One cheap head over every set of unseen gestures.

    Attributes:
        method: The head.
        values: Balanced accuracy on unseen gestures of each set, mean over participants.
        chance: Of guessing.
        mean: Over sets.
        sd: Over sets.
        quantiles: 5, 25, 50, 75 and 95 % over sets, by name.
        seen: Mean over sets of the accuracy on seen gestures.
        folds: Accuracy of the sets the tables use, by name.
        wall_s: Of the scan, s.
    """

    method: str
    values: tuple[float, ...]
    chance: float = 0.25
    mean: float = 0.0
    sd: float = 0.0
    quantiles: dict[str, float] = {}
    seen: float = 0.0
    folds: dict[str, float] = {}
    wall_s: float = 0.0


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A question whose answer should be chance, and what was found.

    Attributes:
        name: Of the control.
        balanced_accuracy: Found.
        chance: Expected of something that does not leak.
        ci95: Interval over participants.
        expected: "chance" where the protocol rests on it, "above" where the data are known to tell.
        passed: What was found is what is expected.
        note: What it means.
    """

    name: str
    balanced_accuracy: float
    chance: float
    ci95: tuple[float, float] = (0.0, 0.0)
    expected: str = "chance"
    passed: bool = True
    note: str = ""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What a study found.

    Attributes:
        rows: One a method, regimes, protocol and share of participants.
        differences: Paired.
        scan: Heads over all sets of unseen gestures.
        controls: Traps of the data.
        choice: The head that ships.
        suite: "quick" or "full".
        data: Which recordings.
        command: That repeats it.
        commit: Of the code.
        environment: Machine and versions.
        wall_s: Of everything, s; of a study that was killed and went on, of its parts together.
        failures: Jobs that failed: what, where, why.
    """

    rows: tuple[Row, ...] = ()
    differences: tuple[Difference, ...] = ()
    scan: tuple[Scanned, ...] = ()
    controls: tuple[Control, ...] = ()
    choice: Choice | None = None
    suite: str = ""
    data: str = ""
    command: str = ""
    commit: str = ""
    environment: dict[str, Any] = {}
    wall_s: float | None = None
    failures: tuple[tuple[str, str, str], ...] = ()


def write_results(folder: Path, results: Results) -> Path:
    """Write the results whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = (folder / RESULTS).with_suffix(".part")
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    return scratch.replace(folder / RESULTS)
