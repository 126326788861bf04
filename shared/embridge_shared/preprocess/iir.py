"""Recursive filters without scipy.signal, whose import costs an edge that needs one loop of it 66 MB and half a second.

The loop is scipy's compiled one; where it does not lie where it is looked for, or answers something else, scipy.signal
is imported after all. Filters are in sections of second order, (S, 6), scaled in the first, slowest poles last;
a change of either would change what a release's front end says.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_Floats = NDArray[np.float32] | NDArray[np.float64]
_Loop = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], object]
Kind = Literal["lowpass", "highpass", "bandpass"]

_NAME: Final = "scipy.signal._sosfilt"


def butterworth(order: int, cutoff_hz: float | tuple[float, float], kind: Kind, rate_hz: float) -> _Array:
    """A Butterworth filter.

    Args:
        order: Of a low-pass or high-pass; a band-pass has twice as many poles.
        cutoff_hz: Where it is 3 dB down, Hz; both edges of a band.
        kind: What it lets through.
        rate_hz: Samples a second.

    Returns:
        Sections, float64 (S, 6).
    """
    k = np.arange(order)
    poles = np.exp(1j * np.pi * (2 * k + order + 1) / (2 * order))
    warped = 2.0 * rate_hz * np.tan(np.pi * np.atleast_1d(cutoff_hz) / rate_hz)
    if kind == "bandpass":
        middle, half = np.sqrt(warped[0] * warped[1]), poles * (warped[1] - warped[0]) / 2.0
        root = np.sqrt(half**2 - middle**2)
        made = sections(np.concatenate([half + root, half - root]), order, rate_hz)
        return _unity_at(made, 2.0 * np.arctan(middle / (2.0 * rate_hz)))
    if kind == "lowpass":
        return _unity_at(sections(poles * warped[0], 0, rate_hz), 0.0)
    return _unity_at(sections(warped[0] / poles, order, rate_hz), np.pi)


def notch(hz: float, quality: float, rate_hz: float) -> _Array:
    """A filter that takes out `hz`, with a width of hz / quality where it is 3 dB down: sections, float64 (1, 6)."""
    at = 2.0 * np.pi * hz / rate_hz
    gain = 1.0 / (1.0 + np.tan(at / quality / 2.0))
    turn = -2.0 * gain * np.cos(at)
    return np.array([[gain, turn, gain, 1.0, turn, 2.0 * gain - 1.0]])


def sections(poles: NDArray[Any], zeros: int, rate_hz: float) -> _Array:
    """An analogue filter by the bilinear transform; its scale is left open.

    Args:
        poles: Real or in conjugate pairs, (P,), rad/s.
        zeros: How many of its zeros are at 0; the others are at infinity.
        rate_hz: Samples a second.

    Returns:
        Sections, float64 (S, 6).
    """
    p = (2.0 * rate_hz + poles) / (2.0 * rate_hz - poles)
    real = np.abs(p.imag) < 1e-12
    pairs = [(z, z.conjugate()) for z in p[~real & (p.imag > 0)]]
    alone = sorted(p[real].real)
    odd = len(alone) % 2
    pairs += list(zip(alone[odd::2], alone[odd + 1 :: 2], strict=True))
    rows = [(1.0, -z, 0.0) for z in alone[:odd]]
    rows += [(*np.poly(pair).real,) for pair in sorted(pairs, key=lambda pair: max(abs(z) for z in pair))]
    ends = [-1.0] * (len(p) - zeros) + [1.0] * zeros
    out = []
    for at, row in enumerate(rows):
        own = ends[2 * at : 2 * at + 2]
        out.append([*np.poly(own), *[0.0] * (2 - len(own)), *row])
    return np.array(out)


def rest_of(sos: _Array) -> _Array:
    """The state of a filter that has seen ones for ever, float64 (S, 2)."""
    state, scale = np.zeros((len(sos), 2)), 1.0
    for at, (b0, b1, b2, _, a1, a2) in enumerate(sos):
        gain = (b0 + b1 + b2) / (1.0 + a1 + a2)
        state[at] = scale * (gain - b0), scale * (b2 - a2 * gain)
        scale *= gain
    return state


def sosfilt(sos: _Floats, x: NDArray[Any], state: _Floats) -> tuple[NDArray[Any], NDArray[Any]]:
    """Filter signals side by side.

    Args:
        sos: Sections, (S, 6).
        x: (n, C).
        state: Left by the samples before, (S, 2, C).

    Returns:
        (n, C), and the state after it; float32 where everything was.
    """
    kind = np.result_type(sos, x, state, np.float32)
    y = np.array(x.T, kind, order="C")
    left = np.array(state.transpose(2, 0, 1), kind, order="C")
    _LOOP(np.ascontiguousarray(sos, kind), y, left)
    return y.T, left.transpose(1, 2, 0)


def _unity_at(sos: _Array, angle: float) -> _Array:
    """Scaled to pass `angle` (rad a sample) as it is."""
    z = np.exp(-1j * angle * np.arange(3))
    out = sos.copy()
    out[0, :3] /= np.abs(np.prod((sos[:, :3] @ z) / (sos[:, 3:] @ z)))
    return out


def _loop() -> _Loop:
    folder = Path(scipy.__file__).parent / "signal"
    for suffix in EXTENSION_SUFFIXES:
        path = folder / f"_sosfilt{suffix}"
        if path.is_file() and (found := _loaded(path)) is not None:
            return found
    return _through_scipy


def _loaded(path: Path) -> _Loop | None:
    """scipy's loop if it answers as it should."""
    spec = importlib.util.spec_from_file_location(_NAME, path)
    if spec is None or spec.loader is None:
        return None
    module = sys.modules.get(_NAME)
    y, state = np.array([[1.0, 2.0]]), np.array([[[0.5, 0.25]]])
    try:
        if module is None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        loop: _Loop = module._sosfilt
        loop(np.array([[2.0, 1.0, 0.5, 1.0, -0.5, 0.25]]), y, state)
    except (ImportError, AttributeError, TypeError, ValueError):  # another scipy's
        return None
    right = np.array_equal(y, [[2.5, 6.5]]) and np.array_equal(state, [[[5.125, -0.625]]])
    return loop if right else None


def _through_scipy(sos: NDArray[Any], y: NDArray[Any], state: NDArray[Any]) -> None:
    from scipy.signal import sosfilt as filtered

    if not y.size:
        return
    y[:], left = filtered(sos, y, axis=1, zi=state.transpose(1, 0, 2))
    state[:] = left.transpose(1, 0, 2)


_LOOP: Final = _loop()
