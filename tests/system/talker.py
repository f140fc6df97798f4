"""A user who goes on chatting whatever happens to the server, and notes everything in a `Ledger`.

A `Talker` writes to its peers all the time, reconnects when its connection ends, and sends again with the same message_id what was not
acknowledged. All talkers use the same few message ids, to different people too. What a talker does with what comes is its `Manners`.

An answer to a plain client names the message_id only, so a talker without receipts does not use an id to a second person while it waits for
the answer about the first. One with receipts does, since MSG_ACK names the recipient then.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.system.chat_client import ChatClient
from tests.system.ledger import Connection, Key, Ledger

#: Messages that one talker has on their way at once.
_WINDOW: Final = 40
#: Seconds between two attempts to connect.
_CONNECT_AGAIN: Final = 0.05
#: Seconds after MESSAGE_FAILED until the message is sent again.
_SEND_AGAIN: Final = 0.2
#: Seconds within which HELLO is answered: somebody whose worker is not there waits up to 10 s, and is told 1013.
_HELLO_PATIENCE: Final = 20.0
#: How the server may end a connection when processes die: without a word, stopping, restarting, not there yet.
_MAY_CLOSE: Final = frozenset({1006, 1001, 1012, 1013})
_NAME: Final = "Talker"


class Manners(NamedTuple):
    """What a talker asks for, and what it does with what comes."""

    #: Goes on behind the last cursor.
    resumes: bool = False
    #: The part of the messages that it acknowledges; with 0 it has never sent MSG_ACK, and its pongs count (D12).
    acknowledges: float = 0.0
    #: Whether its MSG_ACKs name the sender.
    names_sender: bool = True
    receipts: bool = False

    def capabilities(self) -> list[str]:
        """What it asks for in HELLO."""
        return ["resume"] * self.resumes + ["receipts"] * self.receipts


class _Outgoing:
    """A message that waits for its MSG_ACK."""

    def __init__(self, content: str) -> None:
        self.content = content
        #: When to send it (again), on the monotonic clock; None while it is on its way.
        self.due: float | None = 0.0


class Talker:
    """One device of a user. `peers` are those whom it writes to; none if it only listens. `pace` is the seconds from message to message."""

    def __init__(
        self,
        user_id: str,
        peers: Sequence[str],
        manners: Manners,
        ledger: Ledger,
        dice: random.Random,
        pace: float,
    ) -> None:
        self.user_id = user_id
        self.manners = manners
        self._peers = peers
        self._ledger = ledger
        self._dice = dice
        self._pace = pace
        #: Peer -> how many messages it was sent.
        self._numbers = dict.fromkeys(peers, 0)
        self._waiting: dict[Key, _Outgoing] = {}
        #: The last position that came, and the cursor that stands for it.
        self._position = 0
        self._cursor: str | None = None
        self._client: ChatClient | None = None
        self._greeted = asyncio.Event()
        self._pong = asyncio.Event()
        self._chats = 0
        self._writes = False
        self._ends = False

    # -- From outside --

    async def live(self, url: str) -> None:
        """Connect, and connect again, until `leave`."""
        while not self._ends:
            client = ChatClient(url, self.user_id, _NAME)
            try:
                await client.__aenter__()
            except (OSError, InvalidHandshake, ConnectionClosed, EOFError):
                await asyncio.sleep(_CONNECT_AGAIN)
                continue
            self._client = client
            try:
                await self._talk(client)
            finally:
                self._greeted.clear()
                self._client = None
                await client.__aexit__()

    def write(self, writes: bool) -> None:
        """Begin to write, or write nothing new; what waits for its MSG_ACK is sent again in any case."""
        self._writes = writes

    @property
    def connected(self) -> bool:
        """Whether HELLO has been answered on the present connection."""
        return self._greeted.is_set()

    @property
    def has_all_chats(self) -> bool:
        """Whether a CHAT_OPENED has come for each peer."""
        return self._chats >= len(self._peers)

    @property
    def waiting(self) -> list[Key]:
        """What it has sent and has no MSG_ACK for."""
        return list(self._waiting)

    async def open_chats(self) -> None:
        """Open the chats with all peers; once, when connected."""
        for peer in self._peers:
            assert self._client is not None, "connected"
            await self._client.send("OPEN_CHAT", target_user_id=peer, target_display_name=_NAME)

    def cut(self) -> None:
        """Lose the connection, as by a cable that is pulled; `live` makes another one."""
        if self._client is not None:
            self._greeted.clear()
            self._client.websocket.transport.abort()

    async def drain(self) -> None:
        """Wait until everything that the server has written so far is in the ledger."""
        assert self._client is not None, "connected"
        self._pong.clear()
        await self._client.send("PING")
        await self._pong.wait()

    async def leave(self) -> None:
        """Disconnect for good."""
        self._ends = True
        if self._client is not None:
            await self._client.websocket.close()

    # -- A connection --

    async def _talk(self, client: ChatClient) -> None:
        connection = self._ledger.connect(self.user_id, self._position if self.manners.resumes else None)
        for outgoing in self._waiting.values():
            outgoing.due = 0.0
        speaking = asyncio.create_task(self._speak(connection, client))
        try:
            # Reading goes on until the last frame was read, also when nothing can be sent any more.
            while True:
                await self._heed(connection, client, json.loads(await client.websocket.recv()))
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            if code not in _MAY_CLOSE and closed.rcvd_then_sent:
                self._ledger.complain(f"the server closed connection {connection.number}: {closed.rcvd}")
        finally:
            speaking.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await speaking

    async def _speak(self, connection: Connection, client: ChatClient) -> None:
        hello: dict[str, Any] = {"user_id": self.user_id, "display_name": _NAME}
        if self.manners.capabilities():
            hello["capabilities"] = self.manners.capabilities()
        if self._cursor is not None:
            hello["resume"] = {"cursor": self._cursor}
        await client.send("HELLO", **hello)
        if self._dice.random() < 0.5:
            await self._send_due(connection, client)  # right behind HELLO
        try:
            async with asyncio.timeout(_HELLO_PATIENCE):
                await self._greeted.wait()
        except TimeoutError:
            self._ledger.complain(
                f"HELLO on connection {connection.number} of {self.user_id} was never answered"
            )
            self.cut()
            return
        while True:
            await self._send_due(connection, client)
            if self._writes and self._peers and len(self._waiting) < _WINDOW:
                self._invent()
                await self._send_due(connection, client)
            await asyncio.sleep(self._dice.expovariate(1.0 / self._pace))

    async def _send_due(self, connection: Connection, client: ChatClient) -> None:
        now = time.monotonic()
        for key, outgoing in list(self._waiting.items()):
            if outgoing.due is not None and outgoing.due <= now:
                outgoing.due = None
                self._ledger.sent(connection, key, outgoing.content)
                await client.send(
                    "MSG", to=key.recipient, content=outgoing.content, message_id=key.message_id
                )

    def _invent(self) -> None:
        taken = set() if self.manners.receipts else {key.message_id for key in self._waiting}
        # Of a taken id the answer would not tell which of the two messages it is about.
        free = [peer for peer in self._peers if f"m-{self._numbers[peer]}" not in taken]
        if not free:
            return
        peer = self._dice.choice(free)
        key = Key(self.user_id, peer, f"m-{self._numbers[peer]}")
        self._numbers[peer] += 1
        filler = "x" * self._dice.choice((0, 10, 100, 800))
        self._waiting[key] = _Outgoing(f"{self.user_id} to {peer}: {key.message_id} {filler}")

    async def _heed(self, connection: Connection, client: ChatClient, message: dict[str, Any]) -> None:
        data = message["data"]
        match message["type"]:
            case "MSG":
                await self._received(connection, client, data)
            case "MSG_ACK":
                self._acknowledged(connection, data)
            case "HELLO_ACK":
                self._welcomed(connection, data)
            case "ERROR":
                self._refused(connection, data)
            case "PONG":
                self._pong.set()
            case "CHAT_OPENED":
                self._chats += 1

    def _welcomed(self, connection: Connection, data: dict[str, Any]) -> None:
        if self.manners.resumes:
            if self._cursor is None:
                expected: dict[str, Any] = {"resumed": "reset"}
            else:
                expected = {"resumed": "full", "cursor": self._cursor}
            if not expected.items() <= data.items():
                self._ledger.complain(
                    f"connection {connection.number} was to go on with {expected}, and HELLO_ACK is {data}"
                )
            self._cursor = data.get("cursor")
        self._greeted.set()

    async def _received(self, connection: Connection, client: ChatClient, data: dict[str, Any]) -> None:
        key = Key(data["from"], data["to"], data["message_id"])
        self._ledger.received(connection, key, data["content"], data.get("seq"))
        if self.manners.resumes:
            self._position, self._cursor = data["seq"], data["cursor"]
        if self._dice.random() < self.manners.acknowledges:
            sender = {"from": key.sender} if self.manners.names_sender else {}
            with suppress(ConnectionClosed):
                await client.send("MSG_ACK", message_id=key.message_id, **sender)

    def _acknowledged(self, connection: Connection, data: dict[str, Any]) -> None:
        message_id, status = data["message_id"], data["status"]
        if self.manners.receipts:
            key = Key(self.user_id, data["to"], message_id)
            # `accepted` is the answer to an attempt; the others may be news of what was accepted long ago.
            self._ledger.acknowledged(connection, key, status, told=status != "accepted")
            self._waiting.pop(key, None)
            return
        meant = [key for key in self._waiting if key.message_id == message_id]
        if len(meant) == 1:
            self._ledger.acknowledged(connection, meant[0], status)
            del self._waiting[meant[0]]
        else:
            self._ledger.complain(
                f"{data} came to {self.user_id}, who waits for {self.waiting}, on connection {connection.number}"
            )

    def _refused(self, connection: Connection, data: dict[str, Any]) -> None:
        details = data["details"]
        if data["code"] != "MESSAGE_FAILED" or details.get("type") != "MSG":
            self._ledger.complain(f"connection {connection.number} of {self.user_id} was told {data}")
            return
        for key, outgoing in self._waiting.items():
            # With receipts there may be two of them, and which one failed is not said.
            if key.message_id == details["message_id"] and outgoing.due is None:
                self._ledger.failed(connection, key)
                outgoing.due = time.monotonic() + _SEND_AGAIN
