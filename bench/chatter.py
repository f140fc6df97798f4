"""Pairs of users who chat as fast as they may, over picows, for measuring the server and not the client.

`Chatter` connects the pairs; `closed_loop` keeps so many messages of each sender unacknowledged, `open_loop` sends at a rate whatever comes
back. Frames are built by hand, and of what comes only what is needed is looked at: one client core keeps a worker core busy.

Times are in microseconds. In an open loop they count from when a message was *due*, not from when the client came to send it: a server
that stalls can't slow the measurement down and so hide it ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import json
import re
from time import perf_counter
from typing import Final
from uuid import uuid4

from hdrh.histogram import HdrHistogram
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from core.placement import Placement

#: How the two of a pair may live: on the same worker, on different ones, or both in turns.
WHERE: Final = ("same", "other", "mixed")
_MESSAGE_ID: Final = re.compile(rb'"message_id":"([0-9]+)"')
_TEXT: Final = "Are you coming to the station tonight? The train leaves at seven."
#: Seconds that anything may take that is to come.
_PATIENCE: Final = 30.0
#: Clients that connect at the same time.
_AT_ONCE: Final = 50
#: The longest time that a histogram knows, in microseconds.
_LONGEST: Final = 60_000_000


def new_histogram() -> HdrHistogram:
    """Return an empty histogram of microseconds, exact to a thousandth."""
    return HdrHistogram(1, _LONGEST, 3)


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
            self._chatter.acknowledged(self, _number(payload))
        elif payload.startswith(b'{"type":"MSG"'):
            self._chatter.received(_number(payload))
        elif payload.startswith(b'{"type":"HELLO_ACK"'):
            self.greeted.set()
        elif payload.startswith(b'{"type":"CHAT_OPENED"'):
            self.opened.set()
        elif payload.startswith(b'{"type":"ERROR"'):
            self._chatter.fail(payload.decode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._chatter.gone()

    def say(self, kind: str, **data: str) -> None:
        """Send any message."""
        assert self.transport is not None, "connected"
        self.transport.send(WSMsgType.TEXT, json.dumps({"type": kind, "data": data}).encode())

    def write(self, number: int) -> None:
        """Send message `number` to the peer."""
        assert self.transport is not None, "connected"
        head, tail = self.template
        self.transport.send(WSMsgType.TEXT, b"%b%d%b" % (head, number, tail))


def _number(payload: bytes) -> int:
    match = _MESSAGE_ID.search(payload)
    assert match is not None, payload
    return int(match[1])


class Chatter:
    """Some pairs of users; the first of each writes. `where` they live is one of `WHERE`, on a server with so many workers."""

    def __init__(self, url: str, pairs: int, workers: int = 1, where: str = "same") -> None:
        self._url = url
        self._pairs = pairs
        self._place = Placement(workers).worker_of
        self._where = where
        self.senders: list[Client] = []
        self.recipients: list[Client] = []
        self.acks = 0
        self.delivered = 0
        #: Microseconds from each message to its acknowledgement, and to when its recipient has it.
        self.to_ack: list[int] = []
        self.to_delivery: list[int] = []
        #: Number -> when it was sent, or due.
        self._unacknowledged: dict[int, float] = {}
        self._undelivered: dict[int, float] = {}
        self._number = 0
        self._window = 0
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = False

    async def connect(self) -> None:
        """Connect everybody, greet, open the chats."""
        for index in range(self._pairs):
            sender = str(uuid4())
            self.senders.append(Client(self, sender))
            self.recipients.append(Client(self, self._peer_of(sender, index)))
        clients = [*self.senders, *self.recipients]
        for start in range(0, len(clients), _AT_ONCE):
            await asyncio.gather(*(self._greet(client) for client in clients[start : start + _AT_ONCE]))
        for sender_client, recipient in zip(self.senders, self.recipients, strict=True):
            sender_client.say("OPEN_CHAT", target_user_id=recipient.user_id, target_display_name="Recipient")
            await asyncio.wait_for(sender_client.opened.wait(), _PATIENCE)
            data = {"to": recipient.user_id, "content": _TEXT, "message_id": "#"}
            head, tail = json.dumps({"type": "MSG", "data": data}, separators=(",", ":")).encode().split(b"#")
            sender_client.template = (head, tail)

    async def closed_loop(self, window: int, seconds: float) -> None:
        """Keep `window` messages of each sender unacknowledged; ends when all are acknowledged and delivered."""
        self._window = window
        for _ in range(window):
            for sender in self.senders:
                self._write(sender, perf_counter())
        end = perf_counter() + seconds
        while perf_counter() < end:
            self._check()
            await asyncio.sleep(0.002)
        await self._rest()

    async def open_loop(self, rate: float, seconds: float) -> None:
        """Send `rate` messages a second, evenly over the senders, whatever comes back; ends like `closed_loop`."""
        self._window = 0
        started = perf_counter()
        total, count = int(rate * seconds), 0
        while count < total:
            self._check()
            due = min(total, int((perf_counter() - started) * rate))
            while count < due:
                self._write(self.senders[count % len(self.senders)], started + count / rate)
                count += 1
            await asyncio.sleep(0.001)
        await self._rest()

    async def close(self) -> None:
        """Disconnect everybody."""
        self._closing = True
        for client in [*self.senders, *self.recipients]:
            if client.transport is not None:
                client.transport.disconnect()
        await asyncio.sleep(0)

    def forget(self) -> None:
        """Begin to count anew."""
        self.acks = self.delivered = 0
        self.to_ack.clear()
        self.to_delivery.clear()

    # -- From the clients --

    def acknowledged(self, sender: Client, number: int) -> None:
        now = perf_counter()
        self.acks += 1
        self.to_ack.append(int((now - self._unacknowledged.pop(number)) * 1e6))
        if self._window:
            self._write(sender, now)

    def received(self, number: int) -> None:
        self.delivered += 1
        self.to_delivery.append(int((perf_counter() - self._undelivered.pop(number)) * 1e6))

    def gone(self) -> None:
        if not self._closing:
            self.fail("a connection was lost")

    def fail(self, why: str) -> None:
        if not self._failure.done():
            self._failure.set_exception(RuntimeError(why))

    # -- Inside --

    def _check(self) -> None:
        if self._failure.done():
            self._failure.result()

    def _write(self, sender: Client, due: float) -> None:
        self._number += 1
        self._unacknowledged[self._number] = self._undelivered[self._number] = due
        sender.write(self._number)

    async def _rest(self) -> None:
        """Wait for what is on its way."""
        self._window = 0
        end = perf_counter() + _PATIENCE
        while self._unacknowledged or self._undelivered:
            self._check()
            if perf_counter() > end:
                raise RuntimeError(
                    f"{len(self._unacknowledged)} messages are not acknowledged, {len(self._undelivered)} not delivered"
                )
            await asyncio.sleep(0.002)

    def _peer_of(self, sender: str, index: int) -> str:
        apart = self._where == "other" or (self._where == "mixed" and index % 2 == 1)
        while True:
            peer = str(uuid4())
            if (self._place(peer) != self._place(sender)) == apart:
                return peer

    async def _greet(self, client: Client) -> None:
        await ws_connect(lambda: client, self._url)
        client.say("HELLO", user_id=client.user_id, display_name=f"User {client.user_id[:8]}")
        await asyncio.wait_for(client.greeted.wait(), _PATIENCE)
