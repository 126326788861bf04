"""Runs checks side by side: one that hangs is left behind and said so."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Final

from embridge_shared.doctor.model import Check, Finding, Level, Part, Situation
from embridge_shared.errors import ConfigError, EmbridgeError

logger = logging.getLogger(__name__)

GROUP: Final = "embridge.checks"
"""Entry points of this group are sequences of `Check`."""
DEADLINE_S: Final = 7.0


@dataclass(slots=True)
class Report:
    """What one check found.

    Attributes:
        check: The check.
        findings: In the order they were found; none as long as it has not ended.
        took_s: How long it took.
    """

    check: Check
    findings: list[Finding] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def level(self) -> Level:
        """The worst of what was found."""
        return max((f.level for f in self.findings), key=lambda level: level.rank, default=Level.OK)


def known_checks() -> list[Check]:
    """The checks of what is installed; a part whose packages are missing brings none."""
    found: list[Check] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        try:
            found += entry.load()
        except ModuleNotFoundError as error:
            logger.debug("no checks of %s: %s", entry.name, error)
    return found


def examine(situation: Situation, checks: Iterable[Check], *, deadline_s: float = DEADLINE_S) -> list[Report]:
    """Run the checks that concern this machine, all at once.

    Args:
        situation: What they look at.
        checks: What to run.
        deadline_s: A check that has not ended by then is left behind.

    Returns:
        A report a check, in the order given.
    """
    reports = [Report(c) for c in checks if c.part is Part.MACHINE or c.part in situation.parts]
    began_s = time.monotonic()
    threads = [threading.Thread(target=_run, args=(r, situation), daemon=True) for r in reports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, began_s + deadline_s - time.monotonic()))
    return [_outcome(r, thread, deadline_s) for r, thread in zip(reports, threads, strict=True)]


def _run(report: Report, situation: Situation) -> None:
    began_s = time.monotonic()
    report.findings = _look(report.check, situation)
    report.took_s = time.monotonic() - began_s


def _look(check: Check, situation: Situation) -> list[Finding]:
    if situation.settings is None and not check.blind:
        return [Finding.warn("not looked at: the settings cannot be read", "Correct the settings first.")]
    try:
        return list(check.look(situation)) or [Finding.ok("nothing to look at")]
    except ConfigError as error:
        return [Finding.fail(error.message, error.hint or "`embridge config show` tells what is set where.")]
    except EmbridgeError as error:
        return [Finding.fail(error.message, error.hint or "See docs/operations.md for this message.")]
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return [Finding.fail(f"{what}{error.strerror or error}", "Check the path and who may read it.")]
    except Exception as error:
        logger.debug("check %s", check.name, exc_info=True)
        said = f"the check itself failed: {type(error).__name__}: {error}"
        return [Finding.fail(said, "Report it, with what `embridge doctor --json` prints.")]


def _outcome(report: Report, thread: threading.Thread, deadline_s: float) -> Report:
    if not thread.is_alive():
        return report
    said = f"no answer within {deadline_s:g} s"
    return Report(report.check, [Finding.fail(said, "Something it asks hangs: a name server, a disk, a device.")],
                  deadline_s)  # fmt: skip


def worst(reports: Sequence[Report]) -> Level:
    """The worst level of all."""
    return max((r.level for r in reports), key=lambda level: level.rank, default=Level.OK)
