"""Pictures for reports and model cards; each function writes one PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from embridge_shared.hand import BONES, landmarks

mpl.use("Agg")

_INK = "#1f2933"
_ACCENT = "#0b7285"
_WARM = "#d9480f"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.dpi": 130,
}


def _figure(width: float, height: float) -> Figure:
    mpl.rcParams.update(_STYLE)
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.15)


def confusion(path: Path, panels: Sequence[tuple[str, Sequence[str], NDArray[Any]]]) -> None:
    """Confusion matrices side by side, rows normalised.

    Args:
        path: Where to.
        panels: Title, class names, counts (classes, classes) truth by prediction.
    """
    sizes = [max(3.4, 0.5 * len(names) + 1.8) for _, names, _ in panels]
    figure = _figure(sum(sizes), max(sizes))
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=sizes)[0]
    for ax, (title, names, counts) in zip(axes, panels, strict=True):
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(share, cmap="YlGnBu", vmin=0, vmax=1)
        for (i, j), value in np.ndenumerate(share):
            if value >= 0.005:
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value > 0.6 else _INK)
        labels = [n.replace("_", " ") for n in names]
        ax.set_xticks(range(len(names)), labels, rotation=45, ha="right")
        ax.set_yticks(range(len(names)), labels)
        ax.set(title=title, xlabel="decoded", ylabel="performed")
        ax.spines[:].set_visible(False)
    _save(figure, path)


def embedding_map(
    path: Path,
    prototypes: NDArray[np.float32],
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    labels: NDArray[np.int64],
    gestures: Sequence[tuple[str, bool]],
) -> None:
    """Pose prototypes and EMG windows in the plane of the prototypes' two main axes.

    Args:
        path: Where to.
        prototypes: (P, d).
        rows: Gesture of each prototype (P,).
        queries: The query of each EMG window that is nearest to a prototype, (N, d).
        labels: Gesture of each window (N,).
        gestures: Name, and whether its EMG was in the training.
    """
    mean = prototypes.mean(axis=0)
    axes2 = np.linalg.svd(prototypes - mean, full_matrices=False)[2][:2]
    p, q = (prototypes - mean) @ axes2.T, (queries - mean) @ axes2.T
    figure = _figure(7.2, 5.4)
    ax = figure.subplots()
    colours = mpl.colormaps["tab20"](np.linspace(0, 1, max(len(gestures), 2)))
    for g, (name, seen) in enumerate(gestures):
        own = labels == g
        ax.scatter(q[own, 0], q[own, 1], s=5, color=colours[g], alpha=0.35, linewidths=0)
        ax.scatter(
            p[rows == g, 0],
            p[rows == g, 1],
            s=36,
            color=colours[g],
            marker="o" if seen else "*",
            edgecolors=_INK,
            linewidths=0.5,
            label=name.replace("_", " ") + ("" if seen else " (EMG never seen)"),
        )
    ax.set(
        title="Pose prototypes (outlined) and held-out EMG windows (dots)", xlabel="main axis 1", ylabel="main axis 2"
    )
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, path)


def losses(path: Path, history: Mapping[str, Sequence[float]], panels: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Training curves.

    Args:
        path: Where to.
        history: One value a step, by name.
        panels: Title and the names drawn in it; absent names are left out.
    """
    figure = _figure(3.6 * len(panels), 2.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            if history.get(name):
                ax.plot(history[name], lw=1.2, label=name)
        ax.set(title=title, xlabel="step")
        ax.legend(fontsize=7, frameon=False)
    _save(figure, path)


def latency(path: Path, latency_ms: NDArray[np.float64]) -> None:
    """Histogram of decode latency with median and 99th percentile."""
    figure = _figure(5.2, 2.8)
    ax = figure.subplots()
    p50, p99 = np.percentile(latency_ms, [50, 99])
    ax.hist(np.clip(latency_ms, 0, 1.5 * p99), bins=60, color=_ACCENT)
    for value, name in ((p50, "median"), (p99, "p99")):
        ax.axvline(value, color=_WARM, lw=1)
        ax.text(value, ax.get_ylim()[1] * 0.95, f" {name} {value:.2f} ms", color=_WARM, va="top", fontsize=8)
    ax.set(title="From the packet that completes a window to its scores", xlabel="ms", ylabel="decodes")
    _save(figure, path)


def strip(
    path: Path,
    t_s: NDArray[np.float64],
    emg: NDArray[np.float64],
    unit: str,
    poses: Sequence[tuple[float, NDArray[np.float64]]],
    spans: Sequence[tuple[float, float, str]],
) -> None:
    """Raw EMG of one stretch, what was performed, and the hand at moments of it.

    Args:
        path: Where to.
        t_s: Time of each sample, s (n,).
        emg: (n, C), in `unit`.
        unit: For the label.
        poses: Time and joint angles, rad (20,).
        spans: Start, end and name of each movement.
    """
    figure = _figure(10, 5.6)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.3, 3))[:, 0]
    hands = upper.subplots(1, max(len(poses), 1), subplot_kw={"projection": "3d"}, squeeze=False)[0]
    for ax, (when, angles) in zip(hands, poses, strict=False):
        _hand(ax, angles)
        ax.set_title(f"{when:.1f} s", fontsize=8, pad=-2)
    for ax in hands[len(poses) :]:
        ax.set_axis_off()
    ax = lower.subplots()
    step = np.percentile(np.abs(emg - np.median(emg, axis=0)), 99.5) * 2 or 1.0
    for c in range(emg.shape[1]):
        ax.plot(t_s, emg[:, c] - np.median(emg[:, c]) - c * step, lw=0.4, color=_INK)
    for start, end, name in spans:
        ax.axvspan(start, end, color=_ACCENT, alpha=0.12, lw=0)
        ax.text((start + end) / 2, step, name.replace("_", " "), ha="center", fontsize=8, color=_ACCENT)
    ax.set_yticks([-c * step for c in range(emg.shape[1])], [str(c) for c in range(emg.shape[1])])
    ax.set(xlabel="s", ylabel=f"channel, {step:.3g} {unit} apart", xlim=(t_s[0], t_s[-1]))
    _save(figure, path)


def _hand(ax: Any, angles: NDArray[np.float64]) -> None:
    points = landmarks(angles)
    for a, b in BONES:
        ax.plot(*points[[a, b]].T, color=_ACCENT, lw=1.6, solid_capstyle="round")
    ax.set_axis_off()
    spread = np.ptp(points, axis=0)
    ax.set_box_aspect(np.maximum(spread, 0.03), zoom=1.5)
    ax.view_init(elev=25, azim=-70)
