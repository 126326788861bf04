"""The report of a study: what it says, what it leaves out, and that its two forms agree."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET

import msgspec
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from embridge_cloud.study import artefacts, reference, report, report_bars, report_cli, report_pictures, report_tables
from embridge_cloud.study.report import content
from embridge_cloud.study.report_blocks import Number, Picture, Table, Text, fixed, listed, signed, spread
from embridge_cloud.study.report_data import Study, read_study
from embridge_cloud.study.report_render import to_html, to_markdown
from embridge_cloud.study.results import Results, write_results
from embridge_shared.errors import DataError, OperatorError
from support.study_folder import GESTURES, write_study

METHODS = ("regression", "cpep", "embridge", "supervised", "shuffled-pairs", "pose-ceiling", "embridge:gmm")
LACKING = {
    "headline": "No head can be chosen",
    "results": "no rows",
    "differences": "No paired differences",
    "sets": "No scan",
    "controls": "No controls",
    "people": "No figures by participant",
    "confusions": "No confusion matrices",
    "efficiency": "No enrolment curve",
    "embeddings": "No maps",
    "communities": "No communities",
    "training": "No training curves",
    "making": "noted nothing",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study of two rotations, and its report in both forms."""
    made = tmp_path_factory.mktemp("study")
    write_study(made, rotations=2, methods=METHODS)
    return made


@pytest.fixture(scope="module")
def bare(tmp_path_factory, study):
    """A study with two rows and nothing to draw."""
    made = tmp_path_factory.mktemp("bare")
    rows = tuple(study.row("regression", p) for p in ("zs-seen", "zs-unseen"))
    write_results(made, Results(rows=tuple(msgspec.structs.replace(r, per_fold={}, per_participant={}) for r in rows)))
    return made


@pytest.fixture(scope="module")
def study(folder):
    return read_study(folder)


@pytest.fixture(scope="module")
def page(study, folder):
    made = content(study)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "content", lambda _: made)
        report.write_report(folder)
    return made


def blocks(page, kind):
    return [b for s in page.sections for b in s.blocks if isinstance(b, kind)]


def words(page, key):
    """All text of one section."""
    section = next(s for s in page.sections if s.key == key)
    return " ".join(b.text if isinstance(b, Text) else repr(b) for b in section.blocks)


# what is said


def test_the_headline_names_the_head_and_what_cannot_be_told_apart(study, page):
    said = words(page, "headline")
    row = study.row("regression", "zs-unseen")
    assert said.startswith("**regression** ships.")
    assert f"{row.balanced_accuracy:.3f}" in said
    assert f"{100 * row.balanced_accuracy:.0f} times of 100 (guessing: 25)" in said
    assert "(guessing: 12.5)" in said
    assert f"highest of {len(study.choice.table)} on the very runs" in said
    for d in study.results.differences:
        if d.protocol == "zs-seen" and d.regime == "new-wearer" and d.a == "regression":
            assert ("not separable" in said) or d.separable


def test_regimes_never_share_a_table(study, page):
    sections = [s for s in page.sections if s.key.startswith("results-")]
    assert [s.key for s in sections] == [
        "results-new-wearer-strict",
        "results-new-wearer-pose-enrolled",
        "results-calibrated-wearer-strict",
    ]
    for s, (regime, pose_regime) in zip(sections, study.regimes, strict=True):
        rows = (r for r in study.rows(regime, pose_regime) if ":" not in r.method)
        found = {r.method: r for r in rows if r.protocol == "zs-unseen"}
        table = next(b for b in s.blocks if isinstance(b, Table))
        column = table.head.index("zs-unseen")
        shown = {re.split(r" \(", row[0])[0]: row[column] for row in table.rows[1:]}
        for method, row in found.items():
            assert shown[method].main == f"{row.balanced_accuracy:.3f}"
            assert shown[method].aside == f"± {row.sd:.3f} [{row.ci95[0]:.3f}, {row.ci95[1]:.3f}]"


def test_chance_stands_above_and_controls_below(page):
    table = blocks(page, Table)[0]
    names = [row[0] for row in table.rows]
    assert names[0] == "chance"
    assert names[-1] == "shuffled-pairs (control)"
    assert [c.main for c in table.rows[0][1:]] == ["–", *["0.125", "0.250"] * 3]
    strong = [row[0] for row in table.rows if row[2].strong]
    assert len(strong) == 1
    assert not strong[0].startswith(("shuffled", "pose-ceiling", "chance"))


