"""The WebSocket, made by the package ``websockets``. The only module that knows it; tests put another `Transport` in its place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from fastchat_client._codes import CloseCode

#: What `websockets` logs, but for the frames, which it would at DEBUG: they hold the token, and what people write.
_log = logging.getLogger("fastchat_client.websocket")
_log.setLevel(logging.INFO)

#: Bytes of the largest message that is taken from the server. Its lists of people grow with the number of chats.
RECEIVE_MAX_BYTES: Final = 16 * 1024 * 1024
#: Seconds to wait for the answer to a close frame, and for what was written before it to go out.
CLOSE_TIMEOUT: Final = 2.0


class ConnectionEnded(Exception):
    """The connection ended with this close code, 1006 without one; or it could not be made, perhaps for a `status` of HTTP."""

    def __init__(self, code: int, reason: str, status: int | None = None) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.status = status


class Transport(Protocol):
    """One open connection."""

    def send(self, text: str) -> None:
        """Write text behind what was written before; never waits and never raises."""

    async def receive(self) -> str:
        """Wait for the next text message. Raises ConnectionEnded."""

    async def close(self, code: int, reason: str) -> None:
        """Write what is left to write, and close in good order; returns within a few seconds."""

    def abort(self) -> None:
        """Close at once."""


#: Makes a connection to a URL. Raises ConnectionEnded.
Connector = Callable[[str], Awaitable[Transport]]


class WebSocketTransport:
    """A connection of ``websockets``."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self._unsent: asyncio.Queue[str | None] = asyncio.Queue()
        self._writer = asyncio.ensure_future(self._write())

    def send(self, text: str) -> None:
        """Write text behind what was written before."""
        self._unsent.put_nowait(text)

    async def receive(self) -> str:
        """Wait for the next text message. Raises ConnectionEnded."""
        try:
            return await self._websocket.recv(decode=True)
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise ConnectionEnded(CloseCode.ABNORMAL, str(closed)) from None
            raise ConnectionEnded(closed.rcvd.code, closed.rcvd.reason) from None

    async def close(self, code: int, reason: str) -> None:
        """Write what is left to write, and close in good order."""
        self._unsent.put_nowait(None)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._writer
                await self._websocket.close(code, reason)
        except TimeoutError:
            self.abort()
            await self._websocket.wait_closed()
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._writer.cancel()
        self._websocket.transport.abort()

    async def _write(self) -> None:
        # A connection that has ended says so to who receives.
        with contextlib.suppress(ConnectionClosed):
            while (text := await self._unsent.get()) is not None:
                await self._websocket.send(text)


async def connect_websocket(url: str) -> Transport:
    """Open a connection to a FastChat server."""
    try:
        # The heartbeat of the protocol (PING and PONG) takes the place of that of `websockets`.
        websocket = await connect(
            url,
            ping_interval=None,
            open_timeout=None,
            close_timeout=CLOSE_TIMEOUT,
            max_size=RECEIVE_MAX_BYTES,
            logger=_log,
        )
    except (OSError, WebSocketException, ValueError, OverflowError, EOFError) as error:
        raise _not_made(error) from None
    return WebSocketTransport(websocket)


def _not_made(error: Exception) -> ConnectionEnded:
    status = None
    match error:
        case InvalidStatus():
            status = error.response.status_code
            reason = f"the server answers HTTP {status} {error.response.reason_phrase}, and no WebSocket"
        case socket.gaierror():
            reason = f"the name of the host can't be resolved: {error}"
        case ssl.SSLError():
            reason = f"no TLS: {error}"
        case _:
            causes = [error, error.__cause__] if error.__cause__ is not None else [error]
            reason = ": ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
    return ConnectionEnded(CloseCode.ABNORMAL, reason, status)
