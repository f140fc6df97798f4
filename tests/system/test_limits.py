"""Limits and errors: D23 with the settings that a server has by default, D24, D25. As seen from the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.system.harness import ChatClient, Server, run_async
from tests.system.raw_client import BINARY, CONTINUATION, PING, TEXT, RawClient, client_frame, message, text
from tests.system.servers import shared_server, two_users

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with the default limits."""
    with shared_server(pytestconfig, tmp_path_factory, workers=2, limits=True) as server:
        yield server


def clients(server: Server, where: str) -> tuple[ChatClient, ChatClient]:
    """Two new users, not connected yet."""
    first, second = two_users(server, where)
    return ChatClient(server.url, first, "Alice"), ChatClient(server.url, second, "Bob")


async def limited(client: ChatClient, type_: str, limit: int) -> dict[str, Any]:
    """Expect RATE_LIMITED with what D23 and D24 promise; its details."""
    details: dict[str, Any] = (await client.error("RATE_LIMITED"))["details"]
    assert details["type"] == type_
    assert details["limit"] == limit
    assert 0 < details["retry_after"] <= 60
    return details


# -- D23: rates --


@pytest.mark.attack("flood of messages")
@WHERE
@run_async
async def test_d23_60_messages_a_minute_for_a_user(server: Server, where: str) -> None:
    """All devices together, sent in one go or singly; reconnecting does not reset it; others are not concerned."""
    alice, bob = clients(server, where)
    other = ChatClient(server.url, alice.user_id, "Alice")
    async with bob:
        async with alice, other:
            for client in (alice, other, bob):
                await client.hello()
            await alice.open_chat(bob)
            for number in range(40):
                await alice.send("MSG", to=bob.user_id, content=f"{number}")
            for _ in range(40):
                await alice.receive("MSG_ACK")
            for number in range(40, 60):
                await other.message(bob, f"{number}")
            for client in (alice, other):
                await client.send("MSG", to=bob.user_id, content="too many", message_id="m")
                assert (await limited(client, "MSG", 60))["message_id"] == "m"
        async with ChatClient(server.url, alice.user_id, "Alice") as again:
            await again.hello()
            await again.send("MSG", to=bob.user_id, content="too many")
            await limited(again, "MSG", 60)
            assert [(await bob.receive("MSG"))["content"] for _ in range(60)] == [f"{n}" for n in range(60)]
            await bob.message(alice, "I may")
            await again.receive("MSG", content="I may")


@pytest.mark.attack("flood of messages")
@run_async
async def test_d23_a_burst_over_the_limit_lets_exactly_60_through(server: Server) -> None:
    alice, bob = clients(server, "other shard")
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        for number in range(100):
            await alice.send("MSG", to=bob.user_id, content=f"{number}", message_id=f"{number}")
        answers = [await answer(alice) for _ in range(100)]
        assert [kind for kind, _ in answers] == ["MSG_ACK"] * 60 + ["ERROR"] * 40
        assert [identifier for _, identifier in answers] == [f"{number}" for number in range(100)]
        assert [m.data["content"] for m in await bob.drain() if m.type == "MSG"] == [
            f"{n}" for n in range(60)
        ]


async def answer(client: ChatClient) -> tuple[str, str]:
    """The next MSG_ACK or ERROR: its type, and the message id."""
    while True:
        received = await client._next()
        if received.type == "MSG_ACK":
            return "MSG_ACK", received.data["message_id"]
        if received.type == "ERROR":
            return "ERROR", received.data["details"]["message_id"]


@run_async
async def test_d23_10_typing_a_minute(server: Server) -> None:
    alice, bob = clients(server, "other shard")
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        for number in range(10):
            await alice.send("TYPING", is_typing=number % 2 == 0)
        await alice.send("TYPING", is_typing=True)
        await limited(alice, "TYPING", 10)
        for number in range(10):
            assert (await bob.receive("TYPING"))["is_typing"] is (number % 2 == 0)
        await alice.message(bob, "other limits are not concerned")


@pytest.mark.attack("presence enumeration")
@run_async
async def test_d23_20_open_chats_a_minute(server: Server) -> None:
    """Also those that fail, or looking for users would be free."""
    alice, bob = clients(server, "other shard")
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        for _ in range(10):
            await alice.open_chat(bob)
            await alice.send("OPEN_CHAT", target_user_id=str(uuid4()), target_display_name="Nobody")
            await alice.error("USER_NOT_FOUND")
        await alice.send("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob")
        await limited(alice, "OPEN_CHAT", 20)


@run_async
async def test_d23_30_hellos_a_minute(server: Server) -> None:
    """On one connection or on many."""
    user_id = str(uuid4())
    for _ in range(10):
        async with ChatClient(server.url, user_id) as client:
            await client.hello()
            await client.hello()
            await client.hello()
    async with ChatClient(server.url, user_id) as client:
        await client.send("HELLO", user_id=user_id, display_name="Somebody")
        await limited(client, "HELLO", 30)


