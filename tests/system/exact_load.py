"""A load of which every number is known: real clients chat, err and leave, each thing so many times.

It wants a new server with two workers and without limits. Alice and Bob live on worker 0, Carol and Dave on worker 1, so what Alice
writes to Bob stays on its worker, and what she and Carol write to each other takes the bus.
"""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable
from typing import Final

import pytest
from websockets.exceptions import InvalidStatus

from tests.exposition import Exposition, ask
from tests.system.harness import ChatClient, Server, user_on_worker, wait_until

WORKERS: Final = 2

# -- How often what happens --
#: Alice to Bob, on one worker; one more is sent twice.
LOCAL: Final = 20
#: Alice to Carol, and Carol to Alice.
THERE, BACK = 30, 10
TYPING: Final = 3
PINGS: Final = 5
#: Clients that the front upgrades: the four, and three that never say HELLO.
UPGRADED: Final = 7
#: Without content; to somebody who does not exist; to somebody without a chat; of no known type.
EMPTY, NOBODY, NO_CHAT, NONSENSE = 4, 2, 1, 3


def admin_port(server: Server) -> int:
    """Where its metrics are."""
    return int(server.admin_url.rpartition(":")[2])


def metrics(server: Server, accept: str = "") -> Exposition:
    """What it says of itself."""
    return ask(admin_port(server), accept=accept)


class ExactLoad:
    """`run` it once; then this is known."""

    def __init__(self, server: Server) -> None:
        self._server = server
        #: While all four were there.
        self.together: Exposition
        #: Seconds from the sending of a MSG until its recipient had it: more than the server can have taken.
        self.latencies: list[float] = []

    async def run(self) -> Exposition:
        """Do it all, and wait until everything that happened has been reported."""
        url = self._server.url
        alice = ChatClient(url, user_on_worker(0, WORKERS), "Alice")
        bob = ChatClient(url, user_on_worker(0, WORKERS), "Bob")
        carol = ChatClient(url, user_on_worker(1, WORKERS), "Carol")
        dave = ChatClient(url, user_on_worker(1, WORKERS), "Dave")
        async with alice, bob, carol, dave:
            for client in (alice, bob, carol, dave):
                await client.hello()
            self.together = await self._reported("all four", lambda page: page.total("sessions") == 4)
            await self._chat(alice, bob, carol)
            await self._err(alice, dave, carol)
            await self._leave(alice, bob, carol, dave)
        await self._knock()
        # The last that happens to each process; a report is of a moment, so all that was before is in it.
        return await self._reported(
            "everything",
            lambda page: (
                page.total("closes_total", worker="0") == 2
                and page.total("closes_total", worker="1") == 2
                and page.total("connections") + page.total("sessions") == 0
                and page.total("front_upgrades_total") == UPGRADED
                and page.total("front_lobby") == 0
            ),
        )

    async def _chat(self, alice: ChatClient, bob: ChatClient, carol: ChatClient) -> None:
        await alice.open_chat(bob)
        await alice.open_chat(carol)
        for sender, recipient, count in ((alice, bob, LOCAL), (alice, carol, THERE), (carol, alice, BACK)):
            for number in range(count):
                began = time.monotonic()
                sent = await sender.message(recipient, f"number {number}")
                await recipient.receive("MSG", message_id=sent["message_id"])
                self.latencies.append(time.monotonic() - began)
        # The same once more is acknowledged, and neither stored nor delivered.
        content = f"number {LOCAL}"
        sent = await alice.message(bob, content)
        await bob.receive("MSG", message_id=sent["message_id"])
        await alice.message(bob, content, message_id=sent["message_id"])
        for number in range(TYPING):
            # The last ends it; otherwise the server would, when Alice leaves.
            is_typing = number < TYPING - 1
            await alice.send("TYPING", is_typing=is_typing, to=carol.user_id)
            await carol.receive("TYPING", is_typing=is_typing)
        for _ in range(PINGS):
            await bob.send("PING")
            await bob.receive("PONG")

    async def _err(self, alice: ChatClient, dave: ChatClient, carol: ChatClient) -> None:
        for _ in range(EMPTY):
            await alice.send("MSG", to=carol.user_id, content="")
            await alice.error("VALIDATION")
        for _ in range(NOBODY):
            await alice.send("MSG", to=user_on_worker(1, WORKERS), content="anybody there?")
            await alice.error("USER_NOT_FOUND")
        for _ in range(NO_CHAT):
            await alice.send("MSG", to=dave.user_id, content="we have not met")
            await alice.error("CHAT_NOT_OPENED")
        for _ in range(NONSENSE):
            await carol.send("NONSENSE")
            await carol.error("VALIDATION")

    async def _leave(self, alice: ChatClient, bob: ChatClient, carol: ChatClient, dave: ChatClient) -> None:
        await dave.send_raw(b"binary is not part of the protocol")
        assert (await dave.expect_close())[0] == 1003
        await carol.websocket.close(1000)
        await alice.websocket.close(1001)
        bob.websocket.transport.abort()

    async def _knock(self) -> None:
        """Once each: what only the front sees."""
        url = self._server.url
        with pytest.raises(InvalidStatus):
            async with ChatClient(url, origin="https://evil.example"):
                pass
        await asyncio.to_thread(self._get_page)
        async with ChatClient(url) as early:
            await early.send("MSG", to=early.user_id, content="before HELLO")
            await early.error("UNAUTHORIZED")
        async with ChatClient(url) as binary:
            await binary.send_raw(b"binary")
            assert (await binary.expect_close())[0] == 1003
        async with ChatClient(url) as lost:
            # It is in the front's hands when its ping is answered.
            await lost.drain()
            lost.websocket.transport.abort()

    def _get_page(self) -> None:
        connection = http.client.HTTPConnection("localhost", self._server.port, timeout=10)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()

    async def _reported(self, what: str, condition: Callable[[Exposition], bool]) -> Exposition:
        """The first page for which this holds."""
        pages: list[Exposition] = []

        def holds() -> bool:
            pages[:] = [metrics(self._server)]
            return condition(pages[0])

        await asyncio.to_thread(wait_until, holds, f"the report of {what}")
        return pages[0]
