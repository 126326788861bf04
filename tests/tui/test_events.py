"""What happens at a real cloud is heard, and a stream goes on where it ended."""

from __future__ import annotations

import asyncio

import pytest

from embridge_cloud.server import serve
from embridge_shared.cloud_client import CloudApi
from embridge_shared.errors import NetworkError, OperatorError
from embridge_shared.settings import CloudSettings, Settings
from embridge_tui.client import HttpClient

WAIT_S = 10.0


@pytest.fixture
def settings(tmp_path) -> Settings:
    folder = tmp_path / "cloud"
    return Settings(cloud=CloudSettings(state_dir=folder, http_port=0, commit_s=0.05, embedded_broker=True))


async def listening(cloud, count: int = 1) -> None:
    async with asyncio.timeout(WAIT_S):
        while cloud.events.listeners != count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_stream_goes_on_where_it_ended(settings):
    async with serve(settings, broker_port=0) as cloud:
        client = HttpClient(CloudApi(cloud.url, cloud.tokens.local_path.read_text().strip()))
        first = client.events()
        coming = asyncio.ensure_future(anext(first))
        await listening(cloud)
        cloud.events.publish("rollout", "r-0001", state="running")
        assert await asyncio.wait_for(coming, WAIT_S) == ("rollout", "r-0001")
        await first.aclose()
        cloud.events.publish("job", "realign-1")
        cloud.events.publish("edge.update", "edge-1")
        second = client.events()
        heard = [await asyncio.wait_for(anext(second), WAIT_S) for _ in range(2)]
        assert heard == [("job", "realign-1"), ("edge.update", "edge-1")]
        await second.aclose()


async def test_a_stream_without_a_right_to_it_says_so(settings):
    async with serve(settings, broker_port=0) as cloud:
        with pytest.raises((NetworkError, OperatorError), match="asks for a token"):
            await asyncio.wait_for(anext(HttpClient(cloud.url).events()), WAIT_S)


async def test_a_deed_that_is_refused_keeps_reason_and_hint(settings):
    async with serve(settings, broker_port=0) as cloud:
        client = HttpClient(CloudApi(cloud.url, cloud.tokens.local_path.read_text().strip()))
        path = "/api/sessions/00000000-0000-0000-0000-000000000007/seal"
        with pytest.raises((NetworkError, OperatorError), match="7"):
            await client.tell(path, {"force": True, "reason": "x"})
        assert await client.text("/health")
