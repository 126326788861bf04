"""A real site: its own authority, a Mosquitto that runs what `embridge site` wrote, and clients of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt

from embridge_cloud.site import layout
from embridge_cloud.site.register import Layout
from embridge_cloud.site.site import Site, make
from embridge_edge.provision import install
from embridge_shared.clock import SystemClock


def plan(folder: Path, port: int, *, host: str = "127.0.0.1", http_port: int = 8470) -> Layout:
    return Layout(
        broker_hosts=(host,),
        broker_port=port,
        bind="127.0.0.1",
        broker_folder=str(folder / layout.BROKER),
        cloud_hosts=("127.0.0.1",),
        http_port=http_port,
        cloud_folder=str(folder / layout.CLOUD),
    )


@dataclass
class RealSite:
    """A site under `folder`; `start` runs its broker, and `log` is what that said."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    clock: SystemClock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self.site: Site = make(self.folder / "site", "test", plan(self.folder / "site", self.port), clock=self.clock)

    @property
    def broker(self) -> Path:
        return self.folder / "site" / layout.BROKER

    @property
    def cloud_settings(self) -> Path:
        return self.folder / "site" / layout.CLOUD / layout.SETTINGS

    @property
    def log(self) -> str:
        return (self.folder / "broker.log").read_text()

    def start(self) -> None:
        binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        assert binary is not None, "no mosquitto is installed; `make setup` installs it"
        config = self.folder / "broker.conf"
        # Started by root it would become a user that may not read the keys.
        own = "user root\n" if os.geteuid() == 0 else ""
        config.write_text(f"{own}log_type all\n" + (self.broker / "mosquitto.conf").read_text())
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen([binary, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(self.log)

    def reload(self) -> None:
        assert self.process is not None
        before = self.log.count("Reloading config")
        self.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while self.log.count("Reloading config") == before:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def edge(self, name: str, *, renew: bool = False, days: int | None = None) -> Path:
        """Provision an edge; the folder it is installed in."""
        bundle = self.folder / f"{name}.edge.tar"
        bundle.write_bytes(self.site.edge(name, root=None, renew=renew, days=days))
        done = install(bundle, self.folder / "edges" / name, now_ns=self.clock.wall_ns(), renew=renew)
        return done.folder

    def client(self, folder: Path | None, identifier: str = "x", *, trust: Path | None = None) -> aiomqtt.Client:
        """A client with an edge's certificate, or with none."""
        context = ssl.create_default_context(cafile=str(trust or self.broker / "ca.crt"))
        if folder is not None:
            context.load_cert_chain(folder / "client.pem")
        return aiomqtt.Client(
            "127.0.0.1", self.port, identifier=identifier, tls_context=context,
            protocol=aiomqtt.ProtocolVersion.V311, timeout=2,
        )  # fmt: skip

    def cloud(self, identifier: str = "@cloud") -> aiomqtt.Client:
        """A client with the cloud's certificate."""
        return self.client(self.folder / "site" / layout.CLOUD, identifier)


async def heard(site: RealSite, filters: list[str], act, quiet_s: float = 0.3) -> list[tuple[str, bytes]]:
    """What the cloud hears on topics while and shortly after something is done."""
    messages: list[tuple[str, bytes]] = []

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            messages.append((message.topic.value, bytes(message.payload)))

    async with site.cloud() as client:
        for name in filters:
            await client.subscribe(name, qos=1)
        task = asyncio.create_task(listen(client))
        await act()
        await asyncio.sleep(quiet_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return messages
