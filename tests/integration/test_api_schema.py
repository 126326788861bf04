"""The HTTP interface against its own OpenAPI document: schemathesis asks whatever the document allows, and what not."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embridge_cloud.api.roles import Role
from support.operator import office
from support.publisher import TestEdge
from support.sessions import emg_spec, pose_spec, record, session_of

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
# Who may what is tried route by route elsewhere; a recipe that has the right shape may still ask for the impossible.
LEFT_OUT = "ignored_auth,positive_data_acceptance"


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_nothing_the_document_allows_breaks_the_process(tmp_path):
    recording = record(session_of(emg_spec(8, 500.0), pose_spec()), 3, n_chunks=2)
    async with office(tmp_path, http_rate=1e6) as found:
        broker = found.cloud.broker
        await TestEdge("edge-1", recording.messages()).deliver(broker.host, broker.port, recording.session.id)
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps((await found.ask("/api/openapi.json", token=Role.ADMIN)).json()))
        command = [
            SCHEMATHESIS, "run", document, "--url", found.url, "--header", f"Authorization: Bearer {found.local}",
            "--exclude-path", "/api/events", "--exclude-path", "/metrics", "--exclude-path", "/api/tokens/{name}",
            "--exclude-checks", LEFT_OUT, "--max-examples", "15", "--no-color", "--seed", "1",
            "--phases", "coverage,fuzzing", "--generation-database", "none",
        ]  # fmt: skip
        done = await asyncio.to_thread(
            subprocess.run,
            list(map(str, command)),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=840,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert (await found.ask("/ready")).status == 200
        found.cloud.audit.verify()
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 300
