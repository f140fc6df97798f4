"""Every sequence of docs/protocol.md that needs no capability, between users of the same and of different shards, in every shape of server.

The clients use no capability: what they get has exactly the fields that need none, in the order of docs/protocol.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from tests.system.harness import ChatClient, Server, run_async
from tests.system.servers import shared_server, two_users

#: Workers, fronts, and where the second user lives.
SHAPES: Final = [
    pytest.param((1, 1, "same shard"), marks=pytest.mark.slow),
    pytest.param((2, 1, "same shard"), marks=pytest.mark.slow),
    (2, 2, "other shard"),
    pytest.param((8, 1, "other shard"), marks=pytest.mark.slow),
    pytest.param((8, 2, "same shard"), marks=pytest.mark.slow),
]

#: Fields of each message, in the order in which docs/protocol.md shows them.
FIELDS: Final = {
    "HELLO_ACK": ["user_id", "status"],
    "PRESENCE": ["users"],
    "CHAT_OPENED": ["chat_id", "participants", "target_user_id", "target_display_name"],
    "MSG": ["from", "to", "content", "message_id", "timestamp"],
    "MSG_ACK": ["message_id", "status"],
    "TYPING": ["user_id", "is_typing"],
    "PONG": ["timestamp"],
    "ERROR": ["code", "message", "details"],
}

TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Place:
    """A server, and how two users find places in it."""

    def __init__(self, server: Server, where: str) -> None:
        self.server = server
        self._where = where

    def pair(self) -> tuple[ChatClient, ChatClient]:
        """Two new users, not connected yet."""
        first, second = two_users(self.server, self._where)
        return ChatClient(self.server.url, first, "Alice"), ChatClient(self.server.url, second, "Bob B.")


@pytest.fixture(scope="module", params=SHAPES, ids="{0[0]} workers, {0[1]} fronts, {0[2]}".format)
def place(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    workers, fronts, where = request.param
    with shared_server(pytestconfig, tmp_path_factory, workers=workers, fronts=fronts) as server:
        yield Place(server, where)


async def raw(client: ChatClient, type_: str) -> dict[str, Any]:
    """The next message of this type as it came, with its shape checked."""
    while True:
        received = await client.websocket.recv()
        assert isinstance(received, str)
        message = json.loads(received)
        assert list(message) == ["type", "data"]
        assert list(message["data"]) == FIELDS[message["type"]]
        assert received == json.dumps(message, separators=(",", ":"), ensure_ascii=False)
        if message["type"] == type_:
            data: dict[str, Any] = message["data"]
            return data


@run_async
async def test_connection_establishment(place: Place) -> None:
    """HELLO, HELLO_ACK, PRESENCE, in this order; the list has oneself and whoever else is online."""
    alice, bob = place.pair()
    async with alice, bob:
        await alice.send("HELLO", user_id=alice.user_id, display_name="Alice")
        assert await raw(alice, "HELLO_ACK") == {"user_id": alice.user_id, "status": "connected"}
        users = (await raw(alice, "PRESENCE"))["users"]
        assert {"user_id": alice.user_id, "display_name": "Alice", "online": True} in users
        await bob.hello()
        presence = await bob.receive("PRESENCE")
        assert [list(user) for user in presence["users"]] == [["user_id", "display_name", "online"]] * len(
            presence["users"]
        )

        def has_both(data: dict[str, Any]) -> bool:
            return {alice.user_id, bob.user_id} <= {user["user_id"] for user in data["users"]}

        await alice.receive("PRESENCE", where=has_both)
        if not has_both(presence):
            await bob.receive("PRESENCE", where=has_both)


@run_async
async def test_chat_session_opening(place: Place) -> None:
    """OPEN_CHAT; both sides get CHAT_OPENED, each with the other's id and name."""
    alice, bob = place.pair()
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.send("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob B.")
        opened, seen = await raw(alice, "CHAT_OPENED"), await raw(bob, "CHAT_OPENED")
        assert opened["chat_id"] == seen["chat_id"]
        UUID(opened["chat_id"])
        assert sorted(opened["participants"]) == sorted([alice.user_id, bob.user_id])
        assert sorted(seen["participants"]) == sorted([alice.user_id, bob.user_id])
        assert (opened["target_user_id"], opened["target_display_name"]) == (bob.user_id, "Bob B.")
        assert (seen["target_user_id"], seen["target_display_name"]) == (alice.user_id, "Alice")


