"""How the band sits while a session decodes: the scale in force, what is proposed, and drift."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from embridge_edge.decode.calibration import Calibration
from embridge_edge.decode.donning import FOLDER, Donning, DonningStore, Look, Verdict, don, look
from embridge_edge.decode.drift import LEAST, Drift, DriftMonitor, Known, Level
from embridge_shared.errors import DataError
from embridge_shared.preprocess import Features, PreprocessConfig, WearerScale, Windower
from embridge_shared.preprocess.config import WindowConfig
from embridge_shared.session import WearingChanged
from embridge_shared.wearer import WearerModel
from embridge_shared.wearer.worn import WornScale

logger = logging.getLogger(__name__)

_KEPT: Final = 4
_LOOKS: Final = 8


@dataclass(frozen=True, slots=True)
class Own:
    """What a wearer's own model adds: None and 0 where they performed nothing.

    Attributes:
        model: Theirs.
        usual: See `usual_distance`; None where it cannot be told.
    """

    model: WearerModel | None = None
    usual: float | None = None


class Wearing:
    """Watches the features a session decodes, unscaled, and says through which scale they are seen.

    Args:
        calibration: The wearer's.
        preprocess: The release's.
        donning: How the band sits, where that was calibrated since it was put on.
        own: Of their model.
        keep: Keeps what was found for this donning; with it a turn that is worth it is undone at once, without it one
            is proposed only.
    """

    def __init__(
        self,
        calibration: Calibration,
        preprocess: PreprocessConfig,
        donning: Donning | None = None,
        *,
        own: Own | None = None,
        keep: Callable[[Look], None] | None = None,
    ) -> None:
        self._calibration = calibration
        self._preprocess = preprocess
        self._own = own or Own()
        self._keep = keep
        window = preprocess.window
        self._windower = Windower(WindowConfig(length=window.length, hop=window.length, patch=window.patch))
        self._begin: deque[Features] | None = deque() if keep is not None and donning is None else None
        self._fresh = 0
        self._looks = 0
        self.scale: WearerScale | WornScale = calibration.scale
        """What features are seen through now."""
        if donning is not None:
            self.scale = WornScale(calibration.scale, donning.sits, preprocess.front_end)
        self._told: list[WearingChanged] = [] if donning is None else [_applied(donning.sits.electrodes, self.scale)]
        self._monitor = self._watch(donned=donning is not None)

    @property
    def now(self) -> Drift:
        """What is known of drift."""
        return self._monitor.now

    def push(self, features: Features) -> WearerScale | WornScale:
        """Take features; the scale they and later ones are seen through."""
        if self._begin is not None and len(features):
            self._first(features)
        for window in self._windower.push(features):
            found = self._monitor.push(window.values, window.end, flawed=window.flawed)
            if found is not None:
                self._told.append(found.told(0))
        return self.scale

    def reset(self) -> None:
        """Start a new stream."""
        self._windower.reset()

    def told(self) -> list[WearingChanged]:
        """What changed since the last call; its time is not set."""
        found, self._told = self._told, []
        return found

    def _watch(self, *, donned: bool) -> DriftMonitor:
        known = Known(
            model=self._own.model if self._own.usual is not None else None,
            usual=self._own.usual or 0.0,
            activity=self._calibration.activity,
            ring=self._calibration.ring,
            donned=donned,
        )
        return DriftMonitor(known, self._preprocess, self.scale)

    def _first(self, features: Features) -> None:
        """Look at how the band sits once the hand moved for long enough."""
        assert self._begin is not None
        assert self._keep is not None
        self._begin.append(features)
        self._fresh += len(features)
        enough = LEAST * self._preprocess.window.length
        if self._fresh < enough:
            return
        self._fresh -= enough // 4  # as long again before the next look
        while sum(map(len, self._begin)) > _KEPT * enough:
            self._begin.popleft()
        found = look(self._calibration, self._preprocess, joined(self._begin))
        self._looks += 1
        # the first gestures may all be of one kind: an arm that looks foreign is looked at again
        if found.verdict is Verdict.TOO_LITTLE or (found.verdict is Verdict.FOREIGN and self._looks < _LOOKS):
            return
        self._begin = None
        if found.verdict is Verdict.TURNED and found.sits is not None:
            logger.info("%s", found.said)
            self._keep(found)
            self.scale = WornScale(self._calibration.scale, found.sits, self._preprocess.front_end)
            self._monitor = self._watch(donned=True)
            self._told.append(_applied(found.sits.electrodes, self.scale, found.said))


def joined(parts: Iterable[Features]) -> list[Features]:
    """Features that came one after the other, a run for each stretch without gaps."""
    runs: list[list[Features]] = []
    for part in parts:
        if runs and runs[-1][-1].end == part.first:
            runs[-1].append(part)
        else:
            runs.append([part])
    return [
        Features(r[0].first, np.concatenate([p.values for p in r]), np.concatenate([p.flawed for p in r])) for r in runs
    ]


def wearing(
    state_dir: Path,
    calibration: Calibration,
    preprocess: PreprocessConfig,
    *,
    now_ns: int,
    own: Own | None = None,
    auto: bool = False,
) -> Wearing:
    """What is known of how a wearer's band sits, for a session.

    Args:
        state_dir: The edge's state folder.
        calibration: The wearer's.
        preprocess: The release's.
        now_ns: Unix time, ns.
        own: Of their model.
        auto: Undo a turn that is worth it without being asked.
    """
    store = DonningStore(state_dir / FOLDER)
    try:
        donning = store.of(calibration, now_ns)
    except DataError as error:
        logger.error("how the band sits is not known: %s", error)
        donning = None

    def keep(found: Look) -> None:
        don(store, calibration, found, now_ns=now_ns)

    return Wearing(calibration, preprocess, donning, own=own, keep=keep if auto else None)


def _applied(electrodes: float, scale: WearerScale | WornScale, said: str = "") -> WearingChanged:
    sits = scale.sits if isinstance(scale, WornScale) else None
    return WearingChanged(
        t_ns=0,
        level=Level.OK.value,
        said=said or "The donning was calibrated before this session.",
        electrodes=electrodes,
        ring=() if sits is None else sits.ring,
        applied=electrodes,
        gain=() if sits is None else sits.gain,
    )
