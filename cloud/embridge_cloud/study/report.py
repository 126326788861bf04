"""The report of a study: one self-contained HTML page and the same content as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from embridge_cloud.study import report_bars, report_pictures, report_tables
from embridge_cloud.study.report_blocks import Page, Picture
from embridge_cloud.study.report_data import Study, read_study
from embridge_cloud.study.report_render import to_html, to_markdown
from embridge_cloud.study.report_svg import standalone

Format = Literal["html", "md", "both"]
NAME = "report"


def content(study: Study) -> Page:
    """Everything a report says, before it takes a form; what the study lacks is named in its place.

    Args:
        study: As read from its folder.
    """
    r = study.results
    lead = ", ".join(part for part in (r.data, f"suite `{r.suite}`" if r.suite else "", _when(study)) if part)
    sections = (
        report_tables.headline(study),
        *report_tables.results(study),
        *report_tables.switches(study),
        report_bars.bars(study),
        report_tables.differences(study),
        report_pictures.gesture_sets(study),
        report_tables.controls(study),
        report_pictures.people(study),
        report_pictures.confusions(study),
        report_pictures.efficiency(study),
        report_pictures.embeddings(study),
        report_pictures.communities(study),
        report_pictures.training(study),
        report_bars.papers(study),
        report_bars.making(study),
    )
    return Page("EMG in the language of hand poses: a study", lead, sections)


def _when(study: Study) -> str:
    wall_s = study.results.wall_s
    return "" if wall_s is None else f"{wall_s / 60:.1f} min of wall time"


def write_report(folder: Path, *, out: Path | None = None, form: Format = "both") -> tuple[Path, ...]:
    """Read the folder of a benchmark and write its report.

    Args:
        folder: What `embridge learn benchmark --out` made.
        out: File to write, by default `report.html` in the folder; of two forms the suffix of the other is put in.
        form: "html", "md" or "both". Markdown has its drawings in a folder named like it.

    Returns:
        The files, the page first; drawings beside Markdown are not among them.

    Raises:
        OperatorError: The folder holds no results.
        DataError: A file in it is damaged.
    """
    page = content(read_study(folder))
    stem = (out or folder / f"{NAME}.html").with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    if form in ("html", "both"):
        written.append(_write(out if out and form == "html" else stem.with_suffix(".html"), to_html(page)))
    if form in ("md", "both"):
        pictures = stem.with_name(f"{stem.name}-pictures")
        _write_pictures(pictures, [b for s in page.sections for b in s.blocks if isinstance(b, Picture)])
        written.append(
            _write(out if out and form == "md" else stem.with_suffix(".md"), to_markdown(page, pictures.name))
        )
    return tuple(written)


def _write_pictures(folder: Path, pictures: Sequence[Picture]) -> None:
    """Drawings as files of their own; those of an earlier report go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for picture in pictures:
        _write(folder / f"{picture.name}.svg", standalone(picture.svg))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
