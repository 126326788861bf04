"""Figures as SVG that follow the reader's theme, carry text as text and share no identifier."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

from embridge_cloud import plots

_LIGHT = {
    "ink": plots.INK,
    "paper": plots.PAPER,
    "soft": "#52606d",
    "line": "#cbd2d9",
    "accent": plots.ACCENT,
    "warm": plots.WARM,
} | {f"c{i}": colour for i, colour in enumerate(plots.COLOURS)}
_DARK = {
    "ink": "#e4e7eb",
    "paper": "#12181f",
    "soft": "#a3b1bf",
    "line": "#37424d",
    "accent": "#4cc9dd",
    "warm": "#ff8a4c",
    "c0": "#5aa9e6",
    "c1": "#ff8a4c",
    "c2": "#3ddba4",
    "c3": "#e8a0c8",
    "c4": "#f0b840",
    "c5": "#9bd8ff",
}
_SCALE = 1.5  # px for each point, of every drawing alike
_FIXED = ("soft", "line")


def _declared(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


THEME = (
    f":root{{color-scheme:light dark;{_declared(_LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{:root{{{_declared(_DARK)}}}}}"
    f"@media print{{:root{{{_declared(_LIGHT)}}}}}svg *{{stroke-linejoin:round;stroke-linecap:butt}}"
)
"""Style sheet that gives every colour its value in either theme."""

_VARIABLE = {value: f"var(--{name})" for name, value in _LIGHT.items() if name not in _FIXED}
_FONT = "system-ui,-apple-system,'Segoe UI',sans-serif"


def to_svg(figure: Figure, name: str, *, grow: bool = False) -> str:
    """Drawing of a figure for a place inside HTML.

    Args:
        figure: Drawn with the colours of `plots`.
        name: Makes its identifiers differ from those of other drawings.
        grow: Make room for what stands outside its axes; it takes a second drawing.

    Returns:
        One `<svg>` element whose colours are the variables of `THEME`.
    """
    target = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        box = {"bbox_inches": "tight", "pad_inches": 0.05} if grow else {}
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None}, **box)
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text, count=2).replace("xlink:href", "href")
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) version="[^"]*"', r"\1", text, count=1)
    width_pt = float(text[text.index('viewBox="') :].split()[2])
    text = text.replace("<svg", f'<svg style="max-width:{_SCALE * width_pt:.0f}px"', 1)
    for value, variable in _VARIABLE.items():
        text = re.sub(value, variable, text, flags=re.IGNORECASE)
    text = re.sub(r"(font: [^;]*?px) [^;]*;", rf"\1 {_FONT};", text)
    return _own_identifiers(re.sub(r"\n\s*", "\n", text).strip(), name)


def standalone(svg: str) -> str:
    """The same drawing as a file of its own."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg"><style>{THEME}</style>'
    body = svg[svg.index(">") + 1 :]
    attributes = svg[len("<svg") : svg.index(">")]
    return head.replace("<svg ", f"<svg{attributes} ", 1) + body + "\n"


def _own_identifiers(text: str, name: str) -> str:
    """Keep only identifiers that something refers to, with the drawing's name before them."""
    wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in wanted else ""

    text = re.sub(r' id="([^"]+)"', renamed, text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
