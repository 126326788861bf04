"""Recursive filters against scipy.signal, and that an agent does without it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import signal

from embridge_shared.preprocess import iir

EVERY = pytest.mark.parametrize("rate_hz", [200.0, 2000.0])


@EVERY
@pytest.mark.parametrize("order", range(1, 7))
@pytest.mark.parametrize("kind", ["lowpass", "highpass"])
@pytest.mark.parametrize("hz", [5.0, 20.0, 90.0])
def test_butterworth_is_scipys(rate_hz: float, order: int, kind: iir.Kind, hz: float) -> None:
    ours, theirs = iir.butterworth(order, hz, kind, rate_hz), signal.butter(order, hz, kind, fs=rate_hz, output="sos")
    np.testing.assert_allclose(ours[:, 3:], theirs[:, 3:], rtol=1e-9, atol=1e-12)
    if order % 2 == 0:  # which section of an odd one lacks a zero is free
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    at = np.linspace(0.0, np.pi, 200)
    found, expected = (signal.sosfreqz(sos, at)[1] for sos in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_band_is_scipys(order: int) -> None:
    band, rate_hz = (20.0, 450.0), 2000.0
    theirs = signal.butter(order, band, "bandpass", fs=rate_hz, output="sos")
    at = np.linspace(0.0, np.pi, 200)
    found, expected = (
        signal.sosfreqz(sos, at)[1] for sos in (iir.butterworth(order, band, "bandpass", rate_hz), theirs)
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)


@EVERY
@pytest.mark.parametrize("hz", [50.0, 60.0])
def test_notch_is_scipys(rate_hz: float, hz: float) -> None:
    theirs = signal.tf2sos(*signal.iirnotch(hz, 30.0, fs=rate_hz))
    np.testing.assert_allclose(iir.notch(hz, 30.0, rate_hz), theirs, atol=1e-12)


@EVERY
def test_rest_is_scipys(rate_hz: float) -> None:
    sos = np.concatenate([iir.butterworth(3, 20.0, "lowpass", rate_hz), iir.notch(50.0, 30.0, rate_hz)])
    np.testing.assert_allclose(iir.rest_of(sos), signal.sosfilt_zi(sos), atol=1e-9)


@pytest.mark.parametrize("loop", [iir._LOOP, iir._through_scipy])
@pytest.mark.parametrize("channels", [1, 5])
def test_samples_are_scipys_to_the_bit_however_they_are_cut(
    loop: object, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iir, "_LOOP", loop)
    sos = iir.butterworth(4, 20.0, "highpass", 2000.0)
    x = np.random.default_rng(0).normal(size=(101, channels))
    begin = iir.rest_of(sos)[:, :, None] * x[0]
    expected, left = signal.sosfilt(sos, x, axis=0, zi=begin)
    state, parts = begin, []
    for part in (x[:1], x[1:40], x[40:40], x[40:]):
        y, state = iir.sosfilt(sos, part, state)
        parts.append(y)
    assert np.array_equal(np.concatenate(parts), expected)
    assert np.array_equal(state, left)


def test_a_loop_that_answers_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert iir._loop() is iir._LOOP is not iir._through_scipy
    for other in (lambda *_: None, lambda _sos, _x: None, None):
        monkeypatch.setitem(sys.modules, iir._NAME, SimpleNamespace(_sosfilt=other))
        assert iir._loop() is iir._through_scipy


def test_an_agent_does_without_scipy_signal() -> None:
    wanted = "import sys, embridge_edge.agent, embridge_edge.decode.stream; assert 'scipy.signal' not in sys.modules; "
    after = "from scipy import signal; assert signal.sosfilt([[1, 0, 0, 1, 0, 0]], [1.0]) == 1.0"
    subprocess.run([sys.executable, "-W", "error", "-c", wanted + after], check=True)
