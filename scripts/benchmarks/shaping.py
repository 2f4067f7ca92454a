"""A proxy on the loopback interface that gives a connection the latency and bandwidth of a network.

`tc netem` would need a namespace and its privileges; this needs none, and counts besides. Bytes in
each direction go through one link that all connections share, as through one cable.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

_BLOCK = 64 << 10
_WINDOW = 64
"""Blocks in flight of one connection: 4 MiB, more than any link below holds."""


@dataclass(frozen=True)
class Link:
    """A network: seconds of a round trip, and bytes in a second each way."""

    round_trip: float
    rate: float

    def __str__(self) -> str:
        return f"{self.round_trip * 1000:.0f} ms, {self.rate * 8 / 1e6:.0f} Mbit/s"


class _Direction:
    """One way of the cable: what is sent waits for what was sent before."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free = 0.0
        self.bytes = 0

    def arrival(self, now: float, count: int) -> float:
        """Return when ``count`` bytes that are sent now arrive at the other end."""
        self.bytes += count
        self._free = max(now, self._free) + count / self._link.rate
        return self._free + self._link.round_trip / 2


class ShapedProxy:
    """Forwards connections to a port on this machine through a ``Link``; a context manager.

    ``up`` and ``down`` are the bytes that went to the server and came from it.
    """

    def __init__(self, port: int, link: Link) -> None:
        self._target = port
        self._up, self._down = _Direction(link), _Direction(link)
        self._link = link
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def up(self) -> int:
        """Bytes to the server so far."""
        return self._up.bytes

    @property
    def down(self) -> int:
        """Bytes from the server so far."""
        return self._down.bytes

    def __enter__(self) -> ShapedProxy:
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Close connections that a client has kept for later."""
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._link.round_trip)  # the handshake of TCP
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        with suppress(asyncio.CancelledError):  # the measurement is over
            await asyncio.gather(
                self._forward(reader, back, self._up), self._forward(there, writer, self._down)
            )

    async def _forward(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: _Direction
    ) -> None:
        waiting: deque[tuple[float, bytes]] = deque()
        room, filled = asyncio.Semaphore(_WINDOW), asyncio.Event()

        async def deliver() -> None:
            while True:
                await filled.wait()
                filled.clear()
                while waiting:
                    moment, data = waiting.popleft()
                    await asyncio.sleep(max(0.0, moment - self._loop.time()))
                    if not data:
                        target.close()
                        return
                    target.write(data)
                    await target.drain()
                    room.release()

        task = asyncio.ensure_future(deliver())
        try:
            data = b"?"
            while data:
                await room.acquire()
                data = await source.read(_BLOCK)
                waiting.append((way.arrival(self._loop.time(), len(data)), data))
                filled.set()
            await task
        except OSError:  # one end has hung up
            task.cancel()
            target.close()
