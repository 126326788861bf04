"""Whether a repetition is good: looked at while it is held, judged once the hand is back at rest.

There is no release and no calibration to lean on here. A movement is what rises above the wearer's own rest: power in
frames of 50 ms, the quarter of the channels that rose most, in dB.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge_edge.collect.protocol import Demands, Kind, Trial
from embridge_edge.collect.steps import Attempt, Finding
from embridge_shared.enrolment import Refusal
from embridge_shared.preprocess.iir import butterworth, sosfilt
from embridge_shared.quality import levels
from embridge_shared.quality.profile import BAND_HZ, Profile, SignalKind
from embridge_shared.signal import StreamSpec

Array = NDArray[np.float64]

AFTER_S: Final = 1.0
"""Signal after the hold that a verdict waits for, at most."""
_FRAME_S: Final = 0.05
_BEFORE_S: Final = 1.5
_REACTION_S: Final = 0.15
_EARLY_S: Final = 0.4
_MERGE_S: Final = 0.25
_LOST_SHARE: Final = 0.01
_CLIPPED: Final = 0.01
_STILL_S: Final = 0.25
_RESTLESS: Final = 0.2
_QUIETER_DB: Final = 10.0
_REST_PERCENTILE: Final = 20.0
_LEVEL_PERCENTILE: Final = 75.0
_FADE: Final = 1.1
_SIGNAL_S: Final = 2.0


class RepetitionJudge:
    """Judges one stream; used from one thread at a time.

    Args:
        spec: The stream; EMG.
        demands: What is asked of a repetition.
        keep_s: Signal that is kept, s: the longest repetition with what surrounds it.
    """

    def __init__(self, spec: StreamSpec, demands: Demands, *, keep_s: float) -> None:
        self._spec = spec
        self._demands = demands
        self._profile = Profile.of(spec)
        self._keep = round(keep_s * spec.rate_hz)
        self._runs: deque[tuple[int, NDArray[Any]]] = deque()
        self._rest: Array | None = None
        self._levels: dict[str, list[float]] = {}
        high = min(BAND_HZ[0], 0.2 * spec.rate_hz)
        self._highpass = butterworth(2, high, "highpass", spec.rate_hz)

    def push(self, first: int, samples: NDArray[Any]) -> None:
        """Take in samples (n, C) that start at index `first`."""
        self._runs.append((first, samples))
        end = first + len(samples)
        while self._runs and self._runs[0][0] + len(self._runs[0][1]) < end - self._keep:
            self._runs.popleft()

    def live(self, start_s: float) -> tuple[str, ...]:
        """What is wrong with what is held since `start_s`, as far as it can be told already; a line a fault."""
        start = round(start_s * self._spec.rate_hz)
        samples, _, lost = self._between(start, self._until)
        if len(samples) < _STILL_S * self._spec.rate_hz:
            return ()
        out = [f"gap: {lost / self._spec.rate_hz:.2g} s did not arrive"] if self._gap(lost, len(samples)) else []
        names = self._spec.channels
        x = np.asarray(samples, np.float64)
        clipped = levels.clipping(x, self._profile.rails)
        out += [f"{names[c]} clip: {100 * clipped[c]:.2g} %" for c in np.flatnonzero(clipped > _CLIPPED)]
        last = x[-round(_STILL_S * self._spec.rate_hz) :]
        if self._profile.kind is SignalKind.RAW:
            out += [f"{names[c]} flat: electrode off the skin?" for c in np.flatnonzero(np.ptp(last, axis=0) == 0.0)]
        return tuple(out)

    def judge(self, trial: Trial, attempt: Attempt) -> Finding:
        """Judge what was just done.

        Args:
            trial: What was asked for.
            attempt: When.
        """
        rate = self._spec.rate_hz
        start, end = round(attempt.start_s * rate), round(attempt.end_s * rate)
        samples, first, _ = self._between(start - round(_BEFORE_S * rate), end + round(AFTER_S * rate))
        _, _, lost = self._between(start, end)
        if self._gap(lost, end - start) or len(samples) < 0.5 * (end - start):
            missing = max(lost, end - start - len(samples)) / rate
            return Finding(refusal=Refusal.GAP, detail=f"{missing:.2g} s of it did not arrive", gaps=lost)
        found = self._movement(trial, samples, (start - first) / rate, (end - first) / rate)
        found = _shifted(found, first / rate, lost)
        if found.refusal is None and trial.kind is Kind.GESTURE:
            found = self._signal(found, samples)
        if found.refusal is None and found.level_db is not None and trial.kind is Kind.GESTURE:
            self._levels.setdefault(trial.gesture, []).append(found.level_db)
        return found

    @property
    def _until(self) -> int:
        return self._runs[-1][0] + len(self._runs[-1][1]) if self._runs else 0

    def _gap(self, lost: int, n: int) -> bool:
        return lost > _LOST_SHARE * n

    def _between(self, a: int, b: int) -> tuple[NDArray[Any], int, int]:
        """What is kept of [a, b): samples with what is missing between them held, index of the first, how many miss."""
        parts: list[NDArray[Any]] = []
        first, at, lost = a, -1, 0
        for begin, samples in self._runs:
            part = samples[max(0, a - begin) : max(0, b - begin)]
            if not len(part):
                continue
            here = max(begin, a)
            if at < 0:
                first = here
            elif here > at:
                lost += here - at
                parts.append(np.repeat(parts[-1][-1:], here - at, axis=0))
            parts.append(part)
            at = here + len(part)
        if not parts:
            return np.zeros((0, self._spec.n_channels)), a, b - a
        return np.concatenate(parts), first, lost

    def _frames(self, samples: NDArray[Any]) -> Array:
        """Power of each channel in frames of 50 ms, counts squared (F, C)."""
        x = np.asarray(samples, np.float64)
        if self._profile.kind is SignalKind.RAW:
            state = np.zeros((len(self._highpass), 2, x.shape[1]))
            x, _ = sosfilt(self._highpass, x - x[:1], state)
            x = np.square(x)
        else:
            x = np.square(x - x.min(axis=0))
        size = max(1, round(_FRAME_S * self._spec.rate_hz))
        n = len(x) // size
        return np.asarray(x[: n * size].reshape(n, size, -1).mean(axis=1), np.float64)

    def _movement(self, trial: Trial, samples: NDArray[Any], start_s: float, end_s: float) -> Finding:
        """Onset, end and strength of what was done; times from the first sample."""
        frames = self._frames(samples)
        a, b = round(start_s / _FRAME_S), round(end_s / _FRAME_S)
        floor = np.maximum(np.percentile(frames, 1.0, axis=0), 1e-9)
        before = frames[: max(a + round(_REACTION_S / _FRAME_S), 3)] if trial.kind is Kind.GESTURE else frames
        now = np.maximum(np.percentile(before, _REST_PERCENTILE, axis=0), floor)
        rest = now if self._rest is None else np.minimum(now, self._rest)
        self._rest = rest if self._rest is None else np.minimum(now, _FADE * self._rest)
        risen = frames / rest
        top = max(1, risen.shape[1] // 4)
        rise_db = _median3(10.0 * np.log10(np.sort(risen, axis=1)[:, -top:].mean(axis=1) + 1e-12))
        active = rise_db >= self._demands.least_db
        if trial.kind is not Kind.GESTURE:
            return self._stretch(trial, active[a:b])
        level_db = float(np.percentile(rise_db[a:b], _LEVEL_PERCENTILE))
        run = _longest(active, a - round(_EARLY_S / _FRAME_S), b, round(_MERGE_S / _FRAME_S))
        if run is None:
            why = Refusal.TOO_WEAK if level_db >= self._demands.least_db - 2.0 else Refusal.NO_ACTIVITY
            words = f"{level_db:.1f} dB above rest, at least {self._demands.least_db:g}"
            return Finding(refusal=why, detail=words, level_db=level_db)
        strong = np.sort(frames[run[0] : run[1]], axis=1)[:, -top:]
        scale = self._profile.uv
        found = Finding(
            onset_s=run[0] * _FRAME_S,
            end_s=run[1] * _FRAME_S,
            level_db=level_db,
            rms_uv=None if scale is None else float(scale * np.sqrt(strong.mean())),
        )
        return self._demanded(found, trial, start_s, end_s)

    def _demanded(self, found: Finding, trial: Trial, start_s: float, end_s: float) -> Finding:
        onset_s, level_db = found.onset_s or 0.0, found.level_db or 0.0
        lasted_s, least_s = (found.end_s or 0.0) - onset_s, self._demands.least_share * (end_s - start_s)
        if lasted_s < least_s:
            return _refused(found, Refusal.TOO_SHORT, f"{lasted_s:.2f} s, at least {least_s:.2g} s")
        if onset_s < start_s - _EARLY_S + _FRAME_S:
            return _refused(found, Refusal.NOT_AT_REST, "the movement began before it was asked for")
        others = self._levels.get(trial.gesture, [])
        if len(others) > 1 and level_db < float(np.median(others)) - _QUIETER_DB:
            words = f"{level_db:.1f} dB above rest, {np.median(others):.1f} the times before"
            return _refused(found, Refusal.TOO_WEAK, words)
        return found

    def _stretch(self, trial: Trial, active: NDArray[np.bool_]) -> Finding:
        share = float(active.mean()) if len(active) else 0.0
        if trial.kind is Kind.REST and share > _RESTLESS:
            return Finding(refusal=Refusal.NOT_AT_REST, detail=f"the hand moved for {100 * share:.0f} % of it")
        return Finding()

    def _signal(self, found: Finding, samples: NDArray[Any]) -> Finding:
        """The judgement of enrolment: clipping, and channels that are bad."""
        # Enrolment brings a decoder along, which whoever only reads a protocol can do without.
        from embridge_edge.enrol.verdict import signal

        if len(samples) < _SIGNAL_S * self._spec.rate_hz:
            return found
        seen = signal(self._spec, samples)
        return found if seen.refusal is None else _refused(found, seen.refusal, seen.detail)


def _refused(found: Finding, refusal: Refusal, detail: str) -> Finding:
    return Finding(
        refusal=refusal,
        detail=detail,
        onset_s=found.onset_s,
        end_s=found.end_s,
        level_db=found.level_db,
        rms_uv=found.rms_uv,
        gaps=found.gaps,
    )


def _shifted(found: Finding, by_s: float, gaps: int) -> Finding:
    """The finding in seconds of the whole signal."""
    return Finding(
        refusal=found.refusal,
        detail=found.detail,
        onset_s=None if found.onset_s is None else found.onset_s + by_s,
        end_s=None if found.end_s is None else found.end_s + by_s,
        level_db=found.level_db,
        rms_uv=found.rms_uv,
        gaps=gaps,
    )


def _median3(x: Array) -> Array:
    """Median of each value and its neighbours."""
    if len(x) < 3:
        return x
    padded = np.concatenate([x[:1], x, x[-1:]])
    return np.asarray(np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0), np.float64)


def _longest(active: NDArray[np.bool_], a: int, b: int, merge: int) -> tuple[int, int] | None:
    """The longest stretch of active frames that touches [a, b), short breaks bridged; first frame and one past."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    runs: list[tuple[int, int]] = []
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if runs and begin - runs[-1][1] <= merge:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((begin, end))
    touching = [r for r in runs if r[1] > max(a, 0) and r[0] < b and r[1] - r[0] > 1]
    return max(touching, key=lambda r: r[1] - r[0], default=None)
