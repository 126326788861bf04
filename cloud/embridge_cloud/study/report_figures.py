"""Drawings of a report; each function returns one SVG that fits the width of a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from embridge_cloud import plots
from embridge_cloud.study.artefacts import Communities, Curve, EmbeddingMap
from embridge_cloud.study.report_svg import to_svg

_WIDTH = 4.9
Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def _axes(height: float, width: float = _WIDTH) -> tuple[Figure, Any]:
    figure = plots.new_figure(width, height)
    return figure, figure.subplots()


def _reference(ax: Any, value: float, word: str, *, upright: bool = False) -> None:
    """A dashed line with its word, such as chance."""
    (ax.axvline if upright else ax.axhline)(value, color=plots.INK, lw=0.8, ls=(0, (2, 2)))
    place = {"xy": (value, 1), "xycoords": ("data", "axes fraction"), "xytext": (3, -9)} if upright else {
        "xy": (1, value), "xycoords": ("axes fraction", "data"), "xytext": (-2, 3), "ha": "right"
    }  # fmt: skip
    ax.annotate(word, textcoords="offset points", fontsize=7, **place)


def confusion(name: str, gestures: Sequence[str], counts: NDArray[np.float64], unseen: Sequence[str]) -> str:
    """Performed by decoded, as shares of what was performed; unseen gestures carry a star."""
    names = [_short(g) + (" *" if g in unseen else "") for g in gestures]
    figure, ax = _axes(*((_WIDTH, _WIDTH) if len(names) > 5 else (3.3, 3.4)))
    plots.shares(ax, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), names, names)
    ax.set(xlabel="decoded", ylabel="performed")
    return to_svg(figure, name)


def embedding(name: str, found: EmbeddingMap, unseen: Sequence[str]) -> str:
    """EMG windows and poses in the plane of their two main axes."""
    figure, ax = _axes(5.6)
    xy = np.column_stack([found.x, found.y])
    gesture, pose = np.asarray(found.gesture, np.int64), np.asarray(found.pose, bool)
    gestures = [(g, g not in unseen) for g in found.gestures]
    plots.points(ax, (xy[~pose], gesture[~pose]), (xy[pose], gesture[pose]), gestures)
    first, second = found.explained
    ax.set(xlabel=f"main axis 1 ({100 * first:.0f} % of variance)", ylabel=f"main axis 2 ({100 * second:.0f} %)")
    return to_svg(figure, name, grow=True)


def curves(name: str, found: Sequence[Curve], ylabel: str) -> str:
    """Courses over the steps of a training."""
    figure, ax = _axes(2.9)
    lines = {c.name.replace("_", " "): (c.steps, c.values) for c in found}
    plots.courses(ax, lines, marks=max(len(c.steps) for c in found) < 20)
    ax.set(xlabel="step", ylabel=ylabel)
    return to_svg(figure, name)


def communities(name: str, found: Communities, unseen: Sequence[str]) -> str:
    """Share of each gesture's poses in each community; communities stand beside those that hold the same gestures."""
    counts = np.asarray(found.counts, float)
    rows = np.flatnonzero(counts.sum(axis=1))
    used = np.flatnonzero(counts.sum(axis=0))
    share = counts[np.ix_(rows, used)] / counts[rows].sum(axis=1, keepdims=True)
    order = np.lexsort((-share.max(axis=0), share.argmax(axis=0)))
    names = [_short(found.gestures[i]) + (" *" if found.gestures[i] in unseen else "") for i in rows]
    figure, ax = _axes(0.26 * len(rows) + 1.2)
    ax.pcolormesh(np.zeros_like(share), alpha=0)
    for (i, j), value in np.ndenumerate(share[:, order]):
        if value > 0:
            ax.add_patch(Rectangle((j, i), 1, 1, facecolor=plots.ACCENT, alpha=float(value), linewidth=0))
    ax.set(xlim=(0, len(used)), ylim=(len(rows), 0), xlabel=f"{len(used)} communities ({found.kind})")
    ax.set_yticks(np.arange(len(rows)) + 0.5, names)
    ax.set_xticks([])
    ax.spines[:].set_visible(False)
    return to_svg(figure, name)


