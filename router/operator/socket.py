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
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from core.wire.codec import from_json, to_json

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
#: ``struct ucred``: process, user and group.
_CREDENTIALS: Final = struct.Struct("iII")

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
        self._server: asyncio.Server | None = None
        #: Device and inode of the socket's name.
        self._identity: tuple[int, int] | None = None
        self._clients: set[asyncio.Task[None]] = set()

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
            before = self._server
            self._server = await asyncio.start_unix_server(
                self._connected, sock=listener, backlog=_BACKLOG, limit=REQUEST_MAX_BYTES
            )
        except BaseException:
            listener.close()
            raise
        if before is not None:
            before.close()

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
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in one"
        self._clients.add(task)
        try:
            with suppress(ConnectionError, TimeoutError):
                await self._converse(reader, writer)
        except Exception:
            _log.exception("bug while answering an operator")
        finally:
            self._clients.discard(task)
            # What the client has not read by now it never will.
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _peer_uid(writer)
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
            await self._send(writer, await self._respond(line))

    async def _respond(self, line: bytes) -> dict[str, Any]:
        try:
            request = from_json(line)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            return {"problem": 'a request is a JSON object in one line, such as {"what": "status"}'}
        return await self._answer(request)

    async def _send(self, writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
        """Write an answer, and wait until the client has taken all of it."""
        writer.transport.set_write_buffer_limits(0)
        writer.write(to_json(answer) + b"\n")
        async with asyncio.timeout(self._read_patience):
            await writer.drain()


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """Return the user who connected."""
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(uid)
