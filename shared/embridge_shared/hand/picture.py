"""A hand drawn as SVG from its joint angles: from its palm and from the thumb's side, legible on light and dark.

Every segment is a tapered capsule, drawn from far to near; where a finger bends little its segments melt into one
outline, where it folds the line between them stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embridge_shared.hand.kinematics import landmarks
from embridge_shared.session import Side

View = Literal["palm", "side"]
VIEWS: Final[tuple[View, ...]] = ("palm", "side")

_SCALE: Final = 1500.0
"""Pixels a metre."""
_HEIGHT: Final = 350
_WIDTH: Final = {"palm": 320, "side": 270}
_TITLE: Final = 26
_LINE: Final = 2.6
_ORIGIN: Final = {"palm": (-0.087, -0.028), "side": (-0.115, -0.028)}
"""Lower left corner of the plane that is shown, m."""
_FOLD_RAD: Final = math.radians(75.0)

# Half the thickness at the ends of each digit's segments, m: Greiner's hand survey, rounded.
_RADII: Final = np.array(
    [
        (0.0155, 0.0115, 0.0105, 0.0080),
        (0.0105, 0.0092, 0.0084, 0.0068),
        (0.0105, 0.0094, 0.0086, 0.0070),
        (0.0100, 0.0088, 0.0080, 0.0066),
        (0.0090, 0.0078, 0.0070, 0.0058),
    ]
)
_STYLE: Final = (
    ".s{fill:#f4d9c6}.o{paint-order:stroke;stroke:#4a3228;stroke-width:5.2;stroke-linecap:round;"
    "stroke-linejoin:round}.t{font:600 15px system-ui,sans-serif;fill:#4a3228}"
    "@media(prefers-color-scheme:dark){.s{fill:#8a6a58}.o{stroke:#f3e6dd}"
    ".t{fill:#f3e6dd}}"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """A capsule on the page: its ends (2, 2), px, their radii, px, how near it is, m, and of which digit."""

    ends: NDArray[np.float64]
    radii: tuple[float, float]
    depth: float
    digit: int
    at: int


def draw(angles: ArrayLike, *, title: str = "", side: Side = Side.RIGHT, views: tuple[View, ...] = VIEWS) -> str:
    """A hand as an SVG document; all hands are drawn at one scale.

    Args:
        angles: (20,), rad, in the order of `JOINTS`.
        title: Written above; also what a reader of the page is told.
        side: Which hand.
        views: From where, from left to right.

    Returns:
        The document, a few kilobytes.

    Raises:
        DataError: These are not 20 joint angles.
    """
    points = landmarks(angles)
    top = _TITLE if title else 0
    width = sum(_WIDTH[v] for v in views)
    parts, x = [], 0
    for view in views:
        drawn = _hand(points, view)
        mirror = f" translate({_WIDTH[view]} 0) scale(-1 1)" if side is Side.LEFT else ""
        parts.append(f'<g transform="translate({x} {top}){mirror}">{drawn}</g>')
        x += _WIDTH[view]
    name = escape(title or "A hand")
    words = f'<text class="t" x="{width / 2:g}" y="19" text-anchor="middle">{name}</text>' if title else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT + top}" role="img" aria-label="{name}">'
        f"<style>{_STYLE}</style>{words}{''.join(parts)}</svg>\n"
    )


def _turns() -> dict[View, NDArray[np.float64]]:
    """Wrist frame to page (right, up, towards the eye), (3, 3)."""
    out: dict[View, NDArray[np.float64]] = {}
    angles: tuple[tuple[View, float, float], ...] = (("palm", 14.0, -8.0), ("side", 76.0, -6.0))
    for view, turn, nod in angles:
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        yaw = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
        c, s = math.cos(math.radians(nod)), math.sin(math.radians(nod))
        out[view] = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]]) @ yaw
    return out


_TURNS: Final = _turns()


def _hand(points: NDArray[np.float64], view: View) -> str:
    turned = points @ _TURNS[view].T
    page = _page(turned, view)
    segments = [
        _Segment(
            page[[first + j, first + j + 1]],
            (float(_RADII[d, j]) * _SCALE, float(_RADII[d, j + 1]) * _SCALE),
            float(turned[[first + j, first + j + 1], 2].max()),
            d,
            j,
        )
        for d, first in enumerate(range(1, 21, 4))
        for j in range(3)
    ]
    out, done = [], set()
    palm_depth = float(turned[[0, 5, 17], 2].mean())
    palm = _palm(turned, view)
    drawn_palm = False
    for s in sorted(segments, key=lambda s: s.depth):
        if not drawn_palm and s.depth > palm_depth:
            out.append(palm)
            drawn_palm = True
        out.append(_outlined(_capsule(s.ends, s.radii)))
        out += [_melt(s, o) for o in segments if (o.digit, o.at) in done and o.digit == s.digit and _flows(s, o)]
        if s.at == 0 and drawn_palm:
            out.append(_root(s, page))
        done.add((s.digit, s.at))
    return "".join(out if drawn_palm else [*out, palm])


def _page(turned: NDArray[np.float64], view: View) -> NDArray[np.float64]:
    """Pixels (n, 2) of turned points."""
    left, bottom = _ORIGIN[view]
    return np.stack([(turned[:, 0] - left) * _SCALE, _HEIGHT - (turned[:, 1] - bottom) * _SCALE], axis=1)


def _palm(turned: NDArray[np.float64], view: View) -> str:
    """Wrist, heel of the hand and knuckles as one rounded shape."""
    wide = np.array([0.021, 0.0, 0.0]) @ _TURNS[view].T
    down = np.array([0.0, -0.014, 0.0]) @ _TURNS[view].T
    heel = turned[0]
    corners = np.stack(
        [heel + wide + down, heel - wide + down, heel - wide, *turned[[17, 13, 9, 5]], turned[1], heel + wide]
    )
    radii = np.array([0.007, 0.007, 0.011, 0.0105, 0.0105, 0.011, 0.011, 0.014, 0.010]) * _SCALE
    return _outlined(_hull(_page(corners, view), radii))


def _flows(a: _Segment, b: _Segment) -> bool:
    """Whether two neighbours bend so little on the page that they look like one."""
    if abs(a.at - b.at) != 1:
        return False
    u, v = a.ends[1] - a.ends[0], b.ends[1] - b.ends[0]
    lengths = float(np.hypot(*u)), float(np.hypot(*v))
    if lengths[0] < a.radii[0] or lengths[1] < b.radii[0]:
        return False
    return float(u @ v) > math.cos(_FOLD_RAD) * lengths[0] * lengths[1]


def _melt(near: _Segment, far: _Segment) -> str:
    """Covers the line that the nearer of two neighbours draws across the other."""
    joint, away = (near.ends[1], far.ends[1]) if far.at > near.at else (near.ends[0], far.ends[0])
    radius = near.radii[1] if far.at > near.at else near.radii[0]
    step = away - joint
    long = float(np.hypot(*step))
    reach = min(long, 0.8 * radius)
    end = joint + step * (reach / max(long, 1e-6))
    thin = radius - 0.2
    tip = far.radii[1] if far.at > near.at else far.radii[0]
    other = radius + (tip - radius) * reach / max(long, 1e-6) - 0.2
    return f'<path class="s" d="{_capsule(np.stack([joint, end]), (thin, max(1.0, min(thin, other))))}"/>'


def _root(s: _Segment, page: NDArray[np.float64]) -> str:
    """Opens a digit towards the palm it grows from."""
    joint, inner = s.ends[0], 0.35 * s.ends[0] + 0.65 * page[0]
    step = inner - joint
    end = joint + step * (1.3 * s.radii[0] / max(float(np.hypot(*step)), 1e-6))
    thin = s.radii[0] - 0.2
    return f'<path class="s" d="{_capsule(np.stack([joint, end]), (thin, thin * 0.9))}"/>'


def _outlined(path: str) -> str:
    return f'<path class="s o" d="{path}"/>'


def _capsule(ends: NDArray[np.float64], radii: tuple[float, float]) -> str:
    """Outline of two circles and what lies between them."""
    (r, q), step = radii, ends[1] - ends[0]
    long = float(np.hypot(*step))
    if long <= abs(r - q) + 1e-6:
        (x, y), r = ends[0] if r >= q else ends[1], max(r, q)
        return f"M{x - r:.1f} {y:.1f}a{r:.1f} {r:.1f} 0 1 1 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 1 {-2 * r:.1f} 0Z"
    along, half = math.atan2(step[1], step[0]), math.acos((r - q) / long)
    (ax, ay), (bx, by) = (ends[0] + r * _on(along + sign * half) for sign in (1, -1))
    (cx, cy), (dx, dy) = (ends[1] + q * _on(along + sign * half) for sign in (-1, 1))
    back, front = int(half < math.pi / 2), int(half > math.pi / 2)
    return (
        f"M{ax:.1f} {ay:.1f}A{r:.1f} {r:.1f} 0 {back} 1 {bx:.1f} {by:.1f}"
        f"L{cx:.1f} {cy:.1f}A{q:.1f} {q:.1f} 0 {front} 1 {dx:.1f} {dy:.1f}Z"
    )


def _on(angle: float) -> NDArray[np.float64]:
    return np.array([math.cos(angle), math.sin(angle)])


def _hull(centres: NDArray[np.float64], radii: NDArray[np.float64]) -> str:
    """Path around circles: the convex hull of points on each."""
    turn = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points = (centres[:, None] + radii[:, None, None] * ring).reshape(-1, 2)
    kept = _convex(points)
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in kept) + "Z"


def _convex(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Convex hull by Andrew's monotone chain."""
    ordered = sorted({(float(x), float(y)) for x, y in points})

    def chain(path: list[tuple[float, float]]) -> list[tuple[float, float]]:
        out: list[tuple[float, float]] = []
        for x, y in path:
            while len(out) > 1 and _turn(out[-2], out[-1], (x, y)) <= 0:
                out.pop()
            out.append((x, y))
        return out[:-1]

    return chain(ordered) + chain(ordered[::-1])


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
