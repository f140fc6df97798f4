"""A front process: accepts clients, waits for HELLO and hands their sockets over to workers.

Accepts clients on the listeners that it is given, answers what is not for the chat, upgrades the rest, waits for HELLO and hands each
socket to the worker that owns the user. A connection goes through these stages, each with a module that says how:

    Acceptor ---> Handshakes ---> LobbySockets ---> Handover ---> the worker
    (acceptor)    (handshake,     (lobby_socket)   (handover,
                   upgrade,            |          handover_queue)
                   origin)             v
                     |              (lingering): an answer or a Close frame, and FIN in its time
                     v
           (page_loader, pages): the socket goes to aiohttp

Nothing is read before it is known who has to read it (`router.front.sockets`), no stage lasts longer than its deadline
(`router.front.deadlines`), and there is neither a task nor a timer for a connection. `router.front.reception` wires the stages.

The process ends when the supervisor says `stop` or `drain`, on SIGTERM (with 1012: another front takes over), and at once when the
supervisor is gone. When the supervisor says `leave`, the front accepts no more connections and serves those that it has; the process ends
with the last one. Connections that are left after `Limits.leave` seconds are closed as on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Sequence
from typing import Any, Final

import uvloop

from core.chat.stalls import Stalls
from core.events import fields
from core.process.allocator import Allocator
from core.process.child import ControlPipe, reload_keys, run_child
from core.process.control import (
    ANSWER,
    DRAIN,
    LEAVE,
    READY,
    RELOAD_KEYS,
    RESIZE,
    RESTART_REASON,
    STATS,
    STOP,
)
from core.process.settings import Settings
from core.wire.protocol import CloseCode
from router.front.acceptor import Acceptor
from router.front.page_loader import PageLoader
from router.front.reception import DEFAULT_LIMITS, Limits, Reception
from router.front.sockets import now
from router.front.worker_counts import WorkerCounts

_log = logging.getLogger("fastchat.front")

#: Seconds between two looks at deadlines; what they are right to.
_TICK: Final = 0.25
#: Seconds between two reports to the supervisor.
_STATS_INTERVAL: Final = 1.0
#: Seconds that clients have to close after they were told that the front stops.
_STOP_PATIENCE: Final = 1.5
#: How often it is checked that they have.
_STOP_LOOK: Final = 0.02


class Front:
    """The composition root of a front process. `control` is its end of the control pipe."""

    def __init__(
        self, settings: Settings, control: ControlPipe, listeners: list[socket.socket], limits: Limits
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._allocator = Allocator()
        self._pages = PageLoader(settings.login_url)
        self._reception = Reception(settings, self._loop, self._pages, limits)
        self._counts: WorkerCounts | None = None
        if settings.connections_per_ip or settings.max_connections:
            self._counts = WorkerCounts(str(settings.run_dir), self._reception.sockets.addresses)
        self._workers = settings.workers
        #: Held while the number of workers changes, which is done in the order in which it was said.
        self._resizing = asyncio.Lock()
        self._resizes: set[asyncio.Task[None]] = set()
        self._acceptor = Acceptor(
            self._loop, listeners, self._reception.handshakes.welcome, self._reception.sockets.count
        )
        self._stopped: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._next_stats = 0.0
        self._stalls = Stalls(_TICK)

    async def run(self) -> None:
        """Serve until told to stop."""
        self._loop.add_signal_handler(signal.SIGTERM, self._stop, CloseCode.RESTARTING, RESTART_REASON)
        self._control.listen(
            self._loop.add_reader,
            {
                STOP: lambda message: self._stop(message["code"], message["reason"]),
                LEAVE: lambda _: self._leave(),
                DRAIN: lambda _: self._drain(),
                RESIZE: self._start_resize,
                RELOAD_KEYS: lambda _: reload_keys(self._reception.lobby.reload_keys, _log),
            },
        )
        if self._counts is not None:
            self._counts.start(self._workers)
        self._acceptor.start()
        self._tick()
        # What was made so far lives as long as the process: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._control.send(READY)
        code, reason = await self._stopped
        self._acceptor.close()
        self._reception.stop(code, reason)
        deadline = now() + _STOP_PATIENCE
        # A connection ends in many places, and this is asked once in a process's life: an event for it would not pay.
        while not self._reception.is_empty() and now() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_STOP_LOOK)
        self._reception.cut_short()
        await self._pages.stop()
        if self._counts is not None:
            await self._counts.stop()

    async def resize(self, workers: int) -> None:
        """Hand over to so many workers from now on, while no worker takes sockets; who waits goes on waiting, for the new ones."""
        async with self._resizing:
            if self._counts is not None:
                await self._counts.stop()
            self._reception.handover.resize(workers)
            self._workers = workers
            if self._counts is not None and not self._stopped.done():
                self._counts.start(workers)
        _log.info("clients go to another number of workers", extra=fields(workers=workers))

    async def _resize_and_answer(self, message: dict[str, Any]) -> None:
        await self.resize(message["workers"])
        self._control.send(ANSWER, id=message["id"], answer={})

    def _start_resize(self, message: dict[str, Any]) -> None:
        task = self._loop.create_task(self._resize_and_answer(message))
        self._resizes.add(task)
        task.add_done_callback(self._resizes.discard)

    def _tick(self) -> None:
        self._loop.call_later(_TICK, self._tick)  # first of all, since time must go on whatever happens below
        self._control.beat(now())
        seconds = self._stalls.beat(now())
        if seconds:
            _log.warning(
                "this front stood still: everybody gets that time back",
                extra=fields(seconds=round(seconds, 1)),
            )
            self._reception.stood_still(seconds)
        self._reception.tick()
        if now() >= self._next_stats:
            self._next_stats = now() + _STATS_INTERVAL
            self._allocator.give_back(now())
            self._control.send(STATS, stats=self._reception.stats())

    def _leave(self) -> None:
        """Accept no more connections, and stop once the last one has ended or the time for that is over."""
        # Another process has the same listeners: closing this copy leaves the backlog to it.
        self._acceptor.close()
        _log.info(
            "this front accepts no more connections, and ends with the last one that it has",
            extra=fields(count=self._reception.count()),
        )
        self._reception.leave(self._left)

    def _left(self) -> None:
        self._stop(CloseCode.RESTARTING, RESTART_REASON)

    def _drain(self) -> None:
        self._acceptor.take_rest()
        self._stop(CloseCode.RESTARTING, RESTART_REASON)

    def _stop(self, code: int, reason: str) -> None:
        if not self._stopped.done():
            self._stopped.set_result((code, reason))


def main(arguments: Sequence[str] | None = None, limits: Limits = DEFAULT_LIMITS) -> int:
    """Run one front; return its exit code (``core.process.child``)."""
    parser = argparse.ArgumentParser(prog="python -m router.front", description="a front process of FastChat")
    parser.add_argument(
        "--listeners", required=True, help="file descriptors of the listening sockets, by commas"
    )

    def serve(settings: Settings, options: argparse.Namespace, control: ControlPipe) -> None:
        listeners = [socket.socket(fileno=int(number)) for number in options.listeners.split(",")]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, control, listeners, limits))

    return run_child("front", parser, arguments, serve)


async def _serve(
    settings: Settings, control: ControlPipe, listeners: list[socket.socket], limits: Limits
) -> None:
    await Front(settings, control, listeners, limits).run()
