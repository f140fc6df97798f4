"""A network in memory, and an event loop in virtual time, for the Python client: `Network.connect` is what it connects through.

The loop's time stands still unless a test moves it, so what takes minutes takes milliseconds, and is exact.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

#: What the websockets library waits for the other side's close frame, in seconds.
CLOSE_TIMEOUT: Final = 10.0

Data = dict[str, Any]


class Closed(Exception):
    """The connection has ended; with the code and reason of the server's close frame, or 1006."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Refused(ConnectionRefusedError):
    """The server takes no connection, perhaps with a status of HTTP."""

    def __init__(self, status: int | None) -> None:
        super().__init__("refused by the scenario")
        self.status = status


class Failed(AssertionError):
    """A step of a scenario did not come out as it says."""


# -- Virtual time --


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still but for `advance`."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1_000_000.0
        #: The scenario is over, so everything is to stop.
        self.is_ending = False

    def time(self) -> float:
        return self._now

    def settle(self) -> None:
        """Run all that can run without time passing."""
        for _ in range(10_000):
            self.call_soon(self.stop)
            self.run_forever()
            if not getattr(self, "_ready") and (self._next() or self._now + 1) > self._now:  # noqa: B009
                return
        raise Failed("the client never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass: timers fire in order, each followed by all that it causes."""
        until = self._now + seconds
        self.settle()
        while (following := self._next()) is not None and following <= until:
            self._now = max(self._now, following)
            self.settle()
        self._now = until
        self.settle()

    def stall(self, seconds: float) -> None:
        """Let time pass in which nothing of this program runs; then all timers that are due fire."""
        self._now += seconds
        self.settle()

    def _next(self) -> float | None:
        waiting = [timer.when() for timer in getattr(self, "_scheduled") if not timer.cancelled()]  # noqa: B009
        return min(waiting, default=None)


# -- The network --


class Frame:
    """What the client sent."""

    def __init__(self, text: str) -> None:
        message = json.loads(text)
        self.type: str = message["type"]
        self.data: Data = message["data"]
        self.taken = False


class Link:
    """One connection attempt, and the connection that it becomes. The upper half is the client's, the lower the server's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.accepted: asyncio.Future[None] = loop.create_future()
        self.frames: list[Frame] = []
        self.closed_by_client: int | None = None
        self.silent = False
        self.pongs = True
        self._to_client: asyncio.Queue[str | Closed] = asyncio.Queue()
        #: What comes while the client stands still.
        self._held: list[str | Closed] | None = None
        self._ended: Closed | None = None

    # -- For the client --

    async def send(self, text: str) -> None:
        """Raises Closed when the server has ended the connection."""
        if self._ended is not None:
            raise self._ended
        if self.closed_by_client is not None:
            raise Failed(f"the client closed, and then sent {text}")
        frame = Frame(text)
        if self.silent:
            return
        self.frames.append(frame)
        if frame.type == "PING" and self.pongs:
            self.tell(json.dumps({"type": "PONG", "data": {"timestamp": "2024-01-01T12:00:00.000Z"}}))

    async def recv(self) -> str:
        """The next message. Raises Closed at the end, again and again."""
        if self._ended is not None and self._to_client.empty():
            raise self._ended
        came = await self._to_client.get()
        if isinstance(came, Closed):
            raise came
        return came

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Like the websockets library: waits for the other side, and gives up after a while."""
        if self.closed_by_client is None and self._ended is None:
            self.closed_by_client = code
        if self.silent:
            await asyncio.sleep(CLOSE_TIMEOUT)
        self._end(Closed(code, reason))

    # -- For the server --

    @property
    def waiting(self) -> bool:
        return not self.accepted.done()

    @property
    def open(self) -> bool:
        return (
            self.accepted.done()
            and not self.accepted.cancelled()
            and self.accepted.exception() is None
            and self._ended is None
            and self.closed_by_client is None
        )

    def tell(self, text: str) -> None:
        """Send to the client."""
        if not self.silent and self._ended is None:
            self._bring(text)

    def close_from_server(self, code: int, reason: str) -> None:
        if not self.silent:
            self._end(Closed(code, reason))

    def _end(self, closed: Closed) -> None:
        if self._ended is None:
            self._ended = closed
            self._bring(closed)

    def hold(self) -> None:
        """Nothing comes to the client from now on."""
        self._held = []

    def release(self) -> None:
        """What came meanwhile comes now."""
        held, self._held = self._held or [], None
        for what in held:
            self._bring(what)

    def _bring(self, what: str | Closed) -> None:
        if self._held is None:
            self._to_client.put_nowait(what)
        else:
            self._held.append(what)


class Network:
    """All connection attempts of the client, the newest last."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.links: list[Link] = []

    async def connect(self, url: str) -> Link:
        """Raises OSError when the server refuses."""
        link = Link(self._loop)
        self.links.append(link)
        try:
            await link.accepted
        except asyncio.CancelledError:
            link.accepted.cancel()
            raise
        return link