@run_async
async def test_d23_ping_one_a_second_with_a_burst_of_5(server: Server) -> None:
    """For each connection, before HELLO and after; `retry_after` is long enough."""
    async with ChatClient(server.url) as waiting, ChatClient(server.url) as greeted:
        await greeted.hello()
        for client in (waiting, greeted):
            for _ in range(20):
                await client.send("PING")
            for _ in range(5):
                await client.receive("PONG")
            details = (await client.error("RATE_LIMITED"))["details"]
            assert details["type"] == "PING"
            assert 0 < details["retry_after"] <= 1
            rest = [m.type for m in await client.drain() if m.type != "PRESENCE"]
            assert rest.count("ERROR") >= 12
            await asyncio.sleep(1.0)
            await client.send("PING")
            await client.receive("PONG")


# -- D24: errors say what to do --

SOMEBODY = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("sent", "details"),
    [
        (
            {"type": "MSG", "data": {"content": "x", "message_id": "m"}},
            {"type": "MSG", "field": "to", "message_id": "m"},
        ),
        ({"type": "MSG", "data": {"to": SOMEBODY}}, {"type": "MSG", "field": "content"}),
        (
            {"type": "MSG", "data": {"to": SOMEBODY, "content": "x" * 1001, "message_id": "m"}},
            {
                "type": "MSG",
                "field": "content",
                "limit": {"min": 1, "max": 1000},
                "length": 1001,
                "message_id": "m",
            },
        ),
        (
            {"type": "HELLO", "data": {"user_id": SOMEBODY, "display_name": "ab"}},
            {"type": "HELLO", "field": "display_name", "limit": {"min": 3, "max": 50}, "length": 2},
        ),
        ({"type": "TYPING", "data": {}}, {"type": "TYPING", "field": "is_typing"}),
        ({"type": "TYPING", "data": {"is_typing": "true"}}, {"type": "TYPING", "field": "is_typing"}),
        ({"type": "OPEN_CHAT", "data": {}}, {"type": "OPEN_CHAT", "field": "target_user_id"}),
        ({"type": "MSG_ACK", "data": {}}, {"type": "MSG_ACK", "field": "message_id"}),
        (
            {"type": "MSG_ACK", "data": {"message_id": "m", "from": 1}},
            {"type": "MSG_ACK", "field": "from", "message_id": "m"},
        ),
        ({"type": "PRESENCE", "data": {}}, {"type": "PRESENCE", "field": "type"}),
        ({"type": "msg", "data": {}}, {"type": "msg", "field": "type"}),
        ({"type": "MSG", "data": []}, {"type": "MSG", "field": "data"}),
        ({"type": "MSG"}, {"type": "MSG", "field": "data"}),
        ({"type": 7, "data": {}}, {"field": "type"}),
        ({"data": {}}, {"field": "type"}),
    ],
)
@run_async
async def test_d24_details(server: Server, sent: dict[str, Any], details: dict[str, Any]) -> None:
    """`type`, `field`, the limit, and `message_id` where there is one; a sentence for people beside them."""
    async with ChatClient(server.url) as client:
        await client.hello()
        await client.send_raw(json.dumps(sent))
        error = await client.error("VALIDATION")
        assert error.keys() == {"code", "message", "details"}
        assert len(error["message"]) > 10
        assert details.items() <= error["details"].items()
        if "message_id" not in details:
            assert "message_id" not in error["details"]
        await client.send("PING")
        await client.receive("PONG")


@pytest.mark.attack("wrong types")
@run_async
async def test_d24_what_came_is_not_echoed_without_bounds(server: Server) -> None:
    async with ChatClient(server.url) as client:
        await client.hello()
        await client.send("X" * 10_000)
        assert len(str(await client.error("VALIDATION"))) < 1000
        await client.send("MSG", to="x" * 5000, content="y", message_id="z" * 5000)
        assert len(str(await client.error("VALIDATION"))) < 1000


# -- D25: bad input --

NOT_MESSAGES = [
    b"",
    b"   ",
    b"nonsense",
    b"{",
    b"[]",
    b"null",
    b"7",
    b'"HELLO"',
    b"[" * 5000,
    b'{"type":"PING","data":{}}x',
    b"NaN",
]


@pytest.mark.parametrize("payload", NOT_MESSAGES, ids=lambda payload: repr(payload[:20]))
@pytest.mark.parametrize("greeted", [False, True], ids=["before HELLO", "after HELLO"])
def test_d25_what_is_no_message_is_answered_and_the_connection_stays(
    server: Server, payload: bytes, greeted: bool
) -> None:
    with RawClient.upgraded(server.port) as client:
        if greeted:
            client.hello()
        client.send(client_frame(TEXT, payload))
        client.error("VALIDATION")
        if not greeted:
            client.hello()
        client.say("PING")
        client.receive("PONG")


