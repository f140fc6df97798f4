"""D18 at length: 10,000 messages each way at once, with limits off: none lost, none doubled, none reordered, all acknowledged."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import pytest

from tests.system.harness import ChatClient, Server, run_async
from tests.system.servers import two_users

MESSAGES: Final = 10_000
#: Messages that a sender has on their way at once.
WINDOW: Final = 200
#: Seconds that all of it may take on a machine that is busy with other tests.
PATIENCE: Final = 150.0


class Talker:
    """One side: sends its messages within the window, and notes what comes."""

    def __init__(self, client: ChatClient, peer: ChatClient) -> None:
        self._client = client
        self._peer = peer
        self._room = asyncio.Semaphore(WINDOW)
        self.acknowledged: list[str] = []
        self.statuses: set[str] = set()
        self.received: list[str] = []

    async def talk(self) -> None:
        """Until everything is sent, acknowledged and received."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._send())
            both.create_task(self._listen())

    async def _send(self) -> None:
        for number in range(MESSAGES):
            await self._room.acquire()
            await self._client.send(
                "MSG", to=self._peer.user_id, content=f"{number}", message_id=f"m-{number}"
            )

    async def _listen(self) -> None:
        while len(self.acknowledged) < MESSAGES or len(self.received) < MESSAGES:
            message = json.loads(await self._client.websocket.recv())
            match message["type"]:
                case "MSG":
                    assert message["data"]["from"] == self._peer.user_id
                    self.received.append(message["data"]["content"])
                case "MSG_ACK":
                    self.acknowledged.append(message["data"]["message_id"])
                    self.statuses.add(message["data"]["status"])
                    self._room.release()
                case other:
                    assert other == "PRESENCE", message


@pytest.mark.slow
@pytest.mark.parametrize("where", ["same shard", "other shard"])
@run_async
async def test_d18_10000_messages_each_way(server: Server, where: str) -> None:
    first, second = two_users(server, where)
    async with ChatClient(server.url, first) as alice, ChatClient(server.url, second) as bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        await bob.receive("CHAT_OPENED")
        talkers = Talker(alice, bob), Talker(bob, alice)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as both:
            for talker in talkers:
                both.create_task(talker.talk())
        for talker in talkers:
            assert talker.received == [f"{number}" for number in range(MESSAGES)]
            assert talker.acknowledged == [f"m-{number}" for number in range(MESSAGES)]
            assert talker.statuses == {"delivered"}
        for client in (alice, bob):
            assert [m for m in await client.drain() if m.type in ("MSG", "MSG_ACK")] == [], (
                "something came twice"
            )
