"""Listens to what each worker counts (``core.process.counting``), and gives it to `AddressLimits`."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import Final

from core.events import fields
from core.process.counting import counts_endpoint, decode_counts
from router.front.address_limits import AddressLimits

_log = logging.getLogger("fastchat.front")

#: Seconds between two tries to reach a worker that is away.
_RETRY: Final = 0.1


class WorkerCounts:
    """Follows the counts of all workers."""

    def __init__(self, run_dir: str, limits: AddressLimits) -> None:
        self._run_dir = run_dir
        self._limits = limits
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, workers: int) -> None:
        """Begin to listen to so many workers."""
        self._tasks = [
            asyncio.get_running_loop().create_task(self._follow(worker)) for worker in range(workers)
        ]

    async def stop(self) -> None:
        """Listen no more: what was told is counted no more. After this, `start` may be called again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, worker: int) -> None:
        while True:
            with suppress(OSError):
                await self._listen(worker)
            await asyncio.sleep(_RETRY)

    async def _listen(self, worker: int) -> None:
        """Listen until the worker ends."""
        # A line has 500 sources at most, which is far less than this.
        path = counts_endpoint(self._run_dir, worker)
        reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
        try:
            writer.write(f"{os.getpid()}\n".encode())
            while line := await reader.readline():
                self._limits.heard(worker, decode_counts(line))
        except ValueError as error:
            _log.error("a worker and this front do not fit", extra=fields(worker=worker, reason=str(error)))
        finally:
            self._limits.worker_gone(worker)
            writer.close()
