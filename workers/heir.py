"""A process that gets users and clients of this one, as this one sees it (``core.process.succession``, ``workers.inheriting``)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any, Final

from core.process.control import RESTART_REASON
from core.process.succession import DESCRIPTORS_MAX, Kind, send_packet
from core.wire.codec import to_json
from core.wire.protocol import CloseCode
from workers.connection import Connection
from workers.inheritance import let_go, state_of

#: Seconds that it may take for a packet, and the store of this process for its last commit meanwhile.
TIMEOUT: Final = 10.0
#: Seconds that it has for opening the store and loading the users; then it is killed.
_TAKE_OVER_PATIENCE: Final = 60.0
#: Records in a packet. It has something to do from the first one on, and a system call is shared by many.
_RECORDS: Final = 32


class Heir:
    """Give it things by `add`, then `finish`. Once it has failed, which `failure` says, nothing has an effect any more."""

    def __init__(self, path: str) -> None:
        """Connect to it at `path`."""
        self.failure: OSError | None = None
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel.settimeout(TIMEOUT)
        #: What is sent together, and the connections that it is about.
        self._records: list[dict[str, Any]] = []
        self._connections: list[Connection] = []
        try:
            self.channel.connect(path)
        except OSError as error:
            self.failure = error

    def add(self, record: dict[str, Any], connections: list[Connection]) -> None:
        """Give it what a record of the core says, and the connections that this is about."""
        self._records.append({"core": record, "connections": [*map(state_of, connections)]})
        self._connections += connections
        if len(self._records) == _RECORDS:
            self.send()

    def send(self) -> None:
        """Send what was added."""
        records, self._records = self._records, []
        connections, self._connections = self._connections, []
        if self.failure is None:
            try:
                self._send(records, connections)
            except OSError as error:
                self.failure = error

    async def finish(self, told: dict[str, Any]) -> None:
        """Tell it that this was all, with figures, and wait until it has taken over. It has what was added: `send` comes before."""
        if self.failure is None:
            try:
                send_packet(self.channel, Kind.CLOSED, to_json(told))
                await self._taken_over()
            except OSError as error:
                self.failure = error

    def _send(self, records: list[dict[str, Any]], connections: list[Connection]) -> None:
        descriptors = [connection.descriptor for connection in connections]
        while len(descriptors) > DESCRIPTORS_MAX:
            send_packet(self.channel, Kind.RECORDS, to_json([]), descriptors[:DESCRIPTORS_MAX])
            del descriptors[:DESCRIPTORS_MAX]
        send_packet(self.channel, Kind.RECORDS, to_json(records), descriptors)
        for connection in connections:
            let_go(connection)

    async def _taken_over(self) -> None:
        self.channel.setblocking(False)
        try:
            async with asyncio.timeout(_TAKE_OVER_PATIENCE):
                taken = await asyncio.get_running_loop().sock_recv(self.channel, 1)
        except TimeoutError:
            raise TimeoutError(f"it has not taken over within {_TAKE_OVER_PATIENCE:g} s") from None
        if not taken:
            raise ConnectionResetError("it has ended before it took over")
        self.channel.settimeout(TIMEOUT)


def say_goodbye(connections: Iterable[Connection]) -> None:
    """Close connections that a process was to get which has failed."""
    for connection in connections:
        connection.session.closed = True
        connection.close(CloseCode.RESTARTING, RESTART_REASON)


def abandon(connections: Iterable[Connection]) -> None:
    """End with connections that another process has now."""
    for connection in connections:
        if connection.stream is not None:
            connection.stream.abort()
