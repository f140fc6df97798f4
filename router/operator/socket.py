"""The operator's way into a running server: a unix socket in the run directory, on which requests are answered
(``router.operator.operations``).

The admin port is for reading and open to everybody on the machine. What tells of users, and what changes something, goes over this: only
the server's own user and root may connect. The kernel asks for that, since the directory is 0700 and the socket 0600, and so do we,
by the peer's credentials.

On the wire, in both directions: one JSON object a line, UTF-8. Any number of requests may follow each other on a connection; each is
answered before the next is read. Whoever sends what is no request gets a sentence; whoever sends too much, too slowly or does not
read is disconnected.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from core.process.descriptors import Descriptor, Keep
from core.process.unix_sockets import peer_uid
from core.wire.codec import from_json, to_json
from router.accepting import Accepting

_log = logging.getLogger("fastchat.supervisor")

#: Bytes of a request, its newline included.
REQUEST_MAX_BYTES: Final = 4096
#: Operators at once; a line of them that never end must not take the supervisor's descriptors.
CLIENTS_MAX: Final = 32
#: Seconds in which a request has to come, and an answer to be read.
REQUEST_PATIENCE: Final = 30.0
READ_PATIENCE: Final = 5.0
#: Connections that wait to be accepted; a unix socket refuses more at once.
_BACKLOG: Final = 128


class OperatorsState(NamedTuple):
    """What another program needs to go on."""

    listener: Descriptor
    #: Of the socket's name.
    device: int
    inode: int
    #: Connections that wait for an answer.
    waiting: list[Descriptor]


Answer = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class OperatorSocket:
    """Listens from `start` to `stop`. `answer` is called with each request that is a JSON object, and must not raise."""

    def __init__(
        self,
        path: Path,
        answer: Answer,
        *,
        request_patience: float = REQUEST_PATIENCE,
        read_patience: float = READ_PATIENCE,
    ) -> None:
        self.path = path
        self._answer = answer
        self._request_patience = request_patience
        self._read_patience = read_patience
        self._accepting: Accepting | None = None
        #: Device and inode of the socket's name.
        self._identity: tuple[int, int] | None = None
        #: Who is connected, and the requests that are being answered.
        self._clients: dict[asyncio.Task[None], socket.socket] = {}
        self._asked: dict[socket.socket, Mapping[str, Any]] = {}

    async def start(self) -> None:
        """Begin to answer. Raises OSError when the socket can't be opened."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(os.fspath(self.path))
            # Nobody can connect before it listens, so there is no moment at which more people could than should.
            os.chmod(self.path, 0o600)
            self._identity = self._find()
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        if self._accepting is not None:
            self._accepting.close()
        self._accepting = Accepting([listener], self._connected)
        self._accepting.start()

    async def go_quiet(self, patience: float, what: str) -> None:
        """Accept nobody, and wait so many seconds at most until all have gone who are connected, but for those who asked for `what`."""
        assert self._accepting is not None, "it was started"
        self._accepting.pause()
        waiting = self._waiting(what)
        others = [task for task, connection in self._clients.items() if connection not in waiting]
        if others:
            await asyncio.wait(others, timeout=patience)

    def _waiting(self, what: str | None) -> list[socket.socket]:
        return [
            connection for connection, request in self._asked.items() if what and request.get("what") == what
        ]

    def go_on(self) -> None:
        """Accept again after `go_quiet`."""
        assert self._accepting is not None, "it was started"
        self._accepting.start()

    def to_state(self, keep: Keep, what: str | None) -> OperatorsState:
        """Return what another program needs to go on; `keep` is called with each descriptor. Who has asked for `what` still waits then."""
        assert self._accepting is not None and self._identity is not None, "it was started"
        waiting = [keep(connection.fileno()) for connection in self._waiting(what)]
        return OperatorsState(
            keep(self._accepting.listeners[0].fileno()), self._identity[0], self._identity[1], waiting
        )

    def take_up(self, state: OperatorsState, answer: dict[str, Any]) -> None:
        """Begin where another program has ended; `answer` is for those who waited for one."""
        self._identity = state.device, state.inode
        self._accepting = Accepting([socket.socket(fileno=state.listener)], self._connected)
        for descriptor in state.waiting:
            self._connected(socket.socket(fileno=descriptor), answer)
        self._accepting.start()

    async def restore(self) -> bool:
        """Begin anew if the socket's name was taken away; whether it was. Who is connected stays so. Raises OSError."""
        if self._find() == self._identity:
            return False
        await self.start()
        return True

    def _find(self) -> tuple[int, int] | None:
        try:
            status = os.lstat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def stop(self) -> None:
        """Close the socket and all connections to it."""
        if self._accepting is not None:
            self._accepting.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        with suppress(OSError):  # somebody may have put something else in the place of the run directory
            self.path.unlink()

    def _connected(self, connection: socket.socket, answer: dict[str, Any] | None = None) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(connection, answer))
        self._clients[task] = connection
        task.add_done_callback(self._clients.pop)

    async def _serve(self, connection: socket.socket, answer: dict[str, Any] | None) -> None:
        """Answer requests; `answer` is that to a request that was read before, if there is one."""
        uid = peer_uid(connection)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=REQUEST_MAX_BYTES)
        try:
            with suppress(ConnectionError, TimeoutError):
                if answer is not None:
                    await self._send(writer, answer)
                await self._converse(connection, uid, reader, writer)
        except Exception:
            _log.exception("bug while answering an operator")
        finally:
            # What the client has not read by now it never will.
            writer.transport.abort()

    async def _converse(
        self, connection: socket.socket, uid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if uid not in (0, os.geteuid()):
            await self._send(
                writer,
                {"problem": "this server belongs to another user: run the command as that user, or as root"},
            )
            return
        if len(self._clients) > CLIENTS_MAX:
            await self._send(
                writer, {"problem": f"{CLIENTS_MAX} operators are connected already: try again later"}
            )
            return
        while True:
            try:
                async with asyncio.timeout(self._request_patience):
                    line = await reader.readline()
            except ValueError:
                # What follows may be in the middle of a request, so there is nothing to go on with.
                await self._send(writer, {"problem": f"a request has at most {REQUEST_MAX_BYTES} bytes"})
                return
            if not line.endswith(b"\n"):
                return
            await self._send(writer, await self._respond(connection, line))

    async def _respond(self, connection: socket.socket, line: bytes) -> dict[str, Any]:
        try:
            request = from_json(line)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            return {"problem": 'a request is a JSON object in one line, such as {"what": "status"}'}
        self._asked[connection] = request
        try:
            return await self._answer(request)
        finally:
            del self._asked[connection]

    async def _send(self, writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
        """Write an answer, and wait until the client has taken all of it."""
        writer.transport.set_write_buffer_limits(0)
        writer.write(to_json(answer) + b"\n")
        async with asyncio.timeout(self._read_patience):
            await writer.drain()
