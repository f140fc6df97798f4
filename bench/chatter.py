"""Pairs of users who chat as fast as they may, over picows, for measuring the server and not the client.

`Chatter` connects the pairs; `closed_loop` keeps so many messages of each sender unacknowledged, `open_loop` sends at a rate whatever comes
back. Frames are built by hand, and of what comes only what is needed is looked at: one client core keeps a worker core busy.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from time import perf_counter
from typing import Final
from uuid import uuid4

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from core.placement import Placement

_MESSAGE_ID: Final = re.compile(rb'"message_id":"([0-9]+)"')
_TEXT: Final = "Are you coming to the station tonight? The train leaves at seven."
#: Seconds that anything may take that is to come.
_PATIENCE: Final = 30.0


class Client(WSListener):
    """One user's connection."""

    def __init__(self, chatter: Chatter, user_id: str) -> None:
        self._chatter = chatter
        self.user_id = user_id
        self.transport: WSTransport | None = None
        #: The template of this user's messages, once there is somebody to write to; the part before and behind the id.
        self.template = (b"", b"")
        self.greeted = asyncio.Event()
        self.opened = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            return
        if frame.msg_type != WSMsgType.TEXT:
            self._chatter.fail(f"a frame of type {frame.msg_type}: {frame.get_payload_as_bytes()!r}")
            return
        payload = frame.get_payload_as_bytes()
        if payload.startswith(b'{"type":"MSG_ACK"'):
            match = _MESSAGE_ID.search(payload)
            assert match is not None, payload
            self._chatter.acknowledged(self, int(match[1]))
        elif payload.startswith(b'{"type":"MSG"'):
            self._chatter.delivered += 1
        elif payload.startswith(b'{"type":"HELLO_ACK"'):
            self.greeted.set()
        elif payload.startswith(b'{"type":"CHAT_OPENED"'):
            self.opened.set()
        elif payload.startswith(b'{"type":"ERROR"'):
            self._chatter.fail(payload.decode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._chatter.gone(self)

    def say(self, kind: str, **data: str) -> None:
        """Send any message."""
        assert self.transport is not None, "connected"
        self.transport.send(WSMsgType.TEXT, json.dumps({"type": kind, "data": data}).encode())

    def write(self, number: int) -> None:
        """Send message `number` to the peer."""
        assert self.transport is not None, "connected"
        head, tail = self.template
        self.transport.send(WSMsgType.TEXT, b"%b%d%b" % (head, number, tail))


class Chatter:
    """Some pairs of users; the first of each writes. With `far`, the two live on different workers, else on the same one."""

    def __init__(self, url: str, pairs: int, workers: int, far: bool = False) -> None:
        self._url = url
        self._pairs = pairs
        self._place = Placement(workers).worker_of
        self._far = far
        self.senders: list[Client] = []
        self.recipients: list[Client] = []
        self.delivered = 0
        self.acks = 0
        #: Seconds from each message to its acknowledgement.
        self.latencies: list[float] = []
        self._sent_at: dict[int, float] = {}
        self._number = 0
        self._window = 0
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = False

    async def connect(self) -> None:
        """Connect everybody, greet, open the chats."""
        for _ in range(self._pairs):
            sender = str(uuid4())
            recipient = self._peer_of(sender)
            self.recipients.append(await self._greet(recipient))
            self.senders.append(await self._greet(sender))
        for sender_client, recipient_client in zip(self.senders, self.recipients, strict=True):
            peer = recipient_client.user_id
            sender_client.say("OPEN_CHAT", target_user_id=peer, target_display_name="Recipient")
            await asyncio.wait_for(sender_client.opened.wait(), _PATIENCE)
            data = json.dumps({"type": "MSG", "data": {"to": peer, "content": _TEXT, "message_id": "#"}})
            head, tail = data.encode().split(b"#")
            sender_client.template = (head, tail)

    async def closed_loop(self, window: int, seconds: float) -> None:
        """Keep `window` messages of each sender unacknowledged; ends when all are acknowledged and delivered."""
        self._window = window
        for _ in range(window):
            for sender in self.senders:
                self._write(sender)
        await self._rest(seconds)

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Send `rate` messages a second, evenly over the senders, whatever comes back."""
        self._window = 0
        started = perf_counter()
        count = 0
        while (now := perf_counter()) < started + seconds:
            self._check()
            due = int((now - started) * rate)
            while count < due:
                self._write(self.senders[count % len(self.senders)])
                count += 1
            await asyncio.sleep(0.001)
        await self._rest(0)

    async def close(self) -> None:
        """Disconnect everybody."""
        self._closing = True
        for client in [*self.senders, *self.recipients]:
            if client.transport is not None:
                client.transport.disconnect()
        await asyncio.sleep(0)

    def forget(self) -> None:
        """Begin to count anew."""
        self.delivered = self.acks = 0
        self.latencies.clear()

    # -- From the clients --

    def acknowledged(self, sender: Client, number: int) -> None:
        self.acks += 1
        self.latencies.append(perf_counter() - self._sent_at.pop(number))
        if self._window:
            self._write(sender)

    def gone(self, client: Client) -> None:
        if not self._closing:
            self.fail("a connection was lost")

    def fail(self, why: str) -> None:
        if not self._failure.done():
            self._failure.set_exception(RuntimeError(why))

    # -- Inside --

    def _check(self) -> None:
        if self._failure.done():
            self._failure.result()

    def _write(self, sender: Client) -> None:
        self._number += 1
        self._sent_at[self._number] = perf_counter()
        sender.write(self._number)

    async def _rest(self, seconds: float) -> None:
        end = perf_counter() + seconds
        while perf_counter() < end:
            self._check()
            await asyncio.sleep(0.002)
        self._window = 0
        end = perf_counter() + _PATIENCE
        while self._sent_at or self.delivered < self.acks:
            self._check()
            if perf_counter() > end:
                raise RuntimeError(f"{len(self._sent_at)} messages are not acknowledged")
            await asyncio.sleep(0.002)

    def _peer_of(self, sender: str) -> str:
        while True:
            peer = str(uuid4())
            if (self._place(peer) != self._place(sender)) == self._far:
                return peer

    async def _greet(self, user_id: str) -> Client:
        client = Client(self, user_id)
        await ws_connect(lambda: client, self._url)
        client.say("HELLO", user_id=user_id, display_name=f"User {user_id[:8]}")
        await asyncio.wait_for(client.greeted.wait(), _PATIENCE)
        return client


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of the values lie; 0 when there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
