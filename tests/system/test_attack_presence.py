"""Finding out who there is, and who is online, with FASTCHAT_PRESENCE=contacts (D8, D9, D21, D23).

What one does learn of strangers stands in SECURITY.md: whether a user id has ever been used, by OPEN_CHAT and MSG, and by opening
a chat, of which the other one is told, what opens with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final
from uuid import uuid4

import pytest

from tests.system.harness import Server, user_on_worker
from tests.system.raw_client import RawClient
from tests.system.servers import shared_server

CAPABILITIES: Final = ["history", "presence_delta", "receipts", "resume"]
WHERE: Final = pytest.mark.parametrize("where", ["same shard", "other shard"])


@pytest.fixture(scope="module")
def discreet(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which people see those only whom they have a chat with; with the limit on opening chats that a server has by default."""
    settings: dict[str, Any] = {"presence": "contacts", "open_chats_per_minute": 20}
    with shared_server(pytestconfig, tmp_path_factory, workers=2, **settings) as server:
        yield server


def come(server: Server, user_id: str, name: str, *capabilities: str) -> RawClient:
    client = RawClient.upgraded(server.port, user_id, name)
    client.hello(**{"capabilities": list(capabilities)} if capabilities else {})
    return client


def open_chat(client: RawClient, peer: str) -> dict[str, Any]:
    client.say("OPEN_CHAT", target_user_id=peer, target_display_name="Somebody")
    return client.receive("CHAT_OPENED", target_user_id=peer)


def wait_presence(client: RawClient, user_id: str, name: str | None) -> None:
    """Until the latest list has this user under this name; None: until it has not."""
    while True:
        users = client.receive("PRESENCE", timeout=20.0)["users"]
        if name == next((user["display_name"] for user in users if user["user_id"] == user_id), None):
            return


@pytest.mark.slow
@pytest.mark.attack("presence enumeration")
@WHERE
@pytest.mark.parametrize("capabilities", [(), CAPABILITIES], ids=["plain", "presence_delta"])
def test_strangers_coming_and_going_tells_nothing(
    discreet: Server, where: str, capabilities: tuple[str, ...]
) -> None:
    """Nor do their new names, their chats and what they write; while a friend beside Mallory sees all of it."""
    shard = 0 if where == "same shard" else 1
    alice_id = user_on_worker(shard, 2)
    with (
        come(discreet, user_on_worker(0, 2), "Mallory", *capabilities) as mallory,
        come(discreet, user_on_worker(0, 2), "Friend") as friend,
    ):
        with come(discreet, alice_id, "Alice") as alice:
            open_chat(friend, alice_id)
            wait_presence(friend, alice_id, "Alice")
            alice.hello(display_name="Alicia")
            wait_presence(friend, alice_id, "Alicia")
            alice.say("MSG", to=friend.user_id, content="hi")
            friend.receive("MSG")
        wait_presence(friend, alice_id, None)
        told = mallory.everything()
        assert [kind for kind, _ in told] == ["PRESENCE"], told
        me = {"user_id": mallory.user_id, "display_name": "Mallory", "online": True}
        assert told[0][1]["users"] == [me]


#: What may be asked about somebody with whom one has no chat, and the error that it is answered with; None: nothing is.
QUESTIONS: Final[dict[str, tuple[str, dict[str, Any], str | None]]] = {
    "TYPING": ("to", {"is_typing": True}, "CHAT_NOT_OPENED"),
    "HISTORY": ("with", {}, "CHAT_NOT_OPENED"),
    "MSG_ACK": ("from", {"message_id": "m"}, None),
    "READ": ("from", {"message_id": "m"}, None),
}


@pytest.mark.attack("presence enumeration")
@WHERE
def test_who_is_online_cannot_be_told_from_who_is_not(discreet: Server, where: str) -> None:
    """And for all but OPEN_CHAT and MSG, neither can who has never been there. The same bytes, but for the ids in them."""
    shard = 0 if where == "same shard" else 1
    there, away, nobody = (user_on_worker(shard, 2) for _ in range(3))
    with come(discreet, away, "Away") as leaving:
        leaving.everything()
    with (
        come(discreet, there, "There") as alice,
        come(discreet, user_on_worker(0, 2), "Mallory", *CAPABILITIES) as mallory,
    ):
        mallory.receive("PRESENCE")
        for kind, (field, data, code) in QUESTIONS.items():
            answers = []
            for user in (there, away, nobody):
                mallory.say(kind, **{field: user, **data})
                if code is not None:
                    answers.append(mallory.error(code))
                answers += [data for _, data in mallory.everything()]
            assert len(answers) == (0 if code is None else 3)
            assert all(answer == answers[0] for answer in answers), (kind, answers)
        mallory.say("PRESENCE", user_ids=[there, away, nobody])
        assert mallory.receive("PRESENCE")["users"] == []
        for user in (there, away):
            mallory.say("MSG", to=user, content="hi", message_id="m")
        assert mallory.error("CHAT_NOT_OPENED") == mallory.error("CHAT_NOT_OPENED")
        mallory.say("MSG", to=nobody, content="hi", message_id="m")
        mallory.error("USER_NOT_FOUND")
        # To open a chat is to say so to the other one; the answer is the same for both but for the names.
        opened = [open_chat(mallory, user) for user in (there, away)]
        assert opened[0].keys() == opened[1].keys()
        assert alice.receive("CHAT_OPENED")["target_user_id"] == mallory.user_id
        mallory.say("OPEN_CHAT", target_user_id=nobody, target_display_name="Somebody")
        mallory.error("USER_NOT_FOUND")


@pytest.mark.attack("presence enumeration")
def test_looking_for_people_is_limited_for_a_user(discreet: Server) -> None:
    """20 OPEN_CHAT a minute, whether there is such a user or not, over all devices, and a new connection begins no new minute."""
    mallory_id = str(uuid4())
    with ExitStack() as stack:
        bob = stack.enter_context(come(discreet, user_on_worker(1, 2), "Bob"))
        devices = [stack.enter_context(come(discreet, mallory_id, "Mallory")) for _ in range(3)]
        for number in range(18):
            device = devices[number % 3]
            if number % 2:
                open_chat(device, bob.user_id)
            else:
                device.say("OPEN_CHAT", target_user_id=str(uuid4()), target_display_name="Somebody")
                device.error("USER_NOT_FOUND")
        for device in devices:
            device.socket.close()
        for _ in range(2):
            with come(discreet, mallory_id, "Mallory") as again:
                open_chat(again, bob.user_id)
        for wanted in (bob.user_id, user_on_worker(0, 2), user_on_worker(1, 2)):
            with come(discreet, mallory_id, "Mallory") as again:
                again.say("OPEN_CHAT", target_user_id=wanted, target_display_name="Somebody")
                details = again.error("RATE_LIMITED")["details"]
                assert (details["type"], details["limit"]) == ("OPEN_CHAT", 20)
