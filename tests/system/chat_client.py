"""One connection to the server, made with the independent ``websockets`` client, which knows only the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

#: Seconds that a test waits for a message; a machine that is busy with other tests has to manage it.
RECEIVE_TIMEOUT: Final = 10.0


class Message(NamedTuple):
    """What came from the server."""

    type: str
    data: dict[str, Any]


class ChatClient:
    """One connection of one user; an async context manager.

    What `receive` was not asked for stays in `inbox`, in the order in which it came. Only one coroutine at a time may receive.
    """

    def __init__(
        self,
        url: str,
        user_id: str | None = None,
        name: str = "Somebody",
        *,
        origin: str | None = None,
        headers: Mapping[str, str] | None = None,
        **connection: Any,
    ) -> None:
        """`connection` is what `websockets` and asyncio take beyond that: ``ssl``, ``local_addr`` ..."""
        self.url = url
        self.user_id = user_id or str(uuid4())
        self.name = name
        self.inbox: list[Message] = []
        self._origin = origin
        self._headers = headers
        self._connection = connection

    async def __aenter__(self) -> Self:
        #: The connection itself, for what only a frame can do.
        self.websocket: ClientConnection = await connect(
            self.url,
            origin=Origin(self._origin) if self._origin else None,
            additional_headers=self._headers,
            max_queue=None,  # a client that does not read must not look like one that hangs
            max_size=None,
            ping_interval=None,
            proxy=None,
            **self._connection,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.websocket.close()

    # -- Out --

    async def send(self, type_: str, /, **data: Any) -> None:
        """Send a message."""
        await self.send_raw(json.dumps({"type": type_, "data": data}))

    async def send_raw(self, message: str | bytes) -> None:
        """Send a text (str) or binary (bytes) message as it is."""
        await self.websocket.send(message)

    async def hello(self, **data: Any) -> dict[str, Any]:
        """Say HELLO, with more or other fields as given; the data of HELLO_ACK."""
        await self.send("HELLO", **{"user_id": self.user_id, "display_name": self.name, **data})
        return await self.receive("HELLO_ACK")

    async def open_chat(self, target: ChatClient) -> str:
        """Open the chat with another user; its chat_id."""
        await self.send("OPEN_CHAT", target_user_id=target.user_id, target_display_name=target.name)
        opened = await self.receive("CHAT_OPENED", target_user_id=target.user_id)
        return str(opened["chat_id"])

    async def message(self, target: ChatClient, content: str, **data: Any) -> dict[str, Any]:
        """Send a chat message; the data of its MSG_ACK."""
        message_id = data.pop("message_id", None) or str(uuid4())
        await self.send("MSG", to=target.user_id, content=content, message_id=message_id, **data)
        return await self.receive("MSG_ACK", message_id=message_id)

    # -- In --

    async def receive(
        self,
        type_: str,
        /,
        *,
        timeout: float = RECEIVE_TIMEOUT,
        where: Callable[[dict[str, Any]], bool] | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """The data of the next message of this type that has these fields and satisfies `where`; from the inbox if it is there.

        AssertionError when none comes within `timeout` seconds, when the connection is closed, and when an ERROR comes instead.
        """

        def wanted(message: Message) -> bool:
            fits = message.type == type_ and fields.items() <= message.data.items()
            return fits and (where is None or where(message.data))

        expected = f"{type_} {fields or ''}{' that satisfies the condition' if where else ''}"
        for index, message in enumerate(self.inbox):
            if wanted(message):
                return self.inbox.pop(index).data
        try:
            async with asyncio.timeout(timeout):
                while not wanted(message := await self._next()):
                    self.inbox.append(message)
                    assert message.type != "ERROR", f"{self.name} expected {expected} and got {message}"
        except TimeoutError:
            raise AssertionError(
                f"{self.name} expected {expected} within {timeout:g} s and got {self.inbox}"
            ) from None
        except ConnectionClosed as closed:
            raise AssertionError(
                f"{self.name} expected {expected} and got {self.inbox}, then {closed}"
            ) from None
        return message.data

    async def error(self, code: str, *, timeout: float = RECEIVE_TIMEOUT) -> dict[str, Any]:
        """The data of the next ERROR, which must have this code."""
        data = await self.receive("ERROR", timeout=timeout)
        assert data["code"] == code, f"{self.name} expected ERROR {code} and got {data}"
        return data

    async def drain(self) -> list[Message]:
        """Everything that the server has sent so far, the inbox included, which is empty afterwards.

        A WebSocket ping goes out and its pong is awaited: what the server wrote before that has then come. So an empty
        answer means that nothing was sent, not that it is late.
        """
        pong = await self.websocket.ping()
        async with asyncio.timeout(RECEIVE_TIMEOUT):
            await pong
        while True:
            try:
                # What has come is in the queue of the client already, so no time is needed to get it from there.
                async with asyncio.timeout(0):
                    self.inbox.append(await self._next())
            except (TimeoutError, ConnectionClosed):
                break
        taken, self.inbox = self.inbox, []
        return taken

    async def expect_close(self, *, timeout: float = RECEIVE_TIMEOUT) -> tuple[int, str]:
        """Wait until the server closes the connection; the close code and the reason.

        What comes before goes to the inbox. 1006, as RFC 6455 has it, stands for a connection that ended without a close frame.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self.inbox.append(await self._next())
        except TimeoutError:
            raise AssertionError(
                f"{self.name} expected the close within {timeout:g} s and got {self.inbox}"
            ) from None
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")

    async def _next(self) -> Message:
        message = json.loads(await self.websocket.recv(decode=True))
        assert message.keys() == {"type", "data"}, (
            f"{self.name} got something that is not a message: {message}"
        )
        return Message(message["type"], message["data"])
