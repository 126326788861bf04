"""One cloud process: broker if wanted, ingester, HTTP interface; ends cleanly on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn

from embridge_cloud.api.app import Extension, create_app
from embridge_cloud.broker import BrokerAddress, embedded_broker
from embridge_cloud.context import CloudContext, CloudPaths
from embridge_cloud.ingest import Ingester
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.transport import MqttTransport
from embridge_cloud.vigil import keep_vigil
from embridge_cloud.waiting import root_cause
from embridge_shared.clock import Clock, SystemClock
from embridge_shared.errors import NetworkError, Reason
from embridge_shared.service import Notifier
from embridge_shared.settings import Settings

logger = logging.getLogger(__name__)


def run_cloud(
    settings: Settings,
    *,
    extensions: Sequence[Extension] = (),
    broker_port: int | None = None,
    ready_file: Path | None = None,
) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        settings: Configuration.
        extensions: Add routes and background tasks.
        broker_port: Port of the embedded broker instead of `mqtt.port`; 0 takes any free one.
        ready_file: Written when the process ingests: JSON with `mqtt_host`, `mqtt_port`, `http_url` and `pid`.

    Raises:
        EmbridgeError: It cannot start, or the database takes nothing any more.
    """
    asyncio.run(_main(settings, extensions, broker_port, ready_file))


async def _main(
    settings: Settings, extensions: Sequence[Extension], broker_port: int | None, ready_file: Path | None
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    try:
        async with serve(settings, extensions=extensions, broker_port=broker_port, stopping=stopping) as context:
            context.tasks.create_task(keep_vigil(context, Notifier.from_environment()), name="vigil")
            await _ready_or_stopping(context)
            if ready_file is not None and not stopping.is_set():
                _write_ready(ready_file, context)
            await stopping.wait()
    except BaseExceptionGroup as group:
        raise root_cause(group) from None
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)


@asynccontextmanager
async def serve(
    settings: Settings,
    *,
    extensions: Sequence[Extension] = (),
    broker_port: int | None = None,
    clock: Clock | None = None,
    stopping: asyncio.Event | None = None,
) -> AsyncIterator[CloudContext]:
    """Run everything for the length of the context; leaving it makes a last commit and closes the database."""
    clock, stopping = clock or SystemClock(), stopping or asyncio.Event()
    paths = CloudPaths.of(settings)
    paths.updates.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        cloud = settings.cloud
        hot = HotStore(paths.hot, quarantine_max_bytes=cloud.quarantine_max_bytes, reserve_bytes=cloud.reserve_bytes)
        store = stack.enter_context(hot)
        listener = stack.enter_context(_listen(settings.cloud.http_host, settings.cloud.http_port))
        broker = BrokerAddress(settings.mqtt.host, settings.mqtt.port)
        if settings.cloud.embedded_broker:
            port = settings.mqtt.port if broker_port is None else broker_port
            broker = await stack.enter_async_context(
                embedded_broker(settings.mqtt.host, port, insecure=settings.mqtt.insecure)
            )
        ingester = _ingester(settings, store, paths, broker, clock)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        context = CloudContext(
            settings=settings,
            clock=clock,
            store=store,
            catalogue=Catalogue(paths.sealed),
            ingester=ingester,
            updates_dir=paths.updates,
            broker=broker,
            url=settings.cloud.public_url or _url(listener),
            tasks=tasks,
            stopping=stopping,
        )
        app = create_app(context)
        for extend in extensions:
            extend(app, context)
        server = _QuietServer(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", log_level="warning")
        )
        ingesting = tasks.create_task(ingester.run(), name="ingester")
        serving = tasks.create_task(server.serve(sockets=[listener]), name="http")
        try:
            yield context
        finally:
            stopping.set()
            ingester.stop()
            await asyncio.wait([ingesting])
            server.should_exit = True
            await asyncio.wait([serving])
        logger.info("stopped")


def _ingester(settings: Settings, store: HotStore, paths: CloudPaths, broker: BrokerAddress, clock: Clock) -> Ingester:
    cloud = settings.cloud
    mqtt = settings.mqtt.model_copy(update={"host": broker.host, "port": broker.port})
    return Ingester(
        store,
        cloud,
        transport=MqttTransport(mqtt, f"ingest-{cloud.first_shard}-{cloud.last_shard}"),
        sealer=Sealer(store, paths.sealed, wall_ns=clock.wall_ns),
        clock=clock,
    )


async def _ready_or_stopping(context: CloudContext) -> None:
    while not context.ingester.status.connected and not context.stopping.is_set():
        await context.clock.sleep(0.05)


def _write_ready(path: Path, context: CloudContext) -> None:
    body = {
        "mqtt_host": context.broker.host,
        "mqtt_port": context.broker.port,
        "http_url": context.url,
        "pid": os.getpid(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(body))
    part.replace(path)


class _QuietServer(uvicorn.Server):
    """Leaves signals to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise NetworkError(
            f"no server can listen on {host}:{port}: {os.strerror(error.errno or 0)}",
            reason=Reason.LOCKED,
            hint="Set cloud.http_port; 0 takes any free port.",
        ) from error
    with listener:
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"
