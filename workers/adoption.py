"""Adopting a socket whose upgrade is done: the one place that uses what is not public API of picows.

picows wants to see an upgrade itself, so `AdoptedProtocol` feeds it a canned request and lets it answer with nothing; from then on it
parses frames for `Connection`. Two more things of picows are in the way, and replaced: its logger, of which it would make a child for
each connection, and which is the only one to hear at once why it can't parse on (`_ParserLog`); and what it writes and closes by itself
after a parse error, which it does before it hands over the last good frame (`_Underlay`).

`WSProtocol`'s constructor may change with any version: hence the narrow pin in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Generator
from http import HTTPStatus
from types import coroutine
from typing import Any, Final

from multidict import CIMultiDict
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]

from core.chat.shard import BUG_REASON
from core.events import fields
from core.wire.protocol import MESSAGE_MAX_BYTES, CloseCode
from workers.connection import Connection

_log = logging.getLogger("fastchat.worker")

#: The least that picows takes; messages are short.
_READ_BUFFER_BYTES: Final = 2048
#: The receive buffer of a socket; the kernel doubles it. By itself it would grow to megabytes for whoever sends without pause, and picows
#: reads all that is there in one go, while everybody else waits.
_RECEIVE_BYTES: Final = 64 * 1024
#: Bytes that the kernel takes for a client beyond what is on its way to it.
_KERNEL_UNSENT_BYTES: Final = 128 * 1024
#: In the place of picows' own words, which are not meant for clients.
_TOO_BIG: Final = f"a message has at most {MESSAGE_MAX_BYTES} bytes"
_BAD_CLOSE: Final = "the body of a Close frame is a code that may be sent, and a reason in UTF-8"
#: What picows is told that the client asked for. The key is any 16 bytes: nobody sees the answer.
_CANNED_REQUEST: Final = (
    b"GET /ws HTTP/1.1\r\nHost: fastchat\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class _PlainSocket:
    """What picows takes for its socket. The options that it sets and asks for are not: `_set_options` sets those that are wanted."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def setsockopt(self, *option: int) -> None:
        """Do nothing."""

    def getsockopt(self, *option: int) -> int:
        """Return what is only logged."""
        return 0


class _Underlay:
    """What picows takes for its transport: nothing goes out here, since writing and closing are `Connection`'s business."""

    __slots__ = ("_socket", "_stream")

    def __init__(self, stream: asyncio.Transport, descriptor: int) -> None:
        self._stream = stream
        self._socket = _PlainSocket(descriptor)

    def get_extra_info(self, name: str) -> Any:
        """Return the socket; picows asks for the two addresses only to log them, and the event loop would keep them."""
        return self._socket if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        """Return what is not 0, or picows would write to the socket itself."""
        return 1

    def write(self, data: bytes) -> None:
        """Drop the answer to the canned request, which is empty; and a Close frame after a parse error, which comes too early."""

    def close(self) -> None:
        """Do nothing: picows calls this 10 ms after a parse error, and `Connection._finish` has seen to it already."""

    def abort(self) -> None:
        self._stream.abort()


