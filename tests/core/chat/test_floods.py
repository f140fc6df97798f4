"""Messages that come to nothing: all are answered, who sends many is read slowly, and who never stops is closed (D23)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from core.chat.pace import BURST, REFUSALS_PER_MINUTE
from core.chat.ratelimit import TokenBucket
from tests.core.pair import Pair
from tests.core.world import Device

Say = Callable[[Device, str, int], object]

#: What comes to nothing, by what the client does; each needs the chat that is there, and limits of one a minute.
FRUITLESS: dict[str, Say] = {
    "PING": lambda ann, bob, number: ann.say("PING"),
    "TYPING": lambda ann, bob, number: ann.typing(),
    "OPEN_CHAT": lambda ann, bob, number: ann.open_chat(bob),
    "HISTORY": lambda ann, bob, number: ann.say("HISTORY", **{"with": bob}),
    "HELLO": lambda ann, bob, number: ann.hello("Ann Lee", capabilities=["receipts", "history"]),
    "MSG over the limit": lambda ann, bob, number: ann.msg(bob),
    "MSG, repeated": lambda ann, bob, number: ann.msg(bob, "Hi.", "first"),
    "MSG to nobody": lambda ann, bob, number: ann.msg(str(uuid4())),
    "MSG without a chat": lambda ann, bob, number: ann.msg(ann.user_id),
    "MSG_ACK of nothing": lambda ann, bob, number: ann.say(
        "MSG_ACK", **{"from": bob, "message_id": f"{number}"}
    ),
    "READ of nothing": lambda ann, bob, number: ann.say("READ", **{"from": bob, "message_id": f"{number}"}),
}


def flooder(pair: Pair, *kinds: str) -> Device:
    """Ann, who has used up what she may, on a shard that has nothing to spare; she knows of a message, and has one that is not known."""
    ann, bob = pair.chatting("receipts", "history")
    bob.msg(pair.ann)
    ann.msg(pair.bob, "Hi.", "first")
    for say in FRUITLESS.values():
        say(ann, pair.bob, -1)
    ann.take()
    for shard in pair.world.shards:
        shard.spare = TokenBucket(1e-9, 0, 0.0)
    return ann


def limited(far: bool, **settings: Any) -> Pair:
    ones = ("messages", "typing", "open_chats", "hellos", "history")
    limits = {f"{name}_per_minute": 1 for name in ones}
    return Pair(far, **limits | {"pings_per_second": 0.001} | settings)


@pytest.mark.parametrize("kind", FRUITLESS)
def test_d23_who_floods_is_held_and_read_again(far: bool, kind: str) -> None:
    """For each kind of message: none is without its answer, and reading stops, for a moment at a time."""
    pair = limited(far, messages_per_minute=3, hellos_per_minute=3)
    ann = flooder(pair)
    say = FRUITLESS[kind]
    for number in range(int(BURST) + 20):
        if not ann.reading:
            break
        say(ann, pair.bob, number)
    assert not ann.reading, "such a flood is read as fast as it comes"
    assert ann.held_until < pair.world.now + 2.0
    pair.world.pass_time(2.0)
    assert ann.reading
    assert ann.open
    ann.take()
    say(ann, pair.bob, -2)
    answers = ann.kinds()
    assert answers == ([] if kind in ("MSG_ACK of nothing", "READ of nothing") else answers[:1])


@pytest.mark.parametrize(("kind", "sent"), [("MSG over the limit", 300), ("OPEN_CHAT", 230)])
def test_d23_an_honest_burst_ends_by_itself(far: bool, kind: str, sent: int) -> None:
    """Nothing is lost, nobody is closed, and the PING behind it is answered within 5 s, while others use up all that is to spare."""
    pair = limited(far, pings_per_second=1.0)
    ann = flooder(pair)
    pair.world.pass_time(1.0)
    ann.take()
    began = pair.world.now
    for number in range(sent):
        while not ann.reading:
            pair.world.pass_time(0.1)
        FRUITLESS[kind](ann, pair.bob, number)
    while not ann.reading:
        pair.world.pass_time(0.1)
    ann.say("PING")
    assert pair.world.now - began < 5.0
    assert len(ann.take("ERROR")) == sent
    assert ann.one("PONG")


def test_d23_without_end_is_1008(far: bool) -> None:
    """After more than 200 refusals in each of three minutes in a row, not before, and with an ERROR for each of them."""
    pair = limited(far)
    ann = flooder(pair)
    began, refused = pair.world.now, 0
    for number in count():
        while not ann.reading:
            pair.world.pass_time(0.1)
        FRUITLESS["TYPING"](ann, pair.bob, number)
        refused += len(ann.errors()) if ann.open else 1
        pair.world.pass_time(0.1)
        if not ann.open:
            break
    assert ann.closed is not None
    assert ann.closed[0] == 1008
    assert 120.0 < pair.world.now - began < 180.0
    assert refused > 2 * REFUSALS_PER_MINUTE


@pytest.mark.parametrize("kind", ["MSG", "HELLO", "OPEN_CHAT"])
def test_d23_texts_that_are_mostly_markup_weigh_more(far: bool, kind: str) -> None:
    """Also while they are accepted: taking it out costs as much as many messages. Long texts, and some markup, are nothing special."""
    pair = Pair(far)
    ann, _ = pair.chatting()
    for _ in range(10):
        ann.msg(pair.bob, "\N{GRINNING FACE}" * 1000)
        ann.msg(pair.bob, "<b>all</b> " * 90)
    assert ann.reading
    markup = "Bobby" + "<b></b>" * 2000
    said = 0
    while said < 100 and ann.reading:
        match kind:
            case "MSG":
                ann.msg(pair.bob, markup)
            case "HELLO":
                ann.hello(markup)
            case "OPEN_CHAT":
                ann.say("OPEN_CHAT", target_user_id=pair.bob, target_display_name=markup)
        said += 1
    assert 6 <= said < 12, "a few of them, and not as many as of others"
    pair.world.pass_time(2.0)
    assert ann.reading


def test_d23_one_such_text_in_each_turn_and_others_between(far: bool) -> None:
    """However many send one at the same time; what each of them says behind it stays behind it, but PING is answered."""
    pair = Pair(far)
    devices = pair.chatting()
    devices += [pair.world.device(pair.world.user_on(0)).hello() for _ in range(5)]
    ann, _, *others = devices
    for other in others:
        other.open_chat(pair.ann)
    for device in devices:
        device.take()
    for other in others:
        other.msg(pair.ann, "<b></b>" * 300 + "long", settle=False)
        other.msg(pair.ann, "behind it", settle=False)
        other.say("PING", False)
        assert other.kinds() == ["PONG"]
    shown: list[int] = []
    while not shown or shown[-1] < 2 * len(others):
        pair.world.turn(0)
        shown.append(len(ann.inbox))
        assert len(shown) < 50
    assert max(later - earlier for earlier, later in zip([0, *shown], shown, strict=False)) <= 2
    assert ann.contents().count("long") == len(others)
    for other in others:
        assert len(other.take("MSG_ACK")) == 2


def test_d23_what_fails_here_is_not_held_against_the_client(far: bool) -> None:
    """D26: MESSAGE_FAILED is the server's doing, so nobody is slowed or closed for it."""
    pair = Pair(far)
    ann, _ = pair.chatting()
    for store in pair.world.stores:
        store.failure = "the disk is full"
    for number in range(5 * int(BURST)):
        ann.msg(pair.bob, message_id=f"{number}")
    assert set(ann.errors()) == {"MESSAGE_FAILED"}
    assert ann.reading
