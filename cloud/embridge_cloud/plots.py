"""Pictures for reports and model cards: what is drawn, and the style that all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from embridge_shared.hand import BONES, landmarks

mpl.use("Agg")

INK = "#1f2933"
PAPER = "#ffffff"
ACCENT = "#0b7285"
WARM = "#d9480f"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Told apart by people who see fewer colours; never the only difference."""
MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.dpi": 130,
}


def new_figure(width: float, height: float) -> Figure:
    """A figure in the shared style, width and height in inches."""
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
    figure = new_figure(sum(sizes), max(sizes))
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=sizes)[0]
    for ax, (title, names, counts) in zip(axes, panels, strict=True):
        labels = [n.replace("_", " ") for n in names]
        shares(ax, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), labels, labels)
        ax.set(title=title, xlabel="decoded", ylabel="performed")
    _save(figure, path)


def shares(ax: Any, values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]) -> None:
    """A table of shares, each in its cell as a number and as strength of one colour.

    Args:
        ax: Where it is drawn.
        values: (rows, columns), 0..1; below 0.005 no number is written.
        rows: Names, from above.
        columns: Names.
    """
    for (i, j), value in np.ndenumerate(values):
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=ACCENT, alpha=float(value), linewidth=0))
        if value >= 0.005:
            colour = PAPER if value > 0.55 else INK
            number = ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
            number.set_in_layout(False)
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect="equal")
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    ax.spines[:].set_visible(False)


def matrix(path: Path, values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], *, title: str) -> None:
    """A table of shares as a picture; what is not a number stays empty.

    Args:
        path: Where to.
        values: (rows, columns), 0..1.
        rows: Names, from above.
        columns: Names.
        title: Of the picture.
    """
    figure = new_figure(1.1 * len(columns) + 3.2, 0.8 * len(rows) + 1.6)
    ax = figure.subplots()
    shares(ax, np.nan_to_num(values), rows, columns)
    ax.set_title(title)
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
    figure = new_figure(7.2, 5.4)
    ax = figure.subplots()
    points(ax, (q, labels), (p, rows), gestures)
    ax.set(
        title="Pose prototypes (outlined) and held-out EMG windows (dots)", xlabel="main axis 1", ylabel="main axis 2"
    )
    _save(figure, path)


def points(
    ax: Any,
    emg: tuple[NDArray[Any], NDArray[np.int64]],
    pose: tuple[NDArray[Any], NDArray[np.int64]],
    gestures: Sequence[tuple[str, bool]],
) -> None:
    """EMG windows small and poses outlined, as stars and crosses where their EMG was never seen.

    Each gesture's number stands at the median of its poses.

    Args:
        ax: Where they are drawn.
        emg: Places (N, 2) and gestures (N,).
        pose: Places (P, 2) and gestures (P,).
        gestures: Name, and whether its EMG was in the training.
    """
    halo = [patheffects.withStroke(linewidth=2.5, foreground=PAPER)]
    for g, (name, seen) in enumerate(gestures):
        dots, poses = emg[0][emg[1] == g], pose[0][pose[1] == g]
        colour, later = COLOURS[g % len(COLOURS)], g // len(COLOURS) % 2
        ax.scatter(*dots.T, s=9, color=colour, marker="ox"[later], alpha=0.65, linewidths=0.7 * later)
        label = f"{g + 1} {name.replace('_', ' ')}" + ("" if seen else " (EMG never seen)")
        shape = {"marker": ("os" if seen else "*P")[later], "s": 20 if seen else 45}
        ax.scatter(*poses.T, color=colour, edgecolors=INK, linewidths=0.4, label=label, **shape)
        if len(poses):
            ax.text(*np.median(poses, axis=0), str(g + 1), fontsize=9, weight="bold", path_effects=halo)
    ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, frameon=False)


def losses(path: Path, history: Mapping[str, Sequence[float]], panels: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Training curves.

    Args:
        path: Where to.
        history: One value a step, by name.
        panels: Title and the names drawn in it; absent names are left out.
    """
    figure = new_figure(3.6 * len(panels), 2.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, names) in zip(axes, panels, strict=True):
        courses(ax, {n: (range(len(history[n])), history[n]) for n in names if history.get(n)})
        ax.set(title=title, xlabel="step")
    _save(figure, path)


def courses(ax: Any, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, marks: bool = False) -> None:
    """Lines that differ by colour and by dashes.

    Args:
        ax: Where they are drawn.
        lines: Horizontal and vertical values, by name.
        marks: Mark every value.
    """
    for i, (name, (x, y)) in enumerate(lines.items()):
        shape = {"marker": MARKERS[i % len(MARKERS)], "ms": 4} if marks else {}
        ax.plot(x, y, lw=1.3, label=name, color=COLOURS[i % len(COLOURS)], ls=_DASHES[i % len(_DASHES)], **shape)
    if lines:
        ax.legend(fontsize=7, frameon=False)


def latency(path: Path, latency_ms: NDArray[np.float64]) -> None:
    """Histogram of decode latency with median and 99th percentile."""
    figure = new_figure(5.2, 2.8)
    ax = figure.subplots()
    p50, p99 = np.percentile(latency_ms, [50, 99])
    ax.hist(np.clip(latency_ms, 0, 1.5 * p99), bins=60, color=ACCENT)
    for value, name in ((p50, "median"), (p99, "p99")):
        ax.axvline(value, color=WARM, lw=1)
        ax.text(value, ax.get_ylim()[1] * 0.95, f" {name} {value:.2f} ms", color=WARM, va="top", fontsize=8)
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
    figure = new_figure(10, 5.6)
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
        ax.plot(t_s, emg[:, c] - np.median(emg[:, c]) - c * step, lw=0.4, color=INK)
    for start, end, name in spans:
        ax.axvspan(start, end, color=ACCENT, alpha=0.12, lw=0)
        ax.text((start + end) / 2, step, name.replace("_", " "), ha="center", fontsize=8, color=ACCENT)
    ax.set_yticks([-c * step for c in range(emg.shape[1])], [str(c) for c in range(emg.shape[1])])
    ax.set(xlabel="s", ylabel=f"channel, {step:.3g} {unit} apart", xlim=(t_s[0], t_s[-1]))
    _save(figure, path)


def _hand(ax: Any, angles: NDArray[np.float64]) -> None:
    points = landmarks(angles)
    for a, b in BONES:
        ax.plot(*points[[a, b]].T, color=ACCENT, lw=1.6, solid_capstyle="round")
    ax.set_axis_off()
    spread = np.ptp(points, axis=0)
    ax.set_box_aspect(np.maximum(spread, 0.03), zoom=1.5)
    ax.view_init(elev=25, azim=-70)
