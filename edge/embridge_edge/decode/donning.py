"""Re-donning: from some seconds of any gestures, how the band sits today, said in words and kept for this donning."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from embridge_edge.decode.activity import active_windows, ring_activity
from embridge_edge.decode.calibration import Calibration
from embridge_edge.decode.kept import Kept
from embridge_shared.errors import OperatorError
from embridge_shared.preprocess import Features, PreprocessConfig
from embridge_shared.wearer.donning import FITS_NATS, LEAST_WINDOWS, WORTH_NATS, Turn, find_turn, refit
from embridge_shared.wearer.worn import Sits

FOLDER: Final = "donnings"
LASTS_H: Final = 12.0
"""How long a donning counts: nobody wears a band overnight unseen."""
_NS_PER_H: Final = 3600 * 10**9
_SEEN: Final = 0.06
"""Turn, in electrodes, that is none."""


class Verdict(StrEnum):
    """What was found of a donning."""

    SAME = "same"  # it sits as it did
    TURNED = "turned"  # turned, and worth undoing
    TOO_LITTLE = "too-little"  # not enough activity to tell
    FOREIGN = "foreign"  # like this wearer's arm at no turn
    NO_RING = "no-ring"  # the band is no ring, or nobody knows its order
    NO_REFERENCE = "no-reference"  # the calibration does not say how the band sat


class Look(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found.

    Attributes:
        verdict: In a word.
        said: In a sentence.
        advice: What to do next, or empty.
        windows: Windows in which the hand moved.
        turn: The best turn; None where none was looked for.
        sits: What undoes it; None where nothing can be said.
    """

    verdict: Verdict
    said: str
    advice: str = ""
    windows: int = 0
    turn: Turn | None = None
    sits: Sits | None = None

    @property
    def useful(self) -> bool:
        """Whether it can be applied."""
        return self.sits is not None


class Donning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a band sits since it was put on last.

    Attributes:
        participant: Pseudonym.
        key: Of the calibration it goes with, see `calibration_key`.
        calibrated_ns: When that was made; another calibration makes this void.
        sits: What undoes it.
        turn: What was found.
        created_ns: Unix time, ns.
        until_ns: Unix time it ends, ns.
    """

    participant: str
    key: str
    calibrated_ns: int
    sits: Sits
    turn: Turn
    created_ns: int
    until_ns: int


def look(calibration: Calibration, preprocess: PreprocessConfig, runs: Iterable[Features]) -> Look:
    """Find how a band sits.

    Args:
        calibration: The wearer's, with the activity it was made of.
        preprocess: The release's.
        runs: Features of some seconds of any gestures, as `run_chunks` gives them; unscaled.
    """
    if not calibration.ring:
        return Look(
            verdict=Verdict.NO_RING,
            said="How this band sits cannot be told: its channels are not known to be a ring around the arm.",
            advice="Name them in order around the arm in edge.rings, then calibrate again.",
        )
    if calibration.activity is None:
        return Look(
            verdict=Verdict.NO_REFERENCE,
            said="The calibration does not say how the band sat then.",
            advice="Calibrate again; it takes about a minute.",
        )
    windows = active_windows(runs, preprocess, calibration.scale)
    if len(windows) < LEAST_WINDOWS:
        return Look(
            verdict=Verdict.TOO_LITTLE,
            said=f"The hand moved in {len(windows)} windows only; {LEAST_WINDOWS} are needed.",
            advice="Make eight or more different gestures, a second or two each, and try again.",
            windows=len(windows),
        )
    today = ring_activity(windows, calibration.ring)
    found = find_turn(today, calibration.activity)
    limit = FITS_NATS * len(calibration.ring)
    if found.distance > limit:
        return Look(
            verdict=Verdict.FOREIGN,
            said=f"This arm does not look like the one that was calibrated, however the band is turned "
            f"({found.distance:.1f} nats apart, {limit:.1f} is the limit).",
            advice="Is it the other arm, the band the wrong way round, or somebody else? Were the gestures as varied "
            "as in the calibration, best the same? If all is right, calibrate again.",
            windows=len(windows),
            turn=found,
        )
    worth = found.gain > WORTH_NATS and abs(found.electrodes) > _SEEN
    electrodes = found.electrodes if worth else 0.0
    gain = np.ones(len(calibration.scale.gain))
    gain[list(calibration.ring)] = refit(today, calibration.activity, electrodes)
    if preprocess.scale.kind == "none":
        gain[:] = 1.0
    return Look(
        verdict=Verdict.TURNED if worth else Verdict.SAME,
        said=_said(electrodes, len(calibration.ring)),
        windows=len(windows),
        turn=found,
        sits=Sits(ring=calibration.ring, electrodes=electrodes, gain=tuple(gain.tolist())),
    )


def _said(electrodes: float, ring: int) -> str:
    if not electrodes:
        return "The band sits as it did when you calibrated; only its strength was adjusted."
    way = "higher" if electrodes > 0 else "lower"
    far = abs(electrodes)
    unit = "electrode" if far == 1 else "electrodes"
    return (
        f"The band sits {far:g} {unit} ({far * 360 / ring:.0f} degrees) further towards the {way} electrode numbers "
        "than when you calibrated: corrected."
    )


class DonningStore(Kept[Donning]):
    """Donnings on disk; another one replaces the last.

    Args:
        folder: Its folder; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Donning, hint="Run `embridge edge don` again.")

    def of(self, calibration: Calibration, now_ns: int) -> Donning | None:
        """What goes with a calibration and has not ended; None where there is none.

        Raises:
            DataError: MALFORMED: the file is damaged or another's.
        """
        found = self.load(calibration.participant, calibration.key)
        if found is None:
            return None
        fits = found.calibrated_ns == calibration.created_ns and len(found.sits.gain) == len(calibration.scale.gain)
        return found if fits and found.created_ns <= now_ns < found.until_ns else None

    def take_off(self, calibration: Calibration) -> bool:
        """Forget how the band sits. Whether anything was known."""
        return self.drop(calibration.participant, calibration.key)


def don(
    store: DonningStore, calibration: Calibration, found: Look, *, now_ns: int, lasts_h: float = LASTS_H
) -> Donning:
    """Keep what was found for this donning.

    Raises:
        OperatorError: Nothing that could be applied was found.
    """
    if found.sits is None or found.turn is None:
        raise OperatorError(found.said, hint=found.advice)
    donning = Donning(
        participant=calibration.participant,
        key=calibration.key,
        calibrated_ns=calibration.created_ns,
        sits=found.sits,
        turn=found.turn,
        created_ns=now_ns,
        until_ns=now_ns + round(lasts_h * _NS_PER_H),
    )
    store.save(donning)
    return donning
