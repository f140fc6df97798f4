"""Strangers who fill the mailbox of somebody who is away (D20), as seen from the wire."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.harness import StartServer, user_on_worker
from tests.system.raw_client import PING, RawClient

#: What the mailbox holds: 4 messages of one sender, 20 of all strangers.
MAILBOX = 40


def come(port: int, user: str) -> RawClient:
    client = RawClient.upgraded(port, user)
    client.hello()
    return client


def answer(client: RawClient, message_id: str) -> str:
    """``stored``, or which share is full."""
    while True:
        frame = client.frame()
        if frame.opcode == PING:
            continue
        kind, data = frame.message()
        if kind == "MSG_ACK" and data["message_id"] == message_id:
            return str(data["status"])
        if kind == "ERROR":
            assert data["code"] == "MESSAGE_FAILED", data
            details: dict[str, Any] = data["details"]
            share = str(details.pop("share"))
            limit = {"sender": 4, "strangers": 20, "mailbox": MAILBOX}[share]
            expected = {"type": "MSG", "field": "to", "message_id": message_id, "reason": "mailbox_full"}
            assert details == expected | {"limit": limit}
            assert "the mailbox is full" in data["message"]
            return share


def write(client: RawClient, bob: str, message_id: str) -> str:
    client.say("MSG", to=bob, content="buy this", message_id=message_id)
    return answer(client, message_id)


@pytest.mark.slow
@pytest.mark.attack("strangers fill a mailbox")
@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_strangers_fill_half_of_a_mailbox_at_most(start_server: StartServer, store: str) -> None:
    """Each a tenth. The friend, to whom Bob has written before, gets through."""
    server = start_server(mailbox_max=MAILBOX, store=store)
    bob_id, friend_id = user_on_worker(0, 2), user_on_worker(1, 2)
    friend = come(server.port, friend_id)
    with come(server.port, bob_id) as bob:
        bob.say("OPEN_CHAT", target_user_id=friend_id, target_display_name="Friend")
        bob.receive("CHAT_OPENED")
        bob.say("MSG", to=friend_id, content="Hello.", message_id="hello")
        bob.receive("MSG_ACK")
    strangers = [come(server.port, user_on_worker(1, 2)) for _ in range(8)]
    told = []
    for stranger in strangers:
        stranger.say("OPEN_CHAT", target_user_id=bob_id, target_display_name="Bob")
        stranger.receive("CHAT_OPENED")
        told += [write(stranger, bob_id, f"{number}") for number in range(5)]
    assert told == ["stored", "stored", "stored", "stored", "sender"] * 5 + ["strangers"] * 15
    friend.receive("CHAT_OPENED")
    assert [write(friend, bob_id, f"{number}") for number in range(5)] == ["stored"] * 4 + ["sender"]
    assert write(strangers[0], bob_id, "0") == "stored", "a repeat of what is stored is answered"
    with come(server.port, bob_id) as bob:
        came = [bob.receive("MSG") for _ in range(24)]
        assert [(message["from"], message["message_id"]) for message in came] == [
            *((stranger.user_id, f"{number}") for stranger in strangers[:5] for number in range(4)),
            *((friend_id, f"{number}") for number in range(4)),
        ], "nothing is evicted, and everybody's order is kept"
        bob.say("MSG_ACK", message_id="0", **{"from": strangers[0].user_id})
        bob.everything()
    assert write(strangers[7], bob_id, "again") == "stored"
    assert write(strangers[6], bob_id, "again") == "strangers"
    for client in [friend, *strangers]:
        client.socket.close()
