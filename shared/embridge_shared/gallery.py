"""The vocabulary as pictures: one SVG a gesture, and the part of a Markdown page that shows them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from embridge_shared.archive import write_atomically
from embridge_shared.gestures import ALIKE, COUNTS, FINGERSPELLING, Family, similarity, vocabulary
from embridge_shared.hand.picture import draw

BEGIN: Final = "<!-- gallery: written by `embridge gesture gallery` -->"
END: Final = "<!-- end of the gallery -->"
_TITLES: Final = {
    Family.REST: "Rest",
    Family.HAND: "Whole hand",
    Family.SIGN: "Signs, counts and letters",
    Family.PINCH: "Pinches",
    Family.GRASP: "Grasps",
    Family.FINGER: "Single fingers",
}


def write_gallery(page: Path, pictures: Path) -> int:
    """Draw every gesture and write the page that shows them; what stands around the gallery on it stays.

    Args:
        page: Markdown; made where there is none.
        pictures: Folder of the pictures; made.

    Returns:
        Number of pictures.
    """
    pictures.mkdir(parents=True, exist_ok=True)
    for gesture in vocabulary().values():
        write_atomically(pictures / f"{gesture.name}.svg", draw(gesture.pose, title=gesture.title).encode())
    before, after = f"{BEGIN}\n", f"\n{END}\n"
    if page.is_file() and BEGIN in (text := page.read_text(encoding="utf-8")):
        head, _, rest = text.partition(BEGIN)
        before, after = f"{head}{BEGIN}\n", f"\n{END}{rest.partition(END)[2]}"
    body = gallery(Path(os.path.relpath(pictures, page.parent)).as_posix())
    write_atomically(page, f"{before}\n{body}{after}".encode())
    return len(vocabulary())


def gallery(pictures: str) -> str:
    """The gallery as Markdown.

    Args:
        pictures: Folder of the pictures, as the page links to it.
    """
    words = list(vocabulary().values())
    kernel = similarity(words)
    np.fill_diagonal(kernel, 0.0)
    near = {
        g.name: [words[int(j)].name for j in np.argsort(-kernel[i]) if kernel[i, j] >= ALIKE]
        for i, g in enumerate(words)
    }
    also = {name: f"count {n}" for n, name in COUNTS.items()}
    for letter, name in FINGERSPELLING.items():
        also[name] = ", ".join(filter(None, (also.get(name, ""), f"letter {letter}")))
    parts = []
    for family, title in _TITLES.items():
        rows = ["| gesture | picture | how | |", "|---|---|---|---|"]
        for g in words:
            if g.family is family:
                notes = [also[g.name]] if g.name in also else []
                notes += [f"hard to tell from `{'`, `'.join(near[g.name])}`"] if near[g.name] else []
                image = f"![{g.title}: from the palm and from the thumb's side]({pictures}/{g.name}.svg){{ width=220 }}"
                rows.append(f"| `{g.name}` | {image} | {g.hint} | {'; '.join(notes)} |")
        parts.append(f"### {title}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)
