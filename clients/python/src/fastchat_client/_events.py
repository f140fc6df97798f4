"""Listeners, and the order in which they are told.

Messages are shown strictly one after the other: the next one when the listeners of the one before have returned, coroutines included. While
nobody listens to messages they wait. All other events are told at once. A listener that raises, or is cancelled, stops no other listener.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastchat_client._codes import LISTENER
from fastchat_client.models import FastChatError, Message

#: What is called with the payload of an event. If it returns an awaitable, the listener is done when that is.
Listener = Callable[[Any], object]

EVENTS: Final = frozenset({"state", "presence", "chat", "chats", "message", "typing", "receipt", "error"})


class NotShown(Exception):
    """Raised by a listener of messages that could not look at one: it waits for the next listener."""


class Events:
    """The listeners of one client. `shown` is called when those of a message have returned, and with False if one of them has raised."""

    def __init__(self, shown: Callable[[Message, bool], None]) -> None:
        self._shown = shown
        self._listeners: dict[str, list[Listener]] = {event: [] for event in EVENTS}
        self._messages: deque[Message] = deque()
        #: Whether listeners have a message now.
        self._busy = False
        #: Listeners that are coroutines: the event loop keeps only weak references to tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    def on(self, event: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every event of this name; what is returned ends that. ValueError when there is no such event."""
        if event not in EVENTS:
            raise ValueError(f"there is no event {event!r}, but {', '.join(sorted(EVENTS))}")
        listeners = self._listeners[event]
        listeners.append(listener)

        def remove() -> None:
            if listener in listeners:
                listeners.remove(listener)

        if event == "message":
            self._show_next()
        return remove

    def emit(self, event: str, payload: object) -> None:
        """Tell everybody."""
        if isinstance(payload, Message):
            self._messages.append(payload)
            self._show_next()
        else:
            self._run(event, self._call(event, payload)[0])

    def _show_next(self) -> None:
        while self._messages and self._listeners["message"] and not self._busy:
            self._busy = True
            message = self._messages.popleft()
            awaitables, is_well = self._call("message", message)
            if awaitables:
                self._run("message", awaitables, message, is_well)
            else:
                self._finish(message, is_well)

    def _finish(self, message: Message, is_well: bool) -> None:
        self._busy = False
        self._shown(message, is_well)

    def _call(self, event: str, payload: object) -> tuple[list[Awaitable[object]], bool]:
        """Call a listener; what is to be awaited, and whether it has not raised."""
        awaitables, is_well = [], True
        for listener in list(self._listeners[event]):
            try:
                result = listener(payload)
            except (Exception, asyncio.CancelledError) as error:
                self._failed(event, error)
                is_well = False
            else:
                if inspect.isawaitable(result):
                    awaitables.append(result)
        return awaitables, is_well

    def _run(
        self,
        event: str,
        awaitables: list[Awaitable[object]],
        message: Message | None = None,
        is_well: bool = True,
    ) -> None:
        if awaitables:
            task = asyncio.ensure_future(self._wait(event, awaitables, message, is_well))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _wait(
        self, event: str, awaitables: list[Awaitable[object]], message: Message | None, is_well: bool
    ) -> None:
        results = await asyncio.gather(*awaitables, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, NotShown):
                self._failed(event, result)
                is_well = False
        if message is None:
            return
        if is_well and all(isinstance(result, NotShown) for result in results):
            self._busy = False
            self._messages.appendleft(message)
        else:
            self._finish(message, is_well)
        self._show_next()

    def _failed(self, event: str, error: BaseException) -> None:
        """Tell that a listener raised; one of errors that raises has nobody left to tell but the event loop."""
        problem = FastChatError(LISTENER, f"a listener of {event!r} raised {error!r}")
        problem.__cause__ = error
        if event != "error" and self._listeners["error"]:
            self.emit("error", problem)
        else:
            context = {"message": problem.message, "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
