"""How others find this worker: its paths in the run directory, on which fronts hand sockets over and ask for counts, and workers send.

open --> suspended: fronts keep who comes --> open again, or closed for good
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from core.process.control import ENDPOINTS_MISSING
from core.process.handover import endpoint
from workers.address_counts import AddressCounts
from workers.bus import ZmqBus
from workers.connections import Connections
from workers.endpoints import Endpoints
from workers.handover_listener import HandoverListener


class Entrance:
    """The paths of one worker; `open` it once."""

    def __init__(
        self, run_dir: str, index: int, bus: ZmqBus, counts: AddressCounts | None, connections: Connections
    ) -> None:
        """Open nothing yet. `counts` is where connections are counted by address, when a limit asks for it."""
        self._path = endpoint(run_dir, index)
        self._bus = bus
        self._counts = counts
        self._connections = connections
        self._handover: HandoverListener | None = None
        self._endpoints = Endpoints()
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Let others in. Raises OSError when a path can't be used."""
        self._endpoints.add(self._bus.path, self._bus.reopen)
        if self._counts is not None:
            await self._counts.start()
            self._endpoints.add(self._counts.path, self._counts.start)
        loop, connections = asyncio.get_running_loop(), self._connections
        self._handover = HandoverListener(self._path, loop, connections.adopt, connections.capacity)
        self._endpoints.add(self._path, self._handover.reopen)
        self._watch_paths()

    def suspend(self) -> None:
        """Take no more sockets for now; the fronts take back what is on its way."""
        self._unwatch_paths()
        if self._handover is not None:
            self._handover.close()

    async def resume(self) -> None:
        """Take sockets again after `suspend`. If the path can't be opened at once, that is tried again and again."""
        if self._handover is not None:
            with suppress(OSError):
                await self._handover.reopen()
        self._endpoints.note()
        self._watch_paths()

    def close(self) -> None:
        """Leave these paths to another process."""
        self.suspend()
        if self._counts is not None:
            self._counts.close()

    def tick(self) -> None:
        """Do what is due; called several times a second."""
        if self._counts is not None:
            self._counts.tick()
        if self._handover is not None:
            self._handover.resume()

    def stats(self) -> dict[str, Any]:
        """Return this part of the worker's report."""
        handover = self._handover
        return {
            "adopted_total": handover.adopted if handover else 0,
            "handover_truncated_total": handover.truncated if handover else 0,
            "handover_pauses_total": handover.pauses if handover else 0,
            ENDPOINTS_MISSING: self._endpoints.missing,
            "endpoints_reopened_total": self._endpoints.reopened,
        }

    def _watch_paths(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._endpoints.watch())

    def _unwatch_paths(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
