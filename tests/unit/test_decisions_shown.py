"""What people are shown of decisions: of a release, and of a session that was decoded."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from embridge_cloud import release_cli, session_cli
from embridge_cloud.card import model_card
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.rows import Batch, ChunkRow, EventRow
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.store.views import write_views
from embridge_shared.decision import DecisionConfig, OperatingPoint
from embridge_shared.session import GestureChange, GestureDecoded
from embridge_shared.wire import codec
from support.bundles import make_bundle, parts
from support.sessions import T0, emg_spec, record, session_of

DECISION = DecisionConfig(
    temperature=0.031,
    floor=0.05,
    otherwise=0.8,
    novelty=2.5,
    points=(
        OperatingPoint(target_per_hour=2.0, otherwise=0.95, rest_below=0.1, rest_above=0.2),
        OperatingPoint(target_per_hour=6.0, otherwise=0.8, accept={"g1": 0.875}),
    ),
)


def run(app, *arguments: object) -> str:  # type: ignore[no-untyped-def]
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_release_shows_how_it_decides(tmp_path: Path) -> None:
    text = run(release_cli.app, "show", make_bundle(tmp_path, decision=DECISION))
    assert "decisions of the scores: temperature 0.031, floor 0.05, unknown beyond 2.50" in text
    assert "    2 false an hour: rest below 0.100, moving above 0.200, accepted from 0.950" in text
    assert "  *    6 false an hour: rest below 0.080, moving above 0.120, accepted from 0.800, g1 0.875" in text
    assert "decisions of the wearer's model: none" in text
    body = json.loads(run(release_cli.app, "show", make_bundle(tmp_path, 2, wearer_decision=DECISION), "--json"))
    assert body["manifest"]["wearer_decision"]["temperature"] == 0.031
    assert body["manifest"]["decision"] is None
    card = model_card(parts(decision=DECISION)[0])
    assert "accepted from 0.800, for 6 false activations an hour" in card
    assert "A model made the wearer's own: nobody fitted" in card


@pytest.fixture
def decoded() -> list[GestureDecoded]:
    def event(change: GestureChange, gesture: str, at: int, p: float, lasted_s: float) -> GestureDecoded:
        return GestureDecoded(change=change, gesture=gesture, t_ns=T0 + at, number=at, probability=p, lasted_s=lasted_s)

    return [
        event(GestureChange.ONSET, "fist", 10, 0.9, 0.0),
        event(GestureChange.HOLD, "fist", 11, 0.95, 0.8),
        event(GestureChange.RELEASE, "fist", 12, 0.7, 1.5),
        event(GestureChange.ONSET, "point", 13, 0.8, 0.0),
    ]


def test_a_session_shows_what_was_decoded(tmp_path: Path, decoded: list[GestureDecoded]) -> None:
    recording = record(session_of(emg_spec()))
    *first, closing = recording.events
    events = [*first, *decoded, closing]
    with HotStore(tmp_path / "hot.duckdb") as store:
        store.commit(
            Batch(
                chunks=[ChunkRow.of(c, codec.encode(c), T0) for r in recording.chunks for c in r],
                events=[EventRow(recording.session.id, i, e, T0) for i, e in enumerate(events)],
            )
        )
        sealed = Sealer(store, tmp_path / "sealed", wall_ns=lambda: T0).seal(recording.session.id)
        write_views(store, tmp_path / "sealed", tmp_path / "views.duckdb")
    assert sealed.decoded() == decoded
    with duckdb.connect(str(tmp_path / "views.duckdb"), read_only=True) as db:
        rows = db.execute("SELECT change, gesture, t_ns, number, probability, lasted_s FROM decoded ORDER BY seq")
        assert rows.fetchall() == [
            (e.change.value, e.gesture, e.t_ns, e.number, e.probability, e.lasted_s) for e in decoded
        ]
    folder = ("--dir", tmp_path / "sealed")
    text = run(session_cli.app, "show", recording.session.id, *folder)
    assert "decoded     fist: 1 ×, 1.5 s each, probability 0.90" in text
    assert "decoded     point: 1 ×, probability 0.80" in text
    body = json.loads(run(session_cli.app, "show", recording.session.id, *folder, "--json"))
    assert [d["change"] for d in body["decoded"]] == ["onset", "hold", "release", "onset"]
