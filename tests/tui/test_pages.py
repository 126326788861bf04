"""Sessions, Fleet and Models as they look at three sizes, over a cloud that stands still.

What is compared is the text of the screen; the colours are those of the themes. Delete a file under `pages/` to have it
written anew, and look at the difference.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

import msgspec
import pytest

from embridge_tui.app import EmbridgeApp
from support.tui_rooms import GATE, REFUSED, RUNNING, detail, fleet_cloud, judged, release, rollout, session, told, uuid
from support.tui_world import EMPTY, ScriptedCloud, cells, edge, over, settle, words

PAGES = Path(__file__).with_name("pages")
SIZES = [(80, 24), (100, 30), (150, 44)]
_CELL = 12.2  # Width of a cell in Textual's pictures.
_TEXT = re.compile(r'<text[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', re.S)


def page(svg: str) -> str:
    """The text of a screen, a line a row."""
    rows: dict[float, list[tuple[float, str]]] = {}
    body = svg[svg.index('<g transform="translate') :]
    for x, y, said in _TEXT.findall(body):
        rows.setdefault(float(y), []).append((float(x), html.unescape(said).replace("\xa0", " ")))
    lines = []
    for y in sorted(rows):
        line = ""
        for x, said in sorted(rows[y]):
            line = line.ljust(round(x / _CELL)) + said
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def sessions_cloud() -> ScriptedCloud:
    found = (session(3, state="open", missing=0, ended_at=None), session(2), session(1, missing=0))
    cloud = ScriptedCloud(msgspec.structs.replace(EMPTY, sessions=found))
    for s in found:
        cloud.answers |= {f"/api/sessions/{s.session}": detail(s), f"/api/sessions/{s.session}/quality": judged()}
    held = {"session": str(uuid(1)), "messages": 4}
    cloud.answers["/api/quarantine?limit=1"] = {"summary": [held], "messages": []}
    return cloud


def models_cloud() -> ScriptedCloud:
    first, second = release(1, recalled="it drifts"), release(2)
    edges = (edge("e1"), edge("e2", release="embridge-1"))
    now = msgspec.structs.replace(EMPTY, releases=(first, second), edges=edges, jobs=(REFUSED, RUNNING))
    cloud = ScriptedCloud(now)
    cloud.answers = {f"/api/releases/{r.name}": told(r, GATE) for r in (first, second)}
    return cloud


def sessions_stand(app: EmbridgeApp) -> bool:
    return "stored" in words(app, "#detail-text") and cells(app, "#sessions")[2][5] != "-"


CLOUDS = {
    "sessions": (sessions_cloud, sessions_stand),
    "fleet": (lambda: fleet_cloud(rollout()), lambda app: "checksum" in cells(app, "#edges")[0][5]),
    "models": (models_cloud, lambda app: cells(app, "#releases")[1][1] != "-"),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("room", CLOUDS)
async def test_it_looks_as_it_did(room, size):
    cloud, ready = CLOUDS[room]
    app = over(cloud(), room)
    async with app.run_test(size=size) as pilot:
        await settle(pilot, lambda: getattr(app.screen, "ROOM", "") == room and app.screen.furnished)
        await settle(pilot, lambda: bool(len(app.screen.query("Records"))) and ready(app))
        found = page(app.export_screenshot())
    path = PAGES / f"{room}-{size[0]}x{size[1]}.txt"
    if not path.is_file():
        PAGES.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8", newline="\n")
        pytest.fail(f"{path.name} was not there and is written now: look at it")
    assert found == path.read_text(encoding="utf-8")
