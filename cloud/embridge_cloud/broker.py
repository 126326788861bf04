"""An MQTT broker inside the process, for demonstrations and single machines.

It speaks MQTT 3.1.1 and keeps nothing over a restart; it need not, for edges keep what was not committed. It accepts
anonymous clients, so it listens on the loopback address unless told otherwise. Production runs Mosquitto.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from embridge_shared.errors import ConfigError, NetworkError, Reason
from embridge_shared.tls import is_loopback

logger = logging.getLogger(__name__)

_NOISY = ("amqtt", "transitions")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker listens."""

    host: str
    port: int


@asynccontextmanager
async def embedded_broker(
    host: str = "127.0.0.1", port: int = 0, *, insecure: bool = False
) -> AsyncIterator[BrokerAddress]:
    """Run a broker for the length of the context.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes any free one.
        insecure: Allow an address that other machines can reach.

    Raises:
        ConfigError: INSECURE: others would reach it, and that is not allowed.
        NetworkError: The port is taken.
    """
    if not insecure and not is_loopback(host):
        raise ConfigError(
            f"the embedded broker lets everybody in who reaches {host}",
            reason=Reason.INSECURE,
            hint="Run Mosquitto with TLS (`embridge site init`), or set mqtt.insecure = true where nobody listens.",
        )
    from amqtt.broker import Broker
    from amqtt.errors import BrokerError

    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    port = port or _free_port(host)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}", "max_connections": 0}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    try:
        await broker.start()
    except BrokerError as error:
        raise NetworkError(
            f"no broker can listen on {host}:{port}: {_reason(error)}",
            reason=Reason.LOCKED,
            hint="Another broker may: point mqtt.port elsewhere, or use that broker.",
        ) from error
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    logger.info("embedded broker on %s:%d", host, port)
    try:
        yield BrokerAddress(host, port)
    finally:
        await broker.shutdown()


def _reason(error: BaseException) -> str:
    """The system's own word for it, where there is one: the broker wraps it twice."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return str(error) if cause is None or cause.errno is None else os.strerror(cause.errno)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])
