"""The Python client against the real server: all that it offers, across shards, and whatever happens to the server in between."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from fastchat_client import Chat, FastChat, FastChatError, Message, Sent, Transport, Typing
from fastchat_client._transport import connect_websocket
from tests.protocol_schema import strange
from tests.system.harness import Server, run_async, user_on_worker, wait_until
from tests.system.servers import two_users

#: Seconds that a test waits for what has to happen; a machine that is busy with other tests has to manage it.
PATIENCE: Final = 30.0

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])


class Checked:
    """A connection on which everything that is said has to be a message of docs/protocol.schema.json."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.close = transport.close
        self.abort = transport.abort

    def send(self, text: str) -> None:
        """To the server."""
        assert (problem := strange("fromClient", text)) is None, f"{problem}: {text}"
        self._transport.send(text)

    async def receive(self) -> str:
        """From the server."""
        text = await self._transport.receive()
        assert (problem := strange("fromServer", text)) is None, f"{problem}: {text}"
        return text


async def connect(url: str) -> Checked:
    """What the client connects with."""
    return Checked(await connect_websocket(url))


class Device:
    """A client and what it was told."""

    def __init__(self, url: str, user_id: str, name: str, **options: Any) -> None:
        self.client = FastChat(url, user_id, name, **{"connector": connect, **options})
        self.user_id = user_id
        self.name = name
        self.messages: list[Message] = []
        self.typing: list[Typing] = []
        self.chats: list[Chat] = []
        self.errors: list[FastChatError] = []
        self.states: list[str] = []
        self.client.on("message", self.messages.append)
        self.client.on("typing", self.typing.append)
        self.client.on("chat", self.chats.append)
        self.client.on("error", self.errors.append)
        self.client.on("state", lambda change: self.states.append(change.state))

    @property
    def contents(self) -> list[str]:
        """What was said, in the order in which it was shown."""
        return [message.content for message in self.messages]


@asynccontextmanager
async def online(*devices: Device) -> AsyncIterator[None]:
    """Connect all of them; in the end close them, and see that nothing went wrong unnoticed."""
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(device.client.connect() for device in devices))
        yield
    finally:
        await asyncio.gather(*(device.client.close() for device in devices))
    for device in devices:
        assert device.errors == [], f"{device.name} was told of errors"


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, while the clients go on."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what is waited for is anything
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE:g} s in vain: {what}") from None


@WHERE
@run_async
async def test_a_conversation(server: Server, where: str) -> None:
    """Presence, a chat, typing, messages with their receipts, history, and another device of one of the two."""
    first, second = two_users(server, where)
    alice, bob = Device(server.url, first, "Alice"), Device(server.url, second, "Bobby")
    tablet = Device(server.url, first, "Alice")
    async with online(alice, bob, tablet):
        people = {first: "Alice", second: "Bobby"}
        for device in (alice, bob):
            await until(lambda client=device.client: people.items() <= client.presence.items(), "presence")  # type: ignore[misc]
        chat = await alice.client.open_chat(second, "Bobby")
        assert (chat.user_id, chat.display_name) == (second, "Bobby")
        await until(lambda: len(bob.chats) == 1, "CHAT_OPENED at the other side")
        assert bob.chats == [Chat(chat.chat_id, first, "Alice")]

        alice.client.typing(second, True)
        alice.client.typing(second, True)
        await until(lambda: bob.typing == [Typing(first, True)], "typing")
        sent = alice.client.send(second, "Hi <3 \N{WAVING HAND SIGN}")
        await sent.accepted()
        await sent.delivered()
        await until(lambda: len(bob.typing) == 2, "the message to end the typing")
        assert bob.typing[1] == Typing(first, False)
        message = bob.messages[0]
        assert (message.sender, message.to, message.content, message.message_id, message.own) == (
            first,
            second,
            "Hi <3 \N{WAVING HAND SIGN}",
            sent.message_id,
            False,
        )
        bob.client.mark_read(message.message_id, message.sender)
        await sent.read()
        assert sent.status == "read"

        await until(lambda: len(tablet.messages) == 1, "the carbon")
        assert tablet.messages[0].own
        assert tablet.messages[0].peer == second
        for number in range(4):
            await bob.client.send(first, f"answer {number}").accepted()
        for device in (alice, tablet):
            # What the user wrote on the other device is among the messages too.
            await until(lambda d=device: len(d.contents) >= 4 + (d is tablet), "the answers on both devices")  # type: ignore[misc]
            assert [m.content for m in device.messages if not m.own] == [f"answer {n}" for n in range(4)]

        page = await alice.client.history(second, limit=3)
        assert [m.content for m in page.messages] == ["answer 3", "answer 2", "answer 1"]
        page = await alice.client.history(second, before=page.next, limit=3)
        assert [(m.content, m.own) for m in page.messages] == [
            ("answer 0", False),
            ("Hi <3 \N{WAVING HAND SIGN}", True),
        ]
        assert page.next is None
    assert alice.client.state == "closed"