def test_bars_are_judged_by_the_rule_they_state(study, page):
    section = next(s for s in page.sections if s.key == "bars")
    table = next(b for b in section.blocks if isinstance(b, Table))
    assert len(table.rows) == len(reference.BARS)
    for bar, row in zip(reference.BARS, table.rows, strict=True):
        quantity, verdict, measured, must, stretch, method = row
        assert quantity == bar.quantity
        assert (must, stretch) == (f"{bar.must:.2f}", fixed(bar.stretch, 2))
        value = float(measured.main)
        if bar.family == "shuffled":
            own = study.row(method, bar.protocol)
            assert value == pytest.approx(abs(own.balanced_accuracy - own.chance), abs=5e-4)
            assert verdict.startswith("reached" if value <= bar.must else "missed")
        elif verdict.startswith("missed by"):
            assert value < bar.must
        elif verdict.startswith("missed: fold"):
            assert min(study.row(method, bar.protocol).per_fold.values()) < bar.floor
        else:
            assert value >= bar.must - 5e-4
            assert (verdict == "stretch reached") == (bar.stretch is not None and value >= bar.stretch)


def test_a_weak_fold_misses_the_bar_whatever_the_mean_is(study):
    bar = next(b for b in reference.BARS if b.floor is not None)
    rows = [
        msgspec.structs.replace(r, balanced_accuracy=0.6, per_fold={"A": 0.9, "B": 0.19})
        if (r.method, r.protocol) == ("cpep", "zs-unseen") else r
        for r in study.results.rows
    ]  # fmt: skip
    made = report_bars.bars(Study(msgspec.structs.replace(study.results, rows=tuple(rows))))
    table = next(b for b in made.blocks if isinstance(b, Table))
    verdict = next(row[1] for row in table.rows if row[0] == bar.quantity)
    assert verdict == "missed: fold B has 0.190, under 0.20"


def test_the_paper_is_beside_with_a_warning(page):
    said = words(page, "papers")
    assert "cannot be compared" in said
    table = next(b for s in page.sections if s.key == "papers" for b in s.blocks if isinstance(b, Table))
    row = next(r for r in table.rows if r[0].startswith("EMBridge"))
    assert [row[i].main for i in (1, 3, 5, 7)] == ["0.785", "0.777", "0.505", "0.528"]


def test_switches_stand_apart_with_their_difference(study, page):
    section = next(s for s in page.sections if s.key == "switches")
    (table,) = (b for b in section.blocks if isinstance(b, Table))
    d = study.difference("embridge:gmm", "embridge", "zs-unseen", ("new-wearer", "strict"))
    assert table.rows[0][:2] == ("embridge:gmm", "new-wearer, strict")
    assert (table.rows[0][4].main, table.rows[0][5]) == (signed(d.mean), d.verdict)
    turned = study.difference("embridge", "embridge:gmm", "zs-unseen", ("new-wearer", "strict"))
    assert (turned.mean, turned.wins) == (-d.mean, d.runs - d.wins)
    assert "embridge:gmm" not in words(page, "results-new-wearer-strict")


def test_one_run_has_no_deviation_and_the_preferred_run_is_drawn(study):
    rows = tuple(msgspec.structs.replace(r, runs=1, sd=0.0) for r in study.results.rows)
    alone = Study(msgspec.structs.replace(study.results, rows=rows))
    assert "± " not in repr([report_tables.results(alone)[0].blocks[2:], report_bars.bars(alone)])
    (own,) = study.artefacts
    other = msgspec.structs.replace(own, unit="a", method="cpep")
    assert Study(Results(), artefacts=(other, own)).drawn("maps", ("embridge", "embridge")) is own
    assert Study(Results(), artefacts=(other,)).drawn("maps", ("embridge",)) is other


def test_differences_carry_errors_and_verdicts(study, page):
    table = next(b for s in page.sections if s.key == "differences" for b in s.blocks if isinstance(b, Table))
    d = study.difference("regression", "cpep", "zs-unseen", ("new-wearer", "strict"))
    assert {row[0].partition(" − ")[0] for row in table.rows} == {"regression", "embridge"}
    assert table.rows[0][0] == f"{d.a} − {d.b}"
    assert table.rows[0][2] == d.verdict
    assert table.rows[0][4].main == f"{d.se:.3f}"


def test_the_worst_served_participant_is_named(study, page):
    row = study.row("regression", "zs-unseen")
    worst = min(row.per_participant, key=row.per_participant.get)
    assert f"serves participant {worst} worst, {row.per_participant[worst]:.3f}" in words(page, "people")


