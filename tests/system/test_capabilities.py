"""Receipts, resume, history and carbons as seen from the wire: D11, D13, D14, D15; and that nobody gets them who did not ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.system.harness import ChatClient, Server, run_async
from tests.system.servers import two_users

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])
ALL = ["carbons", "history", "receipts", "resume"]


async def greet(client: ChatClient, *capabilities: str, cursor: str | None = None) -> dict[str, Any]:
    """HELLO with these capabilities; the HELLO_ACK, without what every one has."""
    resume = {} if cursor is None else {"resume": {"cursor": cursor}}
    ack = await client.hello(capabilities=list(capabilities), **resume)
    assert ack.pop("user_id") == client.user_id
    assert ack.pop("status") == "connected"
    assert ack.pop("capabilities") == sorted(capabilities)
    return ack


async def acks(client: ChatClient, message_id: str, count: int) -> list[dict[str, Any]]:
    """So many MSG_ACKs for a message, without its id."""
    came = [await client.receive("MSG_ACK", message_id=message_id) for _ in range(count)]
    return [{name: value for name, value in ack.items() if name != "message_id"} for ack in came]


@WHERE
@run_async
async def test_d11_receipts(server: Server, where: str) -> None:
    """On disk, then on a device, then read; another device of the sender learns of it too, the plain recipient sees nothing new."""
    first, second = two_users(server, where)
    async with (
        ChatClient(server.url, first) as alice,
        ChatClient(server.url, first) as phone,
        ChatClient(server.url, second) as bob,
    ):
        await greet(alice, "receipts")
        await greet(phone, "receipts")
        await greet(bob, "receipts")
        await alice.open_chat(bob)
        ack = await alice.message(bob, "Hi.", message_id="one")
        assert ack == {"message_id": "one", "status": "accepted", "to": second}
        message = await bob.receive("MSG")
        assert message.keys() == {"from", "to", "content", "message_id", "timestamp"}
        await bob.send("MSG_ACK", message_id="one", **{"from": first})
        await bob.send("READ", message_id="one", **{"from": first})
        await bob.send("READ", message_id="one", **{"from": first})
        expected = [{"status": "delivered", "to": second}, {"status": "read", "to": second}]
        assert await acks(alice, "one", 2) == expected
        assert await acks(phone, "one", 2) == expected
        assert await alice.message(bob, "Hi.", message_id="one") == {
            "message_id": "one",
            "status": "read",
            "to": second,
        }
        for client in (alice, phone):
            assert [message.type for message in await client.drain()].count("MSG_ACK") == 0


@WHERE
@run_async
async def test_d11_a_plain_sender_gets_one_ack(server: Server, where: str) -> None:
    """With two keys, whatever the recipient can do."""
    first, second = two_users(server, where)
    async with ChatClient(server.url, first) as alice, ChatClient(server.url, second) as bob:
        assert await alice.hello() == {"user_id": first, "status": "connected"}
        await greet(bob, *ALL)
        await alice.open_chat(bob)
        assert await alice.message(bob, "Hi.", message_id="one") == {
            "message_id": "one",
            "status": "delivered",
        }
        await bob.receive("MSG", message_id="one")
        await bob.send("READ", message_id="one", **{"from": first})
        await bob.drain()
        assert "MSG_ACK" not in [message.type for message in await alice.drain()]
        await alice.send("READ", message_id="one", **{"from": second})
        assert (await alice.error("VALIDATION"))["details"]["field"] == "type"


@pytest.mark.slow
@run_async
async def test_d13_resume_whatever_happens_in_between(tmp_path: Path) -> None:
    """From no message ever, several times in a row, from another device, across restarts and other numbers of workers."""
    first, second = str(uuid4()), str(uuid4())
    cursor, number, came = None, 0, []
    for workers in (1, 3, 2):
        with Server(tmp_path, workers=workers) as server:
            async with ChatClient(server.url, second) as bob:
                ack = await greet(bob, "resume", cursor=cursor)
                assert ack["resumed"] == ("reset" if cursor is None else "full")
                assert cursor in (None, ack["cursor"])
                cursor = ack["cursor"]
            async with ChatClient(server.url, first) as alice:
                await alice.hello()
                async with ChatClient(server.url, second) as bob:
                    assert await greet(bob, "resume", cursor=cursor) == {"cursor": cursor, "resumed": "full"}
                    await alice.open_chat(bob)
                    for _ in range(3):
                        number += 1
                        await alice.message(bob, f"{number}")
                        message = await bob.receive("MSG", content=f"{number}")
                        assert message["seq"] == number
                        came.append(message)
                    # Acknowledged or not, what comes after the cursor comes again.
                    await bob.send("MSG_ACK", message_id=message["message_id"])
                    await bob.drain()
                number += 1
                await alice.message(bob, f"{number}")
            for _ in range(2):
                async with ChatClient(server.url, second) as phone:
                    assert await greet(phone, "resume", cursor=cursor) == {
                        "cursor": cursor,
                        "resumed": "full",
                    }
                    again = [await phone.receive("MSG") for _ in range(4)]
                    assert [message["seq"] for message in again] == list(range(number - 3, number + 1))
                    assert again[:3] == came[-3:], "byte for byte, cursor and timestamp included"
            cursor = again[-1]["cursor"]
    with Server(tmp_path, workers=1) as server:
        async with ChatClient(server.url, second) as bob:
            ack = await greet(bob, "resume", cursor="000000000000.1")
            assert ack["resumed"] == "reset"
            assert [(await bob.receive("MSG"))["seq"] for _ in range(2)] == [1, 2]


@WHERE
@run_async
async def test_d14_history(server: Server, where: str) -> None:
    """Both directions, newest first, page by page until there is no more; nobody else's."""
    first, second = two_users(server, where)
    async with ChatClient(server.url, first) as alice, ChatClient(server.url, second) as bob:
        await greet(alice, "history")
        await greet(bob, "history")
        await alice.open_chat(bob)
        written = []
        for number in range(7):
            sender, recipient = ((alice, bob), (bob, alice))[number % 3 == 0]
            await sender.message(recipient, f"{number}", message_id=f"id-{number}")
            written.append((sender.user_id, recipient.user_id, f"{number}", f"id-{number}"))
        for client, peer in ((alice, bob), (bob, alice)):
            found: list[tuple[str, str, str, str]] = []
            before: dict[str, str] = {}
            while True:
                await client.send("HISTORY", limit=3, **{"with": peer.user_id}, **before)
                page = await client.receive("HISTORY")
                assert page.keys() == {"with", "messages", "next"}
                assert page["with"] == peer.user_id
                found += [
                    (message["from"], message["to"], message["content"], message["message_id"])
                    for message in page["messages"]
                ]
                if page["next"] is None:
                    break
                assert len(page["messages"]) == 3
                before = {"before": page["next"]}
            assert found == written[::-1]
        await alice.send("HISTORY", **{"with": str(uuid4())})
        assert (await alice.error("CHAT_NOT_OPENED"))["details"]["field"] == "with"
        for wrong in ({"limit": 0}, {"limit": 101}, {"limit": "3"}, {"before": "soon"}, {"before": 7}):
            await alice.send("HISTORY", **{"with": bob.user_id}, **wrong)
            assert [(await alice.error("VALIDATION"))["details"]["field"]] == list(wrong)


@WHERE
@run_async
async def test_d15_carbons(server: Server, where: str) -> None:
    """The sender's other devices that asked see what was sent, as the recipient does; the sending one does not, a plain one does not."""
    first, second = two_users(server, where)
    async with (
        ChatClient(server.url, first) as alice,
        ChatClient(server.url, first) as tablet,
        ChatClient(server.url, first) as plain,
        ChatClient(server.url, second) as bob,
    ):
        await greet(alice, "carbons")
        await greet(tablet, "carbons")
        await plain.hello()
        await bob.hello()
        await alice.open_chat(bob)
        for _ in range(2):
            await alice.message(bob, "Hi.", message_id="one")
        message = await bob.receive("MSG")
        assert await tablet.receive("MSG") == message
        for client in (alice, tablet, plain, bob):
            assert "MSG" not in [message.type for message in await client.drain()]
