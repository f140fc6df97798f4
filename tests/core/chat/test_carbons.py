"""core.chat.messages: what one device of a user sends is seen on the others (D15)."""

from __future__ import annotations

import pytest

from core.wire.protocol import CONFIRM_TIMEOUT
from tests.core.pair import Pair
from tests.core.world import TIMESTAMP, Device

ONE = "first-id"


def chatting(pair: Pair) -> list[Device]:
    """Ann's phone and laptop, the laptop with carbons, and Bob's device."""
    phone, bob = pair.chatting()
    laptop = pair.come(pair.ann, "carbons")
    laptop.take()
    return [phone, laptop, bob]


def test_d15_the_other_devices_get_the_message_as_its_recipient_does(pair: Pair) -> None:
    """The same frame as for the recipient, so that a client needs to look at `from` only; without a position even if it resumes."""
    phone, laptop, bob = chatting(pair)
    third = pair.come(pair.ann, "carbons", "resume", "receipts")
    plain = pair.come(pair.ann, "resume", "receipts", "history")
    for device in (third, plain):
        device.take()
    phone.msg(pair.bob, "Hi.", ONE)
    expected = {
        "from": pair.ann,
        "to": pair.bob,
        "content": "Hi.",
        "message_id": ONE,
        "timestamp": TIMESTAMP.decode(),
    }
    assert bob.one("MSG") == expected
    assert laptop.take() == third.take() == [{"type": "MSG", "data": expected}]
    assert phone.kinds() == ["MSG_ACK"], "not to the one that sent it"
    assert not plain.inbox


def test_d15_carbons_need_no_acknowledgement(pair: Pair) -> None:
    """They are not the mailbox's: they do not come again, and no ping follows them."""
    phone, laptop, _ = chatting(pair)
    phone.msg(pair.bob, "Hi.", ONE)
    assert laptop.contents() == ["Hi."]
    assert not laptop.pings
    laptop.leave()
    again = pair.come(pair.ann, "carbons")
    assert again.contents() == []


def test_d15_in_the_order_in_which_they_were_sent(pair: Pair) -> None:
    phone, laptop, bob = chatting(pair)
    for number in range(20):
        phone.msg(pair.bob, f"{number}", settle=number % 3 == 0)
    pair.world.settle()
    assert laptop.contents() == bob.contents() == [f"{number}" for number in range(20)]


def test_d15_a_device_with_carbons_gets_those_of_all_others(pair: Pair) -> None:
    """And none of its own."""
    phone, laptop, bob = chatting(pair)
    tablet = pair.come(pair.ann, "carbons")
    tablet.take()
    for device, content in ((phone, "phone"), (laptop, "laptop"), (tablet, "tablet")):
        device.msg(pair.bob, content)
    assert phone.contents() == []
    assert laptop.contents() == ["phone", "tablet"]
    assert tablet.contents() == ["phone", "laptop"]
    assert bob.contents() == ["phone", "laptop", "tablet"]


def test_d15_d20_once_it_is_durable(pair: Pair) -> None:
    """No device shows what the recipient may never get."""
    phone, laptop, _ = chatting(pair)
    store = pair.world.store_of(pair.bob)
    store.slow = True
    phone.msg(pair.bob, "Hi.")
    assert not laptop.inbox
    store.slow = False
    pair.world.settle()
    assert laptop.contents() == ["Hi."]


def test_d15_also_when_the_recipient_is_away(pair: Pair) -> None:
    """Stored is as good as delivered."""
    phone, laptop, bob = chatting(pair)
    bob.leave()
    phone.msg(pair.bob, "Hi.")
    assert laptop.contents() == ["Hi."]


def test_d10_d15_not_for_repeats(pair: Pair) -> None:
    """Nor for what was refused."""
    phone, laptop, _ = chatting(pair)
    for _ in range(3):
        phone.msg(pair.bob, "Hi.", ONE, settle=False)
    pair.world.settle()
    phone.msg(pair.bob, "Hi.", ONE)
    assert laptop.contents() == ["Hi."]
    phone.msg(pair.bob, "Not that.", ONE)
    phone.msg(pair.cat, "Hi.")
    pair.world.store_of(pair.bob).failure = "disk full"
    phone.msg(pair.bob, "Lost.")
    assert phone.errors() == ["VALIDATION", "USER_NOT_FOUND", "MESSAGE_FAILED"]
    assert laptop.contents() == []


def test_d15_a_repeat_from_another_device_brings_nothing(pair: Pair) -> None:
    """To nobody: the one that repeats it knows it, and the others got it before."""
    phone, laptop, _ = chatting(pair)
    phone.msg(pair.bob, "Hi.", ONE)
    laptop.take()
    laptop.msg(pair.bob, "Hi.", ONE)
    assert laptop.kinds() == ["MSG_ACK"]
    assert phone.contents() == []


def test_d15_what_was_sent_before_leaving_shows_on_the_device_that_stays(pair: Pair) -> None:
    """The sender is gone when it is committed, and there is one other device."""
    phone, laptop, _ = chatting(pair)
    store = pair.world.store_of(pair.bob)
    store.slow = True
    phone.msg(pair.bob, "Hi.")
    phone.leave()
    store.slow = False
    pair.world.settle()
    assert laptop.contents() == ["Hi."]


def test_d15_what_failed_in_time_is_not_shown_later(pair: Pair) -> None:
    """The phone was told that it failed; the message may be in the mailbox all the same, and a repeat of it brings no carbon."""
    phone, laptop, _ = chatting(pair)
    store = pair.world.store_of(pair.bob)
    store.slow = True
    phone.msg(pair.bob, "Hi.", ONE)
    pair.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert phone.errors() == ["MESSAGE_FAILED"]
    store.slow = False
    pair.world.settle()
    assert laptop.contents() == []
    phone.msg(pair.bob, "Hi.", ONE)
    assert laptop.contents() == ["Hi."]


@pytest.mark.parametrize("when", ["on", "off"])
def test_d15_the_last_hello_says_what_is_in_force(pair: Pair, when: str) -> None:
    phone, laptop, _ = chatting(pair)
    if when == "off":
        laptop.hello("Ann Lee", capabilities=[])
    else:
        phone.hello("Ann Lee", capabilities=["carbons"])
    phone.msg(pair.bob, "from the phone")
    laptop.msg(pair.bob, "from the laptop")
    assert laptop.contents() == (["from the phone"] if when == "on" else [])
    assert phone.contents() == (["from the laptop"] if when == "on" else [])


def test_d15_nobody_elses_devices(pair: Pair) -> None:
    """The recipient's devices with carbons get the message once."""
    phone, _, bob = chatting(pair)
    too = pair.come(pair.bob, "carbons")
    phone.msg(pair.bob, "Hi.")
    assert too.contents() == bob.contents() == ["Hi."]
    bob.msg(pair.ann, "Hello.")
    assert too.contents() == ["Hello."]
    assert phone.contents() == ["Hello."]