def test_a_control_off_chance_stands_out(study, page):
    assert "**no**" not in words(page, "controls")
    assert "'another wearer in the gallery', 'raised'" in words(page, "controls")
    rows = [
        msgspec.structs.replace(r, balanced_accuracy=r.chance + 0.05)
        if (r.method, r.protocol) == ("shuffled-pairs", "zs-unseen") else r
        for r in study.results.rows
    ]  # fmt: skip
    made = report_tables.controls(Study(msgspec.structs.replace(study.results, rows=tuple(rows))))
    assert repr(made).count("**no**") == 1


def test_the_command_and_failures_are_told(study, page):
    said = words(page, "making")
    assert study.results.command in said
    assert "torch 2.13.0, numpy 2.4.6" in said
    assert "training diverged" in said
    assert "45.2 min" in said


# what is missing


def test_every_missing_part_is_named(tmp_path):
    page = content(Study(Results()))
    for key, sentence in LACKING.items():
        assert sentence in words(page, key), key
    assert not blocks(page, Picture)
    ET.fromstring(to_html(page).partition("\n")[2])


def test_a_study_without_artefacts_keeps_its_tables(bare):
    page = content(read_study(bare))
    assert "No maps" in words(page, "embeddings")
    assert "No confusion matrices" in words(page, "confusions")
    assert "zs-unseen" in words(page, "results-new-wearer-strict")


def test_a_folder_without_results_says_how_to_make_them(tmp_path):
    with pytest.raises(OperatorError, match="embridge learn benchmark"):
        read_study(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(DataError, match="no benchmark's result"):
        read_study(tmp_path)


def test_damaged_artefacts_are_named(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "s")
    next((tmp_path / "s" / artefacts.FOLDER).glob("*.json")).write_text('{"unit": 3}')
    with pytest.raises(DataError, match="holds no artefacts"):
        read_study(tmp_path / "s")


# forms


@pytest.fixture(scope="module")
def html(folder, page):
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def tree(html):
    return ET.fromstring(html.partition("\n")[2])


def test_the_page_is_well_formed_and_asks_nobody(html, tree):
    assert html.startswith("<!doctype html>\n")
    assert not re.findall(r"https?://|//[\w.]+/|@import|src=|url\((?!#)", html)
    assert all(a.get("href").startswith("#") for a in tree.iter("a"))
    assert {"script", "link", "img", "iframe"}.isdisjoint({e.tag for e in tree.iter()})
    assert tree.get("lang") == "en"
    assert "width=device-width" in html
    assert "prefers-color-scheme:dark" in html


def test_identifiers_are_single_and_links_lead_to_one(tree):
    names = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(names) == len(set(names))
    links = {e.get("href") for e in tree.iter() if e.get("href")}
    used = set(re.findall(r"url\(#([^)]+)\)", ET.tostring(tree, encoding="unicode")))
    assert {h[1:] for h in links} | used <= set(names)


def test_everybody_can_read_it(tree):
    for table in tree.iter("table"):
        assert "".join(table.find("caption").itertext()).strip()
        assert all(th.get("scope") == "col" for th in table.find("thead").iter("th"))
        for row in table.find("tbody"):
            assert row[0].tag == "th"
            assert row[0].get("scope") == "row"
    drawings = list(tree.iter("svg"))
    assert len(drawings) > 10
    assert all(e.get("role") == "img" and len(e.get("aria-label")) > 20 for e in drawings)
    assert next(e.tag for e in tree.iter() if re.fullmatch("h[1-6]", e.tag)) == "h1"


def test_drawings_follow_the_theme(html):
    body = html[html.index("<body>") :]
    named = set(re.findall(r"#[0-9a-f]{6}\b", re.sub(r'="#[^"]*"|url\(#[^)]*\)', "", body)))
    assert not named
    assert "var(--ink)" in body


def test_markdown_holds_the_numbers_of_the_page(page, folder):
    text = (folder / "report.md").read_text()
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    made = blocks(page, Table)
    assert len(tables) == len(made)
    for shown, table in zip(tables, made, strict=True):
        lines = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in shown.splitlines()]
        assert lines[0] == [h or "" for h in table.head]
        for line, row in zip(lines[2:], table.rows, strict=True):
            plain = [v.replace("**", "") if isinstance(v, str) else v.plain for v in row]
            assert [c.replace("**", "").replace("\\|", "|") for c in line] == plain


def test_the_page_holds_the_numbers_of_the_content(page, tree):
    for table, element in zip(blocks(page, Table), tree.iter("table"), strict=True):
        for row, line in zip(table.rows, element.find("tbody"), strict=True):
            for value, cell in zip(row, line, strict=True):
                shown = re.sub(r"\s+", " ", " ".join(cell.itertext())).strip()
                wanted = re.sub(r"[`*]{1,2}", "", value) if isinstance(value, str) else value.plain
                assert shown.replace(" ", "") == wanted.replace(" ", "")


