"""A network that takes its time: a TCP proxy on localhost, in a thread, behind which every byte and every end comes later."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Final, Self

_CHUNK: Final = 65536


class DelayingProxy:
    """Passes on what comes to `port` to the port of a server, so many seconds later each way. A context manager."""

    def __init__(self, target: int, delay: float) -> None:
        self._target = target
        self._delay = delay
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        try:
            # A cancelled task would be logged as an error of the callback.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(self._pass(reader, to_server[1]), self._pass(to_server[0], writer))
        finally:
            writer.close()
            to_server[1].close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, until its end."""
        loop = asyncio.get_running_loop()
        coming: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            data = b"-"
            while data:
                try:
                    data = await reader.read(_CHUNK)
                except OSError:
                    data = b""
                coming.put_nowait((loop.time() + self._delay, data))

        reading = asyncio.ensure_future(read())
        try:
            with contextlib.suppress(OSError):
                while True:
                    due, data = await coming.get()
                    await asyncio.sleep(due - loop.time())
                    if not data:
                        writer.write_eof()
                        return
                    writer.write(data)
        finally:
            reading.cancel()