@run_async
async def test_message_exchange(place: Place) -> None:
    """MSG and MSG_ACK, MSG and MSG_ACK; in both directions, with and without message_id."""
    alice, bob = place.pair()
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        for sender, recipient in ((alice, bob), (bob, alice)):
            message_id = str(uuid4())
            await sender.send("MSG", to=recipient.user_id, content="Message content", message_id=message_id)
            assert await raw(sender, "MSG_ACK") == {"message_id": message_id, "status": "delivered"}
            message = await raw(recipient, "MSG")
            assert TIMESTAMP.fullmatch(message.pop("timestamp"))
            assert message == {
                "from": sender.user_id,
                "to": recipient.user_id,
                "content": "Message content",
                "message_id": message_id,
            }
            await recipient.send("MSG_ACK", message_id=message_id)
            await sender.send("MSG", to=recipient.user_id, content="without an id")
            acknowledged = await raw(sender, "MSG_ACK")
            assert UUID(acknowledged["message_id"]).version == 4
            assert (await raw(recipient, "MSG"))["message_id"] == acknowledged["message_id"]
        assert {message.type for message in await alice.drain() + await bob.drain()} <= {"PRESENCE"}


@run_async
async def test_typing_indicators(place: Place) -> None:
    """TYPING goes to the chat that was opened, from either side."""
    alice, bob = place.pair()
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        await bob.receive("CHAT_OPENED")
        for sender, recipient in ((alice, bob), (bob, alice)):
            for is_typing in (True, False):
                await sender.send("TYPING", is_typing=is_typing)
                assert await raw(recipient, "TYPING") == {"user_id": sender.user_id, "is_typing": is_typing}


@run_async
async def test_heartbeat(place: Place) -> None:
    alice, _ = place.pair()
    async with alice:
        for _ in range(2):
            await alice.send("PING")
            assert TIMESTAMP.fullmatch((await raw(alice, "PONG"))["timestamp"])
        await alice.hello()
        await alice.send("PING")
        assert TIMESTAMP.fullmatch((await raw(alice, "PONG"))["timestamp"])


@run_async
async def test_errors(place: Place) -> None:
    """The codes that this shape of server could get wrong; the connection stays usable after each."""
    alice, bob = place.pair()
    stranger = str(uuid4())
    async with alice, bob:
        await alice.send("MSG", to=bob.user_id, content="Hello!")
        assert (await raw(alice, "ERROR"))["code"] == "UNAUTHORIZED"
        await alice.hello()
        await bob.hello()
        await alice.send("MSG", to=stranger, content="Hello!")
        assert (await raw(alice, "ERROR"))["code"] == "USER_NOT_FOUND"
        await alice.send("OPEN_CHAT", target_user_id=stranger, target_display_name="Nobody")
        assert (await raw(alice, "ERROR"))["code"] == "USER_NOT_FOUND"
        await alice.send("MSG", to=bob.user_id, content="Hello!")
        assert (await raw(alice, "ERROR"))["code"] == "CHAT_NOT_OPENED"
        await alice.send("TYPING", is_typing=True)
        assert (await raw(alice, "ERROR"))["code"] == "CHAT_NOT_OPENED"
        await alice.send("MSG", to=bob.user_id, content="")
        assert (await raw(alice, "ERROR"))["code"] == "VALIDATION"
        await alice.open_chat(bob)
        assert (await alice.message(bob, "Hello!"))["status"] == "delivered"


@run_async
async def test_everything_in_one_go(place: Place) -> None:
    """A client need not wait for answers: HELLO, OPEN_CHAT, MSG one behind the other."""
    alice, bob = place.pair()
    async with bob, alice:
        await bob.hello()
        await alice.send("HELLO", user_id=alice.user_id, display_name="Alice")
        await alice.send("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob B.")
        for number in range(3):
            await alice.send("MSG", to=bob.user_id, content=f"{number}", message_id=f"{number}")
        for type_ in ("HELLO_ACK", "PRESENCE", "CHAT_OPENED", "MSG_ACK", "MSG_ACK", "MSG_ACK"):
            await raw(alice, type_)
        await raw(bob, "CHAT_OPENED")
        assert [(await raw(bob, "MSG"))["content"] for _ in range(3)] == ["0", "1", "2"]
        await alice.send("TYPING", is_typing=True)
        assert (await raw(bob, "TYPING"))["is_typing"] is True
