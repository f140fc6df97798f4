"""A new worker process when the number of workers has changed: it gets its users from all old ones (``workers.resizing``)."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections import deque
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from core.chat.shard import Shard
from core.chat.succession import FORMAT, SHARD, gather
from core.events import fields
from core.process.child import ControlPipe
from core.process.control import WAITING
from core.process.succession import succession_endpoint
from workers.bus import remove_left_over
from workers.connections import Connections
from workers.inheriting import TAKEN_OVER, Inheriting, Source, listening
from workers.store.shard_store import ShardStore
from workers.turn import Turn

_log = logging.getLogger("fastchat.worker")


class Gathering:
    """This process, as it gets its users. Use it once."""

    def __init__(
        self,
        run_dir: str,
        workers: int,
        shard: Shard,
        store: ShardStore,
        turn: Turn,
        connections: Connections,
        control: ControlPipe,
    ) -> None:
        """`workers` is how many there were."""
        self._run_dir = run_dir
        self._workers = workers
        self._shard = shard
        self._store = store
        self._control = control
        self._inheriting = Inheriting(shard, turn, connections)
        self._sources: list[Source] = []
        #: Old worker -> what it says of its shard, which all have to do before anything else counts; and what else has come by then.
        self._shards: dict[int, dict[str, Any]] = {}
        self._waiting: list[tuple[list[dict[str, Any]], deque[socket.socket]]] = []
        #: The old workers from which nothing more comes; and set when these are all.
        self._over: set[int] = set()
        self._all_over = asyncio.Event()
        self._frozen_at = math.inf
        #: Seconds in which no client was read from.
        self.pause = 0.0
        #: Whether the store is open: before, no turn of the loop has anything to do.
        self.has_store = False

    async def take_over(self) -> None:
        """Wait for all old workers, and go on where they stop. Raises OSError, ValueError or ConfigurationError when that can't be."""
        path = succession_endpoint(self._run_dir, self._shard.index)
        with listening(path, 2 * self._workers) as listener, self._inheriting.without_collector():
            self._control.send(WAITING, path=path)
            accepting = asyncio.create_task(self._accept(listener))
            over = asyncio.create_task(self._all_over.wait())
            await asyncio.wait((accepting, over), return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                over.cancel()
                await accepting  # raises
            accepting.cancel()
            self._store.start()
            self.has_store = True
            count = await self._inheriting.finish()
        for source in self._sources:
            with suppress(OSError):  # an old worker that is dead does not have to know
                source.channel.send(TAKEN_OVER)
            source.channel.close()
        # Nobody sends the old processes of this worker anything any more.
        remove_left_over(self._run_dir, self._shard.index, self._shard.generation)
        self.pause = max(0.0, monotonic() - self._frozen_at)
        _log.info(
            "this process has taken over from %d workers",
            self._workers,
            extra=fields(connections=count, seconds=round(self.pause, 3)),
        )

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as receiving:
            while True:
                channel, _ = await loop.sock_accept(listener)
                source = Source(channel)
                self._sources.append(source)
                receiving.create_task(self._receive(source))

    async def _receive(self, source: Source) -> None:
        """Take all that comes from one old worker, or from the supervisor in the place of one that is dead."""
        named: list[int] = []
        try:
            told = await source.receive(partial(self._take, named))
            named.append(told["worker"])
            self._frozen_at = min(self._frozen_at, told.get("frozen_at", math.inf))
        except Exception as error:
            _log.error(
                "an old worker has ended before it had given everything away",
                extra=fields(worker=next(iter(named), None), reason=str(error)),
                exc_info=not isinstance(error, OSError),  # anything else is a bug
            )
        for worker in named:
            self._over.add(worker)
            if worker not in self._shards:
                self._add({"format": FORMAT, "kind": SHARD, "worker": worker, "workers": self._workers})
        if len(self._over) == self._workers:
            self._all_over.set()

    def _take(self, named: list[int], records: list[dict[str, Any]], sockets: deque[socket.socket]) -> None:
        """Take records of an old worker, which is `named` by the first one of them."""
        if records and records[0]["core"]["kind"] == SHARD:
            record = records.pop(0)["core"]
            named.append(record["worker"])
            self._add(record)
        if len(self._shards) < self._workers:
            self._waiting.append((records, sockets))
        else:
            self._inheriting.take(records, sockets)

    def _add(self, shard: dict[str, Any]) -> None:
        """Note what an old worker says of its shard; with the last one, go on with what has waited for that."""
        self._shards[shard["worker"]] = shard
        if len(self._shards) == self._workers:
            gather(self._shard, [*self._shards.values()])
            waiting, self._waiting = self._waiting, []
            for records, sockets in waiting:
                self._inheriting.take(records, sockets)
