"""How many connections this worker has from where, told to the fronts (``core.process.counting``).

Only with a limit that needs it. A connection costs a line in a table of sources, and nothing while it lives.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import Final, cast

from core.events import fields
from core.process.addresses import host_of, source_of
from core.process.counting import counts_endpoint, encode_counts
from core.process.handover import Ticket
from core.process.settings import Settings

_log = logging.getLogger("fastchat.worker")

#: Bytes that wait for a front which does not read. It is stuck, and gets everything anew when it connects again.
_UNSENT_MAX: Final = 16 * 1024 * 1024
#: Bytes that a front says.
_NAME_MAX: Final = 32


class AddressCounts:
    """Counts, and tells every front that listens. `start` it, and call `tick` several times a second."""

    def __init__(self, run_dir: str, worker: int) -> None:
        self.path = counts_endpoint(run_dir, worker)
        self._server: asyncio.Server | None = None
        self._fronts: set[_Front] = set()
        self._total = 0
        self._sources: dict[str, int] = {}
        #: Sources whose number was not told yet; and whether anything was not.
        self._changed: set[str] = set()
        self._news = False
        #: Front -> number of the last ticket.
        self._last: dict[str, int] = {}

    async def start(self) -> None:
        """Listen for fronts, also again when the name was taken away; who listens already goes on. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Front(self), self.path)
        os.chmod(self.path, 0o600)
        if self._server is not None:
            self._server.close()
        self._server = server

    def close(self) -> None:
        """Tell nobody any more."""
        if self._server is not None:
            self._server.close()
        for front in list(self._fronts):
            front.end()

    def enter(self, ticket: Ticket) -> None:
        """Count a connection that was taken from a front."""
        self._last[ticket.label.partition("-")[0]] = ticket.number
        self._count(ticket.address, 1)

    def inherit(self, address: str) -> None:
        """Count a connection that was taken from another process of this worker."""
        self._count(address, 1)

    def leave(self, address: str) -> None:
        """Count out a connection that has ended."""
        self._count(address, -1)

    def tick(self) -> None:
        """Tell what has changed."""
        if not self._news:
            return
        changes = {source: self._sources.get(source, 0) for source in self._changed}
        self._changed.clear()
        self._news = False
        for front in list(self._fronts):
            front.send(self._total, changes, self._last.get(front.name))

    def joined(self, front: _Front) -> None:
        """Note that a front has said who it is."""
        self._fronts.add(front)
        front.send(self._total, self._sources, self._last.get(front.name))

    def left(self, front: _Front) -> None:
        """Note that a front has gone."""
        self._fronts.discard(front)
        if not any(other.name == front.name for other in self._fronts):
            self._last.pop(front.name, None)

    def _count(self, address: str, step: int) -> None:
        source = source_of(host_of(address))
        number = self._sources.get(source, 0) + step
        if number > 0:
            self._sources[source] = number
        else:
            self._sources.pop(source, None)
        self._total += step
        self._changed.add(source)
        self._news = True


class _Front(asyncio.Protocol):
    """A front that listens."""

    def __init__(self, counts: AddressCounts) -> None:
        self._counts = counts
        self._name_line = b""
        self._transport: asyncio.Transport | None = None
        #: As labels of its connections begin.
        self.name = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but name.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.name:
            return
        self._name_line += data
        if b"\n" in self._name_line:
            self.name = self._name_line.partition(b"\n")[0].decode(errors="replace")
            self._counts.joined(self)
        elif len(self._name_line) > _NAME_MAX:
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._counts.left(self)

    def send(self, total: int, sources: dict[str, int], last: int | None) -> None:
        """Write how many there are."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.writelines(list(encode_counts(total, sources, last)))
        waiting = transport.get_write_buffer_size()
        if waiting > _UNSENT_MAX:
            _log.error("a front does not listen to the counts", extra=fields(count=waiting))
            self.end()

    def end(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


def needed(settings: Settings) -> bool:
    """Return whether there is a limit for which workers have to count."""
    return bool(settings.connections_per_ip or settings.max_connections)
