"""A cloud process in this process, and what operators ask of it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI

from embridge_cloud.api.app import Extension
from embridge_cloud.api.roles import Role
from embridge_cloud.cli import extensions as standard
from embridge_cloud.context import CloudContext
from embridge_cloud.server import serve
from embridge_shared.clock import Clock
from embridge_shared.settings import CloudSettings, MqttSettings, Settings


@dataclass(frozen=True)
class Reply:
    """An answer: status, headers by lower-case name, bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Office:
    """A running cloud process and a token of each role."""

    cloud: CloudContext
    app: FastAPI
    tokens: dict[Role, str]

    @property
    def local(self) -> str:
        return self.cloud.tokens.local_path.read_text().strip()

    @property
    def url(self) -> str:
        return self.cloud.tokens.local_path.with_name("local.url").read_text().strip()

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        token: str | Role | None = None,
        headers: dict[str, str] | None = None,
        body: Any = None,
    ) -> Reply:
        text = self.tokens[token] if isinstance(token, Role) else token
        own = {"Authorization": f"Bearer {text}"} if text else {}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None:
            own["Content-Type"] = "application/json"
        return await asyncio.to_thread(_ask, self.url, method, path, data, {**own, **(headers or {})})


def _ask(url: str, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def office_settings(folder: Path, **cloud: Any) -> Settings:
    given = {"state_dir": folder / "cloud", "http_port": 0, "commit_s": 0.05, "embedded_broker": True, **cloud}
    return Settings(mqtt=MqttSettings(), cloud=CloudSettings(**given))


@asynccontextmanager
async def office(
    folder: Path, *, extensions: Sequence[Extension] = (), clock: Clock | None = None, **cloud: Any
) -> AsyncIterator[Office]:
    """A cloud process as the command starts it, with its own broker, ready, and a token of each role."""
    settings, apps = office_settings(folder, **cloud), []
    all_of_them = [*standard(), *extensions, lambda app, _: apps.append(app)]
    async with serve(settings, extensions=all_of_them, broker_port=0, clock=clock) as context:
        async with asyncio.timeout(20):
            while not context.ingester.status.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        now = context.clock.wall_ns()
        for known in {t.name for t in context.tokens.known()} & {f"a-{role.value}" for role in Role}:
            context.tokens.revoke(known)
        made = {role: context.tokens.create(f"a-{role.value}", role, now_ns=now) for role in Role}
        yield Office(context, apps[0], made)
