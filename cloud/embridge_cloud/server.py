"""One cloud process: broker if wanted, ingester, HTTP interface; ends cleanly on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from embridge_cloud.api.app import Extension, create_app, protect
from embridge_cloud.api.events import EventBus
from embridge_cloud.api.health import Health, LoopLag
from embridge_cloud.api.metrics import Metrics
from embridge_cloud.api.tokens import TokenFile
from embridge_cloud.api.watch import StoreWatch
from embridge_cloud.broker import BrokerAddress, embedded_broker
from embridge_cloud.certificates import Certificates
from embridge_cloud.context import CloudContext, CloudPaths, Operating
from embridge_cloud.http_server import HttpServer, listen, url_of
from embridge_cloud.ingest import Ingester
from embridge_cloud.store.audit import AuditLog
from embridge_cloud.store.hot import HotStore
from embridge_cloud.store.sealed import Catalogue
from embridge_cloud.store.sealing import Sealer
from embridge_cloud.transport import MqttTransport
from embridge_cloud.vigil import keep_vigil
from embridge_cloud.waiting import root_cause
from embridge_shared.clock import Clock, SystemClock
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
        ready_file: Written when the process ingests: JSON with `mqtt_host`, `mqtt_port`, `http_url`, `token_file`,
            `pid`.

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
    settings.cloud.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    paths.updates.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        cloud = settings.cloud
        hot = HotStore(paths.hot, quarantine_max_bytes=cloud.quarantine_max_bytes, reserve_bytes=cloud.reserve_bytes)
        store = stack.enter_context(hot)
        listener = stack.enter_context(listen(settings.cloud))
        broker = BrokerAddress(settings.mqtt.host, settings.mqtt.port)
        if settings.cloud.embedded_broker:
            port = settings.mqtt.port if broker_port is None else broker_port
            broker = await stack.enter_async_context(
                embedded_broker(settings.mqtt.host, port, insecure=settings.mqtt.insecure)
            )
        ingester = _ingester(settings, store, paths, broker, clock)
        operating = _operating(settings, store, ingester, clock)
        url = url_of(listener, cloud)
        stack.enter_context(operating.tokens.announced(url, clock.wall_ns()))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        context = CloudContext(
            settings=settings,
            clock=clock,
            store=store,
            catalogue=Catalogue(paths.sealed),
            ingester=ingester,
            updates_dir=paths.updates,
            broker=broker,
            url=cloud.public_url or url,
            tasks=tasks,
            stopping=stopping,
            operating=operating,
        )
        server = HttpServer(protect(create_app(context, extensions), context), cloud)
        ingesting = tasks.create_task(ingester.run(), name="ingester")
        serving = tasks.create_task(server.serve(sockets=[listener]), name="http")
        watching = _watch(context)
        try:
            yield context
        finally:
            stopping.set()
            ingester.stop()
            await asyncio.wait([ingesting])
            await _end(watching)
            operating.events.close()
            server.should_exit = True
            await asyncio.wait([serving])
        logger.info("stopped")


def _operating(settings: Settings, store: HotStore, ingester: Ingester, clock: Clock) -> Operating:
    reserve, events = settings.cloud.reserve_bytes, EventBus(clock)
    health = Health(ingester, store, reserve=reserve, lag=LoopLag(clock), clock=clock)
    return Operating(
        tokens=TokenFile(settings.cloud.state_dir),
        audit=AuditLog(store),
        events=events,
        health=health,
        metrics=Metrics(ingester, store, health, events, reserve=reserve),
    )


def _watch(context: CloudContext) -> list[asyncio.Task[None]]:
    """What the HTTP interface has done in the background; it ends with the process, and never ends it."""
    watch = StoreWatch(context.store.read, context.ingester, context.events, context.clock)
    certificates = Certificates(context.settings, context.store, context.clock)
    context.metrics.registry.register(certificates)
    return [
        context.tasks.create_task(certificates.watch(context.stopping), name="certificates"),
        context.tasks.create_task(watch.run(context.stopping), name="store-watch"),
        context.tasks.create_task(context.health.lag.watch(context.stopping), name="loop-lag"),
    ]


async def _end(watching: Sequence[asyncio.Task[None]]) -> None:
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)


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
        "token_file": str(context.tokens.local_path),
        "pid": os.getpid(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(body))
    part.replace(path)
