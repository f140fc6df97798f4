"""core.chat.on_behalf: what the server API asks for in the place of a user (D36)."""

from __future__ import annotations

from typing import Any

from core.chat.operator import BAN, NAME
from core.wire.protocol import UNLOAD_AFTER
from tests.core.chat.test_operator import ask
from tests.core.pair import Pair


def say(pair: Pair, user: str, kind: str, **data: Any) -> dict[str, Any]:
    return ask(pair.world, "say", user, type=kind, data=data)


def test_d36_a_message_needs_no_device_and_no_open_chat(pair: Pair) -> None:
    """And nobody sees its sender online."""
    pair.online(pair.ann)[0].leave()
    pair.world.pass_time(2 * UNLOAD_AFTER, step=30)
    bob, cat = pair.online(pair.bob, pair.cat)
    answer = say(pair, pair.ann, "MSG", to=pair.bob, content="hello", message_id="a-1")
    assert answer == {"type": "MSG_ACK", "data": {"message_id": "a-1", "status": "delivered"}}
    (message,) = bob.take("MSG")
    assert (message["from"], message["content"], message["message_id"]) == (pair.ann, "hello", "a-1")
    pair.world.pass_time(3)
    assert not [
        user for each in cat.take("PRESENCE") for user in each["users"] if user["user_id"] == pair.ann
    ]


def test_d36_a_message_id_counts_once(pair: Pair) -> None:
    _, bob = pair.online(pair.ann, pair.bob)
    for status in ("delivered", "delivered"):
        answer = say(pair, pair.ann, "MSG", to=pair.bob, content="hello", message_id="a-1")
        assert answer["data"]["status"] == status
    other = say(pair, pair.ann, "MSG", to=pair.bob, content="other", message_id="a-1")
    assert (other["type"], other["data"]["code"]) == ("ERROR", "VALIDATION")
    assert len(bob.take("MSG")) == 1


def test_d36_the_devices_of_the_sender_see_it(pair: Pair) -> None:
    one = pair.come(pair.ann, "carbons", "chats")
    pair.online(pair.bob)
    say(pair, pair.ann, "MSG", to=pair.bob, content="hello", message_id="a-1")
    pair.world.pass_time(2)
    assert [message["message_id"] for message in one.take("MSG")] == ["a-1"]
    assert one.take("CHATS")[-1]["chats"][0]["last"]["message_id"] == "a-1"


def test_d36_history_and_chats_are_those_that_a_device_gets(pair: Pair) -> None:
    ann, _ = pair.chatting("history", "chats")
    for number in range(5):
        ann.msg(pair.bob, f"text {number}", f"a-{number}")
    ann.take()
    page = say(pair, pair.ann, "HISTORY", limit=2, **{"with": pair.bob})["data"]
    assert [message["message_id"] for message in page["messages"]] == ["a-4", "a-3"]
    ann.say("HISTORY", limit=2, before=page["next"], **{"with": pair.bob})
    following = say(pair, pair.ann, "HISTORY", limit=2, before=page["next"], **{"with": pair.bob})
    assert following["data"] == ann.take("HISTORY")[0]
    ann.say("CHATS")
    assert say(pair, pair.bob, "CHATS")["data"]["chats"][0]["unread"] == 5
    assert say(pair, pair.ann, "CHATS")["data"] == ann.take("CHATS")[0]


def test_d36_what_is_refused_is_an_error_of_the_protocol(pair: Pair) -> None:
    pair.online(pair.ann, pair.bob)
    refused = [
        say(pair, pair.cat, "MSG", to=pair.bob, content="hello"),
        say(pair, pair.ann, "MSG", to=pair.cat, content="hello"),
        say(pair, pair.ann, "MSG", to=pair.bob, content=""),
        say(pair, pair.ann, "HISTORY", **{"with": pair.bob}),
        say(pair, pair.ann, "CHATS", limit=0),
    ]
    codes = ["USER_NOT_FOUND", "USER_NOT_FOUND", "VALIDATION", "CHAT_NOT_OPENED", "VALIDATION"]
    assert [each["data"]["code"] for each in refused] == codes
    ask(pair.world, BAN, pair.ann)
    banned = say(pair, pair.ann, "MSG", to=pair.bob, content="hello")
    assert (banned["data"]["code"], banned["data"]["details"]["reason"]) == ("UNAUTHORIZED", "banned")


def test_d36_the_limits_are_those_of_a_backend(far: bool) -> None:
    pair = Pair(far, messages_per_minute=1, service_messages_per_minute=3, lists_per_minute=1)
    ann, bob = pair.chatting()
    answers = [say(pair, pair.ann, "MSG", to=pair.bob, content="hello")["type"] for _ in range(4)]
    assert answers == ["MSG_ACK", "MSG_ACK", "MSG_ACK", "ERROR"]
    ann.msg(pair.bob, "mine")
    assert len(ann.take("MSG_ACK")) == 1, "nothing of it counts against the user's own limit"
    assert [say(pair, pair.ann, "CHATS")["type"] for _ in range(3)] == ["CHATS"] * 3
    assert len(bob.take("MSG")) == 4


def test_d36_a_store_that_fails_is_an_error(pair: Pair) -> None:
    pair.chatting()
    pair.world.store_of(pair.bob).failure = "the disk is full"
    answer = say(pair, pair.ann, "MSG", to=pair.bob, content="hello")
    assert (answer["type"], answer["data"]["code"]) == ("ERROR", "MESSAGE_FAILED")


def test_d36_the_chat_has_the_name_of_a_sender_who_is_not_online(pair: Pair) -> None:
    ask(pair.world, NAME, pair.ann, users=[(pair.ann, "Ann Lee")])
    bob = pair.come(pair.bob, "chats")
    say(pair, pair.ann, "MSG", to=pair.bob, content="hello")
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Lee"
    assert say(pair, pair.bob, "CHATS")["data"]["chats"][0]["display_name"] == "Ann Lee"


def test_d7_a_chat_that_only_the_api_has_used_is_told_of_at_the_next_hello(pair: Pair) -> None:
    """Of what was asked in the place of a user, no device of the user knows."""
    for user, name in ((pair.ann, "Ann Lee"), (pair.bob, "Bob Ray")):
        ask(pair.world, NAME, user, users=[(user, name)])
    for number in range(2):
        say(pair, pair.ann, "MSG", to=pair.bob, content="hello", message_id=f"a-{number}")
    say(pair, pair.ann, "HISTORY", **{"with": pair.bob})
    ann = pair.come(pair.ann)
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Bob Ray"