def scan(name: str, values: NDArray[np.float64], chance: float, marked: Mapping[str, float]) -> str:
    """How often each accuracy occurs among all sets of unseen gestures; the folds of the tables are marked."""
    figure, ax = _axes(3.1)
    low, high = min(float(values.min()), chance), max(float(values.max()), chance)
    ax.hist(values, bins=list(np.linspace(low, high, 31)), color=plots.ACCENT, alpha=0.55)
    ax.margins(y=0.3)
    _reference(ax, chance, "chance", upright=True)
    top = ax.get_ylim()[1]
    for i, (fold, value) in enumerate(sorted(marked.items(), key=lambda item: item[1])):
        ax.axvline(value, color=plots.WARM, lw=1.4)
        ax.text(value, top * (0.82 - 0.09 * (i % 3)), f" {fold}", color=plots.WARM, fontsize=9, weight="bold")
    ax.set(xlabel="balanced accuracy, zero-shot unseen", ylabel=f"sets, of {len(values)}")
    return to_svg(figure, name)


def fold_dots(name: str, found: Mapping[str, Mapping[str, float]], chance: float) -> str:
    """One line a method, one letter a fold, a bar at the mean."""
    figure, ax = _axes(0.34 * len(found) + 1.1)
    for i, (_, folds) in enumerate(found.items()):
        values = list(folds.values())
        ax.plot([min(values), max(values)], [i, i], color=plots.INK, lw=0.6, alpha=0.5)
        ax.plot([np.mean(values)] * 2, [i - 0.32, i + 0.32], color=plots.WARM, lw=2)
        for j, (fold, value) in enumerate(folds.items()):
            ax.text(
                value,
                i + 0.2 * (j % 3 - 1),
                fold,
                ha="center",
                va="center",
                fontsize=9,
                weight="bold",
                color=plots.ACCENT,
            )
    ax.set_yticks(range(len(found)), list(found))
    everything = [v for folds in found.values() for v in folds.values()]
    pad = 0.06 * (max(everything) - min([*everything, chance])) + 0.005
    ax.set(ylim=(len(found) - 0.4, -0.9), xlim=(min([*everything, chance]) - pad, max(everything) + pad))
    _reference(ax, chance, "chance", upright=True)
    ax.set(xlabel="balanced accuracy, zero-shot unseen")
    return to_svg(figure, name)


def forest(name: str, found: Sequence[tuple[str, float, float, bool]]) -> str:
    """Differences with bars of twice their standard error; separable ones are filled."""
    figure, ax = _axes(0.24 * len(found) + 0.9)
    for i, (_, mean, error, separable) in enumerate(found):
        ax.plot([mean - 2 * error, mean + 2 * error], [i, i], color=plots.ACCENT, lw=1.4)
        ax.plot(mean, i, "o", ms=6, mec=plots.ACCENT, mew=1.4, mfc=plots.ACCENT if separable else plots.PAPER)
    ax.set_yticks(range(len(found)), [n for n, *_ in found])
    ax.set(ylim=(len(found) - 0.4, -0.9), xlabel="difference of balanced accuracy")
    _reference(ax, 0.0, "no difference", upright=True)
    return to_svg(figure, name)


def people(name: str, found: Mapping[str, float], chance: float) -> str:
    """Bars of participants, the best above."""
    figure, ax = _axes(0.2 * len(found) + 0.9)
    ordered = sorted(found.items(), key=lambda item: item[1])
    places = range(len(ordered))
    ax.barh(places, [v for _, v in ordered], color=plots.ACCENT, alpha=0.65, height=0.7)
    for i, (_, value) in enumerate(ordered):
        ax.text(value, i, f" {value:.2f}", va="center", fontsize=7)
    ax.set_yticks(places, [p for p, _ in ordered])
    ax.set(xlabel="balanced accuracy", ylim=(-0.6, len(ordered) + 0.4))
    _reference(ax, chance, "chance", upright=True)
    return to_svg(figure, name)


def courses(name: str, lines: Lines, *, xlabel: str, chance: float | None) -> str:
    """Accuracy over repetitions or over the share of participants, one line a method."""
    figure, ax = _axes(3.3)
    plots.courses(ax, lines, marks=True)
    if chance is not None:
        _reference(ax, chance, "chance")
    ax.set_xticks(sorted({x for xs, _ in lines.values() for x in xs}))
    ax.set(xlabel=xlabel, ylabel="balanced accuracy")
    return to_svg(figure, name)


def _short(gesture: str) -> str:
    return gesture.replace("_", " ").replace("flexion", "flex.").replace("extension", "ext.")