@pytest.mark.attack("unknown fields")
@run_async
async def test_d25_unknown_fields_are_ignored(server: Server) -> None:
    async with ChatClient(server.url) as client:
        await client.hello(mood="sunny", capabilities=[])
        await client.send_raw('{"data":{"x":[1,{"y":null}]},"id":1,"type":"PING"}')
        await client.receive("PONG")


@pytest.mark.attack("flood of messages")
@pytest.mark.parametrize("greeted", [False, True], ids=["before HELLO", "after HELLO"])
def test_d25_the_21st_invalid_message_in_a_minute_closes_1008(server: Server, greeted: bool) -> None:
    with RawClient.upgraded(server.port) as client:
        if greeted:
            client.hello()
        for _ in range(20):
            client.send(client_frame(TEXT, b"nonsense"))
            client.error("VALIDATION")
        client.send(client_frame(TEXT, b"nonsense"))
        code, reason = client.closed()
        assert (code, bool(reason)) == (1008, True)


WHOLE = message("PING")

#: What breaks RFC 6455 or D25, and the code that it is closed with.
BROKEN = {
    "binary": (client_frame(BINARY, WHOLE), 1003),
    "invalid UTF-8": (client_frame(TEXT, b'{"type":"\xff"}'), 1007),
    "invalid UTF-8 in a later fragment": (
        client_frame(TEXT, b'{"type":"', fin=False) + client_frame(CONTINUATION, b'\xff"}'),
        1007,
    ),
    "16 KiB and a byte": (client_frame(TEXT, b" " * 16385), 1009),
    "16 KiB and a byte in fragments": (
        client_frame(TEXT, b" " * 16000, fin=False) + client_frame(CONTINUATION, b" " * 385),
        1009,
    ),
    "RSV1": (client_frame(TEXT, WHOLE, rsv=4), 1002),
    "RSV3": (client_frame(TEXT, WHOLE, rsv=1), 1002),
    "opcode 3": (client_frame(3, WHOLE), 1002),
    "opcode 11": (client_frame(11), 1002),
    "unmasked": (client_frame(TEXT, WHOLE, mask=False), 1002),
    "continuation out of nothing": (client_frame(CONTINUATION, WHOLE), 1002),
    "text inside a fragmented text": (client_frame(TEXT, b"{", fin=False) + client_frame(TEXT, b"}"), 1002),
    "ping of 126 bytes": (client_frame(PING, b"x" * 126), 1002),
    "fragmented ping": (client_frame(PING, fin=False), 1002),
    "reserved close code": (client_frame(8, b"\x03\xed"), 1002),
}


@pytest.mark.attack(
    "oversized frame", "fragment flood", "RSV bits", "bad opcode", "unmasked frame", "bad UTF-8"
)
@pytest.mark.parametrize("greeted", [False, True], ids=["before HELLO", "after HELLO"])
@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN.keys())
def test_d25_broken_frames_close(server: Server, data: bytes, code: int, greeted: bool) -> None:
    """With a reason text (D28)."""
    with RawClient.upgraded(server.port) as client:
        if greeted:
            client.hello()
        client.send(data)
        closed, reason = client.closed()
        assert (closed, bool(reason)) == (code, True)


@pytest.mark.attack("fragment flood")
@pytest.mark.parametrize("greeted", [False, True], ids=["before HELLO", "after HELLO"])
def test_d25_fragments_with_controls_between_them(server: Server, greeted: bool) -> None:
    with RawClient.upgraded(server.port) as client:
        if greeted:
            client.hello()
        client.send(client_frame(TEXT, WHOLE[:7], fin=False) + client_frame(PING, b"between"))
        client.pong(b"between")
        client.send(client_frame(CONTINUATION, b"", fin=False) + client_frame(CONTINUATION, WHOLE[7:]))
        client.receive("PONG")


@pytest.mark.parametrize("greeted", [False, True], ids=["before HELLO", "after HELLO"])
@pytest.mark.parametrize("payload", [b"\x03\xe8", b"\x03\xe9bye", b"\x0b\xb8", b""])
def test_d25_a_close_is_answered(server: Server, payload: bytes, greeted: bool) -> None:
    with RawClient.upgraded(server.port) as client:
        if greeted:
            client.hello()
        client.send(client_frame(8, payload))
        code = client.closed()[0]
        assert code == int.from_bytes(payload[:2], "big") if payload else code in (1000, 1005)


def test_d25_the_largest_message_there_may_be(server: Server) -> None:
    """As first message too: a HELLO of 16 KiB."""
    with RawClient.upgraded(server.port) as client:
        hello = message("HELLO", user_id=client.user_id, display_name="Somebody", padding="")
        padding = " " * (16384 - len(hello))
        whole = message("HELLO", user_id=client.user_id, display_name="Somebody", padding=padding)
        assert len(whole) == 16384
        client.send(client_frame(TEXT, whole) + text("PING"))
        client.receive("HELLO_ACK")
        client.receive("PONG")
        client.send(client_frame(TEXT, WHOLE + b" " * (16384 - len(WHOLE))))
        client.receive("PONG")
