"""Stored repetitions seen as a release sees EMG: features, windows, the wearer's scale, how the band sat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embridge_edge.decode.calibration import CalibrationStore
from embridge_edge.enrol.repetition import StoredRepetition, same_band
from embridge_shared.errors import DataError, OperatorError, Reason
from embridge_shared.preprocess import Features, FrontEnd, PreprocessConfig, WearerScale, fit_scale
from embridge_shared.preprocess.windows import windows
from embridge_shared.signal import StreamSpec
from embridge_shared.wearer.donning import Activity, activity
from embridge_shared.wearer.levels import levels

_LEAST_GESTURES = 2
"""Of one gesture alone nobody knows what a strong contraction of the other muscles is."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A repetition under a release.

    Attributes:
        label: Gesture.
        windows: Scaled, float32 (N, T, C); N may be 0.
    """

    label: str
    windows: NDArray[np.float32]


def features_of(repetition: StoredRepetition, preprocess: PreprocessConfig) -> Features:
    """Features of all its samples, rest around the movement included.

    Raises:
        ModelError: INCOMPATIBLE: the band is too slow for the filters.
    """
    about = repetition.about
    return FrontEnd(preprocess.front_end, about.spec).feed(repetition.samples, about.first)


def windows_of(repetition: StoredRepetition, preprocess: PreprocessConfig, scale: WearerScale) -> Seen:
    """Windows that lie whole inside the movement.

    Raises:
        ModelError: As `features_of`.
        DataError: WRONG_SHAPE: the scale is of another band.
    """
    about, config = repetition.about, preprocess.window
    found = features_of(repetition, preprocess)
    per_sample = preprocess.front_end.rate_hz / about.spec.rate_hz
    begin = int(np.ceil(about.onset * per_sample)) - found.first
    stop = int(about.end * per_sample) - found.first
    sound = slice(max(begin, int(np.argmin(found.flawed)) if found.flawed.any() else 0), max(0, stop))
    view, _ = windows(found.values[sound], config, first=found.first + sound.start)
    bad, _ = windows(found.flawed[sound, None].astype(np.float32), config, first=found.first + sound.start)
    return Seen(about.label, scale.apply(view[~bad.any(axis=(1, 2))]))


def scale_for(
    calibrations: CalibrationStore,
    participant: str,
    preprocess: PreprocessConfig,
    spec: StreamSpec,
    repetitions: Sequence[StoredRepetition],
) -> WearerScale:
    """The wearer's scale: that of a calibration, or one fitted to what they enrolled.

    A release that filters in another way makes every calibration void; what was enrolled holds rest and contractions
    of several gestures, so it serves as one.

    Args:
        calibrations: Of this edge.
        participant: Pseudonym.
        preprocess: The release's.
        spec: The band.
        repetitions: The wearer's own.

    Raises:
        OperatorError: NOT_FOUND: there is neither a calibration nor enough to fit one to.
        DataError: The calibration is damaged.
    """
    known = calibrations.for_band(participant, preprocess, spec)
    if known is not None:
        return known.scale
    own = [r for r in repetitions if same_band(r.about.spec, spec)]
    found = list(scales_of(own, preprocess).values())
    if found:
        return found[-1]
    if len({r.about.label for r in own}) < _LEAST_GESTURES:
        raise OperatorError(
            "this wearer was not calibrated with this band and release.",
            reason=Reason.NOT_FOUND,
            hint=f"Run `embridge calibrate --participant {participant}` first; it takes about a minute.",
        )
    return fit_own_scale(own, preprocess)


def scales_of(repetitions: Sequence[StoredRepetition], preprocess: PreprocessConfig) -> dict[UUID | None, WearerScale]:
    """The scale of each session's donning, as far as the wearer was calibrated by then.

    Electrodes sit elsewhere the next day: what was recorded after a calibration is seen by that one, not by today's.

    Args:
        repetitions: Of one kind of band.
        preprocess: The release's.
    """
    sessions: dict[UUID | None, list[StoredRepetition]] = {}
    for each in sorted(repetitions, key=lambda r: r.about.recorded_ns):
        sessions.setdefault(each.about.session, []).append(each)
    found: dict[UUID | None, WearerScale] = {}
    last: WearerScale | None = None
    for session, recorded in sessions.items():
        shown = [r for r in recorded if r.about.calibrates]
        if len({r.about.label for r in shown}) >= _LEAST_GESTURES:
            last = fit_own_scale(shown, preprocess)
        if last is not None:
            found[session] = last
    return found


def fit_own_scale(repetitions: Iterable[StoredRepetition], preprocess: PreprocessConfig) -> WearerScale:
    """A wearer's scale from repetitions with the rest around them; labels are not looked at.

    Raises:
        DataError: TOO_LITTLE_DATA.
    """
    parts = [(f.values[~f.flawed]) for f in (features_of(r, preprocess) for r in repetitions)]
    if not parts:
        raise DataError("no repetitions to fit a scale to", reason=Reason.TOO_LITTLE_DATA)
    return fit_scale(preprocess.scale, np.concatenate(parts))


def donning_activity(
    repetitions: Iterable[StoredRepetition], preprocess: PreprocessConfig, ring: Sequence[int]
) -> Activity:
    """How the band sat while these were recorded: what `wearer.donning.find_turn` compares another day with.

    Args:
        repetitions: Of one donning.
        preprocess: The release's.
        ring: The ring's channels in order around the arm.

    Raises:
        DataError: TOO_LITTLE_DATA: fewer than eight windows.
    """
    none = np.zeros((0, preprocess.window.length, 0), np.float32)
    parts = []
    for each in repetitions:
        unscaled = WearerScale.identity(each.about.spec.n_channels)
        parts.append(windows_of(each, preprocess, unscaled).windows[:, :, list(ring)])
    found = np.concatenate(parts) if parts else none
    if not len(found):
        raise DataError("no windows tell how the band sits", reason=Reason.TOO_LITTLE_DATA)
    return activity(levels(found))