@run_async
async def test_refusals(server: Server) -> None:
    """What the server refuses for good is an exception for whoever waits, and nothing else stops."""
    alice = Device(server.url, str(uuid4()), "Alice", connector=connect_websocket)
    bob = Device(server.url, str(uuid4()), "Bobby")
    async with online(alice, bob):
        with pytest.raises(FastChatError) as refused:
            await alice.client.open_chat(str(uuid4()), "Nobody")
        assert refused.value.code == "USER_NOT_FOUND"
        with pytest.raises(FastChatError) as refused:
            await alice.client.send(bob.user_id, "before the chat").accepted()
        assert refused.value.code == "CHAT_NOT_OPENED"
        with pytest.raises(FastChatError) as refused:
            await alice.client.history(bob.user_id)
        assert refused.value.code == "CHAT_NOT_OPENED"
        await alice.client.open_chat(bob.user_id, "Bobby")
        for content, code in (("", "VALIDATION"), ("x" * 1001, "VALIDATION"), ("x" * 20_000, "VALIDATION")):
            sent = alice.client.send(bob.user_id, content)
            with pytest.raises(FastChatError) as refused:
                await sent.accepted()
            assert (refused.value.code, sent.status, sent.error) == (code, "failed", refused.value)
        await alice.client.send(bob.user_id, "after all that").delivered()
        assert bob.contents == ["after all that"]


@run_async
async def test_an_identity_that_the_server_refuses(server: Server) -> None:
    """Ends it for good, with the reason."""
    client = FastChat(server.url, "not-a-uuid", "Alice")
    with pytest.raises(FastChatError, match="VALIDATION"):
        await client.connect()
    assert client.closed is not None
    assert client.closed.code == 1008


@run_async
async def test_an_iterator_of_messages(server: Server) -> None:
    """Each message is acknowledged when the next one is asked for; what nobody has looked at waits, and comes to the next iterator."""
    alice, bob = FastChat(server.url, str(uuid4()), "Alice"), FastChat(server.url, str(uuid4()), "Bobby")
    async with asyncio.timeout(PATIENCE), alice, bob:
        await alice.open_chat(bob.user_id, "Bobby")
        sents = [alice.send(bob.user_id, f"{number}") for number in range(4)]
        for sent in sents:
            await sent.accepted()
        came = []
        async for message in bob.messages():
            came.append(message.content)
            if len(came) == 2:
                # The first is done with, the second not yet.
                await sents[0].delivered()
                assert sents[1].status == "accepted"
                break
        await sents[1].delivered()
        assert sents[2].status == "accepted"
        async for message in bob.messages():
            came.append(message.content)
            if len(came) == 4:
                await bob.close()
        assert came == ["0", "1", "2", "3"]


@pytest.mark.slow
@run_async
async def test_limits_only_delay(tmp_path: Path) -> None:
    """More than the limit allows: the rest goes out when the server says, in order."""
    with Server(tmp_path, limits=True, messages_per_minute=20) as server:
        alice, bob = Device(server.url, str(uuid4()), "Alice"), Device(server.url, str(uuid4()), "Bobby")
        async with online(alice, bob):
            await alice.client.open_chat(bob.user_id, "Bobby")
            expected = [f"{number}" for number in range(22)]
            sents = [alice.client.send(bob.user_id, content) for content in expected]
            await until(lambda: sents[20].error is not None, "the limit")
            assert (sents[20].status, str(sents[20].error)[:12]) == ("queued", "RATE_LIMITED")
            assert bob.contents == expected[:20]


