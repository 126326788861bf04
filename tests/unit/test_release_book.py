"""Where a release comes from, what it changed, and what is told of it."""

from __future__ import annotations

import json
import shutil

import msgspec
import pytest
from typer.testing import CliRunner

from embridge_cloud.differences import differences
from embridge_cloud.gates import keep_report
from embridge_cloud.gates.files import CARD_PAGE, CARD_TEXT
from embridge_cloud.lineage import Bundles, lineage_of
from embridge_cloud.registry import Registry
from embridge_cloud.release_book_cli import told
from embridge_cloud.release_cli import app
from embridge_cloud.release_routes import ReleaseBook
from embridge_cloud.store.sealed import Catalogue
from embridge_shared.clock import SystemClock
from embridge_shared.errors import OperatorError
from embridge_shared.fleet import GateReport
from embridge_shared.manifest import Lineage, lineage_code
from embridge_shared.release import read_bundle
from support import bundles
from support.gate_world import job, sealed_people

SNAPSHOT = "5" * 64


@pytest.fixture
def world(tmp_path):
    """A store of two people, and two releases made of it, one after the other."""
    _, sealed = sealed_people(tmp_path / "cloud", ("ana", "ben"), repetitions=1)
    ids = [str(i) for i in Catalogue(sealed).ids()]
    jobs = tmp_path / "jobs"
    codes = tuple(sorted(lineage_code(p, SNAPSHOT) for p in ("ana", "ben", "gone")))
    first, bundle = job(jobs, 1, lineage=Lineage(snapshot=SNAPSHOT, sessions=(ids[0],), participants=codes[:0]))
    parent = read_bundle(bundle).digest
    lineage = Lineage(snapshot=SNAPSHOT, sessions=(*ids, "a-session-that-was-erased"), participants=codes)
    second, newer = job(jobs, 2, lineage=lineage, parent=parent)
    registry = Registry(tmp_path / "registry", SystemClock())
    registry.publish(bundle)
    registry.publish(newer)
    return ReleaseBook(registry, jobs, Catalogue(sealed)), first, second


def test_lineage_goes_from_a_release_to_people_and_on_to_its_parents(world) -> None:
    book, _, second = world
    newest, oldest = book.told("embridge-2")["lineage"]
    assert (newest["release"], oldest["release"]) == ("embridge-2", "embridge-1")
    assert newest["parent"] == oldest["digest"]
    assert newest["snapshot"] == SNAPSHOT
    assert list(newest["participants"]) == ["ana", "ben"]
    assert newest["forgotten"] == 1  # whose session was erased: a code is left
    assert [s["participant"] for s in newest["sessions"]] == ["ana", "ben", ""]
    assert newest["job"] == second.name
    assert list(oldest["participants"]) == ["ana"]


def test_a_parent_that_is_not_here_ends_the_chain_with_its_digest(tmp_path) -> None:
    _, path = job(tmp_path / "jobs", 3, parent="f" * 64)
    found = lineage_of(read_bundle(path).digest, Bundles(tmp_path, tmp_path / "jobs"), Catalogue(tmp_path / "none"))
    assert [a.release for a in found] == ["embridge-3", ""]
    assert found[1].digest == "f" * 64


def test_a_release_outlives_its_job(world) -> None:
    book, first, second = world
    shutil.rmtree(second)
    shutil.rmtree(first)
    found = book.told("embridge-2")
    assert found["gate"] is None
    assert [row["release"] for row in found["lineage"]] == ["embridge-2", "embridge-1"]
    assert book.card("embridge-2", page=False).startswith(b"# A release for tests")
    with pytest.raises(OperatorError, match="no page"):
        book.card("embridge-2", page=True)


def test_the_gate_and_its_card_are_told_with_the_release(world) -> None:
    book, _, second = world
    report = GateReport(candidate="embridge-2", accepted=True, reason="It is as good.", forced_by="ana", forced_why="x")
    keep_report(second, report)
    (second / CARD_TEXT).write_text("# judged")
    (second / CARD_PAGE).write_text("<html>")
    found = book.told("embridge-2")
    assert found["gate"]["reason"] == "It is as good."
    assert book.card("embridge-2", page=False) == b"# judged"
    assert book.card("embridge-2", page=True) == b"<html>"
    text = told(found)
    assert "accepted on 0 people" in text
    assert "forced   by ana: x" in text
    with pytest.raises(OperatorError, match="no release 'embridge-9'"):
        book.told("embridge-9")


def test_differences_name_what_changed_and_nothing_else(tmp_path) -> None:
    first, second = (read_bundle(bundles.make_bundle(tmp_path, v)).manifest for v in (1, 2))
    assert differences(first, first) == ()
    changed = msgspec.structs.replace(
        second, head="closed", gestures=second.gestures[:2], metrics={"zero_shot": 0.75, "new": 1.0},
        lineage=msgspec.structs.replace(second.lineage, sessions=("s1", "s2")),
    )  # fmt: skip
    found = {c.what: (c.before, c.after) for c in differences(first, changed)}
    assert found == {
        "head": ("embridge", "closed"),
        "gestures": ("g2", "–"),
        "sessions": ("1", "2: 1 new, 0 gone"),
        "metrics.new": ("–", "1"),
        "metrics.zero_shot": ("0.5", "0.75"),
    }


def test_two_bundle_files_are_compared_without_a_cloud(tmp_path) -> None:
    paths = [str(bundles.make_bundle(tmp_path, v, seed=v)) for v in (1, 2)]
    found = CliRunner().invoke(app, ["diff", *paths])
    assert found.exit_code == 0
    assert "seed" in found.stdout
    rows = json.loads(CliRunner().invoke(app, ["diff", *paths, "--json"]).stdout)
    assert {"what", "before", "after"} == set(rows[0])


def test_a_bundle_file_is_shown_as_before(tmp_path) -> None:
    found = CliRunner().invoke(app, ["show", str(bundles.make_bundle(tmp_path, 1))])
    assert found.exit_code == 0
    assert "# A release for tests" in found.stdout
