"""A worker process while the number of workers changes: see ``router.supervisor.resize``, which says when what happens.

    serving --> tracking: notes what it writes --> at rest: time stands still for its clients
                                                     --> everything goes to the new workers --> exit

At rest, all workers together have nothing under way. That is found out in waves: in each, a worker sends all others a last record (FLUSHED)
and waits for theirs, so it has read all that they sent before. When nobody has sent anything else between two waves, nothing is on its way.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from core.chat.envelope import Record, RecordKind
from core.chat.shard import Shard
from core.chat.store import Done, nobody_waits
from core.chat.succession import divide, unfinished
from core.events import fields
from core.process.child import ControlPipe, Handlers
from core.process.control import ANSWER, FAILED, GIVE, GO_ON, LOOK, REST, SETTLE, TRACK, UNTRACK
from workers.bus import ZmqBus
from workers.connection import Connection
from workers.connections import Connections
from workers.entrance import Entrance
from workers.heir import TIMEOUT, Heir, abandon, say_goodbye
from workers.rest import PATIENCE, POLL, Rest, Stays
from workers.store.shard_store import ShardStore
from workers.store.tracking import Tracking
from workers.turn import Turn

_log = logging.getLogger("fastchat.worker")


class Host(Protocol):
    """The worker, as its part of a resize sees it."""

    def give_up_place(self) -> None:
        """Note that everything is other processes' from now on."""

    def leave(self) -> None:
        """End this process: its clients are others'."""


class Resizing:
    """This process's part in it. Does nothing until the supervisor asks."""

    def __init__(
        self,
        host: Host,
        entrance: Entrance,
        shard: Shard,
        store: ShardStore,
        bus: ZmqBus,
        turn: Turn,
        connections: Connections,
        control: ControlPipe,
    ) -> None:
        self._host = host
        self._entrance = entrance
        self._shard = shard
        self._store = store
        self._bus = bus
        self._turn = turn
        self._connections = connections
        self._control = control
        self._rest: Rest | None = None
        #: Whether time stands still for clients: nothing of theirs is handled, nor does anything happen by the passing of time.
        self.at_rest = False
        #: What brings this process to rest.
        self._resting: asyncio.Task[None] | None = None
        #: Wave -> the workers whose last record has come; and how many records had been sent when the last one began.
        self._heard: defaultdict[int, set[int]] = defaultdict(set)
        self._sent = 0
        self._tasks: set[asyncio.Task[None]] = set()
        shard.exchange.on(RecordKind.FLUSHED, 0, self._flushed, body=True)

    def handlers(self) -> Handlers:
        """Return what is done about each message of the supervisor."""
        return {
            TRACK: lambda message: self._answer(message, self._track()),
            LOOK: lambda message: self._answer(message, self._look(Path(message["path"]))),
            UNTRACK: lambda _: self._end_tracking(),
            REST: self._begin_to_rest,
            SETTLE: lambda message: self._answer(message, self._settle(message["wave"])),
            GO_ON: lambda _: self._run(self._go_on()),
            GIVE: lambda message: self._run(self._give(message["paths"])),
        }

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin_to_rest(self, message: dict[str, Any]) -> None:
        self._resting = self._answer(message, self._come_to_rest())

    def _answer(
        self, message: dict[str, Any], work: Coroutine[Any, Any, dict[str, Any]]
    ) -> asyncio.Task[None]:
        async def answer() -> None:
            try:
                told = await work
            except (Stays, OSError, TimeoutError) as problem:
                told = {FAILED: str(problem)}
            except Exception as problem:
                _log.exception("bug while the number of workers was to change: this process goes on")
                told = {FAILED: f"has a bug: {problem}"}
            self._control.send(ANSWER, id=message["id"], answer=told)

        return self._run(answer())

    # -- What the supervisor asks for --

    async def _track(self) -> dict[str, Any]:
        return await self._until_done(lambda tracking, done: tracking.begin(done, monotonic()))

    async def _look(self, path: Path) -> dict[str, Any]:
        return await self._until_done(lambda tracking, done: tracking.look(path, done))

    def _end_tracking(self) -> None:
        if self._store.tracking is not None:
            self._store.tracking.end(nobody_waits)

    async def _until_done(self, call: Callable[[Tracking, Done], None]) -> dict[str, Any]:
        tracking = self._store.tracking
        if tracking is None:
            raise Stays("has a store without files")
        result: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        call(tracking, lambda failure, now: result.set_result(failure))
        if (failure := await result) is not None:
            raise Stays(failure)
        return {}

    async def _come_to_rest(self) -> dict[str, Any]:
        self._rest = Rest(self._shard, self._connections)
        self._store.hurry(True)
        self._entrance.suspend()
        await self._rest.come()
        self.at_rest = True
        self._sent = self._bus.records_taken
        return {}

    async def _settle(self, wave: int) -> dict[str, Any]:
        others = set(self._shard.exchange.others)
        try:
            async with asyncio.timeout(PATIENCE):
                while unfinished(self._shard, resize=True) is not None:
                    self._turn.schedule()
                    await asyncio.sleep(POLL)
                sent = self._bus.records_taken - self._sent
                self._shard.exchange.broadcast(RecordKind.FLUSHED, wave, b"")
                self._sent = self._bus.records_taken
                self._turn.schedule()
                while self._heard[wave] != others:  # noqa: ASYNC110 - an event for each wave would have to be made by who is first
                    await asyncio.sleep(POLL)
        except TimeoutError:
            silent = sorted(others - self._heard[wave])
            raise Stays(
                unfinished(self._shard, resize=True) or f"has not heard from workers {silent}"
            ) from None
        finally:
            self._heard.pop(wave, None)
        return {"sent": sent}

    def _flushed(self, record: Record, now: float) -> None:
        self._heard[record.ticket].add(record.worker)

    async def _go_on(self) -> None:
        resting, self._resting = self._resting, None
        if resting is None:
            return
        resting.cancel()
        await asyncio.wait([resting])
        self._rest, self.at_rest = None, False
        self._heard.clear()
        self._store.hurry(False)
        self._connections.thaw()
        self._turn.schedule()
        await self._entrance.resume()

    async def _give(self, paths: list[str]) -> None:
        if self._rest is None:
            _log.error("bug: this process is to give everything away, and is not at rest")
            return
        gc.disable()  # this process ends, and somebody waits
        connections = {connection.session: connection for connection in self._rest.movable()}
        self._host.give_up_place()
        self._store.begin_close(TIMEOUT)
        try:
            heirs = [Heir(path) for path in paths]
            theirs: list[list[Connection]] = [[] for _ in heirs]
            for worker, (record, sessions) in divide(self._shard, connections, len(paths), monotonic()):
                about = [connections[session] for session in sessions]
                heirs[worker].add(record, about)
                theirs[worker] += about
            for heir in heirs:
                heir.send()
            self._store.close(TIMEOUT)
            told = {"worker": self._shard.index, "frozen_at": self._rest.began_at}
            await asyncio.gather(*(heir.finish(told) for heir in heirs))
            for heir, about in zip(heirs, theirs, strict=True):
                _part_with(heir, about)
        except Exception:
            _log.exception("bug while everything went to the new workers")
            say_goodbye(connections.values())
            self._store.close(TIMEOUT)
        self._host.leave()


def _part_with(heir: Heir, connections: list[Connection]) -> None:
    """End with a new worker: its clients are its, or are told that it has failed."""
    heir.channel.close()
    if heir.failure is None:
        abandon(connections)
    else:
        _log.error("a new worker has failed before it took over", extra=fields(reason=str(heir.failure)))
        say_goodbye(connections)
