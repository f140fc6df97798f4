"""What feeds the machine and does as it asks: the connection, the timer and the listeners, on the event loop of asyncio."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from typing import Final

from fastchat_client._events import Events
from fastchat_client._machine import Machine, closed_error
from fastchat_client._tokens import TokenSource, get_token
from fastchat_client._transport import ConnectionEnded, Connector, Transport
from fastchat_client.models import FastChatError, Message

_log = logging.getLogger("fastchat_client")

#: A timer that comes so many seconds late means that this program stood still: suspended with its device, or busy. What came meanwhile is
#: read for so many seconds before anything is done about the time that has passed: else the server would be taken for dead.
STOOD_STILL: Final = 0.1
READ_FIRST: Final = 1.0


class Runner:
    """Runs one machine: `run` says which, before anything else. Implements ``_machine.Outside``.

    After every call of the machine, `settle` must be called.
    """

    _machine: Machine

    def __init__(self, url: str, connector: Connector) -> None:
        self._url = url
        self._connector = connector
        #: Whom to ask for tokens.
        self.token_source: TokenSource | None = None
        #: Asks.
        self._asker: asyncio.Task[None] | None = None
        self.events = Events(self._shown)
        #: What the listeners are still to be told, and whether that is being done.
        self._untold: deque[tuple[str, object]] = deque()
        self._telling = False
        # -- From `start` on --
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Until when what came is read first.
        self._reads_until = 0.0
        #: Those who wait until the client is online for the first time, or closed.
        self._waiting: list[asyncio.Future[None]] = []
        # -- Of this connection --
        self._transport: Transport | None = None
        #: Connects, and reads from the connection.
        self._reader: asyncio.Task[None] | None = None
        #: Connections that are being closed.
        self._closing: set[asyncio.Task[None]] = set()

    def run(self, machine: Machine) -> None:
        """Run a machine."""
        self._machine = machine

    def now(self) -> float:
        """Return the time of the event loop; before there is one, the beginning of time."""
        return self._loop.time() if self._loop is not None else 0.0

    def start(self) -> None:
        """Let the machine begin, unless it has."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            if self._machine.closed is None:
                self._machine.start(self.now())
            self.settle()

    async def first(self) -> None:
        """Wait until the client is online for the first time. Raises FastChatError(CLOSED) when it is closed for good before."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.settle()
        await future

    async def finished(self) -> None:
        """Wait until no connection is left that is being closed."""
        if self._closing:
            await asyncio.wait(self._closing)

    def settle(self) -> None:
        """Do what follows from what the machine did: tell the listeners, set the timer."""
        if self._telling:
            return  # a listener has called; whoever tells will go on
        self._telling = True
        try:
            while self._untold:
                self.events.emit(*self._untold.popleft())
        finally:
            self._telling = False
        self._tell_first()
        self._set_timer()

    # -- What the machine asks for --

    def open(self) -> None:
        """Begin to connect."""
        assert self._loop is not None, "not started"
        self._reader = self._loop.create_task(self._connect_and_read())

    def write(self, text: str) -> None:
        """Send text on the connection."""
        if self._transport is not None:
            self._transport.send(text)

    def close(self, code: int, reason: str) -> None:
        """End the connection in good order, or give up connecting."""
        transport = self._forget()
        if transport is not None:
            task = asyncio.ensure_future(transport.close(code, reason))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def abort(self) -> None:
        """End the connection, or the attempt, at once."""
        transport = self._forget()
        if transport is not None:
            transport.abort()

    def ask(self) -> None:
        """Ask for a token."""
        assert self._loop is not None, "not started"
        assert self.token_source is not None, "nobody to ask"
        self._asker = self._loop.create_task(self._ask(self.token_source))

    def stop_asking(self) -> None:
        """Note that the answer is not wanted any more."""
        asker, self._asker = self._asker, None
        if asker is not None:
            asker.cancel()

    def report(self, problem: str) -> None:
        """Log that it can't be connected."""
        printable = "".join(letter if letter.isprintable() else " " for letter in problem)
        _log.warning("can't connect to %s: %s", _address(self._url), printable)

    def emit(self, event: str, payload: object) -> None:
        """Tell the listeners, once the machine has returned."""
        self._untold.append((event, payload))

    # -- Inside --

    async def _connect_and_read(self) -> None:
        """Live as long as one connection."""
        machine = self._machine
        try:
            transport = self._transport = await self._connector(self._url)
            machine.opened(self.now())
            self.settle()
            while self._transport is transport:
                text = await transport.receive()
                machine.received(text, self.now())
                self.settle()
        except ConnectionEnded as ended:
            self.abort()
            machine.lost(ended.code, ended.reason, self.now(), ended.status)
            self.settle()

    async def _ask(self, source: TokenSource) -> None:
        """Live as long as one question; what it is answered when it is not wanted any more is ignored."""
        try:
            answer: str | FastChatError = await get_token(source)
        except FastChatError as error:
            answer = error
        if self._asker is not asyncio.current_task():
            return
        self._asker = None
        if isinstance(answer, str):
            self._machine.answered(answer, self.now())
        else:
            self._machine.not_answered(answer, self.now())
        self.settle()

    def _forget(self) -> Transport | None:
        """Forget the connection, which is no concern of the machine's any more."""
        reader, self._reader = self._reader, None
        if reader is not None and reader is not asyncio.current_task():
            reader.cancel()
        transport, self._transport = self._transport, None
        return transport

    def _shown(self, message: Message, is_well: bool) -> None:
        self._machine.conversation.shown(message, is_well)
        self.settle()

    def _tell_first(self) -> None:
        closed = self._machine.closed
        if not self._machine.has_been_online and closed is None:
            return
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.done():
                continue
            if closed is not None:
                future.set_exception(closed_error(closed))
            else:
                future.set_result(None)

    def _set_timer(self) -> None:
        if self._loop is None:
            return
        deadline = self._machine.deadline(self.now())
        if deadline is not None and (self._reader is not None or self._asker is not None):
            deadline = max(deadline, self._reads_until)
        if self._timer is not None:
            if self._timer.when() == deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._tick, deadline)

    def _tick(self, deadline: float) -> None:
        self._timer = None
        now = self.now()
        if now - deadline > STOOD_STILL and deadline > self._reads_until:
            self._reads_until = now + READ_FIRST
        else:
            self._machine.tick(now)
        self.settle()


def _address(url: str) -> str:
    """Return a URL without what may be secret: user, password, and query."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
