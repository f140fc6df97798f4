"""core.chat.presence for clients with `presence_delta`: whom the list is about, and asking after somebody (D21)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from core.wire.protocol import (
    PRESENCE_ASKED_MAX,
    PRESENCE_EVERYONE_AGAIN,
    PRESENCE_EVERYONE_MAX,
    PRESENCE_GRACE,
    PRESENCE_INTERVAL,
    PRESENCE_SHED_BYTES,
)
from tests.core.pair import Pair
from tests.core.world import Device, World


def crowd(world: World, size: int) -> list[Device]:
    """That many users with one device each."""
    return [world.device(world.user_on(1)).hello() for _ in range(size)]


def chatting(far: bool, **settings: Any) -> tuple[Pair, Device, Device]:
    """Ann and Bob, who have a chat and `presence_delta`; both have read everything, and nothing more is due."""
    pair = Pair(far, **settings)
    ann, bob = pair.chatting("presence_delta")
    pair.world.pass_time(2)
    ann.take()
    bob.take()
    return pair, ann, bob


def ask(device: Device, *user_ids: str) -> dict[str, tuple[str, bool]]:
    """user -> (name, online), as PRESENCE is answered at once; whatever else had come is skipped."""
    device.take()
    device.say("PRESENCE", user_ids=list(user_ids))
    answer = device.one("PRESENCE")
    assert answer["delta"] is True
    entries = {user["user_id"]: (user["display_name"], user["online"]) for user in answer["users"]}
    assert len(entries) == len(answer["users"]), "nobody is told twice"
    return entries


# -- Scope --


@pytest.mark.parametrize(
    ("mode", "scope"), [("auto", "everyone"), ("everyone", "everyone"), ("contacts", "contacts")]
)
def test_d21_hello_ack_and_every_presence_say_who_is_listed(far: bool, mode: str, scope: str) -> None:
    """The first, the deltas and the answers; also when HELLO is said again."""
    pair = Pair(far, presence=mode)
    ann, bob = pair.come(pair.ann, "presence_delta"), pair.come(pair.bob)
    assert [message["data"]["scope"] for message in ann.take()] == [scope, scope]
    ann.open_chat(pair.bob)
    pair.world.pass_time(2)
    bob.hello("Robert")
    pair.world.pass_time(2)
    ann.say("PRESENCE", user_ids=[])
    came = ann.take("PRESENCE")
    assert len(came) >= 2
    assert all(presence["scope"] == scope and presence["delta"] for presence in came)
    ann.hello(capabilities=["presence_delta"])
    assert ann.one("HELLO_ACK")["scope"] == scope


def test_d21_without_the_capability_the_bytes_are_those_of_the_document(far: bool) -> None:
    """In every mode and over a switch; asking is an unknown message."""
    pair = Pair(far, presence="auto")
    ann, bob = pair.chatting()
    others = crowd(pair.world, PRESENCE_EVERYONE_MAX - 1)
    pair.world.pass_time(2)
    for other in others:
        other.leave()
    pair.world.pass_time(PRESENCE_GRACE + 2)
    ann.hello()
    assert ann.take("HELLO_ACK")[-1].keys() == {"user_id", "status"}
    pair.world.pass_time(2)
    assert all(presence.keys() == {"users"} for presence in (*ann.take("PRESENCE"), *bob.take("PRESENCE")))
    ann.say("PRESENCE", user_ids=[pair.bob])
    refused = ann.error()
    assert (refused["code"], refused["details"]["field"]) == ("VALIDATION", "type")
    assert "PRESENCE" not in refused["details"]["expected"]


def test_d21_the_switch_is_told_both_ways_to_who_has_no_chat_and_to_who_has(far: bool) -> None:
    """By a PRESENCE that is the whole list of the new scope, though nobody whom the client knows has come or gone."""
    pair, ann, _ = chatting(far, presence="auto")
    cat = pair.come(pair.cat, "presence_delta")
    others = crowd(pair.world, PRESENCE_EVERYONE_MAX - 3)
    pair.world.pass_time(2)
    assert {presence["scope"] for presence in (*ann.take("PRESENCE"), *cat.take("PRESENCE"))} == {"everyone"}
    others += crowd(pair.world, 1)
    pair.world.pass_time(1.5)
    for device, listed in ((ann, {pair.ann, pair.bob}), (cat, {pair.cat})):
        whole = device.one("PRESENCE")
        assert whole["scope"] == "contacts"
        assert "delta" not in whole
        assert {user["user_id"] for user in whole["users"]} == listed
    come = pair.world.device(pair.world.user_on(0)).hello(capabilities=["presence_delta"])
    assert [message["data"]["scope"] for message in come.take()] == ["contacts", "contacts"]
    come.leave()
    for other in others[: len(others) + 3 - (PRESENCE_EVERYONE_AGAIN - 1)]:
        other.leave()
    pair.world.pass_time(PRESENCE_GRACE + 1.5)
    for device in (ann, cat):
        whole = device.take("PRESENCE")[-1]
        assert whole["scope"] == "everyone"
        assert "delta" not in whole
        assert len(whole["users"]) == PRESENCE_EVERYONE_AGAIN - 1


def test_d21_who_does_not_keep_up_is_told_of_the_switch_later(far: bool) -> None:
    """The list that is due then is the whole one of the scope that holds by then (D29)."""
    pair, ann, _ = chatting(far, presence="auto")
    ann.waiting = PRESENCE_SHED_BYTES + 1
    crowd(pair.world, PRESENCE_EVERYONE_MAX)
    pair.world.pass_time(3)
    assert not ann.inbox
    ann.drain()
    pair.world.pass_time(PRESENCE_INTERVAL + 0.2)
    whole = ann.one("PRESENCE")
    assert (whole["scope"], "delta" in whole) == ("contacts", False)
    assert len(whole["users"]) == 2


# -- Asking --


@pytest.mark.parametrize("mode", ["everyone", "contacts"])
def test_d21_who_has_a_chat_is_told_who_is_online(far: bool, mode: str) -> None:
    """At once, online or not, under the name that was given last, in the order asked for and each once."""
    pair, ann, bob = chatting(far, presence=mode)
    assert ask(ann, pair.bob, pair.bob, pair.bob.upper()) == {pair.bob: ("Bob Ray", True)}
    bob.hello("Robert")
    assert ask(ann, pair.bob) == {pair.bob: ("Robert", True)}
    bob.leave()
    assert ask(ann, pair.bob) == {pair.bob: ("Robert", True)}, "the grace counts here too"
    pair.world.pass_time(PRESENCE_GRACE + 1)
    assert ask(ann, pair.bob) == {pair.bob: ("Robert", False)}
    cat = pair.come(pair.cat)
    cat.open_chat(pair.ann)
    assert list(ask(ann, pair.cat, pair.bob).items()) == [
        (pair.cat, ("Cat Poe", True)),
        (pair.bob, ("Robert", False)),
    ]


@pytest.mark.parametrize("mode", ["everyone", "contacts"])
def test_d21_nothing_is_told_of_anybody_else(far: bool, mode: str) -> None:
    """Who is online, who has been, who has never been here and oneself: none of them is in the answer, which always comes."""
    pair, ann, bob = chatting(far, presence=mode)
    pair.online(pair.cat)
    gone = pair.world.device(pair.world.user_on(1)).hello()
    gone.leave()
    strangers = [pair.cat, gone.user_id, pair.world.user_on(0), pair.ann]
    assert ask(ann, *strangers) == {}
    assert ask(ann) == {}
    assert set(ask(ann, *strangers, pair.bob)) == {pair.bob}
    assert not bob.inbox, "nobody learns that one has been asked after"


def test_d21_a_chat_that_is_not_durable_yet_is_none(far: bool) -> None:
    """As for everything else: what the store could not take has not happened (D20)."""
    pair = Pair(far)
    ann, _ = pair.online(pair.ann, pair.bob)
    ann.hello(capabilities=["presence_delta"])
    pair.world.store_of(pair.bob).failure = "disk full"
    ann.open_chat(pair.bob)
    assert ask(ann, pair.bob) == {}


def test_d21_what_was_asked_for_takes_nothing_from_what_is_told_anyway(far: bool) -> None:
    """A change that is due comes all the same, and at its time."""
    pair, ann, bob = chatting(far)
    bob.hello("Robert")
    assert ask(ann, pair.bob) == {pair.bob: ("Robert", True)}
    pair.world.pass_time(1.5)
    presence = ann.one("PRESENCE")
    assert [user["display_name"] for user in presence["users"]] == ["Robert"]


@pytest.mark.parametrize(
    ("user_ids", "details"),
    [
        (None, {"expected": "list of user ids (UUID v4)"}),
        ("a", {"expected": "list of user ids (UUID v4)"}),
        ({"a": 1}, {"expected": "list of user ids (UUID v4)"}),
        ([1], {"expected": "UUID v4"}),
        ([None], {"expected": "UUID v4"}),
        (["nobody"], {"expected": "UUID v4"}),
        (
            [str(uuid.UUID(int=number, version=4)) for number in range(PRESENCE_ASKED_MAX + 1)],
            {"limit": PRESENCE_ASKED_MAX, "length": PRESENCE_ASKED_MAX + 1},
        ),
    ],
)
def test_d24_what_is_wrong_with_a_question_is_said(user_ids: Any, details: dict[str, Any]) -> None:
    """The field, what was expected, and the limit; the connection stays, and nothing has counted against the limit of a minute."""
    pair, ann, _ = chatting(False, presence_per_minute=1)
    ann.say("PRESENCE", user_ids=user_ids)
    refused = ann.error()
    assert refused["code"] == "VALIDATION"
    assert refused["details"] == {"type": "PRESENCE", "field": "user_ids", **details}
    ann.say("PRESENCE")
    assert ann.error()["details"]["field"] == "user_ids"
    assert ask(ann, *[pair.bob] * PRESENCE_ASKED_MAX) == {pair.bob: ("Bob Ray", True)}


def test_d23_questions_are_limited_for_a_user_on_all_devices(far: bool) -> None:
    """60 in any 60 s; a new connection begins no new minute."""
    pair, ann, _ = chatting(far)
    for _ in range(59):
        ask(ann, pair.bob)
    other = pair.come(pair.ann, "presence_delta")
    ask(other, pair.bob)
    ann.leave()
    again = pair.come(pair.ann, "presence_delta")
    for device in (other, again):
        device.take()
        device.say("PRESENCE", user_ids=[pair.bob])
        refused = device.error()
        assert refused["code"] == "RATE_LIMITED"
        assert (refused["details"]["type"], refused["details"]["limit"]) == ("PRESENCE", 60)
    pair.world.pass_time(refused["details"]["retry_after"], step=1.0)
    assert ask(other, pair.bob)


def test_d23_the_limit_can_be_turned_off() -> None:
    pair, ann, _ = chatting(False, presence_per_minute=0)
    for _ in range(200):
        assert ask(ann, pair.bob)
