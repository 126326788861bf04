"""A published release over HTTP: manifest, gate, lineage and card, for who shows a token."""

from __future__ import annotations

from embridge_cloud.api.roles import Role
from embridge_cloud.gates import keep_report
from embridge_cloud.gates.card import CARD_PAGE, CARD_TEXT
from embridge_cloud.registry import Registry
from embridge_shared.clock import SystemClock
from embridge_shared.fleet import GateCheck, GateReport
from support.gate_world import job
from support.operator import office, office_settings


async def test_a_release_is_told_with_its_gate_lineage_and_card(tmp_path) -> None:
    state = office_settings(tmp_path).cloud.state_dir
    folder, bundle = job(state / "jobs", 1)
    check = GateCheck(name="size", title="size of the bundle", candidate=1.0, why="small")
    keep_report(folder, GateReport(candidate="embridge-1", accepted=True, reason="It is good.", checks=(check,)))
    (folder / CARD_TEXT).write_text("# card")
    (folder / CARD_PAGE).write_text("<html>card</html>")
    Registry(state / "registry", SystemClock()).publish(bundle)
    async with office(tmp_path) as found:
        told = (await found.ask("/api/releases/embridge-1", token=Role.VIEWER)).json()
        assert told["published"]["name"] == told["manifest"]["name"] + "-1" == "embridge-1"
        assert told["gate"]["checks"][0]["why"] == "small"
        assert [row["release"] for row in told["lineage"]] == ["embridge-1"]
        assert told["recalled"] == ""
        card = await found.ask("/api/releases/embridge-1/card", token=Role.VIEWER)
        assert (card.status, card.body) == (200, b"# card")
        page = await found.ask("/api/releases/embridge-1/card?form=html", token=Role.VIEWER)
        assert page.body == b"<html>card</html>"
        assert "attachment" in page.headers["content-disposition"]  # it is somebody's page only once it is saved
        assert (await found.ask("/api/releases/embridge-1/card?form=pdf", token=Role.VIEWER)).status == 422
        assert (await found.ask("/api/releases/embridge-7", token=Role.VIEWER)).status == 404
        assert (await found.ask("/api/releases/embridge-1")).status == 401