class Writer:
    """Writes numbered messages to somebody, one after the other, as fast as the server takes them."""

    def __init__(self, device: Device, to: str, count: int) -> None:
        self.expected = [f"{device.name} {number}" for number in range(count)]
        self.sent: list[Sent] = []
        self._device = device
        self._to = to

    async def write(self) -> None:
        for content in self.expected:
            self.sent.append(self._device.client.send(self._to, content))
            await asyncio.sleep(0.01)
        for sent in self.sent:
            await sent.accepted()


@pytest.mark.slow
@run_async
async def test_nothing_is_lost_or_doubled_whatever_dies(tmp_path: Path) -> None:
    """Two people on two shards write to each other while first one worker, then the other is killed, and then the whole server."""
    first, second = user_on_worker(0, 2), user_on_worker(1, 2)
    server = Server(tmp_path)
    server.start()
    try:
        alice, bob = Device(server.url, first, "Alice"), Device(server.url, second, "Bobby")
        async with online(alice, bob):
            await alice.client.open_chat(second, "Bobby")
            writers = [Writer(alice, second, 400), Writer(bob, first, 400)]
            tasks = [asyncio.create_task(writer.write()) for writer in writers]

            async def kill(title: str, at: int) -> None:
                await until(lambda: min(len(alice.messages), len(bob.messages)) >= at, f"{at} messages each")
                pid = server.child(title)
                os.kill(pid, signal.SIGKILL)
                await asyncio.to_thread(wait_until, lambda: pid not in server.children(), "its end")

            await kill("worker 1", 40)
            await kill("worker 0", 100)
            await until(lambda: min(len(alice.messages), len(bob.messages)) >= 150, "150 messages each")
            await asyncio.to_thread(server.kill)
            server = Server(tmp_path, port=server.port)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(2 * PATIENCE):
                await asyncio.gather(*tasks)
            await until(lambda: len(alice.messages) >= 400 <= len(bob.messages), "all messages")
            assert bob.contents == writers[0].expected
            assert alice.contents == writers[1].expected
            for writer in writers:
                async with asyncio.timeout(PATIENCE):
                    for sent in writer.sent[-50:]:
                        await sent.delivered()
            for device, peer in ((alice, second), (bob, first)):
                assert device.states.count("online") >= 3
                assert device.client.state == "online"
                page = await device.client.history(peer, limit=100)
                assert len({m.message_id for m in page.messages}) == 100

        # A new client goes on where the old one was.
        again = Device(server.url, second, "Bobby", cursor=bob.client.cursor)
        alice = Device(server.url, first, "Alice", cursor=alice.client.cursor)
        async with online(alice):
            await alice.client.send(second, "while you were away").accepted()
            async with online(again):
                await until(lambda: bool(again.messages), "what was missed")
                await alice.client.send(second, "now you are here").delivered()
                assert again.contents == ["while you were away", "now you are here"]
            assert alice.contents == []
        assert server.stop() == 0
    except BaseException:
        server.kill()
        raise


@pytest.mark.slow
@run_async
async def test_a_worker_that_restarts(own_server: Server) -> None:
    """SIGTERM to a worker: 1012, back within a few seconds, and what was sent meanwhile arrives."""
    first, second = user_on_worker(0, 2), user_on_worker(1, 2)
    alice, bob = Device(own_server.url, first, "Alice"), Device(own_server.url, second, "Bobby")
    async with online(alice, bob):
        await alice.client.open_chat(second, "Bobby")
        await alice.client.send(second, "before").delivered()
        os.kill(own_server.child("worker 1"), signal.SIGTERM)
        await until(lambda: "waiting" in bob.states, "the restart")
        sent = alice.client.send(second, "meanwhile")
        await until(lambda: bob.states[-2:] == ["connecting", "online"], "the way back")
        await sent.delivered()
        assert bob.contents == ["before", "meanwhile"]
        assert alice.states == ["connecting", "online"], "nobody else notices"