def test_pictures_of_markdown_are_files_that_stand_alone(page, folder):
    text = (folder / "report.md").read_text()
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(named) == len(blocks(page, Picture))
    for name in named:
        root = ET.parse(folder / name).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("viewBox")


def test_the_same_study_gives_the_same_drawings(study, page):
    again = [b for b in report_pictures.people(study).blocks if isinstance(b, Picture)]
    assert again
    assert all(b in blocks(page, Picture) for b in again)


def test_markup_in_names_stays_text():
    page = content(Study(Results(data="<b>&", command="x <y> | `z`")))
    tree = ET.fromstring(to_html(page).partition("\n")[2])
    assert tree.find(".//header/p").text.startswith("<b>&")
    assert "x <y> | `z`" in to_markdown(page, "p")


# numbers


def test_numbers_are_rounded_as_stated():
    assert [fixed(v) for v in (0.12345, 0.1235, -0.0001, None, float("nan"))] == ["0.123", "0.123", "0.000", "–", "–"]
    assert [signed(v) for v in (0.0123, -0.0123, 0.0)] == ["+0.012", "−0.012", "+0.000"]
    assert spread(0.0314, (0.3801, 0.4449)) == "± 0.031 [0.380, 0.445]"
    assert spread(None, None) == spread(None, (0.4, 0.4)) == ""
    assert [listed(n) for n in ((), ("a",), ("a", "b", "c"))] == ["none", "a", "a, b and c"]


def test_decimals_of_a_column_are_equal(page):
    for table in blocks(page, Table):
        for i, name in enumerate(table.head):
            if i in table.words:
                continue
            found = [r[i].main if isinstance(r[i], Number) else r[i] for r in table.rows]
            decimals = {len(v.partition(".")[2]) for v in found if re.fullmatch(r"[+−]?\d*\.\d+", v)}
            assert len(decimals) <= 1, (table.caption, name)


# artefacts


def test_artefacts_come_back_as_they_were(tmp_path, folder):
    (found,) = artefacts.read_artefacts(folder)
    path = artefacts.write_artefacts(tmp_path, found)
    assert artefacts.read_artefacts(tmp_path) == [found]
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match="names no file"):
        artefacts.write_artefacts(tmp_path, msgspec.structs.replace(found, unit="../x"))
    assert artefacts.read_artefacts(tmp_path / "nothing") == []


def test_a_map_keeps_distances_and_is_bounded():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(700, 2)) * (5, 2)
    flat = np.pad(plane, ((0, 0), (0, 6))).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    label = np.arange(700) % 12
    made = artefacts.map_of("after", (flat @ turn, label), (flat @ turn, label), GESTURES, rng=rng, limit=100)
    assert made.pose.count(True) == made.pose.count(False) == 100
    assert sum(made.explained) == pytest.approx(1, abs=1e-3)
    assert np.ptp(made.x) > np.ptp(made.y)
    with pytest.raises(DataError, match="make no map"):
        artefacts.map_of("after", (flat, label), (flat[:, :3], label), GESTURES, rng=rng)


def test_curves_are_thinned_and_validation_lies_at_its_steps():
    history = {"nce": [float(v) for v in range(5000)], "val_step": [10.0, 20.0], "val_zs": [0.1, float("nan")], "x": []}
    nce, val = artefacts.curves_of(history)
    assert (nce.steps[0], nce.steps[-1], len(nce.steps)) == (1, 5000, artefacts.MAX_STEPS)
    assert all(v == s - 1 for s, v in zip(nce.steps, nce.values, strict=True))
    assert (val.name, val.steps, val.values) == ("val_zs", (10,), (0.1,))


def test_communities_count_known_poses():
    made = artefacts.communities_of("k-means", np.array([0, 0, 2, 2]), np.array([1, 1, 0, -1]), ("a", "b"))
    assert made.counts == ((0, 0, 1), (2, 0, 0))


# the command


@pytest.mark.parametrize(("form", "suffixes"), [("html", {".html"}), ("md", {".md"}), ("both", {".html", ".md"})])
def test_the_command_writes_what_it_is_asked_for(bare, tmp_path, form, suffixes):
    app = typer.Typer()
    app.command()(report_cli.report)
    out = tmp_path / "page.html" if form != "md" else tmp_path / "page.md"
    done = CliRunner().invoke(app, [str(bare), "--out", str(out), "--format", form, "--json"])
    assert done.exit_code == 0, done.output
    assert {p.suffix for p in tmp_path.iterdir() if p.is_file()} == suffixes
    assert json.loads(done.output)["files"][0] == str(out)
