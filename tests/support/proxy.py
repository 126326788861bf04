"""A proxy between MQTT clients and their broker that misbehaves like a bad network, and worse."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_PUBLISH = 3


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Take the whole MQTT packets off the front of `buffer`."""
    while True:
        length, shift, at = 0, 0, 1
        while True:
            if at >= len(buffer):
                return
            byte = buffer[at]
            length |= (byte & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not byte & 0x80:
                break
        if len(buffer) < at + length:
            return
        yield bytes(buffer[: at + length])
        del buffer[: at + length]


@dataclass
class Weather:
    """What happens to the traffic.

    Attributes:
        blackhole: Nothing passes, nothing is told.
        delay_s: Everything comes later.
        bytes_per_s: No more passes; 0 for as much as there is.
        duplicate: Share of publishes that come twice.
        hold: Share of publishes that are overtaken by those after them.
        seed: Of what is random.
    """

    blackhole: bool = False
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    duplicate: float = 0.0
    hold: float = 0.0
    seed: int = 0


@dataclass
class Proxy:
    """Listens on a port of its own; works in a thread until it is closed."""

    target: tuple[str, int]
    weather: Weather = field(default_factory=Weather)
    port: int = 0
    doubled: int = 0
    overtaken: int = 0
    passed: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.weather.seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._writers -= pair
            for one in pair:
                one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer, held = bytearray(), []
        while True:
            try:
                data = await asyncio.wait_for(reader.read(65536), 0.05 if held else None)
            except TimeoutError:
                writer.writelines(held)
                held.clear()
                continue
            if not data:
                break
            buffer += data
            for frame in frames(buffer):
                await self._pass(frame, writer, held)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _pass(self, frame: bytes, writer: asyncio.StreamWriter, held: list[bytes]) -> None:
        weather = self.weather
        while weather.blackhole:
            await asyncio.sleep(0.02)
            weather = self.weather
        if weather.delay_s:
            await asyncio.sleep(weather.delay_s)
        if weather.bytes_per_s:
            await asyncio.sleep(len(frame) / weather.bytes_per_s)
        self.passed += 1
        publish = frame[0] >> 4 == _PUBLISH and frame[0] & 0x06
        if publish and self._rng.random() < weather.hold:
            held.append(frame)
            self.overtaken += 1
            return
        writer.write(frame)
        if publish and self._rng.random() < weather.duplicate:
            writer.write(bytes([frame[0] | 0x08]) + frame[1:])
            self.doubled += 1
        if len(held) >= 4:
            self._rng.shuffle(held)
            writer.writelines(held)
            held.clear()

    def reset(self) -> None:
        """Reset every connection."""
        self._in_loop(lambda writer: _abort(writer))

    def half_close(self) -> None:
        """Say that nothing more comes, in both directions, and keep the connections."""
        self._in_loop(lambda writer: writer.write_eof())

    def _in_loop(self, act) -> None:
        def each() -> None:
            for writer in list(self._writers):
                with contextlib.suppress(OSError, RuntimeError):
                    act(writer)

        self._loop.call_soon_threadsafe(each)

    def close(self) -> None:
        self.weather = Weather()

        def end() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            self._loop.call_later(0.05, self._loop.stop)

        self._loop.call_soon_threadsafe(end)
        self._thread.join(5)


def _abort(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
