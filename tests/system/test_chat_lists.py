"""The list of chats, and reading for all devices: D30 and D31, as seen from the wire."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.system.harness import ChatClient, Server, StartServer, run_async
from tests.system.servers import two_users
from tests.system.test_reload import reload_well
from tests.system.test_resize import resize_well

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])
ALL = ["chats", "block", "history", "resume", "receipts"]


async def listed(client: ChatClient, limit: int = 100) -> list[dict[str, Any]]:
    """All pages of the list."""
    chats: list[dict[str, Any]] = []
    before = None
    while True:
        await client.send("CHATS", before=before, limit=limit)
        page = await client.receive("CHATS", where=lambda page: "delta" not in page)
        chats += page["chats"]
        before = page["next"]
        if before is None:
            return chats


def essence(chats: list[dict[str, Any]]) -> list[tuple[str, str | None, int, int]]:
    """What must be the same on all devices and after everything: whom with, the last message, unread, and read up to where."""
    return [
        (chat["user_id"], chat["last"] and chat["last"]["message_id"], chat["unread"], chat["read"])
        for chat in chats
    ]


async def told(client: ChatClient, peer: str, **fields: Any) -> None:
    """Wait until a change says this of the chat with a peer."""

    def has_it(page: dict[str, Any]) -> bool:
        found = [chat for chat in page["chats"] if chat["user_id"] == peer]
        return "delta" in page and bool(found) and fields.items() <= found[-1].items()

    await client.receive("CHATS", where=has_it)


async def wrote(peer: ChatClient, ann: ChatClient, contents: list[str]) -> None:
    """Have a peer come, open a chat, write, and go; the messages are named by their order: 0, 1 ..."""
    async with peer:
        await peer.hello()
        await peer.open_chat(ann)
        for number, content in enumerate(contents):
            await peer.message(ann, content, message_id=f"{number}")
        await ann.receive("CHAT_OPENED", target_user_id=peer.user_id)


@run_async
async def test_d30_a_second_browser_has_the_same_list(server: Server) -> None:
    """A user with 30 chats, some written in and some read, on a device that has never been here: page by page, the newest first."""
    ann = ChatClient(server.url, name="Ann")
    peers = [ChatClient(server.url, name=f"Peer {number}") for number in range(30)]
    async with ann:
        await ann.hello(capabilities=ALL)
        for number, peer in enumerate(peers):
            await wrote(peer, ann, ["x" * 300] * (number % 4))
            if number % 3 == 0:
                await ann.message(peer, f"to {number}")
        first = await listed(ann, 7)
    second = ChatClient(server.url, ann.user_id, "Ann")
    async with second:
        await second.hello(capabilities=ALL)
        again = await listed(second, 11)
    assert essence(first) == essence(again)
    assert [chat["user_id"] for chat in again if chat["last"]] == [
        peer.user_id for number, peer in reversed([*enumerate(peers)]) if number % 4 or number % 3 == 0
    ]
    unread = {chat["user_id"]: chat["unread"] for chat in again}
    assert unread == {peer.user_id: number % 4 for number, peer in enumerate(peers)}
    assert {len(chat["last"]["content"]) for chat in again if chat["last"]} <= {200, 4, 5}


@WHERE
@run_async
async def test_d31_what_one_device_reads_is_read_on_the_other(server: Server, where: str) -> None:
    ann_id, bob_id = two_users(server, where)
    ann, phone = ChatClient(server.url, ann_id, "Ann"), ChatClient(server.url, bob_id, "Bob")
    laptop = ChatClient(server.url, bob_id, "Bob")
    async with ann, phone, laptop:
        await ann.hello(capabilities=["receipts", "history"])
        for device in (phone, laptop):
            await device.hello(capabilities=["chats", "history"])
        await ann.open_chat(phone)
        for number in range(5):
            await ann.message(phone, f"{number}", message_id=f"{number}")
        await told(laptop, ann_id, unread=5)
        await phone.send("READ", message_id="3", **{"from": ann_id})
        await told(laptop, ann_id, unread=1, read=4)
        for number in range(4):
            await ann.receive("MSG_ACK", message_id=f"{number}", status="read")
        for client, peer in ((ann, bob_id), (laptop, ann_id)):
            await client.send("HISTORY", **{"with": peer})
            page = (await client.receive("HISTORY"))["messages"]
            assert [message.get("read") for message in page] == [None, True, True, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill -9", "reload", "resize", "restart"])
@run_async
async def test_d30_the_list_outlives_every_process(start_server: StartServer, how: str) -> None:
    """Unread, read, hidden, muted and blocked, and what was written last."""
    server = start_server(workers=2)
    ann = ChatClient(server.url, name="Ann")
    peers = [ChatClient(server.url, name=f"Peer {number}") for number in range(12)]
    async with ann:
        await ann.hello(capabilities=ALL)
        for number, peer in enumerate(peers):
            await wrote(peer, ann, [f"{message}" for message in range(number)])
            await ann.message(peer, "answer", message_id=f"answer-{number}")
        await ann.send("READ", message_id="3", **{"from": peers[8].user_id})
        for kind, number in (("HIDE", 3), ("MUTE", 4), ("BLOCK", 5)):
            await ann.send(kind, user_id=peers[number].user_id)
        await told(ann, peers[5].user_id, blocked=True)
        before = await listed(ann)
    if how == "kill -9":
        for worker in ("worker 0", "worker 1"):
            os.kill(server.child(worker), signal.SIGKILL)
    elif how == "reload":
        reload_well(server)
    elif how == "resize":
        resize_well(server, 3)
        resize_well(server, 1)
    else:
        server.stop()
        server.start()
    again = ChatClient(server.url, ann.user_id, "Ann")
    async with again:
        await again.hello(capabilities=ALL)
        after = await listed(again)
    assert essence(after) == essence(before)
    marks = [(chat["user_id"], chat["muted"], chat["blocked"]) for chat in before]
    assert [(chat["user_id"], chat["muted"], chat["blocked"]) for chat in after] == marks
    assert {chat["user_id"] for chat in after} == {peer.user_id for peer in peers} - {peers[3].user_id}