class _ParserLog:
    """What picows takes for its logger: the one line that matters is the one that says why it can't go on parsing."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        return False

    def error(self, message: str, *args: Any) -> None:
        """Take a WSProtocolError: its code and reason come as the only argument."""
        code, reason = args[0][:2]
        is_close = "CLOSE" in reason
        if code == CloseCode.MESSAGE_TOO_BIG:
            reason = _TOO_BIG
        elif is_close:
            reason = _BAD_CLOSE
        self._connection.parser_failed(int(code), str(reason), is_close=is_close)

    def exception(self, message: str, *args: Any) -> None:
        connection = self._connection
        about = fields(connection=connection.label, user=connection.session.claimed, reason=message)
        _log.error("bug in picows, or in what it called", exc_info=True, extra=about)
        self._connection.parser_failed(CloseCode.INTERNAL_ERROR, BUG_REASON)

    def _ignore(self, *args: Any) -> None:
        pass

    debug = info = warning = log = _ignore


class _NoResponse(WSUpgradeResponse):
    """The answer to the canned request: nothing, since the front has answered the real one."""

    __slots__ = ()

    def __init__(self) -> None:
        self.version = b"HTTP/1.1"
        self.status = HTTPStatus.SWITCHING_PROTOCOLS
        self.headers = CIMultiDict()
        self.body = None

    def to_bytes(self) -> bytearray:
        return bytearray()


_NO_RESPONSE: Final = _NoResponse()


class AdoptedProtocol(WSProtocol):  # type: ignore[misc]
    """picows' protocol on a connection whose upgrade is done."""

    __slots__ = ("_carried", "_connection", "_descriptor")

    def __init__(self, connection: Connection, descriptor: int, carried: bytes) -> None:
        self._connection = connection
        self._descriptor = descriptor
        self._carried = carried
        super().__init__(
            None,  # host_port, ws_path: a client's business
            None,
            False,  # is_client_side
            self._listen,
            _ParserLog(connection),
            True,  # disconnect_on_exception
            None,  # websocket_handshake_timeout: there is no handshake to wait for
            False,  # enable_auto_ping, and its three settings: the timer wheel pings
            1.0,
            1.0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # enable_auto_pong: a ping is a sign of life that Connection must see
            connection.message_max,
            None,  # extra_headers
            _READ_BUFFER_BYTES,
        )

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Make picows believe in an upgrade, and give it what the front had to take out of the kernel."""
        self._connection.adopted(transport, self._descriptor)
        super().connection_made(_Underlay(transport, self._descriptor))
        self.feed(_CANNED_REQUEST)
        # picows keeps the request for as long as the connection lasts, which is a kilobyte.
        request = self.transport.request
        request.headers = _NO_RESPONSE.headers
        request.method = request.path = request.version = b""
        carried, self._carried = self._carried, b""
        self.feed(carried)

    def _listen(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        return WSUpgradeResponseWithListener(_NO_RESPONSE, self._connection)

    def feed(self, data: bytes) -> None:
        """Take what has been read from the client elsewhere."""
        while data:
            buffer = self.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.buffer_updated(size)
            data = data[size:]


def is_between_frames(parser: Any) -> bool:
    """Return whether picows has no part of a frame. `parser` is the protocol of an adopted connection.

    The room in its buffer is as large as the buffer then. That grows by doubling, and picows keeps 256 bytes at its end for itself.
    """
    room, size = len(parser.get_buffer(-1)), _READ_BUFFER_BYTES - 256
    while size < room:
        size *= 2
    return room == size


async def adopt(connection: Connection, raw: socket.socket, carried: bytes) -> None:
    """Let the event loop and picows have the socket. Raises OSError when the client is gone already."""
    _set_options(raw)
    await _adopting(connection, raw, carried)


async def adopt_unread(connection: Connection, raw: socket.socket) -> None:
    """Let them have a socket that was adopted in another process; nothing is read from it before `Connection.resume_reading`.

    The options of a socket go with it. Raises OSError when the client is gone already.
    """
    await _paused(_adopting(connection, raw, b""), connection)


def _adopting(connection: Connection, raw: socket.socket, carried: bytes) -> Coroutine[Any, Any, Any]:
    protocol = AdoptedProtocol(connection, raw.fileno(), carried)
    return asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, raw)


@coroutine
def _paused(adopting: Coroutine[Any, Any, Any], connection: Connection) -> Generator[Any, Any, None]:
    """Await `adopting`, and pause reading before anything is read.

    The event loop calls `connection_made`, and begins to read only behind that; so it does not help to pause there, and when the coroutine
    goes on it may have read. What is called soon right behind `connection_made` is called in the same turn of the loop, before it looks
    at its sockets.
    """
    steps = adopting.__await__()
    try:
        waits_for = next(steps)
        asyncio.get_running_loop().call_soon(connection.pause_reading)
        while True:
            waits_for = steps.send((yield waits_for))
    except StopIteration:
        pass


def _set_options(raw: socket.socket) -> None:
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Letting the answer carry the ACK saves a packet per message.
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    # Else the kernel takes megabytes for a client that does not read, before we see that anything waits.
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _KERNEL_UNSENT_BYTES)
