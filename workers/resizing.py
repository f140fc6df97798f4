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
import socket
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import monotonic
from typing import Any, Final, Protocol

from core.chat.envelope import Record, RecordKind
from core.chat.shard import Shard
from core.chat.store import Done, nobody_waits
from core.chat.succession import divide, unfinished
from core.events import fields
from core.process.child import ControlPipe, Handlers
from core.process.control import ANSWER, FAILED, GIVE, GO_ON, LOOK, REST, SETTLE, TRACK, UNTRACK
from core.process.succession import Kind, send_packet
from core.wire.codec import to_json
from workers.bus import ZmqBus
from workers.connection import Connection
from workers.connections import Connections
from workers.inheritance import state_of
from workers.predecessor import (
    RECORDS,
    Predecessor,
    Stays,
    abandon,
    say_goodbye,
    send_records,
    until_taken_over,
)
from workers.store.shard_store import ShardStore
from workers.store.tracking import Tracking
from workers.turn import Turn

_log = logging.getLogger("fastchat.worker")

#: Seconds in which what is under way has to come to an end, and between two looks.
_PATIENCE: Final = 2.0
_LOOK: Final = 0.002
#: Seconds that a new worker may take for a packet, and the store for its last commit.
_TIMEOUT: Final = 10.0


class Host(Protocol):
    """The worker, as its part of a resize sees it."""

    async def admit(self, admits: bool) -> None:
        """Take no more sockets of fronts; or take them again."""

    def give_up_place(self) -> None:
        """Note that everything is other processes' from now on."""

    def leave(self) -> None:
        """End this process: its clients are others'."""


class Resizing:
    """This process's part in it. Does nothing until the supervisor asks."""

    def __init__(
        self,
        host: Host,
        shard: Shard,
        store: ShardStore,
        bus: ZmqBus,
        turn: Turn,
        connections: Connections,
        control: ControlPipe,
    ) -> None:
        self._host = host
        self._shard = shard
        self._store = store
        self._bus = bus
        self._turn = turn
        self._connections = connections
        self._control = control
        self._predecessor: Predecessor | None = None
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
            REST: self._start_to_rest,
            SETTLE: lambda message: self._answer(message, self._settle(message["wave"])),
            GO_ON: lambda _: self._run(self._go_on()),
            GIVE: lambda message: self._run(self._give(message["paths"])),
        }

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start_to_rest(self, message: dict[str, Any]) -> None:
        self._resting = self._answer(message, self._rest())

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

    async def _rest(self) -> dict[str, Any]:
        predecessor = Predecessor(
            self._shard, self._store, self._bus, self._turn, self._connections, self._control
        )
        self._predecessor = predecessor
        self._store.hurry(True)
        await self._host.admit(False)
        await predecessor.come_to_rest()
        self.at_rest = True
        self._sent = self._bus.records_taken
        return {}

    async def _settle(self, wave: int) -> dict[str, Any]:
        others = set(self._shard.exchange.others)
        try:
            async with asyncio.timeout(_PATIENCE):
                while unfinished(self._shard, resize=True) is not None:
                    self._turn.schedule()
                    await asyncio.sleep(_LOOK)
                sent = self._bus.records_taken - self._sent
                self._shard.exchange.broadcast(RecordKind.FLUSHED, wave, b"")
                self._sent = self._bus.records_taken
                self._turn.schedule()
                while self._heard[wave] != others:  # noqa: ASYNC110 - an event for each wave would have to be made by who is first
                    await asyncio.sleep(_LOOK)
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
        self._predecessor, self.at_rest = None, False
        self._heard.clear()
        self._store.hurry(False)
        self._connections.thaw()
        self._turn.schedule()
        await self._host.admit(True)

    async def _give(self, paths: list[str]) -> None:
        predecessor = self._predecessor
        if predecessor is None:
            _log.error("bug: this process is to give everything away, and is not at rest")
            return
        gc.disable()  # this process ends, and somebody waits
        connections = {connection.session: connection for connection in predecessor.all_movable()}
        self._host.give_up_place()
        self._store.begin_close(_TIMEOUT)
        try:
            heirs = [_Heir(path) for path in paths]
            for worker, (record, sessions) in divide(self._shard, connections, len(paths), monotonic()):
                heirs[worker].add(record, [connections[session] for session in sessions])
            for heir in heirs:
                heir.send()
            self._store.close(_TIMEOUT)
            told = {"worker": self._shard.index, "frozen_at": predecessor.frozen_at}
            await asyncio.gather(*(heir.finish(told) for heir in heirs))
        except Exception:
            _log.exception("bug while everything went to the new workers")
            say_goodbye(connections.values())
            self._store.close(_TIMEOUT)
        self._host.leave()


class _Heir:
    """One of the new workers, as the process sees it whose users it gets. When it fails, the clients are told so."""

    def __init__(self, path: str) -> None:
        """Connect to it at `path`."""
        #: Records that are sent together, and the connections that they are about; and all connections that it gets.
        self._records: list[dict[str, Any]] = []
        self._connections: list[Connection] = []
        self._all: list[Connection] = []
        self._channel: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.settimeout(_TIMEOUT)
        try:
            self._channel.connect(path)
        except OSError as error:
            self._failed(error)

    def add(self, record: dict[str, Any], connections: list[Connection]) -> None:
        """Give it what a record of the core says, and the connections that this is about."""
        self._records.append({"core": record, "connections": [*map(state_of, connections)]})
        self._connections += connections
        if len(self._records) == RECORDS:
            self.send()

    def send(self) -> None:
        """Send it what was added."""
        if self._channel is not None and self._records:
            try:
                send_records(self._channel, self._records, self._connections)
            except OSError as error:
                self._failed(error)
        self._all += self._connections
        self._records, self._connections = [], []

    async def finish(self, told: dict[str, Any]) -> None:
        """Tell it that this was all, and wait until it has taken over."""
        if self._channel is not None:
            try:
                send_packet(self._channel, Kind.CLOSED, to_json(told))
                await until_taken_over(self._channel)
            except OSError as error:
                self._failed(error)
        if self._channel is None:
            say_goodbye(self._all)
        else:
            self._channel.close()
            abandon(self._all)

    def _failed(self, error: OSError) -> None:
        assert self._channel is not None, "it fails once"
        _log.error("a new worker has failed before it took over", extra=fields(reason=str(error)))
        self._channel.close()
        self._channel = None
